"""How runs are claimed, seen through, taken over, handed back and ended."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

import pytest

from services.execution import domain
from services.execution.adapters.metrics import Unmetered
from services.execution.domain import Agent, AgentSnapshot, Kind, ModelError, State, Turn, Waiting
from services.execution.ports import Prompt, Report
from services.execution.stores import COLLECTIONS, WORKERS
from services.execution.usecases.channels import (
    read_work_item,
    resumed_item,
    stop_channel,
    work_item,
)
from services.execution.usecases.worker import Pace
from services.kit.errors import DomainError, Reason
from services.kit.storage.ports import (
    Append,
    Document,
    Query,
    Replace,
    Store,
    Write,
    store_full,
    store_unavailable,
)
from services.kit.tasks import ended
from tests.fakes.house import ORG, House, Says, Talker, house_at_work, is_sound, silence, words
from tests.fakes.memory import Memory, MemoryStore
from tests.fakes.virtual import EPOCH, clock, in_virtual_time, monotonic

TTL = Pace().lease_ttl


class Troubled(MemoryStore):
    """A store that fails while `trouble` is set, or hangs while `frozen` is."""

    trouble: Exception | None = None
    frozen = False
    only_appends = False

    def __init__(self, memory: Memory | None = None) -> None:
        super().__init__(memory or Memory(), COLLECTIONS)

    async def write(self, *writes: Write) -> None:
        while self.frozen:
            await asyncio.sleep(0.5)
        concerned = not self.only_appends or isinstance(writes[0], Append)
        if self.trouble is not None and concerned:
            raise self.trouble
        await super().write(*writes)


def raising(error: BaseException, after: int = 1) -> Says:
    async def say(prompt: Prompt) -> AsyncGenerator[str | Report, None]:
        for _ in range(after):
            yield "said "
        raise error

    return say


async def kinds(house: House, execution: domain.Execution) -> list[str]:
    return [event.kind for event in await house.log(execution)]


async def payloads(house: House, execution: domain.Execution, kind: Kind) -> list[Any]:
    log = await house.log(execution)
    return [json.loads(event.payload) for event in log if event.kind == kind]


@in_virtual_time
async def test_a_run_is_claimed_at_once_and_seen_through() -> None:
    async with house_at_work({"fast": words("An", " answer")}) as house:
        ended_run = await house.end_of(await house.start())
        assert (ended_run.state, ended_run.result) == (State.SUCCEEDED, "An answer")
        assert monotonic() < 0.1
        log = await house.log(ended_run)
        is_sound(ended_run, log)
        assert {event.writer for event in log} == {"", "worker_1_1"}


@in_virtual_time
async def test_a_model_that_says_nothing_at_all_has_an_empty_answer() -> None:
    async with house_at_work({"mute": words()}) as house:
        ended_run = await house.end_of(await house.start())
        is_sound(ended_run, await house.log(ended_run))
        assert ended_run.result == ""


@in_virtual_time
async def test_a_token_without_text_is_no_event() -> None:
    async with house_at_work({"m": words("", "a", "", "b", "", every=1)}) as house:
        ended_run = await house.end_of(await house.start())
        chunks = await payloads(house, ended_run, Kind.LLM_NEW_TOKEN)
        assert [chunk["chunk"] for chunk in chunks] == ["a", "b"]


@in_virtual_time
async def test_the_last_piece_is_stored_with_the_end() -> None:
    async with house_at_work({"m": words("a", "b", "c", every=0.001)}) as house:
        ended_run = await house.end_of(await house.start())
        log = await house.log(ended_run)
        assert [event.kind for event in log[3:]] == [
            "on_llm_new_token",
            "on_llm_new_token",
            "on_llm_end",
            "result",
        ]
        assert log[4].time == log[5].time == log[6].time
        is_sound(ended_run, log)


@in_virtual_time
async def test_only_so_many_runs_go_on_at_a_time_and_the_others_in_their_order() -> None:
    async with house_at_work({"m": words("a", every=10)}, pace=Pace(concurrency=2)) as house:
        started = [await house.start(str(number)) for number in range(6)]
        finished = [await house.end_of(execution) for execution in started]
        begins = [(execution.start_time or 0) - EPOCH for execution in finished]
        assert [round(begin / 1e6) for begin in begins] == [0, 0, 10, 10, 20, 20]


@in_virtual_time
async def test_without_concurrency_runs_wait() -> None:
    async with house_at_work({"m": words("a")}, pace=Pace(concurrency=0)) as house:
        execution = await house.start()
        await asyncio.sleep(100)
        assert (await house.service.get(ORG, execution.id)).state is State.QUEUED
        cancelled = await house.service.cancel(ORG, execution.id, "call:1")
        assert cancelled.state is State.CANCELLED
        is_sound(cancelled, await house.log(cancelled))


@in_virtual_time
async def test_a_run_accepted_by_another_process_is_found_by_the_sweep() -> None:
    house = House({"m": words("a")})
    execution = await house.start()
    async with house.beside().working():
        is_sound(await house.end_of(execution, within=3), await house.log(execution))


# Take-over


@in_virtual_time
async def test_a_dead_workers_run_is_taken_over_after_its_lease_stood_still_for_its_time() -> None:
    first = House({"m": words("a", "b", "c", every=1)})
    execution = await first.start()
    async with first.working():
        await first.until(execution, Kind.LLM_NEW_TOKEN)
        # Alive, for as long as it takes: the other one leaves the run alone.
        second = first.beside()
        async with second.working():
            await first.end_of(execution)
            assert await kinds(first, execution) == [
                "job_started",
                "status_update",
                "on_llm_start",
                *["on_llm_new_token"] * 3,
                "on_llm_end",
                "result",
            ]


@in_virtual_time
async def test_a_worker_that_died_is_followed_by_another_which_repeats_the_call() -> None:
    memory = Memory()
    dead = Troubled(memory)
    first = House({"m": words("a", "b", "c", every=1.2)}, store=dead)
    execution = await first.start()
    await first.worker.start()
    serving = asyncio.create_task(first.worker.serve())
    second = first.beside(store=MemoryStore(memory, COLLECTIONS))
    async with second.working():
        await second.until(execution, Kind.LLM_NEW_TOKEN)
        dead.frozen = True
        died = monotonic()
        resumed = await second.until(execution, Kind.JOB_RESUMED)
        waited = (resumed.time - EPOCH) / 1e6 - died
        # At most one renewal and one sweep were still to come.
        assert TTL - 2 <= waited <= TTL + 3
        ended_run = await second.end_of(execution)
        log = await second.log(ended_run)
        is_sound(ended_run, log)
        assert ended_run.result == "abc"
        starts = await payloads(second, ended_run, Kind.LLM_START)
        assert [(start["step"], start["attempt"]) for start in starts] == [(1, 1), (1, 2)]
        # The dead one comes back, and finds that it may not write.
        dead.frozen = False
        await asyncio.sleep(20)
        assert await second.log(ended_run) == log
    await ended(serving)
    await first.worker.stop()


@in_virtual_time
async def test_a_frozen_worker_that_wakes_stops_writing_although_nobody_took_over() -> None:
    store = Troubled()
    house = House({"m": words(*"abcdefghijklmnopqrstuvwxyz", every=0.7)}, store=store)
    async with house.working():
        execution = await house.start()
        await house.until(execution, Kind.LLM_NEW_TOKEN)
        store.frozen = True
        await asyncio.sleep(TTL + 1)
        store.frozen = False
        ended_run = await house.end_of(execution)
        log = await house.log(ended_run)
        is_sound(ended_run, log)
        # It went on as another worker, with another attempt.
        assert {event.writer for event in log} == {"", "worker_1_1", "worker_1_2"}
        assert ended_run.result == "abcdefghijklmnopqrstuvwxyz"


@pytest.mark.parametrize("tokens", [4, 40], ids=["at its end", "in between"])
@in_virtual_time
async def test_a_stopped_process_that_goes_on_writes_nothing_under_its_old_lease(
    tokens: int,
) -> None:
    """Its next token comes before the next renewal finds that the lease has run out."""
    async with house_at_work({"m": words(*["a"] * tokens, every=0.1)}) as house:
        execution = await house.start()
        await asyncio.sleep(0.35)
        house.slept = TTL
        stopped = EPOCH + round(monotonic() * 1e6)
        ended_run = await house.end_of(execution)
        log = await house.log(ended_run)
        is_sound(ended_run, log)
        late = [event.writer for event in log if event.time > stopped]
        assert set(late) == {"worker_1_2"}


@in_virtual_time
async def test_a_worker_whose_lease_was_taken_away_gives_its_runs_up() -> None:
    async with house_at_work({"m": words(*"abcdefgh", every=1)}) as house:
        execution = await house.start()
        await house.until(execution, Kind.LLM_NEW_TOKEN)
        for lease in await house.leases.all():
            await house.leases.remove(lease)
        ended_run = await house.end_of(execution)
        log = await house.log(ended_run)
        is_sound(ended_run, log)
        writers = [event.writer for event in log]
        assert set(writers) == {"", "worker_1_1", "worker_1_2"}
        assert writers.index("worker_1_2") > max(
            index for index, writer in enumerate(writers) if writer == "worker_1_1"
        )


@in_virtual_time
async def test_a_run_handed_back_is_taken_over_at_once() -> None:
    first = House({"m": words(*"abcd", every=1)})
    execution = await first.start()
    async with first.working():
        await first.until(execution, Kind.LLM_NEW_TOKEN)
    stopped = monotonic()
    stored = await first.service.get(ORG, execution.id)
    assert (stored.state, stored.owner) == (State.RUNNING, "")
    assert await first.leases.all() == []
    async with first.beside().working():
        resumed = await first.until(execution, Kind.JOB_RESUMED, within=3)
        assert (resumed.time - EPOCH) / 1e6 - stopped < 0.1
        ended_run = await first.end_of(execution)
        is_sound(ended_run, await first.log(ended_run))


@in_virtual_time
async def test_a_run_that_is_taken_over_goes_on_with_the_agent_it_began_with() -> None:
    told: list[str] = []

    async def say(prompt: Prompt) -> AsyncGenerator[str | Report, None]:
        told.append(prompt.system)
        for text in "abcd":
            await asyncio.sleep(1)
            yield text

    first = House({"m": say})
    first.agents.known["writer"] = Agent(
        "writer", persona="You are old.", snapshot=AgentSnapshot("Old", "1", 3, "production")
    )
    execution = await first.start(agent_id="writer")
    async with first.working():
        await first.until(execution, Kind.LLM_NEW_TOKEN)
    del first.agents.known["writer"]
    async with first.beside().working():
        ended_run = await first.end_of(execution)
    assert told == ["You are old.", "You are old."]
    assert ended_run.order == execution.order
    assert ended_run.order.agent == AgentSnapshot("Old", "1", 3, "production")
    is_sound(ended_run, await first.log(ended_run))


@in_virtual_time
async def test_a_run_handed_back_is_taken_over_even_while_the_lease_is_still_there() -> None:
    """Its worker stops slowly: other runs of it are still being handed back."""
    first = House({"m": words(*"abcd", every=1)})
    async with first.working():
        execution = await first.start()
        await first.until(execution, Kind.LLM_NEW_TOKEN)
    await first.leases.register("worker_1_1", 0)
    second = first.beside(pace=replace(Pace(), sweep_every=0.5))
    async with second.working():
        resumed = await second.until(execution, Kind.JOB_RESUMED)
        assert resumed.writer == "worker_2_1"
        assert monotonic() < 3
        is_sound(await second.end_of(execution), await second.log(execution))


@in_virtual_time
async def test_a_worker_that_hears_of_a_run_handed_back_does_not_wait_for_its_sweep() -> None:
    first = House({"m": words(*"abcd", every=1)})
    seldom = replace(Pace(), sweep_every=3600)
    second = first.beside(queue=first.queue, pace=seldom)
    execution = await first.start()
    async with AsyncExitStack() as stack:
        async with first.working():
            await first.until(execution, Kind.LLM_NEW_TOKEN)
            await stack.enter_async_context(second.working())
            # Its first sweep finds nothing to do.
            await asyncio.sleep(0.5)
            stopped = monotonic()
        resumed = await first.until(execution, Kind.JOB_RESUMED, within=3)
        assert resumed.writer == "worker_2_1"
        assert (resumed.time - EPOCH) / 1e6 - stopped < 0.1
        ended_run = await first.end_of(execution)
        is_sound(ended_run, await first.log(ended_run))


@in_virtual_time
async def test_what_the_queue_says_of_runs_that_need_nobody_changes_nothing() -> None:
    house = House({"m": words(*"abcd", every=1)})
    other = house.beside()
    done, running = await house.start("first"), await house.start("second")
    async with house.working():
        await house.end_of(done)
        await house.until(running, Kind.LLM_NEW_TOKEN)
        async with other.working():
            told = [
                resumed_item(Waiting(run.org, run.order.priority, run.id), slot)
                for run in (done, running)
                for slot in (0, 1, None)
            ]
            for item in (*told, resumed_item(Waiting(ORG, 0, "exec_unknown"), 0)):
                await other.queue.put(item)
                await house.queue.put(item)
            ended_run = await house.end_of(running)
            assert other.worker.running() == 0
    for run in (done, ended_run):
        log = await house.log(run)
        assert [event.kind for event in log].count(Kind.JOB_RESUMED) == 0
        assert [event.kind for event in log].count(Kind.LLM_START) == 1


@pytest.mark.parametrize("slot", [0, 17, None])
@pytest.mark.parametrize("org", ["acme", "a/b:c/", "new"])
def test_a_work_item_says_which_run_it_is_about(org: str, slot: int | None) -> None:
    waiting = Waiting(org, -3, "exec_1")
    assert read_work_item(work_item(waiting)) == Turn(waiting, None)
    assert read_work_item(resumed_item(waiting, slot)) == Turn(waiting, slot, resumed=True)


@in_virtual_time
async def test_what_is_no_work_item_is_passed_over() -> None:
    async with house_at_work({"m": words("a")}) as house:
        for item in ("", "new", "acme/0/exec_1", "new:/x/exec_1/acme", "later:3/0/exec_1/acme"):
            await house.queue.put(item)
        execution = await house.start()
        assert (await house.end_of(execution)).state is State.SUCCEEDED


@in_virtual_time
async def test_a_worker_that_is_new_is_not_taken_for_one_that_is_gone() -> None:
    """Leases were read, then a worker came and claimed a run, then the runs were read."""
    memory = Memory()
    newcomers: list[House] = []

    class Between(MemoryStore):
        """Lets a newcomer begin between the two things a sweep reads."""

        reads = 0

        async def query(self, query: Any) -> Any:
            found = await super().query(query)
            self.reads += 1
            if newcomers and self.reads % 3 == 1:
                newcomer = newcomers.pop()
                await newcomer.worker.start()
                serving.append(asyncio.create_task(newcomer.worker.serve()))
                await newcomer.until(execution, Kind.LLM_START)
            return found

    first = House({"m": words("a", every=10)}, store=Between(memory, COLLECTIONS))
    serving: list[asyncio.Task[None]] = []
    async with house_at_work({"m": silence}, pace=Pace(concurrency=0), store=first.store):
        observer = first.beside(pace=Pace(concurrency=5))
        execution = await first.start()
        for skipped in range(3):
            newcomers.append(
                House(
                    {"m": words("a", every=4)},
                    store=MemoryStore(memory, COLLECTIONS),
                    prefix=f"9{skipped}",
                )
            )
            execution = await newcomers[0].start()
            first.store.reads = skipped  # type: ignore[attr-defined]  # it is a Between
            serving.append(asyncio.create_task(observer.worker.serve()))
            ended_run = await first.end_of(execution)
            assert "job_resumed" not in await kinds(first, ended_run)
            await ended(serving.pop(0))
            for task in serving:
                await ended(task)
            serving.clear()
            newcomers.clear()


# Trouble


@pytest.mark.parametrize("trouble", [store_unavailable(), store_full()], ids=["away", "full"])
@in_virtual_time
async def test_a_model_is_not_asked_again_for_a_store_that_comes_back_in_time(
    trouble: DomainError,
) -> None:
    store = Troubled()
    async with house_at_work({"m": words(*"abcdefgh", every=0.5)}, store=store) as house:
        execution = await house.start()
        await house.until(execution, Kind.LLM_NEW_TOKEN)
        store.trouble = trouble
        await asyncio.sleep(3)
        store.trouble = None
        ended_run = await house.end_of(execution, within=15)
        log = await house.log(ended_run)
        is_sound(ended_run, log)
        assert ended_run.result == "abcdefgh"
        assert await payloads(house, ended_run, Kind.JOB_RESUMED) == []


@pytest.mark.parametrize("away", [0.0, 2.0], ids=["at once", "a while later"])
@in_virtual_time
async def test_a_run_goes_on_when_each_write_is_done_and_some_answers_are_lost(away: float) -> None:
    class Forgetful(MemoryStore):
        """Loses the answer of each fifth write, and is gone for a while then."""

        writes = 0
        back_at = 0.0

        def _check_open(self) -> None:
            if monotonic() < self.back_at:
                raise store_unavailable()

        async def write(self, *writes: Write) -> None:
            await super().write(*writes)
            self.writes += 1
            if self.writes > 5 and self.writes % 5 == 0:
                self.back_at = monotonic() + away
                raise store_unavailable()

    store = Forgetful(Memory(), COLLECTIONS)
    async with house_at_work({"m": words(*"abcdefghijkl", every=0.5)}, store=store) as house:
        execution = await house.start()
        await asyncio.sleep(60)
        store.back_at = 0.0
        ended_run = await house.service.get(ORG, execution.id)
        log = await house.log(ended_run)
        is_sound(ended_run, log)
        assert {event.writer for event in log} == {"", "worker_1_1"}
        assert await payloads(house, ended_run, Kind.JOB_RESUMED) == []


@in_virtual_time
async def test_an_end_whose_answer_was_lost_is_stored_whole_as_soon_as_the_store_is_back() -> None:
    class Halved(MemoryStore):
        """Keeps the terminal event, and loses its projection and the answer."""

        power_fails = True

        async def write(self, *writes: Write) -> None:
            ends = isinstance(writes[0], Append) and len(writes) == 2 and monotonic() > 0.5
            if self.power_fails and ends:
                self.power_fails = False
                await super().write(writes[0])
                raise store_unavailable()
            await super().write(*writes)

    store = Halved(Memory(), COLLECTIONS)
    async with house_at_work({"m": words("a", "b", every=0.5)}, store=store) as house:
        execution = await house.start()
        await asyncio.sleep(1.3)
        assert not store.power_fails
        ended_run = await house.service.get(ORG, execution.id)
        is_sound(ended_run, await house.log(ended_run))


@in_virtual_time
async def test_a_worker_whose_renewal_was_done_and_not_answered_keeps_its_runs() -> None:
    class Forgetful(MemoryStore):
        renewals = 0

        async def write(self, *writes: Write) -> None:
            await super().write(*writes)
            if isinstance(writes[0], Replace) and writes[0].collection is WORKERS:
                self.renewals += 1
                if self.renewals == 2:
                    raise store_unavailable()

    store = Forgetful(Memory(), COLLECTIONS)
    async with house_at_work({"m": words(*"abcdefgh", every=1)}, store=store) as house:
        ended_run = await house.end_of(await house.start())
        assert store.renewals > 2
        assert await payloads(house, ended_run, Kind.JOB_RESUMED) == []


@in_virtual_time
async def test_a_lease_outlives_a_store_that_was_away_for_nearly_as_long() -> None:
    store = Troubled()
    async with house_at_work({"m": words(*"abcdefgh", every=1.5)}, store=store) as house:
        execution = await house.start()
        await asyncio.sleep(2.1)
        store.trouble = store_unavailable()
        await asyncio.sleep(TTL - 0.9)
        store.trouble = None
        ended_run = await house.end_of(execution)
        assert await payloads(house, ended_run, Kind.JOB_RESUMED) == []


@in_virtual_time
async def test_telling_many_their_place_keeps_a_slow_store_free_for_the_lease() -> None:
    class Slow(MemoryStore):
        """Does one thing after the other, each in a hundredth of a second."""

        most = waiting = 0

        def __init__(self) -> None:
            super().__init__(Memory(), COLLECTIONS)
            self.free = asyncio.Lock()

        async def write(self, *writes: Write) -> None:
            self.waiting += 1
            self.most = max(self.most, self.waiting)
            async with self.free:
                await asyncio.sleep(0.01)
            self.waiting -= 1
            await super().write(*writes)

    store = Slow()
    house = House({"m": silence}, store=store, pace=Pace(concurrency=0))
    runs = [await house.start(str(number)) for number in range(600)]
    store.most = 0
    async with house.working():
        await asyncio.sleep(30)
        assert store.most < 60
        assert [(await house.log(run))[-1].kind for run in runs] == ["job_queued"] * 600


@in_virtual_time
async def test_a_dead_workers_runs_do_not_wait_until_all_that_waits_was_read() -> None:
    class Long(MemoryStore):
        """Takes long to read what waits."""

        async def query(self, query: Query) -> list[Document]:
            if query.equal == {"state": "QUEUED"}:
                await asyncio.sleep(30)
            return await super().query(query)

    memory = Memory()
    dead = House({"m": silence}, store=MemoryStore(memory, COLLECTIONS))
    execution = await dead.start()
    await dead.worker.start()
    serving = asyncio.create_task(dead.worker.serve())
    await dead.until(execution, Kind.LLM_START)
    await ended(serving)
    heir = dead.beside(store=Long(memory, COLLECTIONS), says={"m": words("a")})
    async with heir.working():
        await heir.until(execution, Kind.RESULT, within=TTL + 34)


@in_virtual_time
async def test_a_run_is_resumed_when_the_store_was_away_for_longer_than_a_lease() -> None:
    store = Troubled()
    async with house_at_work({"m": words(*"abcdefgh", every=0.5)}, store=store) as house:
        execution = await house.start()
        await house.until(execution, Kind.LLM_NEW_TOKEN)
        store.trouble = store_unavailable()
        await asyncio.sleep(3 * TTL)
        store.trouble = None
        ended_run = await house.end_of(execution, within=30)
        is_sound(ended_run, await house.log(ended_run))
        assert ended_run.result == "abcdefgh"
        assert len(await payloads(house, ended_run, Kind.JOB_RESUMED)) >= 1


@in_virtual_time
async def test_a_run_goes_on_when_the_store_fails_at_its_very_end() -> None:
    store = Troubled()
    async with house_at_work({"m": words(*"ab", every=1)}, store=store) as house:
        execution = await house.start()
        await asyncio.sleep(1.5)
        store.trouble = store_full()
        await asyncio.sleep(2)
        assert not (await house.service.get(ORG, execution.id)).finished
        store.trouble = None
        ended_run = await house.end_of(execution, within=10)
        is_sound(ended_run, await house.log(ended_run))
        assert ended_run.result == "ab"


@pytest.mark.parametrize("power_fails_at", ["on_llm_failed", "on_llm_start", "result"])
@in_virtual_time
async def test_a_run_ends_whole_when_the_store_kept_its_events_and_lost_their_projection(
    power_fails_at: str,
) -> None:
    class Halving(MemoryStore):
        power_fails = True

        async def write(self, *writes: Write) -> None:
            log = writes[0].entries if isinstance(writes[0], Append) else ()
            told = any(power_fails_at.encode() in data for _, data, _ in log)
            if self.power_fails and told:
                self.power_fails = False
                await super().write(*writes[:-1])
                raise store_unavailable()
            await super().write(*writes)

    calls = iter([raising(ModelError("It had enough.", Reason.REASON_MODEL_OVERLOADED))])

    async def say(prompt: Prompt) -> AsyncGenerator[str | Report, None]:
        async for text in next(calls, words("a", "b", every=1))(prompt):
            yield text

    store = Halving(Memory(), COLLECTIONS)
    async with house_at_work({"m": say}, store=store) as house:
        execution = await house.start()
        await house.watches.ended(execution.org, execution.id)
        await asyncio.sleep(3)
        assert not store.power_fails
        ended_run = await house.service.get(ORG, execution.id)
        is_sound(ended_run, await house.log(ended_run))
        assert ended_run.result == "ab"


@in_virtual_time
async def test_a_run_whose_end_was_seen_and_repaired_between_two_writes_is_still_its_workers() -> (
    None
):
    class OneByOne(MemoryStore):
        async def write(self, *writes: Write) -> None:
            await super().write(*writes[:1])
            for write in writes[1:]:
                await asyncio.sleep(0.5)
                await super().write(write)

    class Ends(Unmetered):
        def __init__(self) -> None:
            self.seen: list[State] = []

        def ended(self, execution: domain.Execution) -> None:
            self.seen.append(execution.state)

    ends, store = Ends(), OneByOne(Memory(), COLLECTIONS)
    async with house_at_work({"m": words("a")}, store=store, metrics=ends) as house:
        execution = await house.start()
        seen = house.watches.ended(ORG, execution.id)
        assert (await house.service.answer(ORG, execution.id, seen)).result == "a"
        await asyncio.sleep(3)
        is_sound(await house.service.get(ORG, execution.id), await house.log(execution))
    assert ends.seen == [State.SUCCEEDED]


@in_virtual_time
async def test_a_worker_without_store_is_not_healthy_until_it_is_back() -> None:
    store = Troubled()
    async with house_at_work({"m": words("a")}, store=store) as house:
        health = [house.worker.healthy]
        store.trouble = store_unavailable()
        await asyncio.sleep(TTL + 2)
        health.append(house.worker.healthy)
        store.trouble = None
        await asyncio.sleep(3)
        health.append(house.worker.healthy)
        assert health == [True, False, True]
        ended_run = await house.end_of(await house.start())
        is_sound(ended_run, await house.log(ended_run))


@in_virtual_time
async def test_a_piece_that_can_never_be_stored_ends_the_run() -> None:
    store = Troubled()
    async with house_at_work({"m": words(*"abcd", every=1)}, store=store) as house:
        execution = await house.start()
        await house.until(execution, Kind.LLM_START)
        store.trouble, store.only_appends = RuntimeError("a fault of ours"), True
        await asyncio.sleep(1.5)
        store.trouble = None
        ended_run = await house.end_of(execution, within=10)
        is_sound(ended_run, await house.log(ended_run))


# What models do


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ModelError("The model had enough."), "MODEL_FAILED"),
        (RuntimeError("secret"), "INTERNAL"),
        (TimeoutError("secret"), "INTERNAL"),
        (asyncio.CancelledError("secret"), "INTERNAL"),
        (StopAsyncIteration("secret"), "INTERNAL"),
        (UnicodeError("secret"), "INTERNAL"),
        (ExceptionGroup("secret", [ValueError("secret")]), "INTERNAL"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
@pytest.mark.parametrize("after", [0, 1])
@in_virtual_time
async def test_a_model_that_fails_ends_its_run(
    error: BaseException, reason: str, after: int
) -> None:
    async with house_at_work({"m": raising(error, after)}) as house:
        ended_run = await house.end_of(await house.start(), within=5)
        log = await house.log(ended_run)
        is_sound(ended_run, log)
        assert ended_run.state is State.FAILED
        assert ended_run.failure is not None
        assert ended_run.failure.reason == reason
        assert "secret" not in ended_run.failure.message
        assert "job_resumed" not in [event.kind for event in log]


@pytest.mark.parametrize("token", ["\ud800", 7, None], ids=["surrogate", "number", "nothing"])
@in_virtual_time
async def test_a_model_that_says_no_text_ends_its_run(token: Any) -> None:
    async with house_at_work({"m": words("fine", token)}) as house:
        ended_run = await house.end_of(await house.start(), within=5)
        is_sound(ended_run, await house.log(ended_run))
        assert ended_run.failure is None or ended_run.failure.reason == "INTERNAL"


@in_virtual_time
async def test_a_run_whose_provider_is_there_no_more_fails_instead_of_trying_for_ever() -> None:
    house = House({"m": words("a")})
    execution = await house.start()
    other = Talker({"m": words("a")})
    other.name = "other"
    async with house.beside(providers=[other]).working():
        ended_run = await house.end_of(execution, within=10)
        is_sound(ended_run, await house.log(ended_run))
        assert ended_run.failure is not None
        assert ended_run.failure.reason == "PROVIDER_NOT_FOUND"


@in_virtual_time
async def test_a_run_ends_at_its_timeout() -> None:
    async with house_at_work({"m": silence}) as house:
        ended_run = await house.end_of(await house.start(timeout_ms=2500))
        assert ended_run.failure is not None
        assert ended_run.failure.reason == "EXECUTION_TIMEOUT"
        assert (ended_run.end_time or 0) - (ended_run.start_time or 0) == 2_500_000
        is_sound(ended_run, await house.log(ended_run))


@in_virtual_time
async def test_what_was_said_before_the_timeout_is_in_the_log() -> None:
    async with house_at_work({"m": words(*"abcdef", every=1)}) as house:
        ended_run = await house.end_of(await house.start(timeout_ms=3500))
        chunks = await payloads(house, ended_run, Kind.LLM_NEW_TOKEN)
        assert "".join(chunk["chunk"] for chunk in chunks) == "abc"
        is_sound(ended_run, await house.log(ended_run))


@in_virtual_time
async def test_waiting_in_the_queue_does_not_count_towards_the_timeout() -> None:
    async with house_at_work({"m": words("a", every=2)}, pace=Pace(concurrency=1)) as house:
        started = [await house.start(timeout_ms=3000) for _ in range(4)]
        for execution in started:
            assert (await house.end_of(execution)).state is State.SUCCEEDED


@in_virtual_time
async def test_a_take_over_does_not_give_a_run_more_time() -> None:
    first = House({"m": silence})
    execution = await first.start(timeout_ms=5000)
    async with first.working():
        await asyncio.sleep(3)
    async with first.beside().working():
        ended_run = await first.end_of(execution)
        assert (ended_run.end_time or 0) - EPOCH == pytest.approx(5_000_000, abs=10_000)
        is_sound(ended_run, await first.log(ended_run))


@in_virtual_time
async def test_an_answer_that_is_too_large_fails_the_run_and_stays_within_its_size() -> None:
    async with house_at_work({"m": words(*["x" * 300_000] * 10, every=0.1)}) as house:
        ended_run = await house.end_of(await house.start())
        assert ended_run.failure is not None
        assert ended_run.failure.reason == "RESULT_TOO_LARGE"
        log = await house.log(ended_run)
        is_sound(ended_run, log)
        assert max(len(event.payload) for event in log) <= domain.MAX_EVENT_BYTES
        assert len(domain.follow(log).answer) <= domain.MAX_RESULT_BYTES


@in_virtual_time
async def test_the_largest_answer_is_kept_whole() -> None:
    async with house_at_work({"m": words("x" * domain.MAX_RESULT_BYTES)}) as house:
        ended_run = await house.end_of(await house.start())
        assert ended_run.result == "x" * domain.MAX_RESULT_BYTES
        is_sound(ended_run, await house.log(ended_run))


@in_virtual_time
async def test_a_model_faster_than_the_store_has_to_wait_for_it() -> None:
    async def say(prompt: Prompt) -> AsyncGenerator[str | Report, None]:
        for _ in range(20):
            said.append(monotonic())
            yield "x" * 100_000

    class Slow(MemoryStore):
        async def write(self, *writes: Write) -> None:
            await asyncio.sleep(1)
            await super().write(*writes)

    said: list[float] = []
    store: Store = Slow(Memory(), COLLECTIONS)
    async with house_at_work({"m": say}, store=store) as house:
        ended_run = await house.end_of(await house.start())
        assert len(ended_run.result) == 2_000_000
        assert said[-1] - said[0] >= 1
        is_sound(ended_run, await house.log(ended_run))


@in_virtual_time
async def test_a_model_that_takes_a_stop_for_its_own_failure_is_handed_back_all_the_same() -> None:
    async def say(prompt: Prompt) -> AsyncGenerator[str | Report, None]:
        yield "a"
        try:
            await asyncio.sleep(5)
        except asyncio.CancelledError:
            raise ModelError("The connection was closed.") from None
        yield "b"

    first = House({"m": say})
    execution = await first.start()
    async with first.working():
        await first.until(execution, Kind.LLM_NEW_TOKEN)
    assert not (await first.service.get(ORG, execution.id)).finished
    async with first.beside().working():
        ended_run = await first.end_of(execution)
        assert ended_run.result == "ab"
        is_sound(ended_run, await first.log(ended_run))


# Cancelling


async def cancelled_within_one_call(house: House, execution: domain.Execution) -> None:
    cancelled = await house.service.cancel(ORG, execution.id, "call:1")
    log = await house.log(cancelled)
    is_sound(cancelled, log)
    assert cancelled.state is State.CANCELLED
    assert log[-1].writer == "call:1"
    await asyncio.sleep(20)
    assert await house.log(cancelled) == log
    assert await house.service.get(ORG, execution.id) == cancelled


@in_virtual_time
async def test_a_queued_run_is_cancelled_within_the_call() -> None:
    house = House({"m": words("a")})
    execution = await house.start()
    await cancelled_within_one_call(house, execution)
    async with house.beside().working():
        await asyncio.sleep(5)
        assert len(await house.log(execution)) == 2


@in_virtual_time
async def test_a_run_whose_model_stalls_is_cancelled_within_the_call() -> None:
    async with house_at_work({"m": silence}, pace=Pace(concurrency=1)) as house:
        execution = await house.start()
        await house.until(execution, Kind.LLM_START)
        await cancelled_within_one_call(house, execution)
        # Its place is free again.
        await house.until(await house.start(), Kind.LLM_START)


@in_virtual_time
async def test_a_run_whose_worker_is_dead_is_cancelled_within_the_call() -> None:
    memory = Memory()
    dead = Troubled(memory)
    first = House({"m": words("a", every=1)}, store=dead)
    await first.worker.start()
    serving = asyncio.create_task(first.worker.serve())
    execution = await first.start()
    await first.until(execution, Kind.LLM_START)
    dead.frozen = True
    await cancelled_within_one_call(first.beside(store=MemoryStore(memory, COLLECTIONS)), execution)
    dead.frozen = False
    await ended(serving)
    await first.worker.stop()


@in_virtual_time
async def test_a_run_that_streams_is_cancelled_within_the_call() -> None:
    async with house_at_work({"m": words(*["a"] * 100_000, every=0.001)}) as house:
        execution = await house.start()
        await house.until(execution, Kind.LLM_NEW_TOKEN)
        await cancelled_within_one_call(house, execution)


@in_virtual_time
async def test_a_cancel_that_another_process_made_stops_the_worker_at_its_next_piece() -> None:
    said: list[float] = []

    async def say(prompt: Prompt) -> AsyncGenerator[str | Report, None]:
        while True:
            await asyncio.sleep(1)
            said.append(monotonic())
            yield "a"

    async with house_at_work({"m": say}) as house:
        execution = await house.start()
        await house.until(execution, Kind.LLM_NEW_TOKEN)
        await house.beside().service.cancel(ORG, execution.id, "call:1")
        cancelled = monotonic()
        await asyncio.sleep(30)
        assert said[-1] <= cancelled + 2
        is_sound(await house.service.get(ORG, execution.id), await house.log(execution))


@in_virtual_time
async def test_a_cancel_that_nobody_told_of_stops_a_silent_model_within_a_sweep() -> None:
    let_go: list[float] = []

    async def says(prompt: Prompt) -> AsyncGenerator[str | Report, None]:
        try:
            await asyncio.Event().wait()
            yield ""
        finally:
            let_go.append(monotonic())

    async with house_at_work({"m": says}) as house:
        execution = await house.start()
        await house.until(execution, Kind.LLM_START)
        await asyncio.sleep(5.1)
        cancelled = monotonic()
        await house.beside().service.cancel(ORG, execution.id, "call:1")
        await asyncio.sleep(2)
        assert len(let_go) == 1
        assert let_go[0] - cancelled <= Pace().sweep_every
        is_sound(await house.service.get(ORG, execution.id), await house.log(execution))


@in_virtual_time
async def test_a_run_that_is_told_to_stop_for_nothing_goes_on() -> None:
    async with house_at_work({"m": words(*"abcd", every=1)}) as house:
        execution = await house.start()
        for _ in range(40):
            await asyncio.sleep(0.1)
            await house.wakeups.publish(stop_channel(ORG, execution.id))
        ended_run = await house.end_of(execution)
        log = await house.log(execution)
    is_sound(ended_run, log)
    assert ended_run.state is State.SUCCEEDED
    assert [event.kind for event in log].count(Kind.LLM_START) == 1


@in_virtual_time
async def test_cancelling_twice_answers_the_same_and_a_finished_run_is_refused() -> None:
    async with house_at_work({"m": words("a")}) as house:
        finished = await house.end_of(await house.start())
        with pytest.raises(DomainError) as caught:
            await house.service.cancel(ORG, finished.id, "call:1")
        assert caught.value.reason == Reason.REASON_EXECUTION_FINISHED
        with pytest.raises(DomainError) as caught:
            await house.service.cancel(ORG, "exec_none", "call:1")
        assert caught.value.reason == Reason.REASON_EXECUTION_NOT_FOUND
    waiting = House({"m": words("a")})
    execution = await waiting.start()
    first = await waiting.service.cancel(ORG, execution.id, "call:1")
    assert await waiting.service.cancel(ORG, execution.id, "call:2") == first


@in_virtual_time
async def test_many_who_cancel_at_once_end_the_run_once() -> None:
    async with house_at_work({"m": words(*["a"] * 1000, every=0.01)}) as house:
        execution = await house.start()
        await house.until(execution, Kind.LLM_NEW_TOKEN)
        answers: Sequence[domain.Execution] = await asyncio.gather(
            *(house.service.cancel(ORG, execution.id, f"call:{number}") for number in range(10))
        )
        assert len({answer.version for answer in answers}) == 1
        is_sound(answers[0], await house.log(execution))


@pytest.mark.parametrize(("summary", "log"), [("1", "2"), ("2", "1")])
@in_virtual_time
async def test_a_run_goes_on_whose_summary_and_log_name_two_workers_that_live(
    summary: str, log: str
) -> None:
    # A begin that came late got the summary and not the log, and whoever has the log let go of it.
    house = House({"m": words("a")})
    run = await house.start()
    claimed, events = domain.claim(run, 1, f"worker_{log}_1", 0, clock())
    await house.executions.append(ORG, run.id, 1, events)
    late = replace(claimed, owner=f"worker_{summary}_1", update_time=claimed.update_time + 1)
    await house.executions.save(late)
    async with house.working(), house.beside().working():
        is_sound(await house.end_of(run), await house.log(run))
