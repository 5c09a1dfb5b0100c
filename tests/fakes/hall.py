"""Conversations, messages, turns and histories put together over a store."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace
from typing import Any

from services.conversations.domain import instances
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
from services.conversations.stores.conversations import CONVERSATIONS, StoredConversations
from services.conversations.stores.histories import RUNS, StoredLinks
from services.conversations.stores.messages import MESSAGES, StoredMessages
from services.conversations.usecases.conversations import ConversationService, MessageKin
from services.conversations.usecases.histories import HistoryService
from services.conversations.usecases.messages import MessageService
from services.conversations.usecases.references import References
from services.conversations.usecases.transcripts import Transcript
from services.conversations.usecases.turns import TurnService
from services.kit.errors import DomainError, Reason
from services.kit.resources.cascades import Cascades
from services.kit.storage.ports import Store
from tests.fakes.memory import Memory, MemoryStore
from tests.fakes.virtual import EPOCH

ORG = "acme"
COLLECTIONS = (CONVERSATIONS, MESSAGES, RUNS)
WRITER = Reference("writer", "inst_1", "Writer", "✍")


class Library:
    """Every agent and every screenplay."""

    async def agent(self, agent_id: str) -> Reference:
        return Reference(agent_id, name=agent_id.title())

    async def check_screenplay(self, screenplay_id: str) -> None:
        pass


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


class Hall:
    """One process over a store."""

    _numbers = itertools.count(EPOCH)

    def __init__(self, store: Store | None = None) -> None:
        store = store or MemoryStore(Memory(), COLLECTIONS)
        self.stored, self.said = StoredConversations(store), StoredMessages(store)
        self.links, self.cast = StoredLinks(store), Cast()
        self.histories = HistoryService(self.links, self.said, clock=self.clock)
        self.transcript = Transcript(
            self.stored,
            self.said,
            self.histories,
            clock=self.clock,
            new_id=lambda: self._id("msg"),
            new_change_id=lambda: self._id("chg"),
        )
        references = References(Library(), self.cast)
        self.cascades = Cascades(self.stored, [MessageKin(self.said)], monotonic=lambda: 0.0)
        self.conversations = ConversationService(
            self.stored,
            self.transcript,
            references,
            self.cascades,
            kept=kept,
            clock=self.clock,
            new_id=lambda: self._id("conv"),
            new_deletion_id=lambda: self._id("del"),
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

    def clock(self) -> int:
        return next(self._numbers)

    def _id(self, prefix: str) -> str:
        return f"{prefix}_{next(self._numbers):020d}"

    async def open(self, **values: Any) -> str:
        """Make a conversation; returns its id."""
        made = await self.conversations.create(
            ORG, AskedConversation({"title": "Talk", "context": "Be kind.", **values})
        )
        return made.id

    async def conversation(self, id_: str) -> Conversation:
        found = await self.transcript.load(ORG, id_)
        assert found is not None
        return found

    async def say(self, id_: str, text: str) -> Message:
        """Add a message that starts no run."""
        return await self.messages.append(ORG, id_, Draft(Type.USER, text, "ann"))

    async def ask(
        self, id_: str, execution_id: str, policy: Policy = Policy.QUEUE, **changes: Any
    ) -> Added:
        """Add the turn of a run."""
        asked = Asked(ORG, execution_id, id_, f"Q {execution_id}", WRITER, "ann", policy=policy)
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
            ORG,
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
        await self.turns.withdraw(ORG, execution_id, id_)

    async def texts(self, id_: str, showing: Showing = Showing.KEPT) -> list[str]:
        """What was said, in order; what is still awaited is `…`."""
        found = await self.said.list(ORG, Span(id_, showing=showing), 5000)
        whole = await self.said.whole(found)
        return [re.sub("^$", "…", one.content) for one in whole]

    async def told(self, id_: str, execution_id: str, max_bytes: int = 10_000) -> list[str]:
        """What a run is told, and how much more there was."""
        told = await self.turns.read(ORG, execution_id, id_, max_bytes)
        return [*(one.content for one in told.history), f"+{told.omitted}"]

    async def running(self, id_: str) -> list[str]:
        """The runs whose turns it has."""
        return [turn.execution_id for turn in (await self.conversation(id_)).turns]

    async def history(self, whose: Whose | None = None) -> list[str]:
        """The runs in a history, newest first."""
        found = await self.histories.list(ORG, whose or Whose("writer"), None, 2000)
        return [link.run.execution_id for link in found]

    async def totals(self) -> Totals:
        return await self.histories.statistics(ORG, "inst_1")

    async def check(self, id_: str) -> None:
        """What the conversation says of its messages is what they are."""
        found = await self.conversation(id_)
        everything = await self.said.list(ORG, Span(id_, showing=Showing.ALL), 5000)
        assert [one.position for one in everything] == list(range(1, found.head + 1))
        assert found.message_count == sum(one.is_kept for one in everything)
        awaited = {turn.execution_id for turn in found.turns}
        told = [
            one
            for one in everything
            if one.is_told and not (one.type is Type.AGENT and one.execution_id in awaited)
        ]
        assert found.told_count == len(told)
        if told:
            assert found.preview == told[-1].preview
