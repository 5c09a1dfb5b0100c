"""Whose turn it is among organisations, priorities and workers."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncGenerator, Mapping
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.execution import domain
from services.execution.domain import Execution, Filter, Kind, State, Turn, Turns, Waiting
from services.execution.ports import Prompt, Report
from services.execution.stores import COLLECTIONS, EXECUTIONS
from services.execution.usecases.executions import Terms
from services.execution.usecases.worker import Pace
from services.kit.errors import DomainError, Reason
from services.kit.storage.ports import Query
from services.kit.tasks import ended
from tests.fakes.house import ORG, House, house_at_work, is_sound, words
from tests.fakes.memory import Memory, MemoryStore
from tests.fakes.virtual import in_virtual_time, monotonic


def turns(weights: Mapping[str, float] | None = None, limit: int = 1_000_000) -> Turns:
    given_weights = weights or {}
    return Turns(lambda org: given_weights.get(org, 1.0), lambda _: limit)


def queue(line: Turns, org: str, count: int, priority: int = 3) -> None:
    for number in range(count):
        line.add(Waiting(org, priority, f"{org}{priority}{number:06}"))


def take(line: Turns, count: int) -> list[Turn]:
    taken = [line.next() for _ in range(count)]
    return [turn for turn in taken if turn is not None]


def test_the_runs_of_one_organisation_begin_in_their_order() -> None:
    line = turns()
    queue(line, "a", 5)
    assert [turn.waiting.id for turn in take(line, 9)] == [f"a3{number:06}" for number in range(5)]
    assert len(line) == 0


def test_the_more_urgent_begin_first_and_equals_in_their_order() -> None:
    line = turns()
    for priority in (3, 5, 1, 3, 1):
        queue(line, "a", 2, priority)
    assert [turn.waiting.priority for turn in take(line, 9)] == [1, 1, 3, 3, 5, 5]


def test_the_urgency_of_one_organisation_is_not_that_of_another() -> None:
    line = turns()
    queue(line, "a", 10, priority=1)
    queue(line, "b", 10, priority=5)
    assert Counter(turn.waiting.org for turn in take(line, 10)) == {"a": 5, "b": 5}


def test_organisations_take_turns_as_often_as_their_weight() -> None:
    line = turns({"a": 1, "b": 2, "c": 5})
    for org in "abc":
        queue(line, org, 1000)
    taken = [turn.waiting.org for turn in take(line, 800)]
    assert Counter(taken) == {"a": 100, "b": 200, "c": 500}
    # Not in blocks: nobody waits for longer than a round.
    for org, most in (("a", 9), ("b", 5), ("c", 3)):
        places = [place for place, one in enumerate(taken) if one == org]
        assert max(later - earlier for earlier, later in pairwise(places)) <= most


def test_a_long_queue_delays_another_organisation_by_no_more_than_one_turn() -> None:
    line = turns()
    queue(line, "a", 10_000)
    take(line, 5000)
    queue(line, "b", 1)
    assert [turn.waiting.org for turn in take(line, 2)][:1] == ["b"]


def test_who_was_away_gets_no_turns_it_did_not_need() -> None:
    line = turns()
    queue(line, "b", 1)
    queue(line, "a", 1000)
    take(line, 500)
    queue(line, "b", 100)
    assert Counter(turn.waiting.org for turn in take(line, 100)) == {"a": 50, "b": 50}


def test_an_organisation_has_no_more_slots_than_its_limit() -> None:
    line = turns(limit=2)
    queue(line, "a", 5)
    first, second = take(line, 5)
    assert {first.slot, second.slot} == {0, 1}
    line.end(first)
    (third,) = take(line, 5)
    assert third.slot == first.slot


def test_slots_of_other_processes_are_left_alone_as_far_as_they_are_known() -> None:
    line = turns(limit=3)
    queue(line, "a", 5)
    line.observe([("a", 0), ("a", 1), ("b", 2)])
    (only,) = take(line, 5)
    assert only.slot == 2
    line.observe([])
    assert len(take(line, 5)) == 2


def test_a_run_whose_slot_was_taken_has_its_place_and_turn_again() -> None:
    line = turns(limit=2)
    queue(line, "a", 2)
    queue(line, "b", 2)
    (turn,) = take(line, 1)
    line.give_back(turn)
    (again,) = take(line, 1)
    assert again.waiting == turn.waiting
    assert again.slot == 1


def test_a_turn_that_another_process_took_is_not_charged() -> None:
    line = turns()
    queue(line, "a", 10)
    queue(line, "b", 10)
    for turn in take(line, 4):
        if turn.waiting.org == "a":
            line.waste(turn)
        else:
            line.end(turn)
    assert Counter(turn.waiting.org for turn in take(line, 6)) == {"a": 4, "b": 2}


def test_what_goes_on_comes_before_what_waits_and_keeps_its_slot() -> None:
    line = turns(limit=1)
    queue(line, "a", 1)
    line.resume(Waiting("a", 3, "x"), 0)
    line.resume(Waiting("a", 3, "x"), 0)
    (turn,) = take(line, 5)
    assert turn == Turn(Waiting("a", 3, "x"), 0, resumed=True)
    line.end(turn)
    (turn,) = take(line, 5)
    assert turn.waiting.id == "a3000000"


def test_what_goes_on_does_not_wait_as_well() -> None:
    line = turns(limit=4)
    queue(line, "a", 2)
    line.resume(Waiting("a", 3, "a3000000"), 2)
    assert [(turn.waiting.id, turn.slot) for turn in take(line, 9)] == [
        ("a3000000", 2),
        ("a3000001", 0),
    ]


def test_nothing_is_remembered_of_those_who_came_and_went() -> None:
    line = turns()
    for number in range(1000):
        queue(line, f"org{number}", 1)
    for turn in take(line, 1000):
        line.end(turn)
    assert (line._passed, line._heap, line._mine, line._added) == ({}, [], {}, {})


def test_places_count_from_one_in_the_order_of_turns() -> None:
    line = turns()
    queue(line, "a", 3)
    queue(line, "b", 1)
    line.add(Waiting("a", 1, "urgent"))
    assert line.position(Waiting("a", 1, "urgent")) == 1
    assert line.position(Waiting("a", 3, "a3000002")) == 4
    assert line.position(Waiting("b", 3, "b3000000")) == 1
    assert line.position(Waiting("b", 3, "nobody")) is None
    assert dict(line.places())[Waiting("a", 3, "a3000000")] == 2


def test_what_the_store_does_not_know_to_wait_is_forgotten_unless_it_is_newer() -> None:
    line = turns()
    queue(line, "a", 3)
    mark = line.mark()
    line.add(Waiting("a", 3, "new"))
    line.forget([Waiting("a", 3, "a3000001")], mark)
    assert [turn.waiting.id for turn in take(line, 9)] == ["a3000001", "new"]


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_no_slot_is_given_twice_and_none_is_lost(data: st.DataObject) -> None:
    line = turns({"b": 3}, limit=3)
    held: dict[tuple[str, int], Turn] = {}
    numbers = iter(range(10_000))
    for action in data.draw(st.lists(st.sampled_from(["add", "take", "end", "lost"]), max_size=60)):
        if action == "add":
            org = data.draw(st.sampled_from("ab"))
            line.add(Waiting(org, data.draw(st.integers(1, 5)), f"{next(numbers):06}"))
        elif action == "take":
            turn = line.next()
            if turn is not None:
                assert turn.slot is not None
                assert 0 <= turn.slot < 3
                key = (turn.waiting.org, turn.slot)
                assert key not in held
                held[key] = turn
        elif held:
            turn = held.pop(data.draw(st.sampled_from(sorted(held))))
            if action == "end":
                line.end(turn)
            else:
                line.give_back(turn)
                line.observe([])
    for turn in held.values():
        line.end(turn)
    queue(line, "a", 9)
    queue(line, "b", 9)
    taken = take(line, 20)
    assert Counter(turn.waiting.org for turn in taken) == {"a": 3, "b": 3}


# The same, through workers and a store


class Meter:
    """Notes how many runs of each organisation go on at a time, and in which order they began."""

    def __init__(self, seconds: float = 1.0) -> None:
        self._seconds = seconds
        self.now: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self.most_in_all = 0
        self.order: list[str] = []

    async def __call__(self, prompt: Prompt) -> AsyncGenerator[str | Report, None]:
        org = prompt.text.split()[0]
        self.order.append(org)
        self.now[org] += 1
        self.most[org] = max(self.most[org], self.now[org])
        self.most_in_all = max(self.most_in_all, self.now.total())
        try:
            await asyncio.sleep(self._seconds)
            yield prompt.text
        finally:
            self.now[org] -= 1


async def submit(house: House, org: str, count: int, **asked: object) -> list[Execution]:
    return [await house.start(f"{org} {number}", org, **asked) for number in range(count)]


@in_virtual_time
async def test_three_organisations_share_ten_slots_by_their_weights() -> None:
    weights = {"a": 1.0, "b": 2.0, "c": 2.0}
    meter = Meter()
    async with house_at_work({"m": meter}, pace=Pace(concurrency=10), weights=weights) as house:
        runs = [run for org in "abc" for run in await submit(house, org, 200)]
        for run in runs:
            is_sound(await house.end_of(run, within=1000), await house.log(run))
    assert meter.most_in_all == 10
    # All have work until the first has begun its last.
    last = max(meter.order.index("a"), 0)
    while Counter(meter.order[: last + 1])["b"] < 200:
        last += 1
    shares = Counter(meter.order[:last])
    for org, weight in weights.items():
        assert shares[org] / last == pytest.approx(weight / 5, rel=0.1)


@in_virtual_time
async def test_two_workers_on_one_store_share_by_weight_and_keep_every_limit() -> None:
    weights = {"a": 1.0, "b": 2.0, "c": 2.0}
    meter = Meter()
    memory = Memory()
    one = House(
        {"m": meter},
        store=MemoryStore(memory, COLLECTIONS),
        pace=Pace(concurrency=5),
        weights=weights,
        org_concurrency=3,
    )
    two = one.beside(store=MemoryStore(memory, COLLECTIONS))
    async with one.working(), two.working():
        runs = [run for org in "abc" for run in await submit(one, org, 50)]
        runs += [run for org in "abc" for run in await submit(two, org, 50)]
        for run in runs:
            is_sound(await one.end_of(run, within=2000), await one.log(run))
    assert set(meter.most.values()) == {3}
    assert meter.most_in_all <= 9
    assert Counter(meter.order) == {"a": 100, "b": 100, "c": 100}


@in_virtual_time
async def test_the_limit_of_an_organisation_holds_while_workers_die_and_no_slot_is_lost() -> None:
    meter = Meter(0.7)
    memory = Memory()
    house = House(
        {"m": meter},
        store=MemoryStore(memory, COLLECTIONS),
        pace=Pace(concurrency=8),
        org_concurrency=4,
    )
    runs = await submit(house, "a", 100)
    for generation in range(5):
        worker = house.beside(store=MemoryStore(memory, COLLECTIONS), prefix=str(generation + 2))
        await worker.worker.start()
        serving = asyncio.create_task(worker.worker.serve())
        await asyncio.sleep(3.3 + generation)
        # It dies: its runs go on in the store, and nobody writes for it any more.
        await ended(serving)
        worker.store._closed = True  # type: ignore[attr-defined]
        for going_on in list(worker.worker._active.values()):
            assert going_on._task is not None
            going_on._task.cancel()
        await asyncio.sleep(2)
        meter.now.clear()
    async with house.working():
        for run in runs:
            is_sound(await house.end_of(run, within=2000), await house.log(run))
        assert meter.most["a"] == 4
        # All four are there again.
        meter.most.clear()
        for run in await submit(house, "a", 12):
            await house.end_of(run)
        assert meter.most["a"] == 4


@in_virtual_time
async def test_a_late_organisation_has_the_next_turn_even_in_another_process() -> None:
    meter = Meter()
    memory = Memory()
    busy = House({"m": meter}, store=MemoryStore(memory, COLLECTIONS), pace=Pace(concurrency=2))
    other = busy.beside(store=MemoryStore(memory, COLLECTIONS), pace=Pace(concurrency=0))
    async with busy.working():
        await submit(busy, "a", 300)
        await asyncio.sleep(10)
        (late,) = await submit(other, "b", 1)
        began = monotonic()
        await busy.end_of(late)
        # A sweep until it is seen, a turn until a slot is free, and its own second.
        assert monotonic() - began <= 3.5


@in_virtual_time
async def test_the_urgent_run_of_a_full_queue_begins_next() -> None:
    meter = Meter()
    async with house_at_work({"m": meter}, pace=Pace(concurrency=1)) as house:
        await submit(house, "a", 50)
        (urgent,) = await submit(house, "a", 1, priority=1)
        begun = monotonic()
        await house.end_of(urgent)
        assert monotonic() - begun <= 2.1


@in_virtual_time
async def test_a_run_that_waits_is_told_its_place_and_again_when_it_has_halved() -> None:
    async with house_at_work({"m": Meter()}, pace=Pace(concurrency=1)) as house:
        runs = await submit(house, "a", 30)
        last = runs[-1]
        await asyncio.sleep(0.1)
        assert (await house.service.get("a", last.id)).position == 29
        assert (await house.service.get("a", runs[0].id)).position is None
        await house.end_of(last)
        told = [
            json.loads(event.payload)["position"]
            for event in await house.log(last)
            if event.kind == Kind.JOB_QUEUED
        ]
        assert told[0] >= 28
        assert all(2 * later <= earlier for earlier, later in pairwise(told))
        assert told[-1] == 1
        is_sound(await house.service.get("a", last.id), await house.log(last))


@in_virtual_time
async def test_a_run_that_begins_at_once_is_told_no_place() -> None:
    async with house_at_work({"m": words("a")}) as house:
        run = await house.end_of(await house.start())
        assert Kind.JOB_QUEUED not in [event.kind for event in await house.log(run)]


@in_virtual_time
async def test_two_processes_tell_a_place_once() -> None:
    memory = Memory()
    one = House({"m": words("a")}, store=MemoryStore(memory, COLLECTIONS), pace=Pace(concurrency=0))
    two = one.beside(store=MemoryStore(memory, COLLECTIONS))
    async with one.working(), two.working():
        run = await one.start()
        await asyncio.sleep(10)
        assert [event.kind for event in await one.log(run)] == [Kind.JOB_STARTED, Kind.JOB_QUEUED]


@in_virtual_time
async def test_a_run_that_was_told_its_place_can_be_cancelled() -> None:
    async with house_at_work({"m": words("a")}, pace=Pace(concurrency=0)) as house:
        run = await house.start()
        await asyncio.sleep(3)
        cancelled = await house.service.cancel(ORG, run.id, "call:1")
        assert cancelled.state is State.CANCELLED
        assert cancelled.position is None
        is_sound(cancelled, await house.log(cancelled))


@in_virtual_time
async def test_a_full_queue_refuses_more_and_says_when_to_come_back() -> None:
    memory = Memory()
    terms = Terms(most_waiting=3)
    one = House({"m": words("a")}, store=MemoryStore(memory, COLLECTIONS), terms=terms)
    two = one.beside(store=MemoryStore(memory, COLLECTIONS))
    outcomes = await asyncio.gather(
        *(house.start(org=org) for house in (one, two) for org in "abcd"), return_exceptions=True
    )
    refused = [one for one in outcomes if isinstance(one, DomainError)]
    assert len(refused) == 5
    assert {error.reason for error in refused} == {Reason.REASON_QUEUE_FULL}
    assert all(error.retry_after for error in refused)
    waiting = await one.store.query(Query(EXECUTIONS, None, equal={"state": "QUEUED"}))
    assert len(waiting) == 3


@in_virtual_time
async def test_a_repeated_start_is_answered_however_full_the_queue_is() -> None:
    house = House({"m": words("a")}, terms=Terms(most_waiting=1))
    run = await house.start(request_id="r")
    assert await house.start(request_id="r") == run
    with pytest.raises(DomainError):
        await house.start(request_id="s")


@in_virtual_time
async def test_a_list_shows_the_places_of_what_waits() -> None:
    async with house_at_work({"m": Meter()}, pace=Pace(concurrency=1)) as house:
        runs = await submit(house, "a", 3)
        await asyncio.sleep(0.1)
        found = await house.service.list("a", Filter(), None, 10)
        assert [(one.id, one.position) for one in found] == [
            (runs[2].id, 2),
            (runs[1].id, 1),
            (runs[0].id, None),
        ]


def test_a_place_is_an_event_that_says_so() -> None:
    (event,) = domain.place(1, 7, "w1", 100)
    assert (event.sequence, event.kind) == (2, "job_queued")
    assert json.loads(event.payload)["position"] == 7
    assert domain.told_place(event) == 7
