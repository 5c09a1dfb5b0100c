"""Conversations as execution asks for them, kept in memory: the rules of turns and nothing else."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar

from services.execution.domain import (
    Appended,
    BusyPolicy,
    Execution,
    Filling,
    Placement,
    Talk,
)
from services.execution.ports import AwayError, Left
from services.kit.errors import DomainError, Reason

T = TypeVar("T")


def away() -> AwayError:
    """Nobody answers."""
    sentence = "The service conversations does not answer; try again."
    return AwayError(DomainError(Reason.REASON_SERVICE_UNAVAILABLE, sentence, retry_after=1.0))


@dataclass
class Message:
    """A message of a turn, or its answer."""

    execution_id: str
    content: str
    status: str = "completed"
    reply_to: str = ""
    agent: str = ""
    """The agent that says it; empty for a person."""


@dataclass
class Conversation:
    """A conversation: its messages in order, and the runs that answer in it."""

    active: Placement = field(default_factory=Placement)
    messages: list[Message] = field(default_factory=list)
    turns: list[str] = field(default_factory=list)

    def of(self, execution_id: str) -> list[Message]:
        """The message of a run and its answer."""
        return [one for one in self.messages if one.execution_id == execution_id]


@dataclass
class FakeTurns:
    """Conversations of every organisation; any id but `nowhere` is one.

    Attributes:
        trouble: what happens to each question before and after it is answered; a test sets it.
    """

    conversations: dict[str, Conversation] = field(default_factory=dict)
    made: dict[str, str] = field(default_factory=dict)
    """The ids of those that were made, by request_id."""
    instances: dict[str, Placement] = field(default_factory=dict)
    withdrawn: set[str] = field(default_factory=set)
    runs: dict[str, Filling] = field(default_factory=dict)
    """How each run that was counted ended."""
    asked: Counter[str] = field(default_factory=Counter)
    trouble: Callable[[str, bool], Awaitable[None]] | None = None

    def conversation(self, id_: str) -> Conversation:
        if id_ == "nowhere":
            raise DomainError(Reason.REASON_CONVERSATION_NOT_FOUND, "There is no nowhere.")
        return self.conversations.setdefault(id_, Conversation())

    async def instance(self, org: str, instance_id: str) -> Placement:
        return await self._ask("instance", lambda: self.instance_of(instance_id))

    async def active(self, org: str, conversation_id: str) -> Placement:
        return await self._ask("active", lambda: self.conversation(conversation_id).active)

    async def create(self, org: str, who: Placement, request_id: str) -> str:
        return await self._ask("create", lambda: self.make(who, request_id))

    async def append(self, execution: Execution) -> Appended:
        order, talk = execution.order, execution.talk or Talk()
        added = Message(execution.id, order.input, reply_to=talk.reply_to)
        return await self._ask(
            "append", lambda: self.add(order.conversation_id, added, talk.busy_policy)
        )

    async def place(self, execution: Execution) -> int:
        where = execution.order.conversation_id
        return await self._ask("place", lambda: self.place_of(where, execution.id))

    async def fill(self, filling: Filling) -> None:
        await self._ask("fill", lambda: self.complete(filling))

    async def withdraw(self, left: Left) -> None:
        await self._ask("withdraw", lambda: self.take_back(left.conversation_id, left.id))

    async def _ask(self, what: str, answer: Callable[[], T]) -> T:
        self.asked[what] += 1
        if self.trouble is not None:
            await self.trouble(what, False)
        given = answer()
        if self.trouble is not None:
            await self.trouble(what, True)
        return given

    def make(self, who: Placement, request_id: str) -> str:
        new = f"conv_{len(self.conversations) + 1}"
        id_ = self.made.setdefault(request_id, new) if request_id else new
        self.conversation(id_).active = who
        return id_

    def instance_of(self, instance_id: str) -> Placement:
        if instance_id not in self.instances:
            raise DomainError(Reason.REASON_INSTANCE_NOT_FOUND, f"There is no {instance_id}.")
        return self.instances[instance_id]

    def add(self, conversation_id: str, said: Message, policy: BusyPolicy) -> Appended:
        id_, kept = said.execution_id, self.conversation(conversation_id)
        if id_ in self.withdrawn:
            raise DomainError(Reason.REASON_TURN_WITHDRAWN, "It was taken back.")
        if not kept.of(id_):
            if kept.turns and (policy is BusyPolicy.REJECT or len(kept.turns) > 20):
                raise DomainError(
                    Reason.REASON_CONVERSATION_BUSY,
                    "A run answers.",
                    metadata={"execution_id": kept.turns[0]},
                )
            kept.turns.append(id_)
            kept.messages += [said, Message(id_, "", "pending", agent="default")]
        place = kept.turns.index(id_) if id_ in kept.turns else 0
        cut = policy is BusyPolicy.INTERRUPT
        return Appended(
            f"{id_}.message", f"{id_}.answer", place, tuple(kept.turns[:place]) if cut else ()
        )

    def place_of(self, conversation_id: str, execution_id: str) -> int:
        kept = self.conversation(conversation_id)
        if execution_id not in kept.turns:
            raise DomainError(Reason.REASON_TURN_NOT_FOUND, "There is no such turn.")
        return kept.turns.index(execution_id)

    def complete(self, filling: Filling) -> None:
        id_ = filling.execution_id
        if filling.conversation_id:
            kept = self.conversation(filling.conversation_id)
            mine = kept.of(id_)
            if not mine or id_ in self.withdrawn:
                raise DomainError(Reason.REASON_TURN_NOT_FOUND, "There is no such turn.")
            answer = mine[1]
            if answer.status == "pending":
                answer.status, answer.content = filling.status, filling.content
            if id_ in kept.turns:
                kept.turns.remove(id_)
        self.runs.setdefault(id_, filling)

    def take_back(self, conversation_id: str, execution_id: str) -> None:
        self.withdrawn.add(execution_id)
        kept = self.conversation(conversation_id)
        kept.messages = [one for one in kept.messages if one.execution_id != execution_id]
        if execution_id in kept.turns:
            kept.turns.remove(execution_id)


@dataclass
class Outage:
    """Lets chosen questions fail: before they are answered, or after, so that the answer is lost.

    Args:
        what: the questions that fail; empty for all.
        lost: whether they are answered and the answer is lost.
        times: how many fail; None for all until `over` is set.
    """

    what: frozenset[str] = frozenset()
    lost: bool = False
    times: int | None = None
    over: bool = False

    async def __call__(self, what: str, answered: bool) -> None:
        await asyncio.sleep(0.01)
        if self.over or answered is not self.lost or (self.what and what not in self.what):
            return
        if self.times is not None:
            if not self.times:
                return
            self.times -= 1
        raise away()
