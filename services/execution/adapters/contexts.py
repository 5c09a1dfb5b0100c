"""What runs are told besides their agent and their input, gathered from the services that keep it."""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

from services.execution.adapters.screenplays import ContentScreenplays
from services.execution.domain import Context, Execution
from services.execution.ports import AwayError
from services.kit.errors import DomainError

_RETRY_SECONDS = 1.0


class Said(Protocol):
    """What is kept of conversations and histories."""

    async def read(self, execution: Execution, max_bytes: int) -> Context:
        """Read what was said before a run. Raises AwayError, and DomainError TURN_NOT_FOUND."""
        ...

    async def recall(self, execution: Execution, max_bytes: int) -> Context:
        """Read what the earlier runs of its instance were asked and answered. Raises AwayError."""
        ...


class MeshContexts:
    """What the other services of the mesh keep."""

    def __init__(self, screenplays: ContentScreenplays, said: Said) -> None:
        self._screenplays = screenplays
        self._said = said

    async def read(self, execution: Execution, max_bytes: int) -> Context:
        """Read it as it is now."""
        order = execution.order
        context = Context()
        try:
            if order.conversation_id:
                context = await self._said.read(execution, max_bytes)
            elif order.earlier_runs:
                context = await self._said.recall(execution, max_bytes)
        except AwayError as away:
            raise _passing(away.error) from away
        if order.screenplay_id:
            kept = await self._screenplays.kept(execution.org, order.screenplay_id)
            return replace(context, screenplay=kept)
        return context


def _passing(error: DomainError) -> DomainError:
    """Say when to ask again, whatever kept anybody from answering."""
    if error.retry_after is not None:
        return error
    return DomainError(
        error.reason,
        error.message,
        resources=error.resources,
        retry_after=_RETRY_SECONDS,
        metadata=error.metadata,
    )
