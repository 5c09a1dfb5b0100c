"""Runs in conversations: in before they run, one at a time, and told of before their end is."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from services.execution import domain
from services.execution.domain import (
    Agent,
    ContextMode,
    Errand,
    Execution,
    Filter,
    Kind,
    ModelError,
    Placement,
    State,
)
from services.execution.ports import Prompt, Report
from services.execution.stores import COLLECTIONS
from services.execution.usecases.errands import Errands
from services.execution.usecases.retention import Retention
from services.execution.usecases.watches import Watches
from services.execution.usecases.worker import Pace
from services.kit.errors import DomainError, Reason
from tests.fakes.house import ORG, House, house_at_work, is_sound, silence, words
from tests.fakes.memory import Memory, MemoryStore
from tests.fakes.turns import FakeTurns, Outage
from tests.fakes.virtual import EPOCH, clock, in_virtual_time, monotonic

SAYS = {"m": words("a", "b", every=0.2)}


def reason(caught: pytest.ExceptionInfo[DomainError]) -> str:
    return Reason.Name(caught.value.reason).removeprefix("REASON_")


def kept(turns: FakeTurns, id_: str = "c") -> list[tuple[str, str]]:
    """Content and status of what a conversation has."""
    return [(one.content, one.status) for one in turns.conversation(id_).messages]


async def kinds(house: House, run: Execution) -> list[str]:
    return [event.kind for event in await house.log(run)]


async def settled(house: House, run: Execution) -> Execution:
    """The run, once nothing is left to be done for it."""
    async with asyncio.timeout(100):
        while (found := await house.service.get(ORG, run.id)).errand or not found.finished:
            await asyncio.sleep(0.1)
    return found


@in_virtual_time
async def test_a_run_in_a_conversation_leaves_its_message_and_its_answer_there() -> None:
    turns = FakeTurns()
    async with house_at_work(SAYS, conversations=turns) as house:
        run = await house.start("Hello", conversation_id="c", reply_to="m1", author="key:k")
        # What StartExecution answers is there to be seen.
        assert kept(turns) == [("Hello", "completed"), ("", "pending")]
        assert run.talk is not None
        assert (run.talk.message_id, run.talk.answer_id) == (
            f"{run.id}.message",
            f"{run.id}.answer",
        )
        assert (run.talk.reply_to, run.talk.author) == ("m1", "key:k")
        ended = await house.end_of(run)
        assert (ended.state, ended.result) == (State.SUCCEEDED, "ab")
        assert kept(turns) == [("Hello", "completed"), ("ab", "completed")]
        assert turns.conversation("c").turns == []
        is_sound(ended, await house.log(run))
        assert (await kinds(house, run))[-2:] == [Kind.RUN_ENDING, Kind.RESULT]
        told = turns.runs[run.id]
        assert (told.agent_id, told.input, told.duration) == ("default", "Hello", 400_000)


@in_virtual_time
async def test_an_answer_is_complete_before_the_end_is_seen() -> None:
    turns = FakeTurns()
    seen: list[str] = []

    async def slow(what: str, answered: bool) -> None:
        if what == "fill" and not answered:
            seen.extend(await kinds(house, run))
            await asyncio.sleep(1.5)

    turns.trouble = slow
    async with house_at_work(SAYS, conversations=turns) as house:
        run = await house.start(conversation_id="c")
        await house.end_of(run)
        assert kept(turns)[1] == ("ab", "completed")
        assert Kind.RUN_ENDING in seen
        assert Kind.RESULT not in seen


@in_virtual_time
async def test_a_run_of_neither_asks_nobody() -> None:
    turns = FakeTurns()
    async with house_at_work(SAYS, conversations=turns) as house:
        run = await house.end_of(await house.start())
        assert Kind.RUN_ENDING not in await kinds(house, run)
    assert not turns.asked


@in_virtual_time
async def test_a_failed_run_says_so_in_its_conversation_before_it_ends() -> None:
    turns = FakeTurns()
    async with house_at_work({"m": silence}, conversations=turns) as house:
        run = await house.start(conversation_id="c", timeout_ms=1000)
        ended = await house.end_of(run)
        assert ended.failure is not None
        assert kept(turns)[1] == ("", "failed")
        told = turns.runs[run.id]
        assert (told.error_reason, told.error_message) == (
            "EXECUTION_TIMEOUT",
            ended.failure.message,
        )
        is_sound(ended, await house.log(run))


async def broken_off(prompt: Prompt) -> AsyncGenerator[str | Report, None]:
    """A model that fails in the middle, each time after another word, and at last before any."""
    yield {1: "once ", 2: "upon "}.get(prompt.attempt, "")
    await asyncio.sleep(0.2)
    raise ModelError("It broke.", Reason.REASON_MODEL_OVERLOADED)


async def faulty(prompt: Prompt) -> AsyncGenerator[str | Report, None]:
    """A model whose provider has a defect."""
    yield "half"
    await asyncio.sleep(0.2)
    raise ValueError


async def refusing(prompt: Prompt) -> AsyncGenerator[str | Report, None]:
    """A model whose provider stops it."""
    yield "half"
    await asyncio.sleep(0.2)
    raise ModelError("No.", Reason.REASON_MODEL_CONTENT_REFUSED)


@in_virtual_time
async def test_what_was_said_before_a_run_was_cut_off_stays_in_its_conversation() -> None:
    turns = FakeTurns()
    says = {
        "m": words("a", "b", every=0.4),
        "broken": broken_off,
        "defect": faulty,
        "refused": refusing,
    }
    async with house_at_work(says, conversations=turns) as house:
        late = await house.start(conversation_id="late", timeout_ms=500)
        broken = await house.start(conversation_id="broken", model="broken")
        defect = await house.start(conversation_id="defect", model="defect")
        refused = await house.start(conversation_id="refused", model="refused")
        unwanted = await house.start(conversation_id="unwanted")
        await house.until(unwanted, Kind.LLM_NEW_TOKEN)
        await house.service.cancel(ORG, unwanted.id, "caller")
        for run, said, status in (
            (late, "a", "failed"),
            (broken, "upon ", "failed"),
            (defect, "half", "failed"),
            (refused, "", "failed"),
            (unwanted, "a", "cancelled"),
        ):
            ended = await house.end_of(run)
            assert kept(turns, run.order.conversation_id)[1] == (said, status)
            assert ended.result == ""
            is_sound(ended, await house.log(run))


# Starting


@pytest.mark.parametrize(
    ("asked", "refused"),
    [
        ({"conversation_id": "nowhere", "agent_id": "default"}, "CONVERSATION_NOT_FOUND"),
        ({"conversation_id": "nowhere"}, "CONVERSATION_NOT_FOUND"),
        ({"instance_id": "nobody"}, "INSTANCE_NOT_FOUND"),
        ({"instance_id": "i", "agent_id": "other"}, "INVALID_REQUEST"),
    ],
)
@in_virtual_time
async def test_a_run_that_is_refused_is_no_more(asked: dict[str, str], refused: str) -> None:
    turns = FakeTurns(instances={"i": Placement("default", "i")})
    house = House(SAYS, conversations=turns)
    with pytest.raises(DomainError) as caught:
        await house.start(request_id="r", **asked)
    assert reason(caught) == refused
    assert await house.service.list(ORG, Filter(), None, 10) == []
    assert await house.service.version(ORG, (await house.start(request_id="r")).id) == 1


@in_virtual_time
async def test_a_run_that_would_have_to_wait_may_be_refused() -> None:
    turns = FakeTurns()
    house = House(SAYS, conversations=turns)
    first = await house.start(conversation_id="c")
    with pytest.raises(DomainError) as caught:
        await house.start(conversation_id="c", busy_policy="reject")
    assert reason(caught) == "CONVERSATION_BUSY"
    assert caught.value.metadata == {"execution_id": first.id}
    assert [run.id for run in await house.service.list(ORG, Filter(), None, 10)] == [first.id]
    assert len(kept(turns)) == 2


@pytest.mark.parametrize("lost", [False, True])
@in_virtual_time
async def test_while_conversations_is_away_nothing_is_accepted_and_nothing_stays(
    lost: bool,
) -> None:
    outage = Outage(frozenset({"append"}), lost=lost)
    turns = FakeTurns(trouble=outage)
    async with house_at_work(SAYS, conversations=turns) as house:
        with pytest.raises(DomainError) as caught:
            await house.start(conversation_id="c", agent_id="default", request_id="r")
        assert reason(caught) == "SERVICE_UNAVAILABLE"
        assert caught.value.retry_after is not None
        assert await house.service.list(ORG, Filter(), None, 10) == []
        outage.over = True
        # Nobody knows whether the message was added; now nobody can.
        again = await house.start("Again", conversation_id="c", request_id="r")
        ended = await house.end_of(again)
        await asyncio.sleep(5)
        assert kept(turns) == [("Again", "completed"), (ended.result, "completed")]
        assert [run.id for run in await house.service.list(ORG, Filter(), None, 10)] == [again.id]
        assert len(turns.withdrawn) == 1
        for (log, *_), entries in house.store._memory.logs.items():  # type: ignore[attr-defined]
            assert (log, len(entries)) == ("events", len(await house.log(again)))


@in_virtual_time
async def test_pages_of_runs_are_filled_up_past_those_that_were_taken_back() -> None:
    turns = FakeTurns(trouble=Outage(frozenset({"append"})))
    house = House(SAYS, conversations=turns)
    ids = []
    for number in range(6):
        if number % 2:
            with suppress(DomainError):
                await house.start(conversation_id="c", agent_id="default")
        else:
            ids.append((await house.start()).id)
    page = await house.service.list(ORG, Filter(), None, 2)
    assert [run.id for run in page] == ids[:0:-1]
    rest = await house.service.list(ORG, Filter(), (page[-1].create_time, page[-1].id), 2)
    assert [run.id for run in rest] == ids[:1]


async def hang(gate: asyncio.Event, after: bool, what: str, answered: bool) -> None:
    """Hang for ever when the first message is to be added, or has been."""
    if what == "append" and answered is after and not gate.is_set():
        gate.set()
        await asyncio.Event().wait()


@in_virtual_time
async def test_a_run_left_held_by_a_crash_is_seen_and_begins_once_its_message_is_there() -> None:
    turns = FakeTurns()
    memory = Memory()
    crashed = House(SAYS, store=MemoryStore(memory, COLLECTIONS), conversations=turns)
    for stop_after in (False, True):
        gate = asyncio.Event()
        turns.trouble = partial(hang, gate, stop_after)
        starting = asyncio.create_task(crashed.start(f"{stop_after}", conversation_id="c"))
        await gate.wait()
        starting.cancel()
        await asyncio.wait([starting])
        turns.trouble = None
    held = await crashed.service.list(ORG, Filter(), None, 10)
    assert [run.errand for run in held] == [Errand.APPEND] * 2
    assert (await crashed.service.get(ORG, held[0].id)).state is State.QUEUED
    full = crashed.beside(conversations=turns, pace=Pace(concurrency=0))
    async with full.working():
        await asyncio.sleep(2)
        assert len(full.turns) == 0
    other = House(SAYS, store=MemoryStore(memory, COLLECTIONS), conversations=turns, prefix="2")
    async with other.working():
        await asyncio.sleep(5)
        # Whoever holds it may still be about to do it.
        assert {run.errand for run in await other.service.list(ORG, Filter(), None, 10)} == {
            Errand.APPEND
        }
        for run in held:
            is_sound(await other.end_of(run), await other.log(run))
    assert sorted(kept(turns)) == sorted(
        [("False", "completed"), ("True", "completed"), ("ab", "completed"), ("ab", "completed")]
    )


@in_virtual_time
async def test_a_repeated_request_goes_on_with_what_the_first_left() -> None:
    turns = FakeTurns()
    house = House(SAYS, conversations=turns)
    gate = asyncio.Event()

    async def slow(what: str, answered: bool) -> None:
        if what == "append" and not answered and not gate.is_set():
            gate.set()
            await asyncio.sleep(1)

    turns.trouble = slow
    first = asyncio.create_task(house.start(conversation_id="c", request_id="r"))
    await gate.wait()
    second = await house.start(conversation_id="c", request_id="r")
    assert (await first).id == second.id
    assert await house.start(conversation_id="c", request_id="r") == second
    assert len(kept(turns)) == 2


@in_virtual_time
async def test_a_run_refused_while_others_try_the_same_is_taken_back_everywhere() -> None:
    turns = FakeTurns()
    house = House(SAYS, conversations=turns)
    gate = asyncio.Event()

    async def refuse_late(what: str, answered: bool) -> None:
        if what == "append" and not answered and not gate.is_set():
            gate.set()
            await asyncio.sleep(1)
        if what == "append":
            raise DomainError(Reason.REASON_CONVERSATION_BUSY, "Busy by then.")

    turns.trouble = refuse_late
    first = asyncio.create_task(house.start(conversation_id="c", request_id="r"))
    await gate.wait()
    held = (await house.service.list(ORG, Filter(), None, 10))[0]
    turns.trouble = Outage(frozenset({"append"}), lost=True)
    with pytest.raises(DomainError):
        await house.beside().start(conversation_id="c", request_id="r")
    turns.trouble = refuse_late
    with pytest.raises(DomainError) as caught:
        await first
    assert reason(caught) == "CONVERSATION_BUSY"
    turns.trouble = None
    await house.errands.sweep()
    assert kept(turns) == []
    assert held.id in turns.withdrawn


@in_virtual_time
async def test_what_others_may_have_added_is_taken_back_by_whoever_is_refused() -> None:
    turns = FakeTurns()
    house = House(SAYS, conversations=turns)
    gate = asyncio.Event()

    async def slow_then_busy(what: str, answered: bool) -> None:
        if what == "append" and gate.is_set() and not answered:
            raise DomainError(Reason.REASON_CONVERSATION_BUSY, "Busy by then.")
        if what == "append" and answered:
            gate.set()
            await asyncio.sleep(1)

    turns.trouble = slow_then_busy
    first = asyncio.create_task(house.start(conversation_id="c", request_id="r"))
    await gate.wait()
    with pytest.raises(DomainError) as caught:
        await house.beside().start(conversation_id="c", request_id="r")
    assert reason(caught) == "CONVERSATION_BUSY"
    with pytest.raises(DomainError) as caught:
        await first
    assert reason(caught) == "CONVERSATION_BUSY"
    await house.errands.sweep()
    assert kept(turns) == []
    assert turns.conversation("c").turns == []


@in_virtual_time
async def test_a_repeated_request_begins_anew_when_its_first_run_was_taken_back() -> None:
    turns = FakeTurns()
    house = House(SAYS, conversations=turns)
    gate = asyncio.Event()

    async def withdraw_meanwhile(what: str, answered: bool) -> None:
        if what == "append" and not answered and not gate.is_set():
            gate.set()
            await asyncio.sleep(1)

    turns.trouble = withdraw_meanwhile
    first = asyncio.create_task(house.start(conversation_id="c", request_id="r"))
    await gate.wait()
    held = (await house.service.list(ORG, Filter(), None, 10))[0]
    turns.take_back("c", held.id)
    run = await first
    assert run.id != held.id
    assert await house.start(conversation_id="c", request_id="r") == run
    assert kept(turns) == [("Hello", "completed"), ("", "pending")]


# Who runs


@in_virtual_time
async def test_an_instance_says_the_agent_the_conversation_and_the_directory() -> None:
    placed = Placement("writer", "i", "c", cwd="/srv", emoji="🖋", mcp_servers=("files",))
    turns = FakeTurns(instances={"i": placed})
    house = House(SAYS, conversations=turns)
    house.agents.known["writer"] = Agent("writer")
    run = await house.start(instance_id="i")
    order = run.order
    assert (order.agent_id, order.conversation_id, order.instance_id) == ("writer", "c", "i")
    assert order.cwd == "/srv"
    assert order.agent is not None
    assert order.agent.mcp_servers == ("files",)
    elsewhere = await house.start(instance_id="i", conversation_id="d", cwd="/own")
    assert (elsewhere.order.conversation_id, elsewhere.order.cwd) == ("d", "/own")
    apart = await house.start(instance_id="i", apart=True)
    assert (apart.order.conversation_id, apart.errand) == ("", Errand.NONE)


@in_virtual_time
async def test_the_active_agent_answers_messages_that_name_none() -> None:
    turns = FakeTurns(instances={"i": Placement("writer", "i", "other", cwd="/srv")})
    house = House(SAYS, conversations=turns)
    house.agents.known["writer"] = Agent("writer")
    turns.conversation("c").active = Placement("writer")
    turns.conversation("d").active = Placement("writer", "i")
    turns.conversation("e").active = Placement("writer", "gone")
    runs = [await house.start(conversation_id=id_) for id_ in ("c", "d", "e", "f")]
    assert [(run.order.agent_id, run.order.instance_id) for run in runs] == [
        ("writer", ""),
        ("writer", "i"),
        ("writer", ""),
        ("default", ""),
    ]
    assert runs[1].order.conversation_id == "d"


@in_virtual_time
async def test_a_run_of_an_instance_without_a_conversation_is_counted_once() -> None:
    turns = FakeTurns(
        instances={"i": Placement("default", "i")}, trouble=Outage(frozenset({"fill"}), times=2)
    )
    async with house_at_work(SAYS, conversations=turns) as house:
        run = await house.end_of(await house.start(instance_id="i"))
        assert turns.runs.keys() == {run.id}
        assert turns.runs[run.id].instance_id == "i"
        assert "append" not in turns.asked
        cancelled = await house.start(instance_id="i")
        await house.service.cancel(ORG, cancelled.id, "caller")
        assert turns.runs[cancelled.id].status == "cancelled"


@in_virtual_time
async def test_what_a_run_is_told_of_its_instance_is_decided_when_it_is_accepted() -> None:
    placed = Placement("default", "i", task_count=3)
    turns = FakeTurns(instances={"i": placed, "c": replace(placed, conversation_id="c")})
    house = House(SAYS, conversations=turns)
    asked: tuple[tuple[int, dict[str, Any]], ...] = (
        (3, {"instance_id": "i"}),
        (3, {"instance_id": "c", "apart": True}),
        (0, {"instance_id": "c"}),
        (0, {"instance_id": "i", "conversation_id": "d"}),
        (0, {"instance_id": "i", "context_mode": ContextMode.STATELESS}),
    )
    runs = [await house.start(**one) for _, one in asked]
    turns.instances["i"] = replace(placed, task_count=4)
    kept = [await house.service.get(ORG, run.id) for run in runs]
    assert [run.order.earlier_runs for run in kept] == [count for count, _ in asked]
    assert [run.order for run in kept] == [run.order for run in runs]


# One after the other


@in_virtual_time
async def test_runs_of_a_conversation_answer_one_after_the_other_and_are_told_their_places() -> (
    None
):
    turns = FakeTurns()
    async with house_at_work(SAYS, conversations=turns) as house:
        runs = [await house.start(f"{number}", conversation_id="c") for number in range(4)]
        apart = await house.start("apart")
        assert (await house.end_of(apart, within=1)).state is State.SUCCEEDED
        ends = [await house.end_of(run) for run in runs]
        for before, after in itertools.pairwise(ends):
            assert before.end_time is not None
            assert after.start_time is not None
            assert after.start_time >= before.end_time
            # At once, not with the next sweep.
            assert after.start_time - before.end_time < 100_000
        places = [
            [event for event in await house.log(run) if event.kind == Kind.TURN_QUEUED]
            for run in runs
        ]
        assert [len(told) for told in places] == [0, 1, 2, 3]
        assert b'"place":3' in places[3][0].payload
        for run in ends:
            is_sound(run, await house.log(run))
        # Whoever waits asks when there is news, and once a second at most.
        assert turns.asked["place"] < 20


@in_virtual_time
async def test_of_those_that_wait_for_one_another_one_alone_asks_for_its_place() -> None:
    turns = FakeTurns()
    async with house_at_work({"m": silence}, conversations=turns) as house:
        for number in range(10):
            await house.start(f"{number}", conversation_id="c")
        await asyncio.sleep(30)
        assert 20 < turns.asked["place"] < 50


@in_virtual_time
async def test_an_end_while_it_asks_for_its_place_lets_a_run_begin_at_once() -> None:
    turns = FakeTurns()
    async with house_at_work(SAYS, conversations=turns) as house:
        first = await house.start("1", conversation_id="c")
        times: list[float] = []

        async def overtaken(what: str, answered: bool) -> None:
            if what == "place" and answered and not times:
                times.append(monotonic())
                await house.service.cancel(ORG, first.id, "caller")

        turns.trouble = overtaken
        second = await house.end_of(await house.start("2", conversation_id="c"))
        assert second.start_time is not None
        assert second.start_time / 1e6 - EPOCH / 1e6 - times[0] < 0.1


@in_virtual_time
async def test_a_run_begins_within_a_second_when_nobody_hears_of_the_end_before_it() -> None:
    turns = FakeTurns()
    memory = Memory()
    here = House(SAYS, store=MemoryStore(memory, COLLECTIONS), conversations=turns)
    first = await here.start("1", conversation_id="c")
    second = await here.start("2", conversation_id="c")
    async with here.working():
        await here.until(second, Kind.TURN_QUEUED)
        # Ended elsewhere, whose wake-ups are not heard here.
        deaf = here.beside(conversations=turns)
        await deaf.service.cancel(ORG, first.id, "caller")
        ended = await here.end_of(second, within=3)
    assert ended.state is State.SUCCEEDED


@in_virtual_time
async def test_a_queued_run_that_is_cancelled_lets_those_behind_it_move_up() -> None:
    turns = FakeTurns()
    async with house_at_work({"m": words("a", every=5)}, conversations=turns) as house:
        runs = [await house.start(f"{number}", conversation_id="c") for number in range(3)]
        await house.until(runs[2], Kind.TURN_QUEUED)
        await house.service.cancel(ORG, runs[1].id, "caller")
        await asyncio.sleep(1)
        assert b'"place":1' in (await house.log(runs[2]))[-1].payload
        assert (await house.end_of(runs[2])).state is State.SUCCEEDED
    assert [status for _, status in kept(turns)] == ["completed"] * 3 + ["cancelled"] + [
        "completed"
    ] * 2


@in_virtual_time
async def test_a_message_may_interrupt_those_that_answer() -> None:
    turns = FakeTurns()
    async with house_at_work({"m": words("a", every=5)}, conversations=turns) as house:
        first = await house.start("1", conversation_id="c")
        second = await house.start("2", conversation_id="c")
        await house.until(first, Kind.LLM_START)
        third = await house.start("3", conversation_id="c", busy_policy="interrupt")
        assert (await house.service.get(ORG, first.id)).state is State.CANCELLED
        assert (await house.service.get(ORG, second.id)).state is State.CANCELLED
        ended = await house.end_of(third)
        assert ended.end_time is not None
        assert ended.end_time - ended.create_time < 6_000_000
    assert kept(turns) == [
        ("1", "completed"),
        ("", "cancelled"),
        ("2", "completed"),
        ("", "cancelled"),
        ("3", "completed"),
        ("a", "completed"),
    ]


@in_virtual_time
async def test_a_message_may_interrupt_one_that_is_taken_back_meanwhile() -> None:
    turns = FakeTurns()
    house = House(SAYS, conversations=turns)
    gate = asyncio.Event()
    turns.trouble = partial(hang, gate, True)
    starting = asyncio.create_task(house.start("1", conversation_id="c"))
    await gate.wait()
    (held,) = await house.service.list(ORG, Filter(), None, 10)

    async def take_back(what: str, answered: bool) -> None:
        if what == "append" and answered:
            turns.take_back("c", held.id)

    turns.trouble = take_back
    second = await house.beside().start("2", conversation_id="c", busy_policy="interrupt")
    assert second.state is State.QUEUED
    starting.cancel()
    assert turns.conversation("c").turns == [second.id]


@in_virtual_time
async def test_a_run_waits_while_nobody_can_say_whose_turn_it_is() -> None:
    outage = Outage(frozenset({"place"}))
    turns = FakeTurns(trouble=outage)
    async with house_at_work(SAYS, conversations=turns) as house:
        first = await house.start("1", conversation_id="c")
        second = await house.start("2", conversation_id="c")
        await house.end_of(first)
        await asyncio.sleep(20)
        assert (await house.service.get(ORG, second.id)).waiting
        # Others are not held up by it.
        assert (await house.end_of(await house.start("3"), within=2)).state is State.SUCCEEDED
        outage.over = True
        assert (await house.end_of(second, within=3)).state is State.SUCCEEDED


@in_virtual_time
async def test_a_run_whose_turn_is_gone_begins_all_the_same() -> None:
    turns = FakeTurns()
    house = House(SAYS, conversations=turns)
    await house.start("1", conversation_id="c")
    second = await house.start("2", conversation_id="c")
    turns.conversations["c"].turns.clear()
    async with house.working():
        assert (await house.end_of(second)).state is State.SUCCEEDED


# The end


@in_virtual_time
async def test_an_answer_waits_for_its_conversation_as_long_as_it_takes() -> None:
    outage = Outage(frozenset({"fill"}))
    turns = FakeTurns(trouble=outage)
    async with house_at_work(SAYS, conversations=turns) as house:
        run = await house.start(conversation_id="c", timeout_ms=2000)
        await asyncio.sleep(60)
        waiting = await house.service.get(ORG, run.id)
        assert (waiting.state, waiting.owner, waiting.slot) == (State.RUNNING, "", None)
        told = [event for event in await house.log(run) if b"waits for conv" in event.payload]
        assert len(told) == 1
        # What is decided stays so.
        with pytest.raises(DomainError) as caught:
            await house.service.cancel(ORG, run.id, "caller")
        assert reason(caught) == "EXECUTION_FINISHED"
        outage.over = True
        ended = await house.end_of(run, within=2)
        assert (ended.state, ended.result) == (State.SUCCEEDED, "ab")
        assert kept(turns)[1] == ("ab", "completed")
        is_sound(ended, await house.log(run))


@pytest.mark.parametrize("lost", [False, True])
@in_virtual_time
async def test_whoever_goes_on_writes_the_same_answer(lost: bool) -> None:
    outage = Outage(frozenset({"fill"}), lost=lost)
    turns = FakeTurns(trouble=outage)
    memory = Memory()
    says = [words("first", every=0.1), words("second", every=0.1)]
    houses = [
        House({"m": say}, store=MemoryStore(memory, COLLECTIONS), conversations=turns, prefix=name)
        for say, name in zip(says, "12", strict=True)
    ]
    run = await houses[0].start(conversation_id="c")
    async with houses[0].working():
        await houses[0].until(run, Kind.RUN_ENDING)
        await asyncio.sleep(3)
    # Set aside; the other one asks its model nothing.
    async with houses[1].working():
        await asyncio.sleep(3)
        outage.over = True
        ended = await houses[1].end_of(run)
    assert ended.result == "first"
    assert kept(turns)[1] == ("first", "completed")
    log = await houses[1].log(run)
    assert Kind.JOB_RESUMED not in [event.kind for event in log]
    is_sound(ended, log)


@in_virtual_time
async def test_answers_that_wait_for_their_conversations_keep_no_other_run_from_its_turn() -> None:
    outage = Outage(frozenset({"fill"}))
    turns = FakeTurns(trouble=outage)
    pace = Pace(concurrency=2)
    async with (
        house_at_work(SAYS, conversations=turns, pace=pace, org_concurrency=2) as house,
        house.beside(conversations=turns).working(),
    ):
        talking = [await house.start(conversation_id=f"c{number}") for number in range(30)]
        others = [await house.start(f"{number}") for number in range(30)]
        for run in others:
            assert (await house.end_of(run)).state is State.SUCCEEDED
        assert {(await house.service.get(ORG, run.id)).state for run in talking} == {State.RUNNING}
        assert house.worker.running() == 0
        outage.over = True
        for run in talking:
            ended = await house.end_of(run, within=10)
            assert ended.result == "ab"
            is_sound(ended, await house.log(run))
    assert {turns.runs[run.id].status for run in talking} == {"completed"}


@in_virtual_time
async def test_a_worker_that_dies_between_an_answer_and_the_end_is_taken_over() -> None:
    outage = Outage(frozenset({"fill"}))
    turns = FakeTurns(trouble=outage)
    memory = Memory()
    house = House(SAYS, store=MemoryStore(memory, COLLECTIONS), conversations=turns)
    run = await house.start(conversation_id="c")
    async with house.working():
        await house.until(run, Kind.RUN_ENDING)
        await asyncio.sleep(1)
    aside = await house.service.get(ORG, run.id)
    # It came no further than to append the end, as one may where writes are no transaction.
    last = await house.executions.last_event(ORG, run.id)
    assert last is not None
    _, events = domain.conclude(aside, last.sequence, "ab", "", clock())
    await house.executions.append(ORG, run.id, last.sequence, events)
    outage.over = True
    await house.errands.sweep()
    ended = await house.service.get(ORG, run.id)
    assert (ended.state, ended.errand, ended.result) == (State.SUCCEEDED, Errand.NONE, "ab")
    is_sound(ended, await house.log(run))


@in_virtual_time
async def test_a_failure_that_is_decided_is_not_turned_into_an_answer() -> None:
    outage = Outage(frozenset({"fill"}), lost=True)
    turns = FakeTurns(trouble=outage)
    memory = Memory()
    first = House({"m": silence}, store=MemoryStore(memory, COLLECTIONS), conversations=turns)
    run = await first.start(conversation_id="c", timeout_ms=1000)
    async with first.working():
        await first.until(run, Kind.RUN_ENDING)
        await asyncio.sleep(1)
    second = first.beside(says=SAYS, conversations=turns)
    outage.over = True
    async with second.working():
        ended = await second.end_of(run)
    assert ended.state is State.FAILED
    assert ended.failure is not None
    assert ended.failure.reason == "EXECUTION_TIMEOUT"
    assert kept(turns)[1] == ("", "failed")


@in_virtual_time
async def test_a_cancel_is_told_to_the_conversation_before_it_is_seen() -> None:
    turns = FakeTurns()

    async def slow(what: str, answered: bool) -> None:
        if what == "fill":
            await asyncio.sleep(0.5)

    async with house_at_work({"m": silence}, conversations=turns) as house:
        run = await house.start(conversation_id="c")
        await house.until(run, Kind.LLM_START)
        turns.trouble = slow
        seen: list[str] = []

        async def watch() -> None:
            await house.watches.ended(ORG, run.id)
            seen.append(kept(turns)[1][1])

        watching = asyncio.create_task(watch())
        cancelled = await house.service.cancel(ORG, run.id, "caller")
        await watching
        assert (cancelled.state, cancelled.errand) == (State.CANCELLED, Errand.NONE)
        assert seen == ["cancelled"]


@in_virtual_time
async def test_a_cancel_does_not_wait_for_conversations_longer_than_a_moment() -> None:
    outage = Outage(frozenset({"fill"}))
    turns = FakeTurns(trouble=outage)
    async with house_at_work({"m": silence}, conversations=turns) as house:
        run = await house.start(conversation_id="c")
        await house.until(run, Kind.LLM_START)
        cancelled = await house.service.cancel(ORG, run.id, "caller")
        assert (cancelled.state, cancelled.errand) == (State.CANCELLED, Errand.FILL)
        ended = await house.end_of(run, within=3)
        assert kept(turns)[1] == ("", "pending")
        with pytest.raises(DomainError) as caught:
            await house.service.delete(ORG, run.id)
        assert reason(caught) == "EXECUTION_NOT_FINISHED"
        await asyncio.sleep(100)
        old = Retention(house.executions, house.service, keep_seconds=1, clock=clock)
        assert await old.sweep() == 0
        outage.over = True
        ended = await settled(house, run)
        assert kept(turns)[1] == ("", "cancelled")
        is_sound(ended, await house.log(run))
        assert await old.sweep() == 1


@in_virtual_time
async def test_an_end_from_a_clock_that_is_ahead_is_seen_as_soon_as_any_other() -> None:
    turns = FakeTurns(trouble=Outage(frozenset({"fill"})))
    house = House({"m": silence}, conversations=turns)
    behind = Watches(
        house.executions,
        house.wakeups,
        house.metrics,
        clock=lambda: clock() - 3_600_000_000,
    )
    run = await house.start(conversation_id="c")
    await house.service.cancel(ORG, run.id, "caller")
    async with asyncio.timeout(3):
        await behind.ended(ORG, run.id)


@in_virtual_time
async def test_a_cancel_whose_writer_died_between_two_writes_reaches_the_conversation() -> None:
    turns = FakeTurns()
    house = House({"m": silence}, conversations=turns)
    run = await house.start(conversation_id="c")
    last = await house.executions.last_event(ORG, run.id)
    assert last is not None
    _, events = domain.cancel(run, last, "caller", clock())
    await house.executions.append(ORG, run.id, last.sequence, events)
    async with house.working():
        await house.watches.ended(ORG, run.id)
        ended = await settled(house, run)
    assert ended.state is State.CANCELLED
    assert kept(turns)[1] == ("", "cancelled")


@in_virtual_time
async def test_an_end_that_is_decided_in_the_log_alone_cannot_be_cancelled() -> None:
    turns = FakeTurns()
    house = House(SAYS, conversations=turns)
    run = await house.start(conversation_id="c")
    begun, events = domain.claim(run, 1, "worker_9_1", 0, clock())
    begun = await house.executions.claim(begun, 1, events)
    error = domain.timed_out(1000)
    _, ending = domain.put_off(*_failing(begun, events[-1].sequence, error))
    await house.executions.append(ORG, run.id, events[-1].sequence, ending)
    with pytest.raises(DomainError) as caught:
        await house.service.cancel(ORG, run.id, "caller")
    assert reason(caught) == "EXECUTION_FINISHED"
    async with house.working():
        ended = await house.end_of(run)
    assert ended.state is State.FAILED
    assert kept(turns)[1] == ("", "failed")
    is_sound(ended, await house.log(run))


def _failing(run: Execution, head: int, error: DomainError) -> tuple[Execution, list[domain.Event]]:
    return run, domain.fail(run, head, error, "worker_9_1", clock())[1]


@in_virtual_time
async def test_cancelling_a_held_run_leaves_a_cancelled_answer() -> None:
    turns = FakeTurns()
    house = House(SAYS, conversations=turns)
    gate = asyncio.Event()

    async def slow(what: str, answered: bool) -> None:
        if what == "append" and answered and not gate.is_set():
            gate.set()
            await asyncio.sleep(1)

    turns.trouble = slow
    starting = asyncio.create_task(house.start(conversation_id="c"))
    await gate.wait()
    (held,) = await house.service.list(ORG, Filter(), None, 10)
    await house.beside().service.cancel(ORG, held.id, "caller")
    assert (await starting).state is State.CANCELLED
    assert [status for _, status in kept(turns)] == ["completed", "cancelled"]
    assert turns.conversation("c").turns == []


@in_virtual_time
async def test_an_answer_nobody_waits_for_any_more_keeps_no_run_from_its_end() -> None:
    turns = FakeTurns()
    async with house_at_work(SAYS, conversations=turns) as house:
        run = await house.start(conversation_id="c")
        turns.conversations["c"].messages.clear()
        assert (await house.end_of(run)).state is State.SUCCEEDED


@in_virtual_time
async def test_the_sweep_does_not_ask_for_all_while_nobody_answers() -> None:
    turns = FakeTurns(trouble=Outage(frozenset({"fill", "append"})))
    house = House({"m": silence}, conversations=turns)
    turns.trouble = None
    runs = [await house.start(conversation_id=f"c{number}") for number in range(25)]
    turns.trouble = Outage(frozenset({"fill"}))
    for run in runs:
        await house.service.cancel(ORG, run.id, "caller")
    before = turns.asked["fill"]
    sweep = Errands(house.executions, house.talks, house.service, monotonic=monotonic)
    sweeping: Any = asyncio.create_task(sweep.serve())
    await asyncio.sleep(2.5)
    assert turns.asked["fill"] - before == 30
    turns.trouble = None
    await asyncio.sleep(1.5)
    sweeping.cancel()
    assert {turns.runs[run.id].status for run in runs} == {"cancelled"}


@in_virtual_time
async def test_one_that_nobody_ever_answers_for_keeps_no_other_waiting() -> None:
    turns = FakeTurns()
    house = House({"m": silence}, conversations=turns)
    runs = [await house.start(conversation_id=f"c{number}") for number in range(3)]
    turns.trouble = Outage(frozenset({"append"}), lost=True)
    for number in range(2):
        with pytest.raises(DomainError):
            await house.start("taken back", conversation_id=f"d{number}")
    turns.trouble = Outage(frozenset({"fill"}))
    for run in runs:
        await house.service.cancel(ORG, run.id, "caller")
    turns.trouble = Outage(frozenset({"fill", "withdraw"}), times=2)
    await house.errands.sweep()
    assert list(turns.runs) == [runs[2].id]
    assert len(turns.withdrawn) == 2


@in_virtual_time
async def test_many_that_interrupt_one_another_at_once_are_all_taken_in() -> None:
    turns = FakeTurns()

    async def slow(what: str, answered: bool) -> None:
        await asyncio.sleep(0.05)

    turns.trouble = slow
    async with house_at_work({"m": words("a", every=1)}, conversations=turns) as house:
        runs = await asyncio.gather(
            *(
                house.start(f"{number}", conversation_id="c", busy_policy="interrupt")
                for number in range(20)
            )
        )
        ended = [await house.end_of(run) for run in runs]
    assert [run.state for run in ended].count(State.SUCCEEDED) == 1
    assert {run.state for run in ended} == {State.SUCCEEDED, State.CANCELLED}
    assert turns.conversation("c").turns == []
    assert len(kept(turns)) == 40
    # Each once: those of one process wait for one another instead of trying in vain.
    assert turns.asked["append"] == 20
