"""What happens when a model fails: again, another one, or the end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any, TypeAlias

import pytest

from services.execution.domain import (
    Asked,
    CircuitState,
    Execution,
    Kind,
    ModelError,
    Persistence,
    Price,
    State,
    Tolerance,
    Usage,
    Wish,
)
from services.execution.ports import Prompt, Report
from services.execution.stores import COLLECTIONS
from services.execution.usecases.calls import Patience
from services.execution.usecases.executions import Terms
from services.execution.usecases.worker import Pace
from services.kit.errors import DomainError, Reason
from services.kit.storage.ports import Replace, Write, store_unavailable
from services.kit.tasks import ended
from tests.fakes.house import ORG, House, PriceList, Says, Talker, house_at_work, is_sound, words
from tests.fakes.memory import Memory, MemoryStore
from tests.fakes.virtual import in_virtual_time, monotonic

OVERLOADED = Reason.REASON_MODEL_OVERLOADED
LIMITED = Reason.REASON_MODEL_RATE_LIMITED
REJECTED = Reason.REASON_MODEL_CALL_REJECTED


Pieces: TypeAlias = list[str | Report | Exception | float]


def script(*answers: Pieces) -> Says:
    """A model that plays one answer after the other, the last one again and again.

    Numbers are seconds of silence.
    """
    left = list(answers)

    async def say(prompt: Prompt) -> AsyncGenerator[str | Report, None]:
        answer = left.pop(0) if len(left) > 1 else left[0]
        for piece in answer:
            if isinstance(piece, Exception):
                raise piece
            if isinstance(piece, float):
                await asyncio.sleep(piece)
            else:
                yield piece

    return say


def down(reason: Reason.ValueType = OVERLOADED, retry_after: float | None = None) -> ModelError:
    return ModelError("It is down.", reason, retry_after=retry_after)


def named(name: str, says: Mapping[str, Says]) -> Talker:
    """A provider of another name."""
    provider = Talker(says)
    provider.name = name
    provider.models = {id_: replace(one, ai_provider=name) for id_, one in provider.models.items()}
    return provider


async def story(house: House, execution: Execution) -> list[tuple[str, dict[str, Any]]]:
    """The events after the run began."""
    log = await house.log(execution)
    is_sound(await house.service.get(execution.org, execution.id), log)
    return [(event.kind, json.loads(event.payload)) for event in log[2:]]


async def shape(house: House, execution: Execution) -> list[str]:
    """The same, in short: `start 2 model`, `failed 1 REASON`, and the other kinds."""
    short = []
    for kind, payload in await story(house, execution):
        if kind == Kind.LLM_START:
            short.append(f"start {payload['attempt']} {payload['model']}")
        elif kind == Kind.LLM_FAILED:
            short.append(f"failed {payload['attempt']} {payload['reason']}")
        elif kind == Kind.LLM_NEW_TOKEN:
            short.append(payload["chunk"])
        else:
            short.append(kind)
    return short


@in_virtual_time
async def test_a_failed_call_is_made_again_as_the_next_attempt() -> None:
    async with house_at_work({"m": script([down()], [down()], ["fine"])}) as house:
        run = await house.end_of(await house.start())
        assert await shape(house, run) == [
            "start 1 m",
            "failed 1 MODEL_OVERLOADED",
            "start 2 m",
            "failed 2 MODEL_OVERLOADED",
            "start 3 m",
            "fine",
            "on_llm_end",
            "result",
        ]
        assert run.result == "fine"
        # Half a second, then twice that: the chance in these tests leaves pauses whole.
        assert monotonic() == pytest.approx(1.5, abs=0.1)


@in_virtual_time
async def test_what_was_said_before_a_fault_is_shown_and_void() -> None:
    async with house_at_work({"m": script(["half ", 1.0, down()], ["whole"])}) as house:
        run = await house.end_of(await house.start())
        assert await shape(house, run) == [
            "start 1 m",
            "half ",
            "failed 1 MODEL_OVERLOADED",
            "start 2 m",
            "whole",
            "on_llm_end",
            "result",
        ]
        assert run.result == "whole"
        assert run.spend.unreported == 2


@in_virtual_time
async def test_after_the_last_attempt_the_run_fails_with_what_the_model_failed_with() -> None:
    async with house_at_work({"m": script([down()])}) as house:
        run = await house.end_of(await house.start())
        assert (await shape(house, run))[-3:] == [
            "start 3 m",
            "failed 3 MODEL_OVERLOADED",
            "error",
        ]
        assert run.failure is not None
        assert (run.failure.reason, run.failure.message) == ("MODEL_OVERLOADED", "It is down.")
        assert run.spend.unreported == 0


@in_virtual_time
async def test_a_refused_call_is_not_made_again() -> None:
    async with house_at_work({"m": script([down(REJECTED)], ["fine"])}) as house:
        run = await house.end_of(await house.start())
        assert await shape(house, run) == ["start 1 m", "failed 1 MODEL_CALL_REJECTED", "error"]


@in_virtual_time
async def test_a_provider_is_left_alone_for_as_long_as_it_asks() -> None:
    async with house_at_work({"m": script([down(LIMITED, 20.0)], ["fine"])}) as house:
        run = await house.end_of(await house.start())
        assert run.result == "fine"
        assert 20 < monotonic() < 23
        failed = dict(await story(house, run))[Kind.LLM_FAILED]
        assert 20 < float(failed["retry_delay"].removesuffix("s")) < 23


@in_virtual_time
async def test_a_provider_that_asks_for_too_long_a_pause_counts_as_failed() -> None:
    async with house_at_work({"m": script([down(LIMITED, 3600.0)], ["fine"])}) as house:
        run = await house.end_of(await house.start())
        assert run.failure is not None
        assert run.failure.reason == "MODEL_RATE_LIMITED"
        assert monotonic() < 1


@in_virtual_time
async def test_a_pause_that_outlasts_the_run_ends_it_at_once() -> None:
    async with house_at_work({"m": script([down(LIMITED, 20.0)], ["fine"])}) as house:
        run = await house.end_of(await house.start(timeout_ms=10_000))
        assert run.failure is not None
        assert run.failure.reason == "MODEL_RATE_LIMITED"
        assert monotonic() < 1


@in_virtual_time
async def test_a_fallback_answers_when_the_model_failed_before_it_said_anything() -> None:
    says = {"m": script([down()]), "second": script([down(REJECTED)]), "third": words("hello")}
    async with house_at_work(says) as house:
        fallbacks = (Wish(model="second"), Wish(model="third"))
        run = await house.end_of(await house.start(model="m", fallbacks=fallbacks))
        assert await shape(house, run) == [
            "start 1 m",
            "failed 1 MODEL_OVERLOADED",
            "start 2 m",
            "failed 2 MODEL_OVERLOADED",
            "start 3 m",
            "failed 3 MODEL_OVERLOADED",
            "start 4 second",
            "failed 4 MODEL_CALL_REJECTED",
            "start 5 third",
            "hello",
            "on_llm_end",
            "result",
        ]
        assert (run.order.model, run.served_by) == ("m", Wish("fake", "third"))


@in_virtual_time
async def test_no_other_model_goes_on_with_what_one_has_begun_to_say() -> None:
    says = {"m": script(["half", 1.0, down()], [down()]), "second": words("other")}
    async with house_at_work(says) as house:
        run = await house.end_of(await house.start(model="m", fallbacks=(Wish(model="second"),)))
        assert "start 4 second" not in await shape(house, run)
        assert run.failure is not None
        assert run.failure.reason == "MODEL_OVERLOADED"


@in_virtual_time
async def test_what_one_model_refuses_to_say_no_other_is_asked() -> None:
    refused: Pieces = [down(Reason.REASON_MODEL_CONTENT_REFUSED)]
    async with house_at_work({"m": script(refused), "second": words("other")}) as house:
        run = await house.end_of(await house.start(model="m", fallbacks=(Wish(model="second"),)))
        assert run.failure is not None
        assert run.failure.reason == "MODEL_CONTENT_REFUSED"


@in_virtual_time
async def test_a_take_over_counts_as_no_retry_and_keeps_the_count() -> None:
    """Two failures, a crash, and one more try is left: the one after it."""
    memory = Memory()

    async def say(prompt: Prompt) -> AsyncGenerator[str | Report, None]:
        if prompt.attempt == 3:
            await asyncio.Event().wait()
        for _ in ():
            yield ""
        raise down()

    first = House({"m": say}, store=MemoryStore(memory, COLLECTIONS))
    run = await first.start()
    await first.worker.start()
    serving = asyncio.create_task(first.worker.serve())
    second = first.beside(store=MemoryStore(memory, COLLECTIONS))
    async with second.working():
        while "start 3 m" not in [one async for one in _shapes(second, run)]:
            await asyncio.sleep(0.1)
        await ended(serving)
        await first.worker.stop()
        run = await second.end_of(run)
        assert (await shape(second, run))[-5:] == [
            "start 3 m",
            "job_resumed",
            "start 4 m",
            "failed 4 MODEL_OVERLOADED",
            "error",
        ]


async def _shapes(house: House, run: Execution) -> AsyncGenerator[str, None]:
    for event in await house.log(run):
        payload = json.loads(event.payload)
        if event.kind == Kind.LLM_START:
            yield f"start {payload['attempt']} {payload['model']}"


@in_virtual_time
async def test_a_take_over_waits_for_the_rest_of_a_pause() -> None:
    memory = Memory()
    says = {"m": script([down(LIMITED, 30.0)], ["fine"])}
    first = House(says, store=MemoryStore(memory, COLLECTIONS))
    second = first.beside(store=MemoryStore(memory, COLLECTIONS))
    async with first.working():
        run = await first.start()
        await first.until(run, Kind.LLM_FAILED)
        await asyncio.sleep(5)
    async with second.working():
        run = await second.end_of(run)
        assert run.result == "fine"
        assert 30 < monotonic() < 34


# Silence


@pytest.mark.parametrize(
    ("answer", "seconds", "sentence"),
    [
        ([3600.0], 120, "did not begin its answer within 120 s"),
        (["a", 3600.0], 60, "said nothing more for 60 s"),
        (["", 3600.0], 60, "said nothing more for 60 s"),
        ([piece for _ in range(100) for piece in ("", 50.0)], 600, "did not end its answer"),
    ],
)
@in_virtual_time
async def test_a_model_that_is_silent_for_too_long_is_given_up(
    answer: Pieces, seconds: float, sentence: str
) -> None:
    async with house_at_work({"m": script(answer)}, persistence=Persistence(attempts=1)) as house:
        run = await house.end_of(await house.start(timeout_ms=5_000_000), within=2000)
        assert run.failure is not None
        assert run.failure.reason == "MODEL_TIMEOUT"
        assert sentence in run.failure.message
        assert monotonic() == pytest.approx(seconds, abs=0.5)
        assert run.spend.unreported == 1


@in_virtual_time
async def test_thinking_aloud_is_a_sign_of_life_and_no_event() -> None:
    thinking: Pieces = [piece for _ in range(5) for piece in (50.0, "")]
    async with house_at_work({"m": script([*thinking, "done"])}) as house:
        run = await house.end_of(await house.start(), within=1000)
        assert await shape(house, run) == ["start 1 m", "done", "on_llm_end", "result"]


@in_virtual_time
async def test_a_provider_that_does_not_let_go_is_left_behind() -> None:
    release = asyncio.Event()

    async def clinging(prompt: Prompt) -> AsyncGenerator[str | Report, None]:
        try:
            yield "a"
            await asyncio.Event().wait()
        finally:
            await release.wait()

    async with house_at_work({"m": clinging}, patience=Patience(idle=10.0)) as house:
        run = await house.start()
        await house.until(run, Kind.LLM_NEW_TOKEN)
        cancelled_at = monotonic()
        await house.service.cancel(ORG, run.id, "call:1")
        another = await house.start(timeout_ms=3000)
        over = await house.end_of(another)
        assert over.failure is not None
        assert over.failure.reason == "EXECUTION_TIMEOUT"
        assert monotonic() - cancelled_at < 5
        release.set()


@in_virtual_time
async def test_what_a_provider_says_after_it_was_given_up_is_heard_by_nobody() -> None:
    async def late(prompt: Prompt) -> AsyncGenerator[str | Report, None]:
        yield "a"
        for _ in range(2):
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(3600)
            await asyncio.sleep(1.5)
            yield "LATE"

    for ending in ({"timeout_ms": 3000}, {}):
        async with house_at_work(
            {"m": late}, patience=Patience(idle=10.0), persistence=Persistence(attempts=2)
        ) as house:
            run = await house.end_of(await house.start(**ending))  # type: ignore[arg-type]  # fields of Asked
            await asyncio.sleep(20)
            assert "LATE" not in await shape(house, run)


@in_virtual_time
async def test_a_limit_ends_the_run_however_slowly_the_provider_lets_go() -> None:
    async def clinging(prompt: Prompt) -> AsyncGenerator[str | Report, None]:
        try:
            while True:
                yield "four"
        finally:
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(3600)

    async with house_at_work({"m": clinging}) as house:
        run = await house.end_of(await house.start(max_output_tokens=10))
        assert failure(run) == "OUTPUT_LIMIT_REACHED"
        assert monotonic() < 3


# The circuit


@in_virtual_time
async def test_a_circuit_opens_refuses_probes_once_and_closes() -> None:
    asked: list[int] = []
    well = asyncio.Event()

    async def say(prompt: Prompt) -> AsyncGenerator[str | Report, None]:
        asked.append(prompt.attempt)
        await asyncio.sleep(1)
        if not well.is_set():
            raise down()
        yield "fine"

    async with house_at_work(
        {"m": say}, tolerance=Tolerance(3, 30.0, 1), persistence=Persistence(attempts=1)
    ) as house:
        for _ in range(3):
            assert house.circuits.state("fake", "m")[0] is CircuitState.CLOSED
            await house.end_of(await house.start())
        assert house.circuits.state("fake", "m")[:2] == (CircuitState.OPEN, 3)
        refused = await house.end_of(await house.start())
        assert await shape(house, refused) == ["start 1 m", "failed 1 MODEL_CIRCUIT_OPEN", "error"]
        assert len(asked) == 3
        # A probe that fails opens it again, and meanwhile everybody else is refused.
        await asyncio.sleep(30)
        assert house.circuits.state("fake", "m")[0] is CircuitState.HALF_OPEN
        runs = [await house.start() for _ in range(5)]
        for run in runs:
            await house.end_of(run)
        assert len(asked) == 4
        assert house.circuits.state("fake", "m")[0] is CircuitState.OPEN
        # One that ends well closes it.
        well.set()
        await asyncio.sleep(30)
        answers = [(await house.end_of(await house.start())).result for _ in range(3)]
        assert answers == ["fine"] * 3
        assert house.circuits.state("fake", "m") == (CircuitState.CLOSED, 0, 0.0)


@in_virtual_time
async def test_an_open_circuit_leads_to_the_fallback_without_a_call() -> None:
    says = {"m": script([down()]), "second": words("other")}
    async with house_at_work(
        says, tolerance=Tolerance(1), persistence=Persistence(attempts=1)
    ) as house:
        await house.end_of(await house.start(model="m"))
        run = await house.end_of(await house.start(model="m", fallbacks=(Wish(model="second"),)))
        assert await shape(house, run) == [
            "start 1 m",
            "failed 1 MODEL_CIRCUIT_OPEN",
            "start 2 second",
            "other",
            "on_llm_end",
            "result",
        ]


@pytest.mark.parametrize("reason", [LIMITED, REJECTED, Reason.REASON_MODEL_KEY_REJECTED])
@in_virtual_time
async def test_a_model_that_answers_however_unkindly_is_not_cut_off(
    reason: Reason.ValueType,
) -> None:
    async with house_at_work(
        {"m": script([down(reason)])}, tolerance=Tolerance(1), persistence=Persistence(attempts=1)
    ) as house:
        await house.end_of(await house.start())
        assert house.circuits.state("fake", "m")[0] is CircuitState.CLOSED


@in_virtual_time
async def test_a_probe_that_is_cancelled_leaves_the_way_to_the_next() -> None:
    hang: tuple[Pieces, ...] = [down()], [10.0, "late"], ["fine"]
    async with house_at_work(
        {"m": script(*hang)}, tolerance=Tolerance(1, 5.0), persistence=Persistence(attempts=1)
    ) as house:
        await house.end_of(await house.start())
        await asyncio.sleep(5)
        probe = await house.start()
        await house.until(probe, Kind.LLM_START)
        await asyncio.sleep(1)
        await house.service.cancel(ORG, probe.id, "call:1")
        await asyncio.sleep(0.1)
        assert (await house.end_of(await house.start())).result == "fine"


@in_virtual_time
async def test_a_probe_that_speaks_closes_the_circuit_before_it_has_ended() -> None:
    answers: tuple[Pieces, ...] = [down()], ["slow", 100.0, "ly"], ["fine"]
    async with house_at_work(
        {"m": script(*answers)},
        tolerance=Tolerance(1, 5.0),
        persistence=Persistence(attempts=1),
        patience=Patience(idle=200.0),
    ) as house:
        await house.end_of(await house.start())
        await asyncio.sleep(5)
        probe = await house.start()
        await house.until(probe, Kind.LLM_NEW_TOKEN)
        assert (await house.end_of(await house.start())).result == "fine"
        assert (await house.end_of(probe, within=200)).result == "slowly"


@in_virtual_time
async def test_an_open_circuit_does_not_burn_what_waits() -> None:
    """A model that is away for 20 seconds costs no run that can wait for it."""

    async def say(prompt: Prompt) -> AsyncGenerator[str | Report, None]:
        await asyncio.sleep(0.5)
        if monotonic() < 20:
            raise down()
        yield "fine"

    async with house_at_work({"m": say}, pace=Pace(concurrency=10)) as house:
        runs = [await house.start(str(number)) for number in range(100)]
        over = [await house.end_of(run, within=500) for run in runs]
        lost = [run for run in over if run.failure is not None]
        # The first of them found out.
        assert len(lost) <= 10
        for run in over:
            is_sound(run, await house.log(run))


@in_virtual_time
async def test_a_provider_that_is_not_there_any_more_is_followed_by_the_fallback() -> None:
    memory = Memory()
    before = House(
        {},
        store=MemoryStore(memory, COLLECTIONS),
        providers=[named("gone", {"m": words("a")}), named("fake", {"n": words("b")})],
    )
    run = await before.start(model="m", fallbacks=(Wish(model="n"),))
    alone = await before.start(model="m")
    after = before.beside(
        store=MemoryStore(memory, COLLECTIONS), providers=[named("fake", {"n": words("b")})]
    )
    async with after.working():
        assert (await after.end_of(run)).result == "b"
        assert failure(await after.end_of(alone)) == "PROVIDER_NOT_FOUND"
        assert (await shape(after, run))[:2] == ["start 1 m", "failed 1 PROVIDER_NOT_FOUND"]


@in_virtual_time
async def test_while_a_fallback_speaks_the_run_says_so() -> None:
    says = {"m": script([down(REJECTED)]), "second": script(["a", 100.0])}
    async with house_at_work(says) as house:
        run = await house.start(model="m", fallbacks=(Wish(model="second"),))
        await house.until(run, Kind.LLM_NEW_TOKEN)
        assert (await house.service.get(ORG, run.id)).served_by == Wish("fake", "second")
        cancelled = await house.service.cancel(ORG, run.id, "call:1")
        is_sound(cancelled, await house.log(cancelled))


@in_virtual_time
async def test_a_run_whose_claim_met_trouble_begins_once_that_is_over() -> None:
    class Troubled(MemoryStore):
        trouble = False

        async def write(self, *writes: Write) -> None:
            if self.trouble and isinstance(writes[0], Replace):
                raise store_unavailable()
            await super().write(*writes)

    store = Troubled(Memory(), COLLECTIONS)
    async with house_at_work({"m": words("a")}, store=store) as house:
        # Reading what waits took long, so it is not read again for a while.
        house.worker._next_reading = monotonic() + 3600
        store.trouble = True
        run = await house.start()
        await asyncio.sleep(0.5)
        store.trouble = False
        assert (await house.end_of(run, within=3)).result == "a"


# Usage and limits

PRICED = PriceList({"m": Price(input=2_000_000_000, output=10_000_000_000)})


def used(input_tokens: int, output_tokens: int, reason: str = "stop") -> Report:
    return Report(Usage(input_tokens, output_tokens), reason)


@in_virtual_time
async def test_a_run_knows_what_it_used_and_cost() -> None:
    answer: Pieces = ["Hi", Report(Usage(1000, 200, 400, None, 50), "stop")]
    async with house_at_work({"m": script(answer)}, prices=PRICED) as house:
        run = await house.end_of(await house.start())
        # 1000 tokens at 2 dollars a million, and 200 at 10.
        assert run.spend.cost == 1000 * 2000 + 200 * 10_000
        assert run.finish_reason == "stop"
        *_, (_, llm_end), (_, result) = await story(house, run)
        expected = {
            "input_tokens": 1000,
            "output_tokens": 200,
            "cached_input_tokens": 400,
            "reasoning_tokens": 50,
            "cost_usd": 0.004,
        }
        assert llm_end["usage"] == result["usage"] == expected
        assert llm_end["finish_reason"] == result["finish_reason"] == "stop"


@in_virtual_time
async def test_every_attempt_that_was_reported_counts() -> None:
    says = script(["a", used(100, 10, ""), down()], ["b", used(100, 20)])
    async with house_at_work({"m": says}, prices=PRICED) as house:
        run = await house.end_of(await house.start())
        assert run.spend.usage == Usage(200, 30)
        assert run.spend.cost == 200 * 2000 + 30 * 10_000
        failed = dict(await story(house, run))[Kind.LLM_FAILED]
        assert failed["usage"]["output_tokens"] == 10


@in_virtual_time
async def test_what_is_not_reported_is_absent_and_said_to_be() -> None:
    async with house_at_work({"m": script(["a"])}, prices=PRICED) as house:
        run = await house.end_of(await house.start())
        *_, (_, result) = await story(house, run)
        assert result["usage"] == {"unreported_calls": 1}


@in_virtual_time
async def test_without_a_price_there_is_no_cost() -> None:
    async with house_at_work({"m": script(["a", used(1, 1)])}) as house:
        run = await house.end_of(await house.start())
        *_, (_, result) = await story(house, run)
        assert result["usage"] == {"input_tokens": 1, "output_tokens": 1}


@in_virtual_time
async def test_a_price_that_changes_shows_in_the_next_run_only() -> None:
    prices = PriceList(dict(PRICED.prices))
    answer: Pieces = ["Hi", 5.0, used(1000, 0)]
    async with house_at_work({"m": script(answer)}, prices=prices) as house:
        first = await house.start()
        await house.until(first, Kind.LLM_NEW_TOKEN)
        prices.prices["m"] = Price(input=1_000_000_000, output=0)
        second = await house.start()
        assert (await house.end_of(first)).spend.cost == 2_000_000
        assert (await house.end_of(second)).spend.cost == 1_000_000


def failure(run: Execution) -> str:
    return run.failure.reason if run.failure is not None else ""


@in_virtual_time
async def test_a_model_is_told_how_much_it_may_say() -> None:
    told: list[int | None] = []

    async def say(prompt: Prompt) -> AsyncGenerator[str | Report, None]:
        told.append(prompt.max_output_tokens)
        if len(told) == 2:
            yield used(0, 40, "")
            raise down()
        yield "a"
        yield used(0, 10)

    async with house_at_work({"m": say}, prices=PRICED) as house:
        await house.end_of(await house.start())
        await house.end_of(await house.start(max_output_tokens=100))
        # A thousandth of a dollar buys a hundred tokens at ten dollars a million.
        await house.end_of(await house.start(max_cost=1_000_000))
        assert told == [None, 100, 60, 100]


@in_virtual_time
async def test_a_model_is_not_told_that_it_may_say_more_than_it_can() -> None:
    told: list[int | None] = []

    async def say(prompt: Prompt) -> AsyncGenerator[str | Report, None]:
        told.append(prompt.max_output_tokens)
        yield used(0, 10)

    small = named("small", {"m": say})
    small.models = {"m": replace(small.models["m"], max_output_tokens=4096)}
    for provider in (small, named("unknown", {"m": say})):
        async with house_at_work({}, providers=[provider], prices=PRICED) as house:
            await house.end_of(await house.start(max_cost=1_000_000_000))
            await house.end_of(await house.start(max_output_tokens=50_000))
    assert told == [4096, 4096, None, 50_000]


@in_virtual_time
async def test_an_answer_cut_at_the_most_a_model_can_say_is_an_answer() -> None:
    small = named("small", {"m": script(["a b", Report(finish_reason="length")])})
    small.models = {"m": replace(small.models["m"], max_output_tokens=4096)}
    async with house_at_work({}, providers=[small]) as house:
        run = await house.end_of(await house.start(max_output_tokens=50_000))
        assert (run.result, run.finish_reason) == ("a b", "length")


@in_virtual_time
async def test_attempts_that_were_not_reported_count_by_what_they_said() -> None:
    dying: Pieces = [*["word"] * 90, 0.1, down()]
    async with house_at_work({"m": script(dying)}, prices=PRICED) as house:
        run = await house.end_of(await house.start(max_output_tokens=200))
        assert failure(run) == "OUTPUT_LIMIT_REACHED"
        # Ninety tokens each, at ten dollars a million.
        run = await house.end_of(await house.start(max_cost=2_000_000))
        assert failure(run) == "COST_LIMIT_REACHED"
        assert run.spend.unreported == 3


@in_virtual_time
async def test_what_was_said_before_a_crash_counts_too() -> None:
    async def say(prompt: Prompt) -> AsyncGenerator[str | Report, None]:
        for _ in range(90):
            yield "word"
        await asyncio.sleep(0.5 if prompt.attempt > 1 else 3600)

    memory = Memory()
    first = House({"m": say}, store=MemoryStore(memory, COLLECTIONS))
    second = first.beside(store=MemoryStore(memory, COLLECTIONS))
    async with first.working():
        run = await first.start(max_output_tokens=150)
        await first.until(run, Kind.LLM_NEW_TOKEN)
        await asyncio.sleep(1)
    async with second.working():
        assert failure(await second.end_of(run)) == "OUTPUT_LIMIT_REACHED"


@in_virtual_time
async def test_a_report_of_the_beginning_is_no_report_of_what_was_said_after_it() -> None:
    cut: Pieces = [Report(Usage(10, 1)), "word " * 20, 1.0, down()]
    async with house_at_work({"m": script(cut, ["fine", used(10, 1)])}, prices=PRICED) as house:
        run = await house.end_of(await house.start())
        assert (run.spend.usage, run.spend.unreported) == (Usage(20, 2), 1)


@in_virtual_time
async def test_a_cost_that_is_known_in_part_still_counts_against_the_limit() -> None:
    answers: Pieces = [Report(Usage(None, 600)), 0.1, down()]
    async with house_at_work({"m": script(answers)}, prices=PRICED) as house:
        run = await house.end_of(await house.start(max_cost=11_000_000))
        assert failure(run) == "COST_LIMIT_REACHED"
        assert run.spend.cost is None


@in_virtual_time
async def test_a_call_that_was_cut_while_it_thought_is_unreported() -> None:
    async with house_at_work({"m": script(["", 1.0, down()], ["fine", used(1, 1)])}) as house:
        run = await house.end_of(await house.start())
        assert run.spend.unreported == 1


@in_virtual_time
async def test_an_answer_cut_at_the_limit_of_the_run_fails_it() -> None:
    async with house_at_work({"m": script(["a b", used(5, 2, "length")])}) as house:
        run = await house.end_of(await house.start(max_output_tokens=2))
        assert (run.state, failure(run)) == (State.FAILED, "OUTPUT_LIMIT_REACHED")
        assert run.spend.usage.output_tokens == 2


@in_virtual_time
async def test_an_answer_cut_at_the_models_own_limit_is_an_answer() -> None:
    async with house_at_work({"m": script(["a b", used(5, 2, "length")])}) as house:
        for limit in (0, 100):
            run = await house.end_of(await house.start(max_output_tokens=limit))
            assert (run.result, run.finish_reason) == ("a b", "length")


@in_virtual_time
async def test_a_model_that_does_not_stop_is_stopped() -> None:
    async with house_at_work({"m": words(*["word "] * 1000, every=0.01)}) as house:
        run = await house.end_of(await house.start(max_output_tokens=50))
        assert failure(run) == "OUTPUT_LIMIT_REACHED"
        assert monotonic() < 2


@in_virtual_time
async def test_a_run_that_costs_too_much_is_stopped() -> None:
    async with house_at_work({"m": words(*["word "] * 1000, every=0.01)}, prices=PRICED) as house:
        # Fifty tokens' worth.
        run = await house.end_of(await house.start(max_cost=500_000))
        assert failure(run) == "COST_LIMIT_REACHED"
        assert run.failure is not None
        assert "0.0005 US dollars" in run.failure.message
        assert monotonic() < 2


@in_virtual_time
async def test_an_input_that_costs_too_much_stops_the_run_before_it_says_more() -> None:
    answer: Pieces = [Report(Usage(1000, 1)), "a", 100.0, "b"]
    async with house_at_work({"m": script(answer)}, prices=PRICED) as house:
        run = await house.end_of(await house.start(max_cost=1_000_000))
        assert failure(run) == "COST_LIMIT_REACHED"
        assert monotonic() < 1
        assert run.spend.usage.input_tokens == 1000


@in_virtual_time
async def test_a_repeat_that_cannot_be_paid_is_not_made() -> None:
    async with house_at_work({"m": script([used(400, 0, ""), down()])}, prices=PRICED) as house:
        run = await house.end_of(await house.start(max_cost=1_000_000))
        assert failure(run) == "COST_LIMIT_REACHED"
        assert (await shape(house, run))[-2:] == ["start 2 m", "error"]


@in_virtual_time
async def test_a_call_that_was_not_made_is_not_said_to_be_unreported() -> None:
    async with house_at_work({"m": script([used(499, 0, ""), down()])}, prices=PRICED) as house:
        run = await house.end_of(await house.start(max_cost=1_000_000))
        assert failure(run) == "COST_LIMIT_REACHED"
        assert (run.spend.usage, run.spend.unreported) == (Usage(499, 0), 0)


@in_virtual_time
async def test_a_cost_limit_on_a_model_without_a_price_is_refused() -> None:
    house = House({"m": words("a"), "second": words("b")}, prices=PRICED)
    for asked in (
        Asked("Hello", model="second", max_cost=1),
        Asked("Hello", model="m", max_cost=1, fallbacks=(Wish(model="second"),)),
    ):
        with pytest.raises(DomainError) as caught:
            await house.service.start(ORG, asked)
        assert caught.value.reason == Reason.REASON_PRICE_UNKNOWN
        assert "fake/second has no price" in caught.value.message
        assert [one.field for one in caught.value.violations] == ["max_cost_usd"]


@in_virtual_time
async def test_limits_come_from_the_settings_and_stay_below_their_ceilings() -> None:
    terms = Terms(
        timeout_ms=1000,
        most_timeout_ms=2000,
        max_output_tokens=10,
        most_output_tokens=20,
        max_cost=100,
        most_cost=200,
    )
    house = House({"m": words("a")}, prices=PRICED, terms=terms)
    order = (await house.start()).order
    assert (order.timeout_ms, order.max_output_tokens, order.max_cost) == (1000, 10, 100)
    order = (await house.start(timeout_ms=2000, max_output_tokens=20, max_cost=200)).order
    assert (order.timeout_ms, order.max_output_tokens, order.max_cost) == (2000, 20, 200)
    for field, asked, most in (
        ("timeout", {"timeout_ms": 2001}, "2 s"),
        ("max_output_tokens", {"max_output_tokens": 21}, "20"),
        ("max_cost_usd", {"max_cost": 201}, "2e-07"),
    ):
        with pytest.raises(DomainError) as caught:
            await house.start(**asked)  # type: ignore[arg-type]  # fields of Asked
        assert [one.field for one in caught.value.violations] == [field]
        assert f"must be at most {most}" in caught.value.message


@in_virtual_time
async def test_a_cancelled_call_leaves_no_figure_but_is_counted() -> None:
    async with house_at_work({"m": script(["a", 100.0])}, prices=PRICED) as house:
        run = await house.start()
        await house.until(run, Kind.LLM_NEW_TOKEN)
        cancelled = await house.service.cancel(ORG, run.id, "call:1")
        assert cancelled.spend.unreported == 1
        is_sound(cancelled, await house.log(cancelled))


@in_virtual_time
async def test_a_hundred_runs_that_fail_now_and_then_all_end_well() -> None:
    async def say(prompt: Prompt) -> AsyncGenerator[str | Report, None]:
        await asyncio.sleep(0.1)
        if prompt.attempt < 1 + int(prompt.text) % 3:
            yield "half"
            raise down()
        yield prompt.text

    async with house_at_work(
        {"m": say}, pace=replace(Pace(), concurrency=20), tolerance=Tolerance(0)
    ) as house:
        runs = [await house.start(str(number)) for number in range(100)]
        for number, run in enumerate(runs):
            over = await house.end_of(run)
            is_sound(over, await house.log(over))
            assert over.result == str(number)
