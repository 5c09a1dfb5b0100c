"""The routes chat clients know: three forms of a payload, an answer, a stream, health."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from conductor.execution.v1 import execution_service_pb2 as execution_pb
from conductor.execution.v1.execution_pb2 import Execution
from conductor.execution.v1.model_pb2 import ModelChoice
from conductor.gateway.v1 import gateway_service_pb2 as pb
from tests.patience import PATIENCE
from tests.rpc.serving import Mesh, body_of, frames, refusal

INVALID = (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
NO_SCREENPLAY = (grpc.StatusCode.NOT_FOUND, "SCREENPLAY_NOT_FOUND")
UNAVAILABLE = (grpc.StatusCode.FAILED_PRECONDITION, "FEATURE_UNAVAILABLE")
MEBIBYTE = 1024 * 1024


def entry(content: str, kind: str = "") -> pb.TextEntry:
    return pb.TextEntry(content=content, type=kind)


async def execute(mesh: Mesh, **fields: Any) -> pb.ExecuteResponse:
    return await mesh.gateway.Execute(pb.ExecuteRequest(**fields), timeout=PATIENCE)


async def stream_execute(mesh: Mesh, **fields: Any) -> pb.StreamExecuteResponse:
    return await mesh.gateway.StreamExecute(pb.ExecuteRequest(**fields), timeout=PATIENCE)


BOTH = pytest.mark.parametrize("route", [execute, stream_execute])


async def test_a_bare_input_is_answered(mesh: Mesh) -> None:
    answer = await execute(mesh, input="Hello")
    assert answer.status == "success"
    assert answer.result.startswith("You said: Hello")
    execution = await mesh.get(answer.job_id)
    assert (execution.state, execution.result) == (Execution.STATE_SUCCEEDED, answer.result)


async def test_a_job_is_started_and_streamed_where_it_says(mesh: Mesh) -> None:
    started = await stream_execute(mesh, input="Hello")
    assert started.status == "started"
    assert started.stream_url == f"/api/v1/stream/{started.job_id}"
    request = pb.StreamJobRequest(job_id=started.job_id)
    shown = frames(await body_of(mesh.gateway.StreamJob(request, timeout=PATIENCE)))
    assert shown[1].data["event"] == "job_started"
    assert shown[-1].event == "end_of_stream"


@BOTH
@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"input": "in"}, "in"),
        ({"command": "do"}, "do"),
        ({"text_entries": [entry("one", "text")]}, "one"),
        ({"text_entries": [entry("one"), entry("two", "text")]}, "one\n\ntwo"),
        (
            {"text_entries": [entry("one", "text"), entry("pic", "image"), entry("two")]},
            "one\n\ntwo",
        ),
        ({"text_entries": [entry("one"), entry(" \n"), entry("two")]}, "one\n\ntwo"),
        ({"text_entries": [entry("one")], "input": "in", "command": "do"}, "one"),
        ({"input": "in", "command": "do"}, "in"),
        ({"input": "  ", "command": "do"}, "do"),
        ({"text_entries": [entry("pic", "image")], "input": "in"}, "in"),
        ({"text_entries": [entry(" ")], "command": "do"}, "do"),
        ({"input": " keeps its spaces \n"}, " keeps its spaces \n"),
    ],
)
async def test_the_text_is_taken_from_three_forms_in_their_order(
    mesh: Mesh, route: Any, fields: dict[str, Any], expected: str
) -> None:
    answer = await route(mesh, **fields)
    assert (await mesh.get(answer.job_id)).input == expected


@BOTH
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"input": " ", "command": "\n"},
        {"text_entries": [entry("pic", "image")]},
        {"text_entries": [entry("x", "TEXT")]},
        {"text_entries": [entry("\u00a0")]},
    ],
)
async def test_a_request_without_text_is_told_what_was_missing(
    mesh: Mesh, route: Any, fields: dict[str, Any]
) -> None:
    refused = await refusal(route(mesh, **fields))
    assert refused.kind == INVALID
    assert refused.fields == ["textEntries", "input", "command"]
    for name in refused.fields:
        assert name in refused.message


@BOTH
@pytest.mark.parametrize(
    ("fields", "kind", "named"),
    [
        ({"context_mode": "interactive"}, INVALID, "context_mode"),
        ({"context_mode": "STATELESS"}, INVALID, "context_mode"),
        ({"context_mode": "made up"}, INVALID, "context_mode"),
        ({"conversation_id": "c"}, UNAVAILABLE, "conversation_id"),
        ({"instance_id": "i"}, UNAVAILABLE, "instance_id"),
        ({"screenplay_id": "s"}, NO_SCREENPLAY, "screenplay_id"),
        ({"agent_id": "a b"}, INVALID, "agent_id"),
        ({"input": "x" * (MEBIBYTE + 1)}, INVALID, "input"),
        ({"text_entries": [entry("x" * 700_000)] * 2}, INVALID, "textEntries"),
        ({"text_entries": [entry("x")] * 1001}, INVALID, "text_entries"),
        ({"text_entries": [entry("x", "y" * 65)]}, INVALID, "text_entries[0].type"),
    ],
)
async def test_what_cannot_be_honoured_is_refused_and_not_ignored(
    mesh: Mesh, route: Any, fields: dict[str, Any], kind: Any, named: str
) -> None:
    refused = await refusal(route(mesh, **({"input": "Hello"} | fields)))
    assert refused.kind == kind
    assert refused.fields == [named]


@BOTH
async def test_what_is_honoured_arrives(mesh: Mesh, route: Any) -> None:
    answer = await route(
        mesh,
        input="Hello",
        agent_id="default",
        ai_provider="mock",
        model="mock",
        cwd="/tmp",
        metadata={"k": "v"},
        request_id="r",
        context_mode="stateless",
    )
    execution = await mesh.get(answer.job_id)
    assert (execution.ai_provider, execution.model, execution.cwd) == ("mock", "mock", "/tmp")
    assert (dict(execution.metadata), execution.request_id) == ({"k": "v"}, "r")


@BOTH
async def test_a_model_of_another_provider_is_refused(mesh: Mesh, route: Any) -> None:
    refused = await refusal(route(mesh, input="Hello", ai_provider="openai", model="mock"))
    assert refused.kind == (grpc.StatusCode.FAILED_PRECONDITION, "PROVIDER_NOT_CONFIGURED")
    assert "set OPENAI_API_KEY" in refused.message
    refused = await refusal(route(mesh, input="Hello", ai_provider="MOCK"))
    assert refused.kind == (grpc.StatusCode.NOT_FOUND, "PROVIDER_NOT_FOUND")


async def test_limits_hold_on_the_routes_of_chat_clients_too(mesh: Mesh) -> None:
    refused = await refusal(execute(mesh, input="Hello", model="mock", max_output_tokens=2))
    assert refused.kind == (grpc.StatusCode.RESOURCE_EXHAUSTED, "OUTPUT_LIMIT_REACHED")
    refused = await refusal(execute(mesh, input="Hello", priority=6))
    assert refused.kind == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
    answer = await execute(
        mesh,
        input="Hello",
        model="mock",
        priority=1,
        max_cost_usd=0.5,
        timeout=Duration(seconds=5),
        fallbacks=[ModelChoice(model="mock-slow")],
    )
    execution = await mesh.get(answer.job_id)
    assert (execution.priority, execution.max_cost_usd) == (1, 0.5)
    assert execution.timeout.seconds == 5
    assert [one.model for one in execution.fallbacks] == ["mock-slow"]


async def test_a_run_that_fails_is_an_error_that_names_it(mesh: Mesh) -> None:
    refused = await refusal(execute(mesh, input="Hello", model="mock-fail"))
    assert refused.kind == (grpc.StatusCode.INTERNAL, "MODEL_FAILED")
    ((kind, id_),) = refused.resources
    assert kind == "execution"
    assert id_ in refused.message
    assert (await mesh.get(id_)).state == Execution.STATE_FAILED


async def test_a_run_that_is_cancelled_meanwhile_is_an_error(mesh: Mesh) -> None:
    asking = asyncio.create_task(
        refusal(execute(mesh, input="Hello", model="mock-stall", request_id="r"))
    )
    started = await stream_execute(mesh, input="Hello", model="mock-stall", request_id="r")
    await mesh.executions.CancelExecution(
        execution_pb.CancelExecutionRequest(execution_id=started.job_id)
    )
    refused = await asking
    assert refused.kind == (grpc.StatusCode.ABORTED, "EXECUTION_CANCELLED")
    assert refused.resources == [("execution", started.job_id)]


async def test_a_repeated_request_id_answers_the_same_on_both_routes(mesh: Mesh) -> None:
    first = await execute(mesh, input="Hello", request_id="r")
    assert await execute(mesh, command="Hello", request_id="r") == first
    assert (await stream_execute(mesh, input="Hello", request_id="r")).job_id == first.job_id
    assert (await mesh.start("Hello", request_id="r")).id == first.job_id
    refused = await refusal(execute(mesh, input="Bye", request_id="r"))
    assert refused.kind == (grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED")


async def test_a_failed_run_is_answered_again_when_its_request_is_repeated(mesh: Mesh) -> None:
    fields = {"input": "Hello", "model": "mock-fail", "request_id": "r"}
    first = await refusal(execute(mesh, **fields))
    assert await refusal(execute(mesh, **fields)) == first


async def test_health_names_every_part(mesh: Mesh) -> None:
    health = await mesh.gateway.GetHealth(pb.GetHealthRequest(), timeout=PATIENCE)
    assert (health.status, health.service) == ("healthy", "conductor_mesh")
    assert health.version
    assert {part.name: part.status for part in health.parts} == {
        "store": "healthy",
        "worker": "healthy",
        "content": "healthy",
    }
    assert {"health", "execute", "stream_execute", "stream"} <= set(health.endpoints)
    assert all(path.startswith("/") for path in health.endpoints.values())
