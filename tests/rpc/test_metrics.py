"""Metrics as a collector gets them, and what becomes of the service when there is none."""

from __future__ import annotations

import asyncio
import json
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from conductor.execution.v1.execution_pb2 import Execution
from services.kit.telemetry import sending
from tests.fakes.collector import Collector, collecting
from tests.fakes.content import AWAY
from tests.fakes.models import Answer, ModelServer, Tokens, failed
from tests.patience import PATIENCE
from tests.rpc.process import inherited, process, silent_port
from tests.rpc.serving import refusal, served

GOOD = {"gen_ai.provider.name": "acme", "gen_ai.request.model": "good"}
BAD = {"gen_ai.provider.name": "acme", "gen_ai.request.model": "bad"}


@pytest.fixture
async def collector(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Collector]:
    """A collector, which the environment names."""
    async with collecting() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", collector.endpoint)
        yield collector


async def test_tokens_cost_and_an_open_circuit_arrive(
    collector: Collector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "100")
    prices = tmp_path / "prices.yaml"
    prices.write_text("acme:\n  good: {input: 1, output: 2}\n")
    async with ModelServer() as server, sending("conductor-execution") as telemetry:
        meter = telemetry.meter
        assert meter is not None
        server.says("good", Answer(usage=Tokens(12, 7, cached=4, reasoning=2)))
        server.says("bad", failed())
        acme = {"base_url": f"{server.url}/v1", "models": ["good", "bad"], "keyless": True}
        async with served(
            tmp_path,
            telemetry,
            execution_providers={"acme": acme},
            execution_price_file=prices,
            execution_attempts=2,
            execution_retry_pause_seconds=0,
            execution_breaker_failures=2,
            # Nobody waits for the circuit.
            execution_longest_retry_after_seconds=1,
        ) as mesh:
            answered = await mesh.finished(ai_provider="acme", model="good")
            assert answered.state == Execution.STATE_SUCCEEDED
            for reason in ("MODEL_FAILED", "MODEL_CIRCUIT_OPEN"):
                refused = await mesh.finished(ai_provider="acme", model="bad")
                assert refused.error.reason == reason
            # While it serves, not only at its end.
            await collector.until(lambda: collector.of("conductor.model.circuit", BAD) == 2)
            await collector.until(lambda: collector.of("conductor.runs.running") == 0)
            await collector.until(lambda: collector.of("conductor.runs.waiting") == 0)
    chat = {"gen_ai.operation.name": "chat"}
    tokens = {
        kind: collector.of("gen_ai.client.token.usage", {**chat, **GOOD, "gen_ai.token.type": kind})
        for kind in ("input", "output", "cached_input", "reasoning")
    }
    assert tokens == {"input": 12, "output": 7, "cached_input": 4, "reasoning": 2}
    assert collector.of("conductor.run.cost", GOOD) == pytest.approx(26e-6)
    assert collector.of("gen_ai.client.operation.time_to_first_chunk", {**chat, **GOOD}) > 0
    failure = {**chat, **BAD, "error.type": "MODEL_FAILED"}
    assert collector.of("gen_ai.client.operation.duration", failure) > 0
    for about, outcome, count in (
        (GOOD, "succeeded", 1),
        (BAD, "failed", 2),
        (BAD, "refused", 1),
    ):
        outcomes = {**about, "conductor.call.outcome": outcome}
        assert collector.of("conductor.model.attempts", outcomes) == count
    ended = {"conductor.run.state": "FAILED", "error.type": "MODEL_CIRCUIT_OPEN"}
    assert collector.of("conductor.runs.ended", ended) == 1
    assert collector.services[-1]["service.name"] == "conductor-execution"
    assert len({one["service.instance.id"] for one in collector.services}) == 1


async def test_what_was_not_sent_yet_is_sent_at_the_end(
    collector: Collector, tmp_path: Path
) -> None:
    async with sending("conductor-execution") as telemetry, served(tmp_path, telemetry) as mesh:
        await mesh.finished()
        assert collector.metrics == []
    assert collector.of("conductor.runs.ended", {"conductor.run.state": "SUCCEEDED"}) == 1


async def test_calls_are_timed_by_method_and_status_and_probes_are_not(
    collector: Collector, tmp_path: Path
) -> None:
    async with sending("conductor-execution") as telemetry, served(tmp_path, telemetry) as mesh:
        health = health_pb2_grpc.HealthStub(mesh.channel)
        await health.Check(health_pb2.HealthCheckRequest())
        await mesh.finished()
        await refusal(mesh.get("missing"))
        await refusal(mesh.raw("/conductor.execution.v1.ExecutionService/MadeUp", b""))
    service = {"rpc.system.name": "grpc"}
    methods = "conductor.execution.v1.ExecutionService"
    for method, about in (
        ("StartExecution", {"rpc.response.status_code": "OK"}),
        ("WatchExecution", {"rpc.response.status_code": "OK"}),
        (
            "GetExecution",
            {"rpc.response.status_code": "NOT_FOUND", "error.type": "EXECUTION_NOT_FOUND"},
        ),
    ):
        series = {**service, "rpc.method": f"{methods}/{method}", **about}
        assert collector.of("rpc.server.call.duration", series) > 0
    told = {one["rpc.method"] for one in collector.series("rpc.server.call.duration")}
    assert told == {f"{methods}/{one}Execution" for one in ("Start", "Watch", "Get")}


async def test_the_age_of_live_events_is_measured_and_that_of_replayed_ones_is_not(
    collector: Collector, tmp_path: Path
) -> None:
    async with sending("conductor-execution") as telemetry, served(tmp_path, telemetry) as mesh:
        replayed = await mesh.start()
        while (await mesh.get(replayed.id)).state != Execution.STATE_SUCCEEDED:
            await asyncio.sleep(0.01)
        await mesh.watch(replayed.id)
    assert collector.of("conductor.event.lag") is None
    async with sending("conductor-execution") as telemetry, served(tmp_path, telemetry) as mesh:
        await mesh.finished(model="mock-slow")
    # The sum over some hundred pages.
    assert 0 < collector.of("conductor.event.lag") < 5.0


async def test_the_environment_names_the_service(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "agents-of-acme")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.instance.id=seven,team=blue")
    async with sending("conductor-execution") as telemetry:
        meter = telemetry.meter
        assert meter is not None
        meter.counter("test", "1", "A test.")(1, {})
    (service,) = collector.services
    assert service["service.name"] == "agents-of-acme"
    assert service["service.instance.id"] == "seven"
    assert service["team"] == "blue"


async def test_a_collector_that_never_answers_delays_the_end_two_seconds_at_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with silent_port() as port:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
        monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "50")
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        sent = sending("conductor-execution")
        telemetry = await sent.__aenter__()
        assert telemetry.meter is not None
        assert telemetry.tracer is not None
        async with served(tmp_path, telemetry) as mesh:
            assert (await mesh.finished()).state == Execution.STATE_SUCCEEDED
        async with asyncio.timeout(2):
            await sent.__aexit__(None, None, None)


async def test_a_collector_that_is_away_is_one_line_in_the_log(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # A port that is bound and not listened on refuses every connection.
    async with silent_port() as port:
        pass
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
    # Long enough to try again, of which the SDK tells at length.
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1.3")
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "20")
    reads = 0
    enough = asyncio.Event()
    loop = asyncio.get_running_loop()

    def read() -> list[tuple[float, dict[str, str]]]:
        nonlocal reads
        reads += 1
        if reads == 2:
            loop.call_soon_threadsafe(enough.set)
        return [(1, {})]

    async with sending("test") as telemetry:
        meter = telemetry.meter
        assert meter is not None
        meter.gauge("test", "1", "A test.", read)
        async with asyncio.timeout(PATIENCE):
            await enough.wait()
    lines = [one for one in caplog.records if one.name.startswith("opentelemetry")]
    assert [one.levelname for one in lines] == ["ERROR"]
    assert str(port) in lines[0].getMessage()


async def test_the_bootstrap_sends_the_metrics_of_a_process(
    collector: Collector, tmp_path: Path
) -> None:
    endpoint = collector.endpoint
    async with process(tmp_path, OTEL_EXPORTER_OTLP_METRICS_ENDPOINT=endpoint) as one:
        await one.stop()
    assert collector.of("conductor.runs.running") == 0
    assert collector.services[0]["service.name"] == "conductor-execution"


async def test_a_process_starts_and_stops_without_its_collector(tmp_path: Path) -> None:
    async with silent_port() as port:
        pass
    endpoint = f"http://127.0.0.1:{port}"
    async with process(
        tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=endpoint, OTEL_METRIC_EXPORT_INTERVAL="50"
    ) as one:
        logged = await one.stop()
    assert len([said for said in logged if said["logger"].startswith("opentelemetry")]) <= 1


async def test_nothing_of_opentelemetry_is_imported_unless_it_is_asked_for(tmp_path: Path) -> None:
    program = """
import asyncio, sys
from contextlib import AsyncExitStack
from services.execution.app import compose
from services.execution.settings import ExecutionSettings
from services.kit.server import serving
from services.kit.telemetry import sending
import services.execution.__main__

async def main():
    async with sending("conductor-execution") as telemetry, AsyncExitStack() as stack:
        app = await compose(ExecutionSettings(), stack, telemetry)
        async with serving(app, 1):
            pass

asyncio.run(main())
print(sorted(name for name in sys.modules if name.startswith("opentelemetry")))
"""
    env = inherited() | {
        "CONDUCTOR_DATA_DIR": str(tmp_path),
        "CONDUCTOR_PEERS": json.dumps(AWAY),
    }
    one = await asyncio.create_subprocess_exec(sys.executable, "-c", program, env=env, stdout=PIPE)
    async with asyncio.timeout(30):
        said, _ = await one.communicate()
    assert one.returncode == 0
    assert said.decode().strip() == "[]"
