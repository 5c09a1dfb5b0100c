"""Traces as a collector gets them: which spans there are, and what belongs to what."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span as Told
from opentelemetry.proto.trace.v1.trace_pb2 import SpanFlags, Status

from conductor.execution.v1 import execution_service_pb2 as pb
from conductor.execution.v1.execution_pb2 import Execution
from conductor.execution.v1.model_pb2 import ModelChoice
from conductor.gateway.v1 import gateway_service_pb2 as gateway_pb
from services.kit.telemetry import sending
from tests.fakes.collector import Collector, Span, collecting
from tests.fakes.models import Answer, ModelServer, Tokens, failed
from tests.patience import PATIENCE
from tests.rpc.process import process
from tests.rpc.serving import Mesh, refusal, served

TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED = (("traceparent", f"00-{TRACE}-{CALLER}-01"),)
UNSAMPLED = (("traceparent", f"00-{TRACE}-{CALLER}-00"),)
EXECUTIONS = "conductor.execution.v1.ExecutionService"
STARTED = "conductor.gateway.v1.GatewayService/StreamExecute"
RESOLVED = "conductor.content.v1.AgentService/ResolveAgent"
RUN = "invoke_agent default"
INTERNAL, SERVER, CLIENT = (
    Told.SPAN_KIND_INTERNAL,
    Told.SPAN_KIND_SERVER,
    Told.SPAN_KIND_CLIENT,
)

EDGES = {
    (STARTED, SERVER, "the caller"),
    (RESOLVED, CLIENT, STARTED),
    ("write executions", CLIENT, STARTED),
    ("write audit_records", CLIENT, STARTED),
    (RUN, INTERNAL, STARTED),
    ("write events", CLIENT, RUN),
    ("chat mock", CLIENT, RUN),
}
"""Every span of a job, with what it belongs to."""

CALL = {"rpc.system.name": "grpc", "rpc.method": STARTED, "rpc.response.status_code": "OK"}
STORE = {"db.system.name": "sqlite", "db.namespace": "execution", "db.operation.name": "write"}
ATTRIBUTES: dict[str, dict[str, Any]] = {
    STARTED: CALL,
    RESOLVED: {**CALL, "rpc.method": RESOLVED},
    "write executions": {
        **STORE,
        "db.collection.name": "executions",
        "db.operation.batch.size": 2,
    },
    "write audit_records": {**STORE, "db.collection.name": "audit_records"},
    "write events": {**STORE, "db.collection.name": "events", "db.operation.batch.size": 2},
    RUN: {
        "gen_ai.operation.name": "invoke_agent",
        "gen_ai.agent.id": "default",
        "gen_ai.agent.name": "default",
        "conductor.run.resumed": False,
        "conductor.run.state": "SUCCEEDED",
    },
    "chat mock": {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "mock",
        "gen_ai.request.model": "mock",
        "gen_ai.usage.input_tokens": 1,
        "gen_ai.response.finish_reasons": ["stop"],
        "conductor.model.attempt": 1,
        "conductor.call.outcome": "succeeded",
    },
}


@pytest.fixture
async def collector(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Collector]:
    """A collector of traces, which the environment names."""
    async with collecting() as collector:
        for name, value in sent_to(collector).items():
            monkeypatch.setenv(name, value)
        yield collector


def sent_to(collector: Collector) -> dict[str, str]:
    """The variables that have traces sent soon."""
    return {
        "OTEL_BSP_SCHEDULE_DELAY": "50",
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": collector.endpoint,
    }


@asynccontextmanager
async def traced(folder: Path, **settings: Any) -> AsyncIterator[Mesh]:
    """The service with what the environment says of telemetry."""
    async with sending("conductor-execution") as telemetry:
        assert telemetry.meter is None
        assert telemetry.tracer is not None
        async with served(folder, telemetry, **settings) as mesh:
            yield mesh


async def job(mesh: Mesh, metadata: Iterable[tuple[str, str]] = SAMPLED, **fields: Any) -> str:
    """Start a job as the edge does, and wait for its end."""
    request = gateway_pb.ExecuteRequest(input="Hello", **fields)
    call = mesh.gateway.StreamExecute(request, timeout=PATIENCE, metadata=tuple(metadata))
    started = await call
    await mesh.watch(started.job_id)
    return str(started.job_id)


def of(spans: Iterable[Span], name: str) -> Span:
    (found,) = (one for one in spans if one.name == name)
    return found


def listed(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes with their lists as lists."""
    return {
        name: [one.string_value for one in value.values] if hasattr(value, "values") else value
        for name, value in attributes.items()
    }


async def test_a_job_is_one_trace_from_the_caller_to_the_model(
    collector: Collector, tmp_path: Path
) -> None:
    async with traced(tmp_path) as mesh:
        job_id = await job(mesh)
    spans = [one for one in collector.spans if one.trace_id == TRACE]
    names = {one.span_id: one.name for one in spans} | {CALLER: "the caller"}
    assert {(one.name, one.raw.kind, names[one.parent_id]) for one in spans} == EDGES
    told = {one.name: listed(one.attributes) for one in spans}
    assert told[RUN].pop("conductor.execution.id") == job_id
    assert told["chat mock"].pop("gen_ai.usage.output_tokens") > 0
    assert told == ATTRIBUTES
    assert {one.service for one in spans} == {"conductor-execution"}
    run = of(spans, RUN)
    assert run.raw.flags & SpanFlags.SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK
    assert not of(spans, "chat mock").raw.flags & SpanFlags.SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK
    for one in spans:
        assert one.raw.start_time_unix_nano <= one.raw.end_time_unix_nano
        assert one.raw.status.code == Status.STATUS_CODE_UNSET
    assert "Hello" not in repr(spans)


async def test_what_nobody_asked_for_makes_no_span(collector: Collector, tmp_path: Path) -> None:
    async with traced(tmp_path, execution_lease_seconds=1) as mesh:
        await mesh.finished(model="mock-slow")
    calls = {one.span_id for one in collector.spans if one.raw.kind == SERVER}
    runs = {one.span_id for one in collector.spans if one.name == RUN}
    assert len(runs) == 1
    # Leases were renewed and sweeps read, and the run was watched, meanwhile.
    assert all(one.parent_id in calls | runs for one in collector.spans if one.raw.kind == CLIENT)
    assert not [one for one in collector.spans if "workers" in one.name]


async def test_what_the_caller_does_not_sample_is_not_told_of(
    collector: Collector, tmp_path: Path
) -> None:
    async with traced(tmp_path) as mesh:
        await job(mesh, UNSAMPLED)
        await job(mesh)
    jobs = [one for one in collector.spans if one.name in {STARTED, RUN}]
    assert [one.name for one in jobs if one.trace_id == TRACE] == [STARTED, RUN]
    assert len(jobs) == 2


async def test_without_a_caller_the_sampler_decides(
    collector: Collector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0")
    async with traced(tmp_path) as mesh:
        await mesh.finished()
        await job(mesh)
    assert {one.trace_id for one in collector.spans} == {TRACE}


async def test_an_error_names_its_status_its_reason_and_its_trace(
    collector: Collector, tmp_path: Path
) -> None:
    async with traced(tmp_path) as mesh:
        missing = pb.GetExecutionRequest(execution_id="missing")
        call = mesh.executions.GetExecution(missing, timeout=PATIENCE, metadata=SAMPLED)
        assert (await refusal(call)).code is grpc.StatusCode.NOT_FOUND
    (span,) = collector.spans
    assert span.attributes == {
        "rpc.system.name": "grpc",
        "rpc.method": f"{EXECUTIONS}/GetExecution",
        "rpc.response.status_code": "NOT_FOUND",
        "error.type": "EXECUTION_NOT_FOUND",
    }
    # It is the caller's fault.
    assert span.raw.status.code == Status.STATUS_CODE_UNSET


async def test_a_cancelled_watch_says_so_and_is_no_error(
    collector: Collector, tmp_path: Path
) -> None:
    async with traced(tmp_path, execution_concurrency=0) as mesh:
        started = await mesh.start()
        request = pb.WatchExecutionRequest(execution_id=started.id)
        stream = mesh.executions.WatchExecution(request, metadata=SAMPLED)
        await anext(aiter(stream))
        stream.cancel()
        await collector.until(lambda: any(one.trace_id == TRACE for one in collector.spans))
    (span,) = (one for one in collector.spans if one.trace_id == TRACE)
    assert span.attributes["rpc.response.status_code"] == "CANCELLED"
    assert "error.type" not in span.attributes
    assert span.raw.status.code == Status.STATUS_CODE_UNSET


async def test_each_attempt_is_a_span_and_no_provider_learns_of_the_trace(
    collector: Collector, tmp_path: Path
) -> None:
    async with ModelServer() as server:
        server.says("bad", failed())
        server.says("good", Answer(usage=Tokens(12, 7)))
        acme = {"base_url": f"{server.url}/v1", "models": ["good", "bad"], "keyless": True}
        async with traced(
            tmp_path,
            execution_providers={"acme": acme},
            execution_attempts=2,
            execution_retry_pause_seconds=0,
        ) as mesh:
            fallbacks = [ModelChoice(ai_provider="acme", model="good")]
            request = pb.StartExecutionRequest(
                input="Hello", ai_provider="acme", model="bad", fallbacks=fallbacks
            )
            started = await mesh.executions.StartExecution(request, metadata=SAMPLED)
            await mesh.watch(started.id)
            assert (await mesh.get(started.id)).state == Execution.STATE_SUCCEEDED
        asked = server.requests
    chats = [one for one in collector.spans if one.name.startswith("chat ")]
    assert [(one.name, one.attributes.get("error.type")) for one in chats] == [
        ("chat bad", "MODEL_FAILED"),
        ("chat bad", "MODEL_FAILED"),
        ("chat good", None),
    ]
    assert [one.raw.status.code for one in chats] == [
        Status.STATUS_CODE_ERROR,
        Status.STATUS_CODE_ERROR,
        Status.STATUS_CODE_UNSET,
    ]
    assert chats[2].attributes["gen_ai.usage.input_tokens"] == 12
    assert chats[2].attributes["gen_ai.usage.output_tokens"] == 7
    run = of(collector.spans, RUN)
    assert {(one.trace_id, one.parent_id) for one in chats} == {(TRACE, run.span_id)}
    assert len(asked) == 3
    told = {name.lower() for one in asked for name in one.headers}
    assert not told & {"traceparent", "tracestate", "baggage"}


async def test_a_run_that_goes_on_after_a_crash_links_to_the_trace_it_began_in(
    collector: Collector, tmp_path: Path
) -> None:
    async with (
        process(tmp_path, **sent_to(collector)) as first,
        grpc.aio.insecure_channel(f"127.0.0.1:{first.port}") as channel,
    ):
        mesh = Mesh(channel, first.port)
        request = gateway_pb.ExecuteRequest(input="Hello", model="mock-slow")
        started = await mesh.gateway.StreamExecute(request, timeout=PATIENCE, metadata=SAMPLED)
        watched = pb.WatchExecutionRequest(execution_id=started.job_id)
        async for one in mesh.executions.WatchExecution(watched):
            if one.event.HasField("on_llm_new_token"):
                break
        await collector.until(lambda: any(one.name == STARTED for one in collector.spans))
        first.process.kill()
    async with traced(tmp_path, execution_lease_seconds=1) as mesh:
        async with asyncio.timeout(PATIENCE):
            while (await mesh.get(started.job_id)).state != Execution.STATE_SUCCEEDED:
                await asyncio.sleep(0.1)
    began, run = of(collector.spans, STARTED), of(collector.spans, RUN)
    assert began.trace_id == TRACE
    assert run.trace_id != TRACE
    assert run.parent_id == ""
    assert run.links == ((TRACE, began.span_id),)
    assert run.attributes["conductor.run.resumed"] is True
    assert run.attributes["conductor.run.state"] == "SUCCEEDED"
    assert of(collector.spans, "chat mock-slow").parent_id == run.span_id


async def test_what_is_logged_of_a_call_carries_the_ids_of_its_span(
    collector: Collector, tmp_path: Path
) -> None:
    async with process(tmp_path, CONDUCTOR_LOG_LEVEL="DEBUG", **sent_to(collector)) as one:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{one.port}") as channel:
            await job(Mesh(channel, one.port))
        logged = await one.stop()
    (called,) = (one for one in logged if one["message"] == f"/{STARTED}")
    span = of(collector.spans, STARTED)
    assert (called["trace_id"], called["span_id"]) == (span.trace_id, span.span_id)
