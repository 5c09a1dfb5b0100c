"""Conversations, messages, turns and histories put together over a store."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from services.conversations.domain import conversations, instances
from services.conversations.domain.conversations import Asked as AskedConversation
from services.conversations.domain.conversations import Conversation
from services.conversations.domain.exchanges import Added, Asked, Filling
from services.conversations.domain.histories import Totals, Whose
from services.conversations.domain.messages import (
    Draft,
    Message,
    Reference,
    Showing,
    Span,
    Status,
    Type,
)
from services.conversations.domain.turns import Policy
from services.conversations.ports.catalogue import AgentCard, Voice
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
from services.conversations.usecases.turns import TurnService
from services.kit.errors import DomainError, Reason
from services.kit.resources.cascades import Cascades, Purge
from services.kit.storage.ports import Store
from tests.fakes.memory import Memory, MemoryStore
from tests.fakes.virtual import EPOCH

__all__ = ("AUTHOR", "COLLECTIONS", "ORG", "WRITER", "Parlour")

ORG, AUTHOR = "acme", "ann"
WRITER = Reference("writer", "inst_1", "Writer", "✍")
EVERYTHING = 100_000


class KnownToAll:
    """A content service where every agent and every screenplay is."""

    async def agent(self, agent_id: str) -> AgentCard:
        return AgentCard(agent_id.title())

    async def voice(self, agent_id: str) -> Voice:
        return Voice()

    async def directory(self, screenplay_id: str) -> str:
        return ""


class Cast:
    """Instances of the agent `writer`, whatever their ids but for `inst_0`."""

    def __init__(self) -> None:
        self.doing: dict[str, instances.Status] = {}
        self.gone: set[str] = set()

    async def reference(self, org: str, instance_id: str) -> Reference:
        if instance_id == "inst_0":
            raise DomainError(Reason.REASON_INSTANCE_NOT_FOUND, "No such instance.")
        return Reference("writer", instance_id)

    async def copy(self, org: str, conversation_id: str, copy: Conversation) -> dict[str, str]:
        return {}

    async def note(self, org: str, instance_id: str, status: instances.Status) -> bool:
        self.doing[instance_id] = status
        return instance_id not in self.gone


async def kept(conversation: Conversation) -> Conversation:
    """Its screenplay does nothing meanwhile."""
    return conversation


class Parlour:
    """One process over a store."""

    _clocks = itertools.count(EPOCH)

    def __init__(self, store: Store | None = None, org: str = ORG) -> None:
        store = store or MemoryStore(Memory(), COLLECTIONS)
        self.org = org
        self.now = 0
        self.stored, self.said = StoredConversations(store), StoredMessages(store)
        self.links, self.cast = StoredLinks(store), Cast()
        self.histories = HistoryService(self.links, self.said, clock=self.clock)
        belonging = [MessageKin(self.said, self.histories)]
        self.cascades = Cascades(self.stored, belonging, monotonic=lambda: 0.0)
        self.transcript = Transcript(
            self.stored,
            self.said,
            self.histories,
            clock=self.clock,
            new_id=lambda: self.new_id("msg"),
            new_change_id=lambda: self.new_id("chg"),
        )
        references = References(KnownToAll(), self.cast)
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
            self.cast,
            self.cascades,
            kept=kept,
            clock=self.clock,
            new_id=lambda: self.new_id("conv"),
            new_message_id=lambda: self.new_id("msg"),
            new_deletion_id=lambda: self.new_id("del"),
        )
        self.messages = MessageService(self.stored, self.said, self.transcript, references)
        self.turns = TurnService(
            self.stored,
            self.said,
            self.transcript,
            self.histories,
            self.cast,
            self.cast,
            clock=self.clock,
            most_told=500,
        )
        self.purge = Purge(self.cascades, keep_days=30, clock=self.clock)

    def clock(self) -> int:
        return self.now + next(self._clocks)

    def new_id(self, prefix: str) -> str:
        return f"{prefix}_{next(self._clocks):020d}"

    async def create(self, request_id: str = "", **values: Any) -> Conversation:
        return await self.conversations.create(self.org, AskedConversation(values, request_id))

    async def open(self, **values: Any) -> str:
        """Make a conversation; returns its id."""
        return (await self.create(**{"title": "Talk", "context": "Be kind.", **values})).id

    async def conversation(self, id_: str) -> Conversation:
        return await self.conversations.get(self.org, id_, include_deleted=True)

    async def say(self, id_: str, text: str, request_id: str = "") -> Message:
        """Add a message that starts no run."""
        draft = Draft(Type.USER, text, AUTHOR, request_id=request_id)
        return await self.messages.append(self.org, id_, draft)

    async def ask(
        self, id_: str, execution_id: str, policy: Policy = Policy.QUEUE, **changes: Any
    ) -> Added:
        """Add the turn of a run."""
        asked = Asked(
            self.org, execution_id, id_, f"Q {execution_id}", WRITER, AUTHOR, policy=policy
        )
        return await self.turns.append(replace(asked, **changes))

    async def fill(
        self,
        id_: str,
        execution_id: str,
        status: Status = Status.COMPLETED,
        **changes: Any,
    ) -> Message | None:
        """Complete the answer of a run."""
        filling = Filling(
            self.org,
            execution_id,
            id_,
            WRITER,
            f"Q {execution_id}",
            status,
            f"A {execution_id}" if status is Status.COMPLETED else "",
            1_000,
            "" if status is Status.COMPLETED else "MODEL_TIMEOUT",
        )
        return await self.turns.fill(replace(filling, **changes))

    async def turn(self, id_: str, execution_id: str, **changes: Any) -> None:
        """Add a turn and complete it."""
        await self.ask(id_, execution_id, **changes)
        await self.fill(id_, execution_id)

    async def withdraw(self, id_: str, execution_id: str) -> None:
        await self.turns.withdraw(self.org, execution_id, id_)

    async def texts(self, id_: str, showing: Showing = Showing.KEPT) -> list[str]:
        """What was said, in order; what is still awaited is `…`."""
        found = await self.said.list(self.org, Span(id_, showing=showing), 5000)
        whole = await self.said.whole(found)
        return [re.sub("^$", "…", one.content) for one in whole]

    async def told(self, id_: str, execution_id: str, max_bytes: int = 10_000) -> list[str]:
        """What a run is told, and how much more there was."""
        told = await self.turns.read(self.org, execution_id, id_, max_bytes)
        return [*(one.content for one in told.history), f"+{told.omitted}"]

    async def running(self, id_: str) -> list[str]:
        """The runs whose turns it has."""
        return [turn.execution_id for turn in (await self.conversation(id_)).turns]

    async def history(self, whose: Whose | None = None) -> list[str]:
        """The runs in a history, newest first."""
        found = await self.histories.list(self.org, whose or Whose("writer"), None, 2000)
        return [link.run.execution_id for link in found]

    async def totals(self) -> Totals:
        return await self.histories.statistics(self.org, "inst_1")

    async def check(self, id_: str) -> Mapping[str, Any]:
        """Check that a conversation says of its messages what they are; answers what it says."""
        conversation = await self.conversation(id_)
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
