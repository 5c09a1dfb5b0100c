"""What is measured of the work, in the words a collector gets."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    HistogramDataPoint,
    InMemoryMetricReader,
    Metric,
)

from services.execution.adapters.metrics import MeteredWork
from services.execution.domain import (
    Asked,
    CircuitState,
    Kind,
    Persistence,
    Price,
    Tolerance,
    Usage,
)
from services.execution.ports import Report
from services.execution.usecases.circuits import Circuits
from services.kit.otlp.metrics import SdkMeter
from services.kit.telemetry import sending
from tests.fakes.house import ORG, House, PriceList, Talker, house_at_work, silence, words
from tests.fakes.virtual import in_virtual_time
from tests.unit.test_calls import down, script

M = {"gen_ai.provider.name": "fake", "gen_ai.request.model": "m"}
CHAT = {"gen_ai.operation.name": "chat", **M}
USAGE = Usage(12, 7, cached_input_tokens=4, reasoning_tokens=2)


class Told:
    """What was measured so far."""

    def __init__(self) -> None:
        self._reader = InMemoryMetricReader()
        self._provider = MeterProvider([self._reader], shutdown_on_exit=False)
        self._meter = SdkMeter(self._provider.get_meter("test"))
        self.metrics = MeteredWork(self._meter, {("fake", "m")})

    def observe(self, house: House) -> None:
        self.metrics.observe(
            running=house.worker.running,
            waiting=house.turns.__len__,
            circuits=house.circuits.states,
        )

    def of(self, name: str, about: Mapping[str, str]) -> Any:
        """The value of one series, of a histogram the count and the sum; None when there is none."""
        points = [
            (point.count, point.sum) if isinstance(point, HistogramDataPoint) else point.value
            for attributes, point in self._points(name)
            if attributes == about
        ]
        assert len(points) <= 1
        return points[0] if points else None

    def series(self, name: str) -> list[dict[str, Any]]:
        return [attributes for attributes, _ in self._points(name)]

    def close(self) -> None:
        self._provider.shutdown()

    def _points(self, name: str) -> Iterator[tuple[dict[str, Any], Any]]:
        data = self._reader.get_metrics_data()
        told: list[Metric | None] = [
            metric
            for resource in (data.resource_metrics if data else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
        ]
        told += [one.read(AggregationTemporality.CUMULATIVE) for one in self._meter.distributions]
        for metric in told:
            if metric is not None and metric.name == name:
                for point in metric.data.data_points:
                    yield dict(point.attributes or {}), point


@pytest.fixture
def told() -> Iterator[Told]:
    told = Told()
    yield told
    told.close()


@in_virtual_time
async def test_a_call_is_told_with_its_times_its_tokens_and_its_cost(told: Told) -> None:
    prices = PriceList({"m": Price(1_000_000_000, 2_000_000_000)})
    says = script([3.0, "", 1.0, "Hello", 1.0, Report(USAGE, "stop")])
    async with house_at_work({"m": says}, prices=prices, metrics=told.metrics) as house:
        await house.end_of(await house.start())
    assert told.of("gen_ai.client.operation.duration", CHAT) == (1, 5.0)
    # A thought counts as the first word.
    assert told.of("gen_ai.client.operation.time_to_first_chunk", CHAT) == (1, 3.0)
    tokens = {
        kind: told.of("gen_ai.client.token.usage", {**CHAT, "gen_ai.token.type": kind})
        for kind in ("input", "output", "cached_input", "cache_write_input", "reasoning")
    }
    assert tokens == {
        "input": (1, 12),
        "output": (1, 7),
        "cached_input": (1, 4),
        "cache_write_input": None,
        "reasoning": (1, 2),
    }
    assert told.of("conductor.run.cost", M) == pytest.approx(0.000026)
    outcome = {"conductor.call.outcome": "succeeded"}
    assert told.of("conductor.model.attempts", {**M, **outcome}) == 1


@in_virtual_time
async def test_failures_and_refusals_and_the_circuit_are_told(told: Told) -> None:
    says = {"m": script([1.0, down()], ["fine"])}
    async with house_at_work(
        says,
        tolerance=Tolerance(1, 30.0),
        persistence=Persistence(attempts=1),
        metrics=told.metrics,
    ) as house:
        told.observe(house)
        assert told.series("conductor.model.circuit") == []
        await house.end_of(await house.start())
        assert told.of("conductor.model.circuit", M) == 2
        await house.end_of(await house.start())
        house.slept += 30
        assert told.of("conductor.model.circuit", M) == 1
        await house.end_of(await house.start())
        # Its breaker is forgotten, and still nobody may believe that it is open.
        assert house.circuits.states() == {}
        assert told.of("conductor.model.circuit", M) == 0
    attempts = {
        outcome: told.of("conductor.model.attempts", {**M, "conductor.call.outcome": outcome})
        for outcome in ("succeeded", "failed", "refused", "stopped")
    }
    assert attempts == {"succeeded": 1, "failed": 1, "refused": 1, "stopped": None}
    failed = {**CHAT, "error.type": "MODEL_OVERLOADED"}
    assert told.of("gen_ai.client.operation.duration", failed) == (1, 1.0)
    assert told.of("gen_ai.client.operation.duration", CHAT) == (1, 0.0)
    assert len(told.series("gen_ai.client.operation.duration")) == 2


@in_virtual_time
async def test_a_call_that_its_run_stops_is_no_failure_of_the_model(told: Told) -> None:
    usage = Report(Usage(input_tokens=5, output_tokens=1))
    async with house_at_work({"m": script([usage, "a", 99.0])}, metrics=told.metrics) as house:
        run = await house.start()
        await house.until(run, Kind.LLM_NEW_TOKEN)
        await house.service.cancel(ORG, run.id, "me")
    stopped = {**M, "conductor.call.outcome": "stopped"}
    assert told.of("conductor.model.attempts", stopped) == 1
    assert len(told.series("conductor.model.attempts")) == 1
    assert told.series("gen_ai.client.operation.duration") == [{**CHAT, "error.type": "stopped"}]
    # What it had used by then was used.
    given = {**CHAT, "gen_ai.token.type": "input"}
    assert told.of("gen_ai.client.token.usage", given) == (1, 5)


@in_virtual_time
async def test_runs_are_counted_once_by_state_and_reason(told: Told) -> None:
    says = {"m": words("fine"), "bad": script([down()]), "silent": silence}
    async with house_at_work(
        says, persistence=Persistence(attempts=1), metrics=told.metrics
    ) as house:
        told.observe(house)
        assert told.of("conductor.runs.running", {}) == 0
        await house.end_of(await house.start())
        await house.end_of(await house.start())
        await house.end_of(await house.start(model="bad"))
        run = await house.start(model="silent")
        await house.until(run, Kind.LLM_START)
        assert told.of("conductor.runs.running", {}) == 1
        await house.service.cancel(ORG, run.id, "me")
        await house.end_of(run)
        await house.service.cancel(ORG, run.id, "me")
    state = "conductor.run.state"
    failed = {state: "FAILED", "error.type": "MODEL_OVERLOADED"}
    cancelled = {state: "CANCELLED", "error.type": "EXECUTION_CANCELLED"}
    assert told.of("conductor.runs.ended", {state: "SUCCEEDED"}) == 2
    assert told.of("conductor.runs.ended", failed) == 1
    assert told.of("conductor.runs.ended", cancelled) == 1
    assert len(told.series("conductor.runs.ended")) == 3


@in_virtual_time
async def test_runs_that_wait_are_counted(told: Told) -> None:
    async with house_at_work({"m": silence}, org_concurrency=1, metrics=told.metrics) as house:
        told.observe(house)
        first = await house.start()
        await house.until(first, Kind.LLM_START)
        for _ in range(3):
            await house.until(await house.start(), Kind.JOB_QUEUED)
        assert told.of("conductor.runs.waiting", {}) == 3
        assert told.of("conductor.runs.running", {}) == 1


@in_virtual_time
async def test_a_run_taken_over_is_counted_by_who_takes_it(told: Told) -> None:
    first = House({"m": silence})
    other = Told()
    second = first.beside(says={"m": words("fine")}, metrics=other.metrics)
    async with first.working():
        run = await first.start()
        await first.until(run, Kind.LLM_START)
    async with second.working():
        assert (await second.end_of(run)).result == "fine"
    assert other.of("conductor.worker.take_overs", {}) == 1
    assert other.of("conductor.runs.ended", {"conductor.run.state": "SUCCEEDED"}) == 1
    other.close()


@in_virtual_time
async def test_models_that_nobody_listed_are_one_series(told: Told) -> None:
    says = {"m": words("fine"), "made-up-1": script([down()]), "made-up-2": script([down()])}
    async with house_at_work(
        says,
        tolerance=Tolerance(2),
        persistence=Persistence(attempts=1),
        providers=[Talker(says)],
        metrics=told.metrics,
    ) as house:
        told.observe(house)
        for model in ("made-up-1", "made-up-1", "made-up-2"):
            order = Asked("Hello", ai_provider="fake", model=model)
            await house.end_of(await house.service.start(ORG, order))
    other = {"gen_ai.provider.name": "fake", "gen_ai.request.model": "other"}
    failed = {**other, "conductor.call.outcome": "failed"}
    assert told.of("conductor.model.attempts", failed) == 3
    # One is open and one is closed: the worse is told.
    assert told.of("conductor.model.circuit", other) == 2
    assert told.series("conductor.model.circuit") == [other]


def test_circuits_may_be_read_while_they_come_and_go() -> None:
    circuits = Circuits(Tolerance(1, open_seconds=0.0), lambda: 0.0)
    read: list[Mapping[tuple[str, str], CircuitState]] = []
    faults: list[Exception] = []
    over = threading.Event()

    def reading() -> None:
        try:
            while not over.is_set():
                read.append(circuits.states())
        except Exception as fault:  # noqa: BLE001 any is what is looked for
            faults.append(fault)

    reader = threading.Thread(target=reading)
    reader.start()
    for number in range(5_000):
        for model in (f"{number % 50}", f"{number % 7}"):
            admission = circuits.admit("p", model)
            assert admission is not None
            note = circuits.succeeded if number % 3 else circuits.failed
            note("p", model, admission)
    over.set()
    reader.join(5)
    assert not reader.is_alive()
    assert faults == []
    assert read


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """One in which an endpoint is set, where nobody is."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    return monkeypatch


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", " "),
        ("OTEL_SDK_DISABLED", "true"),
        ("OTEL_SDK_DISABLED", "True"),
        ("OTEL_METRICS_EXPORTER", "none"),
        ("OTEL_METRICS_EXPORTER", "console"),
    ],
)
async def test_no_metrics_are_sent_unless_they_are_asked_for(
    environment: pytest.MonkeyPatch, name: str, value: str, caplog: pytest.LogCaptureFixture
) -> None:
    environment.setenv(name, value)
    async with sending("test") as telemetry:
        assert telemetry.meter is None
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("name", "value", "word"),
    [
        ("OTEL_METRIC_EXPORT_INTERVAL", "-1", "interval"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "soon", "soon"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "zip", "zip"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf", "http/protobuf"),
    ],
)
async def test_what_cannot_be_used_is_one_warning_and_no_metrics(
    environment: pytest.MonkeyPatch,
    name: str,
    value: str,
    word: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    environment.setenv(name, value)
    async with sending("test") as telemetry:
        assert telemetry.meter is None
        # What is said to both signals keeps neither from the other.
        assert (telemetry.tracer is None) == (name != "OTEL_METRIC_EXPORT_INTERVAL")
    ours = [
        record
        for record in caplog.records
        if record.name.startswith("services.") and "metrics" in record.getMessage()
    ]
    assert len(ours) == 1
    assert word in ours[0].getMessage()
