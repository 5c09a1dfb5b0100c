"""A server that stands in for the services of the mesh, where Envoy alone is tested."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import grpc
from google.api.httpbody_pb2 import HttpBody
from google.protobuf import any_pb2, duration_pb2, empty_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from grpc_status import rpc_status

from conductor.execution.v1 import (
    event_pb2,
    execution_pb2,
    execution_service_pb2,
    execution_service_pb2_grpc,
)
from conductor.execution.v1.execution_pb2 import Execution
from conductor.gateway.v1 import gateway_service_pb2 as gateway
from conductor.gateway.v1 import gateway_service_pb2_grpc
from services.kit.server import PENDING

EXECUTION_SERVICE = "conductor.execution.v1.ExecutionService"
GATEWAY_SERVICE = "conductor.gateway.v1.GatewayService"

FRAME = b"data: " + b"x" * 100_000 + b"\n\n"
FIRST_FRAME = b"retry: 1000\n: hello\n\n"
LAST_FRAME = b'id: 1\ndata: {"last": true}\n\n'
FRAMES_OF_A_LONG_STREAM = 400

_LARGEST_METADATA = 64 * 1024

Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]


class Stub(
    execution_service_pb2_grpc.ExecutionServiceServicer,
    gateway_service_pb2_grpc.GatewayServiceServicer,
):
    """Answers by the id or the input it is given, and says what it was sent.

    Every Execution it answers has the call's metadata as its `metadata`, and the time left to the
    call's deadline as its `timeout`.
    """

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.last_words = asyncio.Event()
        """Streams that wait go on, and calls that wait answer."""
        self.held = 0
        """How many streams and calls there are."""
        self.left = asyncio.Event()
        """A caller went away."""
        self.sent_bytes = 0
        self.health = health.aio.HealthServicer()
        """What it says of itself."""

    async def StartExecution(
        self, request: execution_service_pb2.StartExecutionRequest, context: Context
    ) -> Execution:
        self.calls.append("StartExecution")
        return _execution(context, request.input)

    async def GetExecution(
        self, request: execution_service_pb2.GetExecutionRequest, context: Context
    ) -> Execution:
        self.calls.append("GetExecution")
        match request.execution_id:
            case "missing":
                await _abort_with_details(context)
            case "held":
                await self._hold()
            case "big":
                mebibyte = "\x01" * 1024 * 1024
                return Execution(id="big", input=mebibyte, result=2 * mebibyte)
        return _execution(context, request.execution_id)

    async def ListExecutions(
        self, request: execution_service_pb2.ListExecutionsRequest, context: Context
    ) -> execution_service_pb2.ListExecutionsResponse:
        self.calls.append("ListExecutions")
        return execution_service_pb2.ListExecutionsResponse()

    async def CancelExecution(
        self, request: execution_service_pb2.CancelExecutionRequest, context: Context
    ) -> Execution:
        self.calls.append("CancelExecution")
        return _execution(context, request.execution_id)

    async def DeleteExecution(
        self, request: execution_service_pb2.DeleteExecutionRequest, context: Context
    ) -> empty_pb2.Empty:
        self.calls.append("DeleteExecution")
        return empty_pb2.Empty()

    async def ListModels(
        self, request: execution_service_pb2.ListModelsRequest, context: Context
    ) -> execution_service_pb2.ListModelsResponse:
        return execution_service_pb2.ListModelsResponse()

    async def RunExecution(
        self, request: execution_service_pb2.StartExecutionRequest, context: Context
    ) -> AsyncIterator[execution_service_pb2.WatchExecutionResponse]:
        async for frame in self._frames(request.input, context):
            yield _typed(frame)

    async def RunExecutionSse(
        self, request: execution_service_pb2.StartExecutionRequest, context: Context
    ) -> AsyncIterator[HttpBody]:
        async for frame in self._frames(request.input, context):
            yield HttpBody(content_type="text/event-stream", data=frame)

    async def WatchExecution(
        self, request: execution_service_pb2.WatchExecutionRequest, context: Context
    ) -> AsyncIterator[execution_service_pb2.WatchExecutionResponse]:
        async for frame in self._frames(request.execution_id, context):
            yield _typed(frame)

    async def WatchExecutionSse(
        self, request: execution_service_pb2.WatchExecutionRequest, context: Context
    ) -> AsyncIterator[HttpBody]:
        async for frame in self._frames(request.execution_id, context):
            yield HttpBody(content_type="text/event-stream", data=frame)

    async def Converse(
        self, requests: AsyncIterator[execution_service_pb2.ConverseRequest], context: Context
    ) -> AsyncIterator[execution_service_pb2.ConverseResponse]:
        async for request in requests:
            started = Execution(id=request.message)
            yield execution_service_pb2.ConverseResponse(started=started)

    async def GetHealth(
        self, request: gateway.GetHealthRequest, context: Context
    ) -> gateway.GetHealthResponse:
        return gateway.GetHealthResponse(status="healthy")

    async def Execute(
        self, request: gateway.ExecuteRequest, context: Context
    ) -> gateway.ExecuteResponse:
        self.calls.append("Execute")
        await self._hold()
        return gateway.ExecuteResponse(status="success", result=request.input)

    async def ExecuteAgent(
        self, request: gateway.ExecuteAgentRequest, context: Context
    ) -> gateway.ExecuteAgentResponse:
        self.calls.append("ExecuteAgent")
        await self._hold()
        outcome = gateway.ExecuteAgentResponse.Outcome(result=request.input_text)
        return gateway.ExecuteAgentResponse(status="success", result=outcome)

    async def StreamExecute(
        self, request: gateway.ExecuteRequest, context: Context
    ) -> gateway.StreamExecuteResponse:
        return gateway.StreamExecuteResponse(status="started")

    async def StreamJob(
        self, request: gateway.StreamJobRequest, context: Context
    ) -> AsyncIterator[HttpBody]:
        async for frame in self._frames(request.job_id, context):
            yield HttpBody(content_type="text/event-stream", data=frame)

    async def _hold(self) -> None:
        self.held += 1
        try:
            await self.last_words.wait()
        except asyncio.CancelledError:
            self.left.set()
            raise
        finally:
            self.held -= 1

    async def _frames(self, name: str, context: Context) -> AsyncIterator[bytes]:
        match name:
            case "missing":
                await _abort_with_details(context)
            case "long":
                for _ in range(FRAMES_OF_A_LONG_STREAM):
                    yield FRAME
            case "endless":
                while True:
                    yield FRAME
                    self.sent_bytes += len(FRAME)
            case _:
                yield FIRST_FRAME
                await self._hold()
                yield LAST_FRAME


def _typed(frame: bytes) -> execution_service_pb2.WatchExecutionResponse:
    token = event_pb2.LlmNewToken(chunk=frame.decode())
    event = event_pb2.ExecutionEvent(on_llm_new_token=token)
    return execution_service_pb2.WatchExecutionResponse(event=event)


def _execution(context: Context, name: str) -> Execution:
    left = context.time_remaining()
    return execution_pb2.Execution(
        id=name,
        metadata={
            key: value
            for key, value in context.invocation_metadata() or ()
            if isinstance(value, str)
        },
        timeout=duration_pb2.Duration(seconds=int(left)) if left else None,
    )


async def _abort_with_details(context: Context) -> None:
    status = status_pb2.Status(code=code_pb2.NOT_FOUND, message="There is no `missing`.")
    for detail in (
        error_details_pb2.ErrorInfo(reason="EXECUTION_NOT_FOUND", domain="conductor"),
        error_details_pb2.ResourceInfo(resource_type="execution", resource_name="missing"),
        error_details_pb2.BadRequest(
            field_violations=[
                error_details_pb2.BadRequest.FieldViolation(field="execution_id", description="no")
            ]
        ),
        error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(seconds=7)),
    ):
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    rich = rpc_status.to_status(status)
    await context.abort(rich.code, rich.details, (*rich.trailing_metadata, ("retry-after", "7")))


@asynccontextmanager
async def serve(stub: Stub, port: int = 0) -> AsyncIterator[int]:
    """Serve the stub with health and reflection as a service does; gives its port."""
    server = grpc.aio.server(
        options=[
            *PENDING,
            ("grpc.so_reuseport", 0),
            ("grpc.max_metadata_size", _LARGEST_METADATA),
            ("grpc.absolute_max_metadata_size", _LARGEST_METADATA),
            ("grpc.max_receive_message_length", 8 * 1024 * 1024),
        ]
    )
    execution_service_pb2_grpc.add_ExecutionServiceServicer_to_server(stub, server)
    gateway_service_pb2_grpc.add_GatewayServiceServicer_to_server(stub, server)
    await stub.health.set("", health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(stub.health, server)
    reflection.enable_server_reflection(
        (EXECUTION_SERVICE, GATEWAY_SERVICE, reflection.SERVICE_NAME), server
    )
    bound = server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    try:
        yield bound
    finally:
        await server.stop(None)
