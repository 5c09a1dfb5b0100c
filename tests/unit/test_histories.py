"""Runs are counted once, whoever asks how often and dies where."""

from __future__ import annotations

import asyncio
import itertools
from contextlib import suppress
from dataclasses import replace
from random import Random

import pytest

from services.conversations.domain import histories
from services.conversations.domain.histories import (
    PREVIEW,
    Ended,
    Link,
    Outcome,
    Shown,
    Totals,
    Whose,
)
from services.conversations.stores.histories import RUNS, StoredLinks
from services.conversations.usecases.histories import HistoryService
from services.kit.errors import DomainError
from services.kit.storage.ports import Collection, Document, Query, Store, Write
from tests.fakes.cuts import Cut
from tests.fakes.memory import Memory, MemoryStore

ORG = "acme"
OF_INSTANCE = Whose(instance_id="inst_1")
OF_AGENT = Whose(agent_id="writer")

each_semantics = pytest.mark.parametrize("keeps_prefix", [False, True], ids=["atomic", "prefix"])


class Sayings:
    """Which runs have a deleted message."""

    def __init__(self) -> None:
        self.deleted: set[str] = set()

    async def any_deleted(self, org: str, execution_id: str) -> bool:
        return execution_id in self.deleted


class Book:
    """Histories put together over a store."""

    _clocks = itertools.count(1_000)

    def __init__(self, store: Store | None = None, sayings: Sayings | None = None) -> None:
        self.links = StoredLinks(store or MemoryStore(Memory(), (RUNS,)))
        self.sayings = sayings or Sayings()
        self.service = HistoryService(self.links, self.sayings, clock=lambda: next(self._clocks))

    async def shown(self, whose: Whose = OF_INSTANCE) -> list[str]:
        return [link.run.execution_id for link in await self.service.list(ORG, whose, None, 2000)]

    async def totals(self) -> Totals:
        return await self.service.statistics(ORG, "inst_1")


def ended(execution_id: str = "exec_1", **changes: object) -> Ended:
    run = Ended(
        ORG,
        execution_id,
        "writer",
        Outcome.SUCCEEDED,
        1_500,
        instance_id="inst_1",
        conversation_id="conv_1",
        question="How?",
        answer="So.",
    )
    return replace(run, **changes)  # type: ignore[arg-type] # whatever the test changes


# What is counted


def test_the_totals_say_what_the_runs_came_to() -> None:
    totals = Totals()
    for outcome, duration in (("succeeded", 10), ("failed", 20), ("cancelled", 60)):
        run = ended(outcome=Outcome(outcome), duration=duration)
        totals = histories.counted(totals, run, 100 + duration)

    assert (totals.count, totals.succeeded, totals.failed, totals.cancelled) == (3, 1, 1, 1)
    assert totals.success_rate == 50.0
    assert (totals.duration, totals.average_duration) == (90, 30.0)
    assert (totals.last_duration, totals.last_time) == (60, 160)


def test_before_the_first_run_there_is_no_rate_and_no_average() -> None:
    cancelled = histories.counted(Totals(), ended(outcome=Outcome.CANCELLED), 7)

    assert (Totals().success_rate, Totals().average_duration) == (None, None)
    assert (cancelled.success_rate, cancelled.average_duration) == (None, 1_500.0)


def test_times_grow_along_a_chain_also_when_the_clock_does_not() -> None:
    first = histories.linked(None, ended("a"), 1_000)

    second = histories.linked(first, ended("b"), 500)

    assert (second.number, second.create_time) == (2, 1_001)
    assert second.totals.count == 2


def test_a_history_keeps_the_beginnings_of_long_texts() -> None:
    link = histories.linked(None, ended(question="ü" * 9_999, answer="🎈" * 9_999), 1)

    assert (link.run.question, link.run.answer) == ("ü" * PREVIEW, "🎈" * PREVIEW)


def test_runs_without_an_instance_have_a_chain_that_no_instance_can_have() -> None:
    assert histories.chain_of("writer", "inst_1") == "inst_1"
    assert histories.chain_of("writer", "") == "agent:writer"


async def test_a_run_counts_once_and_as_it_ended_first() -> None:
    book = Book()

    first = await book.service.record(ended())
    again = await book.service.record(ended(outcome=Outcome.FAILED, duration=9, answer="Other."))

    assert again == first
    assert await book.totals() == first.totals
    assert (first.totals.succeeded, first.totals.failed, first.totals.duration) == (1, 0, 1_500)


async def test_the_history_of_an_agent_has_the_runs_of_all_its_instances_newest_first() -> None:
    book = Book()
    await book.service.record(ended("a"))
    await book.service.record(ended("b", instance_id="inst_2"))
    await book.service.record(ended("c", instance_id="", conversation_id=""))
    await book.service.record(ended("d", agent_id="other", instance_id="inst_3"))

    assert await book.shown(OF_AGENT) == ["c", "b", "a"]
    assert await book.shown() == ["a"]
    first = await book.service.list(ORG, OF_AGENT, None, 2)
    place = first[-1].create_time, first[-1].id
    rest = await book.service.list(ORG, OF_AGENT, place, 2)
    assert [link.run.execution_id for link in [*first, *rest]] == ["c", "b", "a"]


async def test_an_org_sees_nothing_of_another() -> None:
    book = Book()
    await book.service.record(ended())
    await book.service.record(ended(org="other"))

    assert [link.org for link in await book.service.list("other", OF_AGENT, None, 9)] == ["other"]
    assert await book.service.clear("other", OF_INSTANCE) == 1
    assert await book.shown() == ["exec_1"]


# What later runs are told


async def test_a_run_is_told_the_newest_that_fit_of_those_counted_when_it_was_accepted() -> None:
    book = Book()
    for id_ in "abcd":
        run = ended(id_, conversation_id="", question=f"{id_}?", answer="ü" * 4)
        await book.service.record(run)

    async def told(upto: int, max_bytes: int) -> tuple[list[str], int]:
        links, omitted = await book.service.told(ORG, "inst_1", upto, max_bytes)
        return [link.run.execution_id for link in links], omitted

    assert await told(4, 40) == (["a", "b", "c", "d"], 0)
    assert await told(4, 39) == (["b", "c", "d"], 1)
    assert await told(3, 20) == (["b", "c"], 1)
    assert await told(4, 9) == ([], 4)
    assert await told(0, 40) == ([], 0)


@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.CANCELLED])
async def test_a_run_is_told_what_those_said_that_were_cut_off(outcome: Outcome) -> None:
    book = Book()
    for id_, answer in (("a", "Once upon a"), ("b", "")):
        await book.service.record(ended(id_, conversation_id="", outcome=outcome, answer=answer))

    links, _ = await book.service.told(ORG, "inst_1", 2, 1000)

    assert [(link.run.execution_id, link.run.answer) for link in links] == [("a", "Once upon a")]


async def test_a_run_is_told_a_part_of_a_long_history() -> None:
    book = Book()
    for number in range(203):
        await book.service.record(ended(f"exec_{number}", conversation_id=""))

    links, omitted = await book.service.told(ORG, "inst_1", 203, 1_000_000)

    assert (len(links), omitted) == (200, 0)
    assert [links[0].number, links[-1].number] == [4, 203]


# Hidden and cleared


async def test_a_deleted_message_hides_its_run_and_brings_it_back() -> None:
    book = Book()
    await book.service.record(ended("a"))
    await book.service.record(ended("b"))

    book.sayings.deleted.add("a")
    await book.service.follow(ORG, "a")
    hidden = await book.shown(), (await book.totals()).count
    book.sayings.deleted.clear()
    await book.service.follow(ORG, "a")

    assert hidden == (["b"], 2)
    assert await book.shown() == ["b", "a"]


async def test_a_run_whose_message_is_deleted_before_it_is_counted_is_hidden_from_the_start() -> (
    None
):
    book = Book()
    book.sayings.deleted.add("a")

    await book.service.follow(ORG, "a")
    link = await book.service.record(ended("a"))

    assert link.shown is Shown.HIDDEN
    assert await book.shown(OF_AGENT) == []
    assert (await book.totals()).count == 1


async def test_a_clear_leaves_nothing_but_the_count_and_no_run_counts_again() -> None:
    book = Book()
    for id_ in "abc":
        await book.service.record(ended(id_))
    book.sayings.deleted.add("b")
    await book.service.follow(ORG, "b")

    assert await book.service.clear(ORG, OF_INSTANCE) == 2
    book.sayings.deleted.clear()
    await book.service.follow(ORG, "b")
    for id_ in "abc":
        link = await book.service.record(ended(id_))
        assert (link.shown, link.run.question, link.run.answer) == (Shown.CLEARED, "", "")

    assert await book.shown() == []
    assert await book.service.clear(ORG, OF_INSTANCE) == 0
    assert (await book.totals()).count == 3
    await book.service.record(ended("d"))
    assert await book.shown() == ["d"]
    assert (await book.totals()).count == 4


async def test_clearing_the_history_of_an_agent_clears_it_in_all_its_instances() -> None:
    book = Book()
    await book.service.record(ended("a"))
    await book.service.record(ended("b", agent_id="other"))
    await book.service.record(ended("c", instance_id="inst_2"))

    assert await book.service.clear(ORG, OF_AGENT) == 2
    assert await book.shown() == ["b"]


async def test_a_purge_leaves_no_run_and_no_count() -> None:
    memory = Memory()
    book = Book(MemoryStore(memory, (RUNS,)))
    for number in range(250):
        await book.service.record(ended(f"exec_{number}"))
    await book.service.record(ended("other", instance_id="inst_2"))

    await book.service.purge(ORG, "inst_1")

    assert await book.totals() == Totals()
    assert len(memory.documents) == 1


# Every cut, and many at once


@each_semantics
@pytest.mark.parametrize("answered", [True, False], ids=["lost", "unanswered"])
@pytest.mark.parametrize("story", ["record", "hide", "clear", "purge"])
async def test_what_is_cut_anywhere_and_done_again_was_done_once(
    story: str, answered: bool, keeps_prefix: bool
) -> None:
    for writes in itertools.count():
        memory, sayings = Memory(), Sayings()
        whole = Book(MemoryStore(memory, (RUNS,)), sayings)
        for id_ in "abc":
            await whole.service.record(ended(id_))
        cut = Cut(
            MemoryStore(memory, (RUNS,)), writes, answered=answered, keeps_prefix=keeps_prefix
        )
        for book in (Book(cut, sayings), whole):
            with suppress(DomainError):
                await _do(story, book)
        expected = {
            "record": (["d", "c", "b", "a"], 4),
            "hide": (["c", "a"], 3),
            "clear": ([], 3),
            "purge": ([], 0),
        }
        assert (await whole.shown(), (await whole.totals()).count) == expected[story]
        if not cut.is_cut:
            assert writes > 0
            break


async def _do(story: str, book: Book) -> None:
    if story == "record":
        await book.service.record(ended("d"))
    elif story == "hide":
        book.sayings.deleted.add("b")
        await book.service.follow(ORG, "b")
    elif story == "clear":
        await book.service.clear(ORG, OF_INSTANCE)
    else:
        await book.service.purge(ORG, "inst_1")


class Interleaved(MemoryStore):
    """The line of a process to the store, in which others come first now and then."""

    def __init__(self, memory: Memory, random: Random) -> None:
        super().__init__(memory, (RUNS,))
        self._random = random

    async def _step_back(self) -> None:
        for _ in range(self._random.randrange(3)):
            await asyncio.sleep(0)

    async def write(self, *writes: Write) -> None:
        await self._step_back()
        await super().write(*writes)

    async def find(
        self, collection: Collection, org: str, unique: str, value: str
    ) -> Document | None:
        await self._step_back()
        return await super().find(collection, org, unique, value)

    async def query(self, query: Query) -> list[Document]:
        found = await super().query(query)
        await self._step_back()
        return found


@pytest.mark.parametrize("seed", range(3))
async def test_runs_that_end_at_once_in_several_processes_count_once_each(seed: int) -> None:
    memory, random, count = Memory(), Random(seed), 1_000 if seed == 0 else 100
    books = [Book(Interleaved(memory, random)) for _ in range(3)]
    runs = [ended(f"exec_{number}", duration=number) for number in range(count)] * 2
    random.shuffle(runs)

    await asyncio.gather(*(random.choice(books).service.record(run) for run in runs))

    totals = await books[0].totals()
    assert (totals.count, totals.duration) == (count, sum(range(count)))
    numbers = sorted(int(document.fields["number"]) for document in memory.documents.values())
    assert numbers == list(range(1, count + 1))
    assert len(await books[0].shown()) == count


async def test_whoever_deletes_and_takes_back_at_once_leaves_the_run_as_its_message_is() -> None:
    for seed in range(30):
        memory, random, sayings = Memory(), Random(seed), Sayings()
        books = [Book(Interleaved(memory, random), sayings) for _ in range(2)]
        await books[0].service.record(ended())

        async def toggle(book: Book, *, deleted: bool) -> None:
            (book.sayings.deleted.add if deleted else book.sayings.deleted.discard)("exec_1")
            await book.service.follow(ORG, "exec_1")

        await asyncio.gather(
            *(toggle(random.choice(books), deleted=deleted) for deleted in (True, False) * 2)
        )

        expected = [] if sayings.deleted else ["exec_1"]
        assert await books[0].shown() == expected


def test_a_link_has_the_id_of_its_place() -> None:
    link = Link(ended(), 7, 1, Totals())

    assert link.id == "inst_1.0000000007"
