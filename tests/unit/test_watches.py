"""How watchers see a run: the past, then what comes, each event once, to the end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from itertools import pairwise
from typing import Any

import pytest

from services.execution import domain
from services.execution.domain import Event, Kind
from services.execution.ports import Prompt, Report
from services.execution.stores import COLLECTIONS
from services.execution.usecases.channels import events_channel
from services.execution.usecases.watches import Page, Watches
from services.kit.errors import DomainError, Reason
from services.kit.storage.inprocess import InProcessWakeups
from services.kit.storage.ports import Collection, Entry, Write, store_unavailable
from tests.fakes.house import ORG, House, house_at_work, silence, words
from tests.fakes.memory import Memory, MemoryStore
from tests.fakes.virtual import in_virtual_time, monotonic


class Deaf(InProcessWakeups):
    """Wake-ups that are all lost."""

    async def publish(self, channel: str) -> None:
        pass


class Counting(MemoryStore):
    """Counts how often logs are read, and fails while in trouble."""

    reads = 0
    trouble: Exception | None = None

    def __init__(self) -> None:
        super().__init__(Memory(), COLLECTIONS)

    async def read(
        self, log: str, org: str, stream: str, after: int, *, limit: int, max_bytes: int
    ) -> list[Entry]:
        self.reads += 1
        if self.trouble is not None:
            raise self.trouble
        return await super().read(log, org, stream, after, limit=limit, max_bytes=max_bytes)


class Watcher:
    """Watches a run from a cursor, and notes what came and when."""

    def __init__(
        self,
        house: House,
        execution_id: str,
        after: int = 0,
        *,
        pause: float = 0,
        pause_from: int = 1,
    ) -> None:
        self.after = after
        self.pages = 0
        self.sequences: list[int] = []
        self.times: list[float] = []
        self.beats: list[float] = []
        self.error: DomainError | None = None
        self.terminal = False
        self._pause = pause
        self._pause_from = pause_from
        self.task = asyncio.create_task(self._watch(house.watches, execution_id))

    async def _watch(self, watches: Watches, execution_id: str) -> None:
        try:
            watch = await watches.open(ORG, execution_id, self.after)
            async with aclosing(watch.pages) as pages:
                async for page in pages:
                    assert not self.terminal
                    self._note(page)
                    if self.pages >= self._pause_from:
                        await asyncio.sleep(self._pause)
        except DomainError as error:
            self.error = error

    def _note(self, page: Page | None) -> None:
        if page is None:
            self.beats.append(monotonic())
            return
        self.pages += 1
        self.sequences += [event.sequence for event in page.events]
        self.times += [monotonic()] * len(page.events)
        self.terminal = page.terminal

    async def end(self, within: float = 200) -> Watcher:
        async with asyncio.timeout(within):
            await self.task
        return self


async def finished(house: House, text: str = "Hello") -> domain.Execution:
    return await house.end_of(await house.start(text))


async def log_of(house: House, count: int) -> domain.Execution:
    """A run that was never worked on but has a log of so many events, without an end."""
    execution = await house.start()
    events: list[Event] = domain.tokens(1, 1, 1, "x", "w", 0) * (count - 1)
    await house.executions.append(
        execution.org,
        execution.id,
        1,
        [event._replace(sequence=place) for place, event in enumerate(events, 2)],
    )
    return execution


@in_virtual_time
async def test_a_run_is_replayed_from_any_cursor_to_its_end() -> None:
    async with house_at_work({"m": words(*"abcdefgh", every=0.1)}) as house:
        execution = await finished(house)
        last = len(await house.log(execution))
        for after in range(last):
            watcher = await Watcher(house, execution.id, after).end()
            assert watcher.sequences == list(range(after + 1, last + 1))
            assert watcher.terminal


@in_virtual_time
async def test_a_live_run_is_seen_once_from_any_cursor_at_any_time() -> None:
    async with house_at_work({"m": words(*["a"] * 100, every=0.05)}) as house:
        execution = await house.start()
        watchers: list[Watcher] = []
        for _ in range(40):
            head = len(await house.log(execution))
            watchers += [Watcher(house, execution.id, after) for after in {0, head // 2, head}]
            watchers.append(Watcher(house, execution.id, head // 3, pause=0.3))
            await asyncio.sleep(0.11)
        last = len(await house.log(await house.end_of(execution)))
        for watcher in watchers:
            await watcher.end()
            assert watcher.sequences == list(range(watcher.after + 1, last + 1))
            assert watcher.terminal


@in_virtual_time
async def test_what_is_appended_is_seen_at_once() -> None:
    async with house_at_work({"m": words(*"abcd", every=3.3)}) as house:
        execution = await house.start()
        watcher = await Watcher(house, execution.id).end()
        log = await house.log(execution)
        stored = [(event.time - log[0].time) / 1e6 for event in log]
        assert watcher.times == pytest.approx(stored, abs=0.01)


@in_virtual_time
async def test_lost_wake_ups_are_made_up_for_within_a_second() -> None:
    async with house_at_work({"m": words(*"abcd", every=3.3)}, wakeups=Deaf()) as house:
        execution = await house.start()
        watcher = await Watcher(house, execution.id).end()
        log = await house.log(execution)
        stored = [(event.time - log[0].time) / 1e6 for event in log]
        assert watcher.sequences == list(range(1, len(log) + 1))
        assert watcher.times == pytest.approx(stored, abs=1.1)


@in_virtual_time
async def test_many_watchers_of_one_run_share_its_reading() -> None:
    store = Counting()
    async with house_at_work({"m": words(*["a"] * 50, every=0.2)}, store=store) as house:
        execution = await house.start()
        await house.until(execution, Kind.LLM_START)
        watchers = [Watcher(house, execution.id) for _ in range(200)]
        await asyncio.sleep(0.01)
        before = store.reads
        for watcher in watchers:
            await watcher.end()
        last = len(await house.log(execution))
        assert {tuple(watcher.sequences) for watcher in watchers} == {tuple(range(1, last + 1))}
        # Once for each event and once to find that there is no other, not 200 times.
        assert store.reads - before < 200


@in_virtual_time
async def test_a_slow_watcher_reads_at_its_own_pace_and_misses_nothing() -> None:
    async with house_at_work({"m": words(*["a"] * 300, every=0.05)}) as house:
        execution = await house.start()
        slow = Watcher(house, execution.id, pause=7)
        fast = await Watcher(house, execution.id).end()
        assert not slow.task.done()
        await slow.end()
        assert slow.sequences == fast.sequences == list(range(1, len(fast.sequences) + 1))
        assert slow.terminal


@in_virtual_time
async def test_a_long_log_is_replayed_in_pages() -> None:
    house = House({"m": silence})
    execution = await log_of(house, 5000)
    watch = await house.watches.open(ORG, execution.id, 0)
    sizes = []
    async with aclosing(watch.pages) as pages:
        async for page in pages:
            assert page is not None
            sizes.append(len(page.events))
            if page.last == 5000:
                break
    assert sum(sizes) == 5000
    assert max(sizes) <= 1000


@in_virtual_time
async def test_a_silent_run_gives_signs_of_life() -> None:
    async with house_at_work({"m": silence}, heartbeat_seconds=15) as house:
        execution = await house.start(timeout_ms=100_000)
        early = Watcher(house, execution.id)
        await asyncio.sleep(20)
        late = Watcher(house, execution.id)
        await early.end()
        await late.end()
        for watcher in (early, late):
            last_seen = [0.0 if watcher is early else 20.0, *watcher.beats, 100.0]
            gaps = [b - a for a, b in pairwise(last_seen)]
            assert max(gaps) <= 16.5
            assert len(watcher.beats) in {5, 6}


@in_virtual_time
async def test_a_run_that_speaks_gives_no_signs_of_life_besides() -> None:
    async with house_at_work({"m": words(*["a"] * 60, every=1)}, heartbeat_seconds=5) as house:
        execution = await house.start()
        assert (await Watcher(house, execution.id).end()).beats == []


@in_virtual_time
async def test_watchers_of_a_store_in_trouble_wait_for_it() -> None:
    store = Counting()
    async with house_at_work({"m": words(*"abcd", every=1)}, store=store) as house:
        execution = await house.start()
        watcher = Watcher(house, execution.id)
        await asyncio.sleep(1.5)
        store.trouble = store_unavailable()
        await asyncio.sleep(10)
        store.trouble = None
        await watcher.end()
        assert watcher.error is None
        assert watcher.sequences == list(range(1, len(await house.log(execution)) + 1))


@in_virtual_time
async def test_a_cursor_at_the_end_of_a_finished_run_has_nothing_to_come() -> None:
    async with house_at_work({"m": words("a")}) as house:
        execution = await finished(house)
        last = len(await house.log(execution))
        watch = await house.watches.open(ORG, execution.id, last)
        assert watch.end is not None
        assert watch.caught_up
        assert [page async for page in watch.pages] == []
        watch = await house.watches.open(ORG, execution.id, last - 1)
        assert watch.end is None
        assert [page.last async for page in watch.pages if page] == [last]


@pytest.mark.parametrize("between", [0.03, 5.0], ids=["in a moment", "much later"])
@in_virtual_time
async def test_who_has_seen_the_end_finds_the_run_ended_and_may_delete_it(between: float) -> None:
    class OneByOne(MemoryStore):
        """Takes a while between an event and what it makes of the run, as a remote store does."""

        async def write(self, *writes: Write) -> None:
            await super().write(*writes[:1])
            for write in writes[1:]:
                await asyncio.sleep(between)
                await super().write(write)

    store = OneByOne(Memory(), COLLECTIONS)
    async with house_at_work({"m": words("a", "b", every=0.01)}, store=store) as house:
        execution = await house.start()
        while not (log := await house.log(execution)) or log[-1].kind != Kind.RESULT:
            await asyncio.sleep(0.001)
        for after in (0, len(log) - 1, len(log)):
            watcher = await Watcher(house, execution.id, after).end()
            assert watcher.error is None
            assert (await house.service.get(ORG, execution.id)).finished
        await house.service.delete(ORG, execution.id)


@in_virtual_time
async def test_a_live_watcher_who_sees_the_end_finds_the_run_ended() -> None:
    class Late(MemoryStore):
        """Lets some time pass before the run is stored as ended."""

        async def write(self, *writes: Write) -> None:
            await super().write(*writes[:1])
            await asyncio.sleep(0.3)
            await super().write(*writes[1:])

    house = House({"m": words("a")}, store=Late(Memory(), COLLECTIONS))
    execution = await house.start()
    watcher = Watcher(house, execution.id)
    await asyncio.sleep(0.5)
    cancelling = asyncio.create_task(house.service.cancel(ORG, execution.id, "call:1"))
    await asyncio.sleep(0.01)
    await house.wakeups.publish(events_channel(ORG, execution.id))
    await watcher.end()
    assert watcher.terminal
    assert (await house.service.get(ORG, execution.id)).finished
    with suppress(DomainError):
        await cancelling


@in_virtual_time
async def test_what_is_appended_costs_a_live_watch_no_more_than_reading_the_log() -> None:
    class Versions(MemoryStore):
        asked = 0

        async def version(self, collection: Collection, org: str, id_: str) -> int | None:
            self.asked += 1
            return await super().version(collection, org, id_)

    store = Versions(Memory(), COLLECTIONS)
    async with house_at_work({"m": words(*"abcdefgh", every=0.5)}, store=store) as house:
        watcher = Watcher(house, (await house.start()).id)
        await watcher.end()
        assert store.asked == 1


@pytest.mark.parametrize("beyond", [1, 2**32 - 1])
@in_virtual_time
async def test_a_cursor_beyond_the_end_is_refused(beyond: int) -> None:
    house = House({"m": silence})
    execution = await house.start()
    with pytest.raises(DomainError) as caught:
        await house.watches.open(ORG, execution.id, 1 + beyond)
    assert caught.value.reason == Reason.REASON_CURSOR_OUT_OF_RANGE
    assert caught.value.metadata == {"last_sequence": "1"}


@in_virtual_time
async def test_an_unknown_run_and_that_of_another_organisation_are_not_found() -> None:
    house = House({"m": silence})
    execution = await house.start()
    for org, id_ in ((ORG, "exec_none"), ("umbrella", execution.id), (ORG, "")):
        with pytest.raises(DomainError) as caught:
            await house.watches.open(org, id_, 0)
        assert caught.value.reason == Reason.REASON_EXECUTION_NOT_FOUND


@pytest.mark.parametrize("pages", [1, 2, 5, 40], ids=lambda pages: f"after {pages} pages")
@in_virtual_time
async def test_a_watcher_behind_a_run_that_is_deleted_is_told(pages: int) -> None:
    """It must not wait for ever, nor believe that the run has ended."""
    async with house_at_work({"m": words(*["a"] * 50, every=0.05)}) as house:
        execution = await house.start()
        await house.until(execution, Kind.LLM_START)
        behind = Watcher(house, execution.id, pause=100, pause_from=pages)
        await house.end_of(execution)
        await house.service.delete(ORG, execution.id)
        await behind.end(within=10_000)
        assert behind.sequences == list(range(1, len(behind.sequences) + 1))
        assert not behind.terminal
        assert behind.error is not None
        assert behind.error.reason == Reason.REASON_EXECUTION_NOT_FOUND


@in_virtual_time
async def test_closing_ends_every_watch_with_a_word_on_how_to_go_on() -> None:
    async with house_at_work({"m": words(*["a"] * 1000, every=1)}) as house:
        execution = await house.start()
        watchers = [Watcher(house, execution.id) for _ in range(10)]
        await asyncio.sleep(10.5)
        waiting = asyncio.create_task(house.watches.ended(ORG, execution.id))
        await asyncio.sleep(0)
        house.watches.close()
        for watcher in watchers:
            await watcher.end(within=1)
            assert watcher.error is not None
            assert watcher.error.reason == Reason.REASON_SHUTTING_DOWN
            assert watcher.error.retry_after is not None
        late = await Watcher(house, execution.id).end(within=1)
        assert late.error is not None
        with pytest.raises(DomainError):
            await waiting


@in_virtual_time
async def test_a_watcher_who_goes_away_leaves_nothing_behind() -> None:
    async with house_at_work({"m": silence}) as house:
        execution = await house.start()
        await asyncio.sleep(1)
        tasks = asyncio.all_tasks()
        watchers = [Watcher(house, execution.id) for _ in range(10)]
        await asyncio.sleep(1)
        for watcher in watchers:
            watcher.task.cancel()
        await asyncio.sleep(1)
        assert asyncio.all_tasks() == tasks


@in_virtual_time
async def test_waiting_for_the_end_sees_an_end_long_past_and_one_to_come() -> None:
    async with house_at_work({"m": words("a", every=5)}) as house:
        execution = await house.start()
        await house.watches.ended(ORG, execution.id)
        assert monotonic() == pytest.approx(5, abs=0.01)
        await house.watches.ended(ORG, execution.id)
        assert monotonic() == pytest.approx(5, abs=0.01)


@in_virtual_time
async def test_a_form_of_a_page_is_made_once() -> None:
    made: list[str] = []

    def encode(execution_id: str, events: Sequence[Event]) -> list[int]:
        made.append(execution_id)
        return [event.sequence for event in events]

    page = Page("exec_1", [Event(7, b'{"event":"on_llm_end","data":{},"timestamp":0.000001}', "w")])
    assert page.form(encode) == page.form(encode) == [7]
    assert made == ["exec_1"]


@in_virtual_time
async def test_watchers_are_told_together_when_there_are_many() -> None:
    """So that serving them does not take the processor from those who append."""

    async def say(prompt: Prompt) -> AsyncGenerator[str | Report, None]:
        for _ in range(100):
            await asyncio.sleep(0.04)
            yield "a"

    counts: dict[int, Any] = {}
    for number in (1, 1000):
        async with house_at_work({"m": say}) as house:
            execution = await house.start()
            watchers = [Watcher(house, execution.id) for _ in range(number)]
            for watcher in watchers:
                await watcher.end()
            assert len({tuple(watcher.sequences) for watcher in watchers}) == 1
            counts[number] = len(set(watchers[0].times))
    assert counts[1000] < counts[1] * 0.6


@in_virtual_time
async def test_a_feed_that_meets_a_fault_tells_its_watchers() -> None:
    store = Counting()
    async with house_at_work({"m": words(*"abcdefgh", every=1)}, store=store) as house:
        execution = await house.start()
        await house.until(execution, Kind.LLM_NEW_TOKEN)
        watch = await house.watches.open(ORG, execution.id, 0)

        async def to_the_end() -> None:
            async with aclosing(watch.pages) as pages:
                async for _ in pages:
                    pass

        watching = asyncio.create_task(to_the_end())
        await asyncio.sleep(0.1)
        store.trouble = ValueError("a row that is no event")
        with pytest.raises(DomainError) as caught:
            await asyncio.wait_for(watching, 60)
        assert caught.value.reason == Reason.REASON_INTERNAL
