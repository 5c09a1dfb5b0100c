"""The real service on a free port, and what clients see of its errors."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from google.api.httpbody_pb2 import HttpBody
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc

from conductor.execution.v1 import execution_service_pb2 as pb
from conductor.execution.v1.event_pb2 import ExecutionEvent
from conductor.execution.v1.execution_pb2 import Execution
from conductor.execution.v1.execution_service_pb2_grpc import ExecutionServiceStub
from conductor.gateway.v1.gateway_service_pb2_grpc import GatewayServiceStub
from services.execution.app import compose
from services.execution.settings import ExecutionSettings
from services.kit.server import serving
from services.kit.telemetry import SILENT, Telemetry
from tests.fakes.content import Catalogue, FakeContent
from tests.fakes.turn_service import TurnRpcs
from tests.fakes.turns import FakeTurns
from tests.patience import PATIENCE

CLOSED = {
    "job_started",
    "status_update",
    "on_llm_start",
    "on_llm_new_token",
    "on_llm_end",
    "on_tool_start",
    "on_tool_end",
    "approval_required",
    "approval_resolved",
    "result",
    "error",
}
"""The events chat clients know; any other is shown to them as one of these."""
FRAME = re.compile(
    rb"(?:id: (\d+)\n)?(?:event: (\w+)\n)?data: (\{.*\})\n\n|: .*\n\n|retry: \d+\n: .*\n\n"
)


@dataclass
class Mesh:
    """A served mesh and its clients."""

    channel: grpc.aio.Channel
    port: int

    def __post_init__(self) -> None:
        self.executions = ExecutionServiceStub(self.channel)
        self.gateway = GatewayServiceStub(self.channel)

    async def start(self, text: str = "Hello", **fields: Any) -> Execution:
        request = pb.StartExecutionRequest(input=text, **fields)
        return await self.executions.StartExecution(request, timeout=PATIENCE)

    async def get(self, execution_id: str) -> Execution:
        request = pb.GetExecutionRequest(execution_id=execution_id)
        return await self.executions.GetExecution(request, timeout=PATIENCE)

    async def watch(self, execution_id: str, after: int = 0) -> list[ExecutionEvent]:
        """Every event to the end of the stream."""
        request = pb.WatchExecutionRequest(execution_id=execution_id, after_sequence=after)
        stream = self.executions.WatchExecution(request, timeout=PATIENCE)
        return [one.event async for one in stream if one.HasField("event")]

    async def finished(self, text: str = "Hello", **fields: Any) -> Execution:
        execution = await self.start(text, **fields)
        await self.watch(execution.id)
        return await self.get(execution.id)

    async def raw(self, method: str, request: bytes, **options: Any) -> bytes:
        """Call a unary rpc with bytes of one's own."""
        call: Any = self.channel.unary_unary(
            method, request_serializer=None, response_deserializer=None
        )
        answer: bytes = await call(request, timeout=PATIENCE, **options)
        return answer


@asynccontextmanager
async def served(
    data_dir: Path,
    telemetry: Telemetry = SILENT,
    *,
    catalogue: Catalogue | None = None,
    turns: FakeTurns | None = None,
    noted: list[TurnRpcs] | None = None,
    **settings: Any,
) -> AsyncIterator[Mesh]:
    """Serve until the block ends, then stop gracefully.

    Args:
        catalogue: the agents there are, where no setting says who else knows them.
        turns: the conversations there are; None where nobody keeps any.
        noted: gets what knows the requests to them.
    """
    settings = {"execution_address": "127.0.0.1:0"} | settings
    # The channel is closed last, so that clients see how the server ends.
    async with AsyncExitStack() as last, AsyncExitStack() as stack:
        if "peers" not in settings:
            rpcs = None if turns is None else TurnRpcs(turns)
            others = () if rpcs is None else rpcs.handlers()
            if rpcs is not None and noted is not None:
                noted.append(rpcs)
            content = await stack.enter_async_context(FakeContent(catalogue, others))
            settings["peers"] = {"content": content.target}
            if rpcs is not None:
                settings["peers"]["conversations"] = content.target
        app = await compose(ExecutionSettings(data_dir=data_dir, **settings), stack, telemetry)
        server = await stack.enter_async_context(serving(app, 2, telemetry))
        options = [("grpc.max_send_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
        channel = grpc.aio.insecure_channel(f"127.0.0.1:{server.port}", options=options)
        last.push_async_callback(channel.close)
        yield Mesh(channel, server.port)


async def hosted(channel: grpc.aio.Channel) -> list[str]:
    """The services of ours that a process hosts, as its health tells."""
    health = health_pb2_grpc.HealthStub(channel)
    told = await health.List(health_pb2.HealthListRequest(), timeout=PATIENCE)
    return sorted(name for name in told.statuses if name)


@dataclass(frozen=True)
class Refusal:
    """An error as a client sees it."""

    code: grpc.StatusCode
    message: str
    reason: str
    fields: list[str]
    resources: list[tuple[str, str]]
    retry_after: float | None
    size: int
    metadata: dict[str, str]
    retry_header: str | None

    @property
    def kind(self) -> tuple[grpc.StatusCode, str]:
        return self.code, self.reason


async def refusal(call: Awaitable[object]) -> Refusal:
    """The error a call ends with."""
    try:
        async with asyncio.timeout(PATIENCE):
            answer = await call
    except grpc.aio.AioRpcError as error:
        return _refusal(error)
    raise AssertionError(f"it was answered: {answer!r}")


async def stream_refusal(stream: Any) -> Refusal:
    """The error a stream ends with, whatever came before it."""

    async def read() -> list[Any]:
        return [one async for one in stream]

    return await refusal(read())


def _refusal(error: grpc.aio.AioRpcError) -> Refusal:
    trailers = dict(error.trailing_metadata() or ())
    packed = trailers.get("grpc-status-details-bin", b"")
    assert isinstance(packed, bytes)
    status = status_pb2.Status.FromString(packed)
    info = error_details_pb2.ErrorInfo()
    fields: list[str] = []
    resources: list[tuple[str, str]] = []
    retry_after = None
    for detail in status.details:
        bad_request = error_details_pb2.BadRequest()
        resource = error_details_pb2.ResourceInfo()
        retry = error_details_pb2.RetryInfo()
        detail.Unpack(info)
        if detail.Unpack(bad_request):
            fields += [violation.field for violation in bad_request.field_violations]
        if detail.Unpack(resource):
            resources.append((resource.resource_type, resource.resource_name))
        if detail.Unpack(retry):
            retry_after = retry.retry_delay.ToMilliseconds() / 1000
    if packed:
        assert info.domain == "conductor"
        assert status.code == error.code().value[0]
        assert status.message == error.details()
    header = trailers.get("retry-after")
    return Refusal(
        error.code(),
        error.details() or "",
        info.reason,
        fields,
        resources,
        retry_after,
        len(packed),
        dict(info.metadata),
        None if header is None else str(header),
    )


@dataclass(frozen=True)
class Frame:
    """One frame of server-sent events; comments have no data."""

    id: int | None
    event: str | None
    data: Any
    raw: bytes


def frames(content: bytes) -> list[Frame]:
    """Read frames; anything between them is an error."""
    found: list[Frame] = []
    place = 0
    while place < len(content):
        matched = FRAME.match(content, place)
        assert matched, content[place : place + 200]
        id_, event, data = matched.groups()
        found.append(
            Frame(
                None if id_ is None else int(id_),
                None if event is None else event.decode(),
                None if data is None else json.loads(data),
                matched[0],
            )
        )
        place = matched.end()
    return found


async def body_of(stream: Any) -> bytes:
    """All bytes of a browser's stream."""
    content = b""
    body: HttpBody
    async with asyncio.timeout(PATIENCE):
        async for body in stream:
            assert body.content_type == "text/event-stream"
            content += body.data
    return content
