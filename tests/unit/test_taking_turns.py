"""A message, the run that answers it, and the answer: each once, whoever asks how often and dies where."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from random import Random

import pytest

from services.conversations.convert.turns import told_to_proto
from services.conversations.domain.conversations import Conversation
from services.conversations.domain.exchanges import Told
from services.conversations.domain.histories import Ended, Totals, Whose
from services.conversations.domain.instances import Status as Doing
from services.conversations.domain.messages import Message, Part, Showing, Status, Type
from services.conversations.domain.turns import MOST_WAITING, Policy
from services.kit.errors import DomainError, reason_name
from services.kit.storage.ports import Collection, Document, Query, Write
from tests.fakes.cuts import Cut
from tests.fakes.memory import Memory, MemoryStore
from tests.fakes.parlour import COLLECTIONS, ORG, WRITER, Parlour

each_semantics = pytest.mark.parametrize("keeps_prefix", [False, True], ids=["atomic", "prefix"])


async def refused(call: Awaitable[object]) -> str:
    with pytest.raises(DomainError) as error:
        await call
    return reason_name(error.value.reason)


# One turn


async def test_a_turn_is_a_message_and_an_answer_that_is_awaited_and_then_complete() -> None:
    hall = Parlour()
    id_ = await hall.open()

    added = await hall.ask(id_, "a", reply_to=(await hall.say(id_, "Hello")).id)

    assert (added.placed.place, list(added.placed.interrupted)) == (0, [])
    assert (added.message.part, added.answer.part) == (Part.USER, Part.ANSWER)
    assert added.answer.reply_to == added.message.id
    assert added.answer.agent == WRITER
    assert await hall.texts(id_) == ["Hello", "Q a", "…"]
    assert (await hall.conversation(id_)).preview == "Q a"
    assert hall.cast.doing == {"inst_1": Doing.RUNNING}
    filled = await hall.fill(id_, "a")
    assert filled is not None
    assert (filled.id, filled.status, filled.content) == (added.answer.id, Status.COMPLETED, "A a")
    assert await hall.texts(id_) == ["Hello", "Q a", "A a"]
    found = await hall.conversation(id_)
    assert (found.preview, found.turns, found.participants) == ("A a", (), (WRITER,))
    assert hall.cast.doing == {"inst_1": Doing.COMPLETED}
    assert await hall.history() == ["a"]
    await hall.check(id_)


async def test_whoever_asks_again_is_answered_the_same_and_adds_nothing() -> None:
    hall = Parlour()
    id_ = await hall.open()

    once, again = await hall.ask(id_, "a"), await hall.ask(id_, "a")
    first = await hall.fill(id_, "a")
    second = await hall.fill(id_, "a", Status.CANCELLED)
    late = await hall.ask(id_, "a")

    assert again == once
    assert second == first
    assert (late.message.id, late.answer.id) == (once.message.id, once.answer.id)
    assert late.answer.content == "A a"
    assert await hall.running(id_) == []
    assert (await hall.totals()).succeeded == (await hall.totals()).count == 1
    assert hall.cast.doing == {"inst_1": Doing.COMPLETED}
    await hall.check(id_)


async def test_a_run_that_failed_says_why_and_is_not_told_to_others() -> None:
    hall = Parlour()
    id_ = await hall.open()
    await hall.ask(id_, "a")
    failed = await hall.fill(id_, "a", Status.FAILED, error_message="It took too long.")
    await hall.ask(id_, "b")
    await hall.fill(id_, "b", Status.CANCELLED)
    await hall.ask(id_, "c")

    assert failed is not None
    assert (failed.error_reason, failed.error_message) == ("MODEL_TIMEOUT", "It took too long.")
    assert await hall.told(id_, "c") == ["Q a", "Q b", "+0"]
    totals = await hall.totals()
    assert (totals.failed, totals.cancelled, totals.count) == (1, 1, 2)
    await hall.check(id_)


@pytest.mark.parametrize("status", [Status.FAILED, Status.CANCELLED])
async def test_what_a_run_that_was_cut_off_said_is_kept_and_told_to_others(status: Status) -> None:
    hall = Parlour()
    id_ = await hall.open()
    await hall.ask(id_, "a")
    cut = await hall.fill(id_, "a", status, content="Once upon a")
    await hall.ask(id_, "b")

    assert cut is not None
    assert (cut.status, cut.content, cut.preview) == (status, "Once upon a", "Once upon a")
    assert await hall.told(id_, "b") == ["Q a", "Once upon a", "+0"]
    assert await hall.told(id_, "b", 3) == ["+2"]
    await hall.check(id_)


async def test_what_goes_for_good_leaves_of_its_runs_that_they_count() -> None:
    hall = Parlour()
    gone, kept = await hall.open(), await hall.open()
    await hall.turn(gone, "a")
    await hall.turn(kept, "b")

    await hall.conversations.delete(ORG, gone, "", purge=True)

    assert await hall.history() == ["b"]
    assert (await hall.totals()).count == 2
    link = await hall.links.find(ORG, "a")
    assert link is not None
    assert (link.run.question, link.run.answer) == ("", "")


async def test_what_is_counted_amid_a_purge_leaves_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    hall = Parlour()
    id_ = await hall.open()
    await hall.ask(id_, "a")
    record = hall.histories.record

    async def late(run: Ended) -> object:
        await hall.conversations.delete(ORG, id_, "", purge=True)
        return await record(run)

    monkeypatch.setattr(hall.histories, "record", late)
    await hall.fill(id_, "a")

    assert await hall.history() == []
    link = await hall.links.find(ORG, "a")
    assert link is not None
    assert (link.run.question, link.run.answer) == ("", "")


async def test_a_run_outside_of_conversations_is_counted_alone() -> None:
    hall = Parlour()

    for _ in range(2):
        assert await hall.fill("", "a", Status.FAILED) is None

    assert (await hall.totals()).failed == 1
    assert hall.cast.doing == {"inst_1": Doing.ERROR}


async def test_a_run_that_ends_once_its_instance_went_for_good_leaves_no_history() -> None:
    hall = Parlour()
    id_ = await hall.open()
    await hall.ask(id_, "a")
    await hall.fill("", "b")
    hall.cast.gone.add("inst_1")

    await hall.fill(id_, "a")

    assert await hall.texts(id_) == ["Q a", "A a"]
    assert await hall.history(Whose("writer")) == []
    assert await hall.totals() == Totals()


async def test_a_turn_is_refused_that_cannot_be() -> None:
    hall = Parlour()
    id_ = await hall.open(allowed_agents=("writer",))
    other, gone = await hall.open(), await hall.open()
    elsewhere = await hall.say(other, "Hello")
    await hall.conversations.delete(ORG, gone, "", purge=False)

    reasons = [
        await refused(hall.ask(id_, "a", agent=WRITER.__class__("critic"))),
        await refused(hall.ask(id_, "a", agent=WRITER.__class__(""))),
        await refused(hall.ask(id_, "a", agent=WRITER.__class__("writer", "inst_0"))),
        await refused(hall.ask(other, "a", agent=WRITER.__class__("critic", "inst_1"))),
        await refused(hall.ask(id_, "a", reply_to=elsewhere.id)),
        await refused(hall.ask(gone, "a")),
        await refused(hall.ask("conv_0", "a")),
    ]

    assert reasons == [
        "AGENT_NOT_ALLOWED",
        "INVALID_REQUEST",
        "INSTANCE_NOT_FOUND",
        "INVALID_REQUEST",
        "MESSAGE_NOT_FOUND",
        "CONVERSATION_NOT_FOUND",
        "CONVERSATION_NOT_FOUND",
    ]
    assert await hall.texts(id_) == []
    assert await hall.running(id_) == []


async def test_a_turn_that_is_not_there_is_not_found() -> None:
    hall = Parlour()
    id_, other = await hall.open(), await hall.open()
    await hall.ask(other, "elsewhere")

    for call in (
        hall.told(id_, "a"),
        hall.told(id_, "elsewhere"),
        hall.told("conv_0", "a"),
        hall.fill(id_, "a"),
        hall.fill(id_, "elsewhere"),
        hall.ask(id_, "elsewhere"),
        hall.withdraw(id_, "elsewhere"),
    ):
        assert await refused(call) == "TURN_NOT_FOUND"

    assert await hall.totals() == Totals()
    assert await hall.texts(other) == ["Q elsewhere", "…"]


async def test_a_turn_of_a_conversation_that_is_deleted_goes_on() -> None:
    hall = Parlour()
    id_ = await hall.open()
    await hall.ask(id_, "a")
    await hall.conversations.delete(ORG, id_, "", purge=False)

    await hall.ask(id_, "a")
    assert await hall.told(id_, "a") == ["+0"]
    await hall.fill(id_, "a")
    await hall.conversations.undelete(ORG, id_)

    assert await hall.texts(id_) == ["Q a", "A a"]
    await hall.check(id_)


# Several turns


async def test_those_who_wait_come_one_after_the_other_and_are_told_the_answers() -> None:
    hall = Parlour()
    id_ = await hall.open()
    for place, run in enumerate("abc"):
        assert (await hall.ask(id_, run)).placed.place == place

    assert hall.cast.doing == {"inst_1": Doing.QUEUED}
    told = await hall.turns.read(ORG, "c", id_, 10_000)
    assert (told.place, told.history, told.omitted) == (2, (), 0)
    for _ in range(2):
        await hall.fill(id_, "a")
        assert hall.cast.doing == {"inst_1": Doing.RUNNING}
    assert await hall.told(id_, "b") == ["Q a", "A a", "+0"]
    assert (await hall.turns.read(ORG, "c", id_, 10_000)).place == 1
    await hall.fill(id_, "b")

    assert await hall.told(id_, "c") == ["Q a", "A a", "Q b", "A b", "+0"]
    await hall.check(id_)


async def test_a_busy_conversation_refuses_who_would_not_wait_and_the_one_too_many() -> None:
    hall = Parlour()
    id_ = await hall.open()
    for number in range(MOST_WAITING + 1):
        await hall.ask(id_, f"run_{number}")

    assert await refused(hall.ask(id_, "b", Policy.REJECT)) == "CONVERSATION_BUSY"
    assert await refused(hall.ask(id_, "b")) == "CONVERSATION_BUSY"
    interrupting = await hall.ask(id_, "b", Policy.INTERRUPT)

    assert list(interrupting.placed.interrupted) == [f"run_{n}" for n in range(MOST_WAITING + 1)]
    assert (await hall.ask(id_, "b", Policy.INTERRUPT)).placed == interrupting.placed
    for number in range(MOST_WAITING + 1):
        await hall.fill(id_, f"run_{number}", Status.CANCELLED)
    assert (await hall.ask(id_, "b")).placed.place == 0
    await hall.check(id_)


async def test_a_run_behind_others_that_is_cancelled_leaves_the_row() -> None:
    hall = Parlour()
    id_ = await hall.open()
    for run in "abc":
        await hall.ask(id_, run)

    await hall.fill(id_, "b", Status.CANCELLED)

    assert await hall.running(id_) == ["a", "c"]
    assert (await hall.turns.read(ORG, "c", id_, 0)).place == 1


async def test_whose_message_came_late_keeps_its_turn_and_is_told_to_those_behind_it() -> None:
    memory = Memory()
    hall = Parlour(MemoryStore(memory, COLLECTIONS))
    id_ = await hall.open()
    dying = Cut(MemoryStore(memory, COLLECTIONS), 1, answered=True, keeps_prefix=True)
    assert await refused(Parlour(dying).ask(id_, "a")) == "STORE_UNAVAILABLE"
    await hall.ask(id_, "b")
    await hall.ask(id_, "a")
    await hall.ask(id_, "c")
    await hall.say(id_, "Hello")
    assert await hall.running(id_) == ["a", "b", "c"]
    assert await hall.texts(id_) == ["Q b", "…", "Q a", "…", "Q c", "…", "Hello"]

    first = await hall.told(id_, "a")
    await hall.fill(id_, "a")
    second = await hall.told(id_, "b")
    tight = await hall.told(id_, "b", 3)
    await hall.fill(id_, "b")

    assert first == ["+0"]
    assert second == ["Q a", "A a", "+0"]
    assert tight == ["A a", "+1"]
    assert await hall.told(id_, "c") == ["Q b", "A b", "Q a", "A a", "+0"]


# What a run is told


async def test_a_run_is_told_the_newest_that_fits_and_how_much_did_not() -> None:
    hall = Parlour()
    id_ = await hall.open()
    for number in range(10):
        await hall.say(id_, f"{number}" * 10)
    await hall.ask(id_, "a")
    await hall.say(id_, "behind")

    assert await hall.told(id_, "a", 10) == ["9" * 10, "+9"]
    assert await hall.told(id_, "a", 39) == [f"{n}" * 10 for n in (7, 8, 9)] + ["+7"]
    assert (await hall.told(id_, "a", 100))[-1] == "+0"
    assert await hall.told(id_, "a", 0) == ["+10"]


async def test_bytes_count_and_not_characters() -> None:
    hall = Parlour()
    id_ = await hall.open()
    await hall.say(id_, "🎈🎈")
    await hall.ask(id_, "a")

    assert await hall.told(id_, "a", 7) == ["+1"]
    assert await hall.told(id_, "a", 8) == ["🎈🎈", "+0"]


async def test_long_texts_are_told_whole() -> None:
    hall = Parlour()
    id_ = await hall.open()
    await hall.say(id_, "ü" * 5000)
    await hall.ask(id_, "a")

    assert await hall.told(id_, "a", 20_000) == ["ü" * 5000, "+0"]


async def test_what_is_hidden_or_deleted_is_not_told_and_not_counted() -> None:
    hall = Parlour()
    id_ = await hall.open()
    said = [await hall.say(id_, text) for text in ("one", "two", "three")]
    added = await hall.ask(id_, "a")

    await hall.messages.hide(ORG, id_, said[0].id, hidden=True)
    await hall.messages.delete(ORG, id_, said[1].id)
    assert await hall.told(id_, "a") == ["three", "+0"]
    assert await hall.told(id_, "a", 3) == ["+1"]
    await hall.messages.hide(ORG, id_, added.message.id, hidden=True)
    assert await hall.told(id_, "a", 3) == ["+1"]
    await hall.messages.hide(ORG, id_, said[0].id, hidden=None)
    assert await hall.told(id_, "a") == ["one", "three", "+0"]


async def test_a_run_is_told_many_pages_but_not_more_messages_than_it_may_be() -> None:
    hall = Parlour()
    id_ = await hall.open()
    for number in range(510):
        await hall.say(id_, f"{number}")
    await hall.ask(id_, "a")

    assert await hall.told(id_, "a") == [*(f"{number}" for number in range(10, 510)), "+10"]


def test_what_a_run_is_told_fits_a_message_however_short_its_parts() -> None:
    agent = replace(WRITER, name="🎈" * 200)
    said = [
        Message(ORG, f"m{n}", "conv_1", n, n, Type.AGENT, "ann", "x" * 1200, 1200, agent=agent)
        for n in range(1, 2001)
    ]
    conversation = Conversation(ORG, "conv_1", "Talk", 1, 1, context="🎈" * 50_000)

    told = told_to_proto(Told(conversation, 0, said, 7))

    assert 4_000_000 < told.ByteSize() < 4 * 1024 * 1024
    dropped = 2000 - len(told.history)
    assert dropped > 0
    assert told.omitted_count == 7 + dropped
    assert [told.history[0].id, told.history[-1].id] == [f"m{dropped + 1}", "m2000"]


async def test_a_run_whose_answer_is_complete_is_told_the_same_as_before() -> None:
    hall = Parlour()
    id_ = await hall.open()
    await hall.turn(id_, "a")
    await hall.ask(id_, "b")
    before = await hall.told(id_, "b", 3)

    await hall.fill(id_, "b")

    assert await hall.told(id_, "b", 3) == before == ["A a", "+1"]


# Messages that are deleted


async def test_deleting_a_message_hides_its_run_until_it_comes_back() -> None:
    hall = Parlour()
    id_ = await hall.open()
    added = await hall.ask(id_, "a")
    await hall.fill(id_, "a")
    await hall.turn(id_, "b")

    await hall.messages.delete(ORG, id_, added.message.id)
    await hall.messages.delete(ORG, id_, added.answer.id)
    assert await hall.history() == ["b"]
    await hall.messages.undelete(ORG, id_, added.message.id)
    assert await hall.history() == ["b"]
    await hall.messages.undelete(ORG, id_, added.answer.id)

    assert await hall.history() == ["b", "a"]
    assert (await hall.totals()).count == 2
    await hall.check(id_)


async def test_an_answer_that_is_deleted_while_it_is_awaited_is_filled_and_counted() -> None:
    hall = Parlour()
    id_ = await hall.open()
    added = await hall.ask(id_, "a")
    await hall.messages.delete(ORG, id_, added.answer.id)

    await hall.fill(id_, "a")

    assert await hall.history() == []
    assert (await hall.totals()).count == 1
    await hall.check(id_)
    await hall.messages.undelete(ORG, id_, added.answer.id)
    assert await hall.texts(id_) == ["Q a", "A a"]
    assert await hall.history() == ["a"]
    await hall.check(id_)


# Withdrawn


async def test_a_turn_that_is_withdrawn_is_gone_and_stays_so() -> None:
    hall = Parlour()
    id_ = await hall.open()
    added = await hall.ask(id_, "a")
    await hall.ask(id_, "b")

    for _ in range(2):
        await hall.withdraw(id_, "a")

    assert await hall.texts(id_) == ["Q b", "…"]
    assert await hall.running(id_) == ["b"]
    assert await hall.told(id_, "b") == ["+0"]
    for call in (hall.ask(id_, "a"), hall.fill(id_, "a"), hall.told(id_, "a")):
        assert await refused(call) == "TURN_WITHDRAWN"
    for message in (added.message, added.answer):
        for call in (
            hall.messages.undelete(ORG, id_, message.id),
            hall.messages.toggle(ORG, id_, message.id),
        ):
            assert await refused(call) == "MESSAGE_NOT_FOUND"
    assert await hall.texts(id_) == ["Q b", "…"]
    assert await hall.totals() == Totals()
    await hall.check(id_)


async def test_a_turn_that_comes_after_it_was_withdrawn_is_refused() -> None:
    hall = Parlour()
    id_ = await hall.open()

    await hall.withdraw(id_, "a")

    assert await refused(hall.ask(id_, "a")) == "TURN_WITHDRAWN"
    assert await hall.texts(id_) == []
    assert await hall.running(id_) == []
    await hall.check(id_)


async def test_a_turn_is_withdrawn_from_what_is_deleted_or_gone() -> None:
    hall = Parlour()
    id_ = await hall.open()
    await hall.ask(id_, "a")
    await hall.conversations.delete(ORG, id_, "", purge=False)

    await hall.withdraw(id_, "a")
    await hall.withdraw("conv_0", "a")
    await hall.conversations.undelete(ORG, id_)

    assert await hall.texts(id_) == []
    assert await hall.running(id_) == []
    await hall.conversations.delete(ORG, id_, "", purge=True)
    await hall.withdraw(id_, "a")


# Every cut


async def _nothing(hall: Parlour, id_: str) -> None:
    pass


async def _ask(hall: Parlour, id_: str) -> None:
    await hall.ask(id_, "b")


async def _fill(hall: Parlour, id_: str) -> None:
    await hall.fill(id_, "b")


async def _withdraw(hall: Parlour, id_: str) -> None:
    await hall.withdraw(id_, "b")


async def _delete(hall: Parlour, id_: str) -> None:
    added = await hall.ask(id_, "a")
    await hall.messages.delete(ORG, id_, added.message.id)


Step = Callable[[Parlour, str], Awaitable[None]]
STORIES: dict[str, tuple[Step, Step, list[str], list[str], list[str]]] = {
    "append": (_nothing, _ask, ["Q a", "A a", "Q b", "…"], ["b"], ["a"]),
    "fill": (_ask, _fill, ["Q a", "A a", "Q b", "A b"], [], ["b", "a"]),
    "withdraw": (_ask, _withdraw, ["Q a", "A a"], [], ["a"]),
    "withdraw early": (_nothing, _withdraw, ["Q a", "A a"], [], ["a"]),
    "delete": (_nothing, _delete, ["A a"], [], []),
}
"""What happened before, what is cut, and what there is once it was done again: texts, turns, history."""


@each_semantics
@pytest.mark.parametrize("answered", [True, False], ids=["lost", "unanswered"])
@pytest.mark.parametrize("story", STORIES)
async def test_what_is_cut_anywhere_and_asked_for_again_was_done_once(
    story: str, answered: bool, keeps_prefix: bool
) -> None:
    before, change, texts, running, history = STORIES[story]
    for writes in itertools.count():
        memory = Memory()
        whole = Parlour(MemoryStore(memory, COLLECTIONS))
        id_ = await whole.open()
        await whole.turn(id_, "a")
        await before(whole, id_)
        cut = Cut(
            MemoryStore(memory, COLLECTIONS), writes, answered=answered, keeps_prefix=keeps_prefix
        )
        with suppress(DomainError):
            await change(Parlour(cut), id_)
        after = Parlour(MemoryStore(memory, COLLECTIONS))
        await after.check(id_)

        await change(after, id_)

        assert await after.texts(id_) == texts
        assert await after.running(id_) == running
        assert await after.history() == history
        await after.check(id_)
        await after.say(id_, "on and on")
        await after.check(id_)
        if not cut.is_cut:
            assert writes > 0
            break


@each_semantics
@pytest.mark.parametrize("answered", [True, False], ids=["lost", "unanswered"])
async def test_a_turn_that_died_on_its_way_and_is_withdrawn_leaves_nothing(
    answered: bool, keeps_prefix: bool
) -> None:
    for writes in itertools.count():
        memory = Memory()
        whole = Parlour(MemoryStore(memory, COLLECTIONS))
        id_ = await whole.open()
        await whole.turn(id_, "a")
        cut = Cut(
            MemoryStore(memory, COLLECTIONS), writes, answered=answered, keeps_prefix=keeps_prefix
        )
        with suppress(DomainError):
            await Parlour(cut).ask(id_, "b")

        await whole.withdraw(id_, "b")

        assert await whole.texts(id_) == ["Q a", "A a"]
        assert await whole.running(id_) == []
        assert await refused(whole.ask(id_, "b")) == "TURN_WITHDRAWN"
        await whole.check(id_)
        if not cut.is_cut:
            break


# At once


class Interleaved(MemoryStore):
    """The line of a process to the store, in which others come first now and then.

    Writes that are made at once happen one by one.
    """

    def __init__(self, memory: Memory, random: Random) -> None:
        super().__init__(memory, COLLECTIONS)
        self._random = random

    async def _step_back(self) -> None:
        for _ in range(self._random.choice((0, 0, 1, 2, 7))):
            await asyncio.sleep(0)

    async def write(self, *writes: Write) -> None:
        for one in writes:
            await self._step_back()
            await super().write(one)

    async def get(self, collection: Collection, org: str, id_: str) -> Document | None:
        found = await super().get(collection, org, id_)
        await self._step_back()
        return found

    async def find(
        self, collection: Collection, org: str, unique: str, value: str
    ) -> Document | None:
        found = await super().find(collection, org, unique, value)
        await self._step_back()
        return found

    async def query(self, query: Query) -> list[Document]:
        found = await super().query(query)
        await self._step_back()
        return found


def crowd(seed: int) -> tuple[Random, list[Parlour], Memory]:
    memory, random = Memory(), Random(seed)
    return random, [Parlour(Interleaved(memory, random)) for _ in range(3)], memory


async def outcome(call: Awaitable[object]) -> str:
    try:
        await call
    except DomainError as error:
        return reason_name(error.reason)
    return "done"


@pytest.mark.parametrize("policy", Policy)
async def test_two_at_once_under_each_policy(policy: Policy) -> None:
    for seed in range(20):
        _, halls, _ = crowd(seed)
        id_ = await halls[0].open()

        results = await asyncio.gather(
            outcome(halls[0].ask(id_, "a", policy)), outcome(halls[1].ask(id_, "b", policy))
        )

        running = await halls[2].running(id_)
        if policy is Policy.REJECT:
            assert sorted(results) == ["CONVERSATION_BUSY", "done"]
            assert running == ["ab"[results.index("done")]]
            assert await halls[2].texts(id_) == [f"Q {running[0]}", "…"]
        else:
            assert set(results) == {"done"}
            assert sorted(running) == ["a", "b"]
            again = await halls[2].ask(id_, running[1], policy)
            interrupted = [running[0]] if policy is Policy.INTERRUPT else []
            assert list(again.placed.interrupted) == interrupted
            await halls[2].fill(id_, running[0])
            assert f"A {running[0]}" in await halls[2].told(id_, running[1])
        await halls[2].check(id_)


async def test_two_at_once_in_one_process_have_their_answers_right_behind_them() -> None:
    for seed in range(10):
        _, halls, _ = crowd(seed)
        id_ = await halls[0].open()

        await asyncio.gather(*(halls[0].ask(id_, run) for run in "abc"))

        running = await halls[0].running(id_)
        texts = await halls[0].texts(id_)
        assert texts == [text for run in running for text in (f"Q {run}", "…")]


async def test_one_turn_added_by_many_at_once_is_there_once() -> None:
    for seed in range(20):
        _, halls, _ = crowd(seed)
        id_ = await halls[0].open()

        added = await asyncio.gather(*(hall.ask(id_, "a") for hall in halls))
        filled = await asyncio.gather(
            *(
                hall.fill(id_, "a", status)
                for hall, status in zip(
                    halls, (Status.COMPLETED, Status.FAILED, Status.CANCELLED), strict=True
                )
            )
        )

        assert len({(one.message.id, one.answer.id) for one in added}) == 1
        assert len({(one.status, one.content) for one in filled if one is not None}) == 1
        assert await halls[0].running(id_) == []
        totals = await halls[0].totals()
        assert totals.count == 1
        assert filled[0] is not None
        assert (totals.succeeded == 1) == (filled[0].status is Status.COMPLETED)
        await halls[0].check(id_)


async def test_a_turn_that_is_added_and_withdrawn_at_once_is_withdrawn() -> None:
    results = set()
    for seed in range(60):
        random, halls, _ = crowd(seed)
        id_ = await halls[0].open()

        async def late(
            id_: str = id_, hall: Parlour = halls[1], steps: int = random.randrange(60)
        ) -> None:
            for _ in range(steps):
                await asyncio.sleep(0)
            await hall.withdraw(id_, "a")

        added, _ = await asyncio.gather(outcome(halls[0].ask(id_, "a")), late())

        results.add(added)
        assert await halls[2].texts(id_) == []
        assert await halls[2].running(id_) == []
        assert await refused(halls[2].ask(id_, "a")) == "TURN_WITHDRAWN"
        await halls[2].check(id_)
    assert results == {"done", "TURN_WITHDRAWN"}


@pytest.mark.parametrize("seed", range(3))
async def test_a_conversation_that_many_use_at_once_loses_nothing(seed: int) -> None:
    random, halls, _ = crowd(seed)
    id_ = await halls[0].open()
    runs = [f"run_{number}" for number in range(15)]
    added = {run: await halls[0].ask(id_, run) for run in runs[:5]}

    async def live(run: str) -> None:
        hall = random.choice(halls)
        await hall.ask(id_, run)
        if random.random() < 0.3:
            await random.choice(halls).messages.toggle(
                ORG, id_, (await hall.ask(id_, run)).message.id
            )
        for other in random.sample(halls, 2):
            await other.fill(id_, run, random.choice((Status.COMPLETED, Status.FAILED)))

    await asyncio.gather(*map(live, runs), *(halls[1].say(id_, f"{n}") for n in range(10)))

    assert len(added) == 5
    assert await halls[0].running(id_) == []
    assert (await halls[0].totals()).count == len(runs)
    everything = await halls[0].texts(id_, Showing.ALL)
    assert len(everything) == 2 * len(runs) + 10
    await halls[0].check(id_)
    for run in runs:
        deleted = await halls[0].said.any_deleted(ORG, run)
        assert (run in await halls[0].history(Whose("writer"))) != deleted
