"""Native gRPC and gRPC-Web on the port that also serves REST."""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator
from typing import Any

import grpc
import httpx
import pytest
import pytest_asyncio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_status import rpc_status

from conductor.conversations.v1.turn_service_pb2 import FillAnswerRequest
from conductor.execution.v1 import execution_service_pb2 as pb
from conductor.execution.v1.execution_service_pb2_grpc import ExecutionServiceStub
from services.mesh.table import SERVICES
from tests.edge.conftest import RunningEdge, StartEdge
from tests.edge.stub import EXECUTION_SERVICE, FIRST_FRAME, LAST_FRAME, Stub
from tests.patience import PATIENCE


@pytest_asyncio.fixture
async def channel(edge: RunningEdge) -> AsyncIterator[grpc.aio.Channel]:
    """A channel of an internal service to the edge."""
    options = [("grpc.max_receive_message_length", 8 * 1024 * 1024)]
    async with grpc.aio.insecure_channel(edge.target, options) as channel:
        yield channel


async def test_a_stub_calls_through(channel: grpc.aio.Channel) -> None:
    execution = await ExecutionServiceStub(channel).GetExecution(
        pb.GetExecutionRequest(execution_id="one"), metadata=(("x-conductor-org", "theirs"),)
    )

    assert execution.id == "one"
    assert "x-conductor-org" not in execution.metadata
    assert execution.metadata["traceparent"]
    assert "x-envoy-original-path" not in execution.metadata


async def test_a_typed_stream_comes_live(channel: grpc.aio.Channel, stub: Stub) -> None:
    call = ExecutionServiceStub(channel).WatchExecution(
        pb.WatchExecutionRequest(execution_id="one"), timeout=PATIENCE
    )

    first = await anext(aiter(call))
    stub.last_words.set()
    rest = [answer async for answer in call]

    chunks = [answer.event.on_llm_new_token.chunk for answer in (first, *rest)]
    assert chunks == [FIRST_FRAME.decode(), LAST_FRAME.decode()]


async def test_a_session_is_live_both_ways(channel: grpc.aio.Channel) -> None:
    call = ExecutionServiceStub(channel).Converse(timeout=PATIENCE)

    for message in ("one", "two"):
        await call.write(pb.ConverseRequest(message=message))
        answer = await call.read()
        assert isinstance(answer, pb.ConverseResponse)
        assert answer.started.id == message
    await call.done_writing()

    assert await call.read() is grpc.aio.EOF


@pytest.mark.parametrize("slashes", ["/", "//"])
async def test_what_services_ask_of_each_other_is_not_there(
    edge: RunningEdge, slashes: str
) -> None:
    async with grpc.aio.insecure_channel(edge.target) as channel:
        ask: Any = channel.unary_unary(
            f"{slashes}conductor.conversations.v1.TurnService/FillAnswer",
            FillAnswerRequest.SerializeToString,
        )
        call = ask(FillAnswerRequest(execution_id="one"), timeout=PATIENCE)

        assert await call.code() is grpc.StatusCode.UNIMPLEMENTED
        request_id = dict(await call.trailing_metadata())["x-request-id"]
    # No service was asked, whatever it would have said.
    assert (await edge.logged(request_id))["upstream"] is None


async def test_an_error_keeps_its_details(channel: grpc.aio.Channel) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await ExecutionServiceStub(channel).GetExecution(
            pb.GetExecutionRequest(execution_id="missing")
        )

    assert failure.value.code() is grpc.StatusCode.NOT_FOUND
    status = rpc_status.from_call(failure.value)
    assert status is not None
    assert len(status.details) == 4


async def test_a_body_beyond_the_limit_of_rest_is_not_buffered(channel: grpc.aio.Channel) -> None:
    execution = await ExecutionServiceStub(channel).StartExecution(
        pb.StartExecutionRequest(input="x" * 5 * 1024 * 1024)
    )

    assert len(execution.id) == 5 * 1024 * 1024


@pytest.mark.parametrize("name", [f"/{EXECUTION_SERVICE}/Nope", "/some.other.Service/Nope"])
async def test_an_unknown_method_is_unimplemented(channel: grpc.aio.Channel, name: str) -> None:
    call = channel.unary_unary(name, request_serializer=bytes, response_deserializer=bytes)

    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await call(b"")

    assert failure.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_envoys_own_error_is_a_grpc_status_of_plain_text(
    start_edge: StartEdge, closed_port: int
) -> None:
    edge = await start_edge(SERVICES, {"execution": [("127.0.0.1", closed_port)]})

    async with grpc.aio.insecure_channel(edge.target) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await ExecutionServiceStub(channel).GetExecution(pb.GetExecutionRequest())

    assert failure.value.code() is grpc.StatusCode.UNAVAILABLE
    assert "{" not in (failure.value.details() or "")


async def test_reflection_answers(channel: grpc.aio.Channel) -> None:
    call = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo()

    await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
    answer = await call.read()
    await call.done_writing()

    names = {service.name for service in answer.list_services_response.service}
    assert EXECUTION_SERVICE in names
    assert await call.code() is grpc.StatusCode.OK


async def test_health_answers(channel: grpc.aio.Channel) -> None:
    answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())

    assert answer.status == health_pb2.HealthCheckResponse.SERVING


async def test_a_deadline_reaches_the_service_and_none_is_made_up(
    channel: grpc.aio.Channel, client: httpx.AsyncClient
) -> None:
    execution = await ExecutionServiceStub(channel).GetExecution(
        pb.GetExecutionRequest(execution_id="one"), timeout=5
    )
    assert 3 <= execution.timeout.seconds <= 5

    response = await client.get("/api/executions/one")
    assert "timeout" not in response.json()


async def test_a_browser_speaks_grpc_web(client: httpx.AsyncClient) -> None:
    message = pb.GetExecutionRequest(execution_id="one").SerializeToString()

    response = await client.post(
        f"/{EXECUTION_SERVICE}/GetExecution",
        content=struct.pack(">BI", 0, len(message)) + message,
        headers={
            "content-type": "application/grpc-web+proto",
            "x-grpc-web": "1",
            "origin": "http://localhost:4321",
        },
    )

    assert response.status_code == httpx.codes.OK
    assert response.headers["content-type"] == "application/grpc-web+proto"
    assert response.headers["access-control-allow-origin"] == "http://localhost:4321"
    flag, length = struct.unpack(">BI", response.content[:5])
    assert flag == 0
    answer = response.content[5 : 5 + length]
    assert b"one" in answer
    assert b"grpc-status:0" in response.content[5 + length :]
