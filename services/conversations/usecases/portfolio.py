"""A chat for visitors, who have no name and are bounded by their address."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TypeVar

from services.conversations.domain import visits
from services.conversations.domain.conversations import Asked, Conversation
from services.conversations.domain.messages import Reference
from services.conversations.domain.visits import Visitor
from services.conversations.ports.portfolio import Runs, Visitors
from services.conversations.usecases.conversations import ConversationService
from services.kit.errors import DomainError, Reason, invalid
from services.kit.resources.ports import FencedError

_LOG = logging.getLogger(__name__)
_TRIES = 50
_PAGE = 200
_SWEEP_SECONDS = 600.0
_DAY = 86_400_000_000
"""Microseconds."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Reply:
    """What the agent says."""

    text: str
    session_id: str
    conversation_id: str


class Portfolio:
    """The chat.

    A session is a conversation, known by an id that nobody guesses.

    Args:
        agent_id: who answers; when there is no such agent, the template of this id is installed.
        keep_days: how long a session is kept after it last changed; 0 for ever.
        clock: microseconds since the epoch.
        new_session_id: makes ids that nobody guesses.
    """

    def __init__(
        self,
        visitors: Visitors,
        runs: Runs,
        conversations: ConversationService,
        agent_id: str,
        *,
        keep_days: float,
        clock: Callable[[], int],
        new_session_id: Callable[[], str],
    ) -> None:
        self._visitors = visitors
        self._runs = runs
        self._conversations = conversations
        self._agent_id = agent_id
        self._keep_days = keep_days
        self._clock = clock
        self._new_session_id = new_session_id

    async def chat(self, org: str, address: str, text: str, session_id: str) -> Reply:
        """Say something; an unknown session begins anew, under another id.

        Args:
            address: where the visitor calls from.

        Raises:
            DomainError: INVALID_REQUEST, RATE_LIMITED, EXECUTION_TIMEOUT, and whatever else a run ends
                with.
        """
        if not text.strip():
            raise invalid("message", "must not be blank")
        await self._admit(org, address)
        conversation, session_id = await self._session(org, session_id)
        said = await self._with_agent(
            lambda: self._runs.answer(self._agent_id, conversation.id, text)
        )
        return Reply(said, session_id, conversation.id)

    async def sweep(self) -> None:
        """Forget those who came too long ago to count, and the sessions they left long ago."""
        if self._keep_days:
            kept = round(self._keep_days * _DAY)
            await self._conversations.forget_visitors(self._clock() - kept)
        after = None
        while page := await self._visitors.page(after, _PAGE):
            after = page[-1]
            for visitor in page:
                if not visits.counted(visitor.times, self._clock()):
                    await self._visitors.remove(visitor)

    async def serve(self) -> None:
        """Sweep every ten minutes until cancelled."""
        while True:
            try:
                await self.sweep()
            except DomainError as error:
                _LOG.warning("visitors could not be forgotten, trying again: %s", error)
            await asyncio.sleep(_SWEEP_SECONDS)

    async def _admit(self, org: str, address: str) -> None:
        """Count a visit, over all processes.

        Raises:
            DomainError: RATE_LIMITED.
        """
        id_ = visits.visitor_id(address)
        for _ in range(_TRIES):
            now = self._clock()
            visitor = await self._visitors.get(org, id_) or Visitor(org, id_, now)
            times = visits.came(visitor.times, now)
            if times is None:
                raise DomainError(
                    Reason.REASON_RATE_LIMITED,
                    f"Rate limit exceeded: {visits.MOST} per 1 minute.",
                    retry_after=visits.wait(visitor.times, now),
                )
            with suppress(FencedError):
                await self._visitors.save(replace(visitor, times=times))
                return
        raise DomainError(
            Reason.REASON_CONFLICT, "Too many come from this address at once.", retry_after=1.0
        )

    async def _session(self, org: str, session_id: str) -> tuple[Conversation, str]:
        found = (
            await self._conversations.made_by(org, _request_id(session_id)) if session_id else None
        )
        if found is not None and found.life.live:
            return found, session_id
        session_id = self._new_session_id()
        asked = Asked(
            {
                "title": "Portfolio chat",
                "active_agent": Reference(self._agent_id),
                "visitor": True,
            },
            _request_id(session_id),
        )
        made = await self._with_agent(lambda: self._conversations.create(org, asked))
        return made, session_id

    async def _with_agent(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Ask something of the agent; when there is none, again once its template is installed."""
        try:
            return await ask()
        except DomainError as error:
            if error.reason != Reason.REASON_AGENT_NOT_FOUND:
                raise
        await self._runs.install(self._agent_id)
        return await ask()


def _request_id(session_id: str) -> str:
    return f"portfolio/{session_id}"
