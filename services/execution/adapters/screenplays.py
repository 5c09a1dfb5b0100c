"""Screenplays as the content service keeps them."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Protocol

from conductor.content.v1 import screenplay_pb2
from conductor.content.v1.screenplay_service_pb2 import (
    GetScreenplayRequest,
    MarkScreenplayUsedRequest,
)
from services.execution.domain import Screenplay
from services.kit.errors import DomainError, Reason, naming
from services.kit.peers import Metadata

_LOG = logging.getLogger(__name__)
_ANSWER_SECONDS = 5.0
_NOTE_SECONDS = 1.0


class Content(Protocol):
    """What is asked of the content service: a part of its generated stub."""

    def GetScreenplay(  # noqa: N802 generated
        self, request: GetScreenplayRequest, *, timeout: float, metadata: Metadata
    ) -> Awaitable[screenplay_pb2.Screenplay]:
        """Answer a screenplay with its text."""
        ...

    def MarkScreenplayUsed(  # noqa: N802 generated
        self, request: MarkScreenplayUsedRequest, *, timeout: float, metadata: Metadata
    ) -> Awaitable[screenplay_pb2.Screenplay]:
        """Note that it is used."""
        ...


class ContentScreenplays:
    """The screenplays of the content service.

    Args:
        itself: makes the metadata of a call of this service's own, about an organisation.
    """

    def __init__(self, content: Content, itself: Callable[[str], Metadata]) -> None:
        self._content = content
        self._itself = itself

    async def get(self, org: str, screenplay_id: str) -> Screenplay:
        """Read a screenplay that is not deleted."""
        with naming({Reason.REASON_SCREENPLAY_NOT_FOUND: "screenplay_id"}):
            return await self._read(org, GetScreenplayRequest(screenplay_id=screenplay_id))

    async def kept(self, org: str, screenplay_id: str) -> Screenplay:
        """Read a screenplay of a run that was accepted: it may have been deleted since."""
        request = GetScreenplayRequest(screenplay_id=screenplay_id, include_deleted=True)
        return await self._read(org, request)

    async def note_use(self, org: str, screenplay_id: str) -> None:
        """Note that a screenplay is used now, if whoever keeps it answers soon."""
        request = MarkScreenplayUsedRequest(screenplay_id=screenplay_id)
        try:
            await self._content.MarkScreenplayUsed(
                request, timeout=_NOTE_SECONDS, metadata=self._itself(org)
            )
        except DomainError as error:
            _LOG.info("it was not noted that screenplay %s is used: %s", screenplay_id, error)

    async def _read(self, org: str, request: GetScreenplayRequest) -> Screenplay:
        found = await self._content.GetScreenplay(
            request, timeout=_ANSWER_SECONDS, metadata=self._itself(org)
        )
        return Screenplay(found.id, found.name, found.content, found.working_directory)
