"""Conversations and messages put together over a store."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from services.conversations.domain import conversations, messages, turns
from services.conversations.domain.conversations import Asked, Conversation
from services.conversations.domain.messages import (
    Draft,
    Message,
    Part,
    Reference,
    Showing,
    Span,
    Status,
    Type,
)
from services.conversations.domain.turns import Policy
from services.conversations.stores import COLLECTIONS
from services.conversations.stores.conversations import StoredConversations
from services.conversations.stores.histories import StoredLinks
from services.conversations.stores.messages import StoredMessages
from services.conversations.usecases.clones import Cloner
from services.conversations.usecases.conversations import ConversationService, MessageKin
from services.conversations.usecases.histories import HistoryService
from services.conversations.usecases.messages import MessageService
from services.conversations.usecases.references import References
from services.conversations.usecases.transcripts import Transcript
from services.kit.resources.cascades import Cascades, Purge
from services.kit.resources.ports import FencedError
from services.kit.storage.ports import Store
from tests.fakes.hall import Cast, kept
from tests.fakes.virtual import EPOCH

__all__ = ("AUTHOR", "COLLECTIONS", "ORG", "Parlour")

ORG, AUTHOR = "acme", "ann"
EVERYTHING = 100_000


class KnownToAll:
    """A content service where every agent and every screenplay is."""

    async def agent(self, agent_id: str) -> Reference:
        return Reference(agent_id, name=agent_id.title())

    async def check_screenplay(self, screenplay_id: str) -> None:
        pass


class Parlour:
    """One process over a store."""

    _clocks = itertools.count(EPOCH)

    def __init__(self, store: Store, org: str = ORG) -> None:
        self.org = org
        self.now = 0
        self.stored, self.said = StoredConversations(store), StoredMessages(store)
        self.cascades = Cascades(self.stored, [MessageKin(self.said)], monotonic=lambda: 0.0)
        self.histories = HistoryService(StoredLinks(store), self.said, clock=self.clock)
        self.transcript = Transcript(
            self.stored,
            self.said,
            self.histories,
            clock=self.clock,
            new_id=lambda: self.new_id("msg"),
            new_change_id=lambda: self.new_id("chg"),
        )
        references = References(KnownToAll(), Cast())
        self.conversations = ConversationService(
            self.stored,
            self.transcript,
            references,
            self.cascades,
            kept=kept,
            clock=self.clock,
            new_id=lambda: self.new_id("conv"),
            new_deletion_id=lambda: self.new_id("del"),
        )
        self.cloner = Cloner(
            self.stored,
            self.said,
            self.transcript,
            Cast(),
            self.cascades,
            kept=kept,
            clock=self.clock,
            new_id=lambda: self.new_id("conv"),
            new_message_id=lambda: self.new_id("msg"),
            new_deletion_id=lambda: self.new_id("del"),
        )
        self.messages = MessageService(self.stored, self.said, self.transcript, references)
        self.purge = Purge(self.cascades, keep_days=30, clock=self.clock)

    def clock(self) -> int:
        return self.now + next(self._clocks)

    def new_id(self, prefix: str) -> str:
        return f"{prefix}_{next(self._clocks):020d}"

    async def create(self, request_id: str = "", **values: Any) -> Conversation:
        return await self.conversations.create(self.org, Asked(values, request_id))

    async def say(self, id_: str, text: str, request_id: str = "") -> Message:
        draft = Draft(Type.USER, text, AUTHOR, request_id=request_id)
        return await self.messages.append(self.org, id_, draft)

    async def begin_turn(self, id_: str, execution_id: str) -> Message:
        """Add a turn with its message and the answer that is awaited; answers the answer."""

        def change(stored: Conversation) -> Conversation:
            placed = turns.added(stored.turns, execution_id, Policy.INTERRUPT, id_)
            return replace(stored, turns=placed.turns)

        if await self.said.of_turn(self.org, execution_id, Part.USER) is None:
            await self.transcript.change(self.org, id_, change)
        asked = Draft(
            Type.USER, f"to {execution_id}", AUTHOR, execution_id=execution_id, part=Part.USER
        )
        await self.transcript.append(self.org, id_, asked)
        awaited = Draft(
            Type.AGENT,
            "",
            AUTHOR,
            status=Status.PENDING,
            agent=Reference("writer"),
            execution_id=execution_id,
            part=Part.ANSWER,
        )
        _, answer = await self.transcript.append(self.org, id_, awaited)
        return answer

    async def end_turn(self, id_: str, execution_id: str, text: str) -> None:
        """Fill the answer of a turn, then let the turn end."""
        while True:
            found = await self.said.of_turn(self.org, execution_id, Part.ANSWER)
            assert found is not None
            filled = messages.filled(found, Status.COMPLETED, text, self.clock())
            if filled is found:
                break
            with suppress(FencedError):
                await self.said.save(filled)
        while True:
            stored = await self.transcript.get(self.org, id_, include_deleted=True)
            answer = await self.said.of_turn(self.org, execution_id, Part.ANSWER)
            after = conversations.left(stored, execution_id, answer, self.clock())
            if after is stored:
                return
            with suppress(FencedError):
                await self.stored.save(after)

    async def texts(self, id_: str, showing: Showing = Showing.KEPT) -> list[str]:
        page = await self.messages.list(self.org, Span(id_, showing=showing), None, EVERYTHING)
        return [one.content for one in page.messages]

    async def check(self, id_: str) -> Mapping[str, Any]:
        """Check that a conversation says of its messages what they are; answers what it says."""
        conversation = await self.conversations.get(self.org, id_, include_deleted=True)
        span = Span(id_, showing=Showing.ALL)
        every = await self.said.list(self.org, span, EVERYTHING)
        assert [one.position for one in every] == list(range(1, len(every) + 1))
        times = [one.create_time for one in every]
        assert times == sorted(times)
        kept = [one for one in every if one.is_kept]
        told = [one for one in every if conversations.is_told(conversation, one)]
        shown = [one for one in every if conversations.is_shown(conversation, one)]
        assert conversation.head == len(every)
        assert conversation.message_count == len(kept)
        assert conversation.told_count == len(told)
        assert conversation.preview == (shown[-1].preview if shown else "")
        assert conversation.preview_position == (shown[-1].position if shown else 0)
        assert conversation.changes == ()
        return {
            "positions": len(every),
            "kept": [one.preview for one in kept],
            "told": [one.preview for one in told],
        }
