"""A mesh that plays what a test wrote down."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import grpc
from google.api.httpbody_pb2 import HttpBody
from google.protobuf import any_pb2
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from conductor.audit.v1 import audit_service_pb2 as audit_pb
from conductor.audit.v1.audit_service_pb2_grpc import (
    AuditServiceServicer,
    add_AuditServiceServicer_to_server,
)
from conductor.execution.v1 import execution_service_pb2 as pb
from conductor.execution.v1.event_pb2 import (
    ContextRead,
    Error,
    ExecutionEvent,
    JobQueued,
    JobStarted,
    LlmFailed,
    LlmNewToken,
    LlmStart,
    Result,
    StatusUpdate,
    TurnQueued,
)
from conductor.execution.v1.execution_pb2 import Execution
from conductor.execution.v1.execution_service_pb2_grpc import (
    ExecutionServiceServicer,
    add_ExecutionServiceServicer_to_server,
)
from conductor.execution.v1.model_pb2 import Model

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
ID = "exec_1"
Payload = (
    JobStarted
    | JobQueued
    | LlmStart
    | LlmNewToken
    | LlmFailed
    | StatusUpdate
    | TurnQueued
    | ContextRead
    | Result
    | Error
)

_FIELDS = {
    JobStarted: "job_started",
    JobQueued: "job_queued",
    LlmStart: "on_llm_start",
    LlmNewToken: "on_llm_new_token",
    LlmFailed: "on_llm_failed",
    StatusUpdate: "status_update",
    TurnQueued: "turn_queued",
    ContextRead: "context_read",
    Result: "result",
    Error: "error",
}


def event(sequence: int, payload: Payload) -> ExecutionEvent:
    """An event of the one run there is."""
    one = ExecutionEvent(execution_id=ID, sequence=sequence)
    getattr(one, _FIELDS[type(payload)]).CopyFrom(payload)
    return one


def events(*payloads: Payload, first: int = 1) -> list[ExecutionEvent]:
    """Events in a row."""
    return [event(first + place, payload) for place, payload in enumerate(payloads)]


def tokens(*chunks: str, step: int = 1, attempt: int = 1) -> list[Payload]:
    """A model call's start and its text."""
    return [
        LlmStart(step=step, attempt=attempt),
        *(LlmNewToken(step=step, attempt=attempt, chunk=chunk) for chunk in chunks),
    ]


class Failure(Exception):
    """What a call is to end with."""

    def __init__(
        self, code: grpc.StatusCode, message: str, reason: str = "", *details: Message
    ) -> None:
        super().__init__(message)
        self.code, self.message = code, message
        self.details: list[Message] = list(details)
        if reason:
            info = error_details_pb2.ErrorInfo(reason=reason, domain="conductor")
            self.details.insert(0, info)

    async def abort(self, context: Context) -> None:
        status = status_pb2.Status(code=self.code.value[0], message=self.message)
        for detail in self.details:
            packed = any_pb2.Any()
            packed.Pack(detail)
            status.details.append(packed)
        await context.abort_with_status(rpc_status.to_status(status))


Step = ExecutionEvent | Failure | pb.Heartbeat | None
"""An event, an error, a heartbeat, or None: wait until the run is cancelled."""


class Scripted(ExecutionServiceServicer, AuditServiceServicer):
    """Plays one list of steps for each stream that is asked for, and notes every request.

    `failure` is what every call ends with, `failures` what those about one execution end with.
    """

    def __init__(self) -> None:
        self.streams: deque[list[Step]] = deque()
        self.pages: deque[pb.ListExecutionsResponse] = deque()
        self.audit_pages: deque[audit_pb.ListAuditRecordsResponse] = deque()
        self.executions: dict[str, Execution] = {}
        self.models: list[Model] = []
        self.requests: list[Any] = []
        self.failure: Failure | None = None
        self.failures: dict[str, Failure] = {}
        self.cancelled = asyncio.Event()

    async def StartExecution(
        self, request: pb.StartExecutionRequest, context: Context
    ) -> Execution:
        await self._note(request, context)
        return Execution(id=ID, input=request.input)

    async def GetExecution(self, request: pb.GetExecutionRequest, context: Context) -> Execution:
        await self._note(request, context)
        running = Execution(id=request.execution_id, state=Execution.STATE_RUNNING)
        return self.executions.get(request.execution_id, running)

    async def CancelExecution(
        self, request: pb.CancelExecutionRequest, context: Context
    ) -> Execution:
        await self._note(request, context)
        self.cancelled.set()
        return Execution(id=request.execution_id, state=Execution.STATE_CANCELLED)

    async def DeleteExecution(self, request: pb.DeleteExecutionRequest, context: Context) -> Empty:
        await self._note(request, context)
        return Empty()

    async def ListExecutions(
        self, request: pb.ListExecutionsRequest, context: Context
    ) -> pb.ListExecutionsResponse:
        await self._note(request, context)
        return self.pages.popleft()

    async def ListModels(
        self, request: pb.ListModelsRequest, context: Context
    ) -> pb.ListModelsResponse:
        await self._note(request, context)
        return pb.ListModelsResponse(models=self.models)

    async def ListAuditRecords(
        self, request: audit_pb.ListAuditRecordsRequest, context: Context
    ) -> audit_pb.ListAuditRecordsResponse:
        await self._note(request, context)
        return self.audit_pages.popleft()

    async def RunExecution(
        self, request: pb.StartExecutionRequest, context: Context
    ) -> AsyncIterator[pb.WatchExecutionResponse]:
        await self._note(request, context)
        async for answer in self._play(context):
            yield answer

    async def WatchExecution(
        self, request: pb.WatchExecutionRequest, context: Context
    ) -> AsyncIterator[pb.WatchExecutionResponse]:
        await self._note(request, context)
        async for answer in self._play(context):
            yield answer

    async def Converse(
        self, request_iterator: AsyncIterator[pb.ConverseRequest], context: Context
    ) -> AsyncIterator[pb.ConverseResponse]:
        await Failure(grpc.StatusCode.UNIMPLEMENTED, "not played").abort(context)
        yield pb.ConverseResponse()

    async def RunExecutionSse(
        self, request: pb.StartExecutionRequest, context: Context
    ) -> AsyncIterator[HttpBody]:
        await Failure(grpc.StatusCode.UNIMPLEMENTED, "for browsers").abort(context)
        yield HttpBody()

    async def WatchExecutionSse(
        self, request: pb.WatchExecutionRequest, context: Context
    ) -> AsyncIterator[HttpBody]:
        await Failure(grpc.StatusCode.UNIMPLEMENTED, "for browsers").abort(context)
        yield HttpBody()

    async def _note(self, request: Message, context: Context) -> None:
        self.requests.append(request)
        failure = self.failures.get(getattr(request, "execution_id", ""), self.failure)
        if failure is not None:
            await failure.abort(context)

    async def _play(self, context: Context) -> AsyncIterator[pb.WatchExecutionResponse]:
        for step in self.streams.popleft():
            if step is None:
                await self.cancelled.wait()
            elif isinstance(step, Failure):
                await step.abort(context)
            elif isinstance(step, ExecutionEvent):
                yield pb.WatchExecutionResponse(event=step)
            else:
                yield pb.WatchExecutionResponse(heartbeat=step)


@asynccontextmanager
async def serving(scripted: Scripted) -> AsyncIterator[str]:
    """Serve it on a free port; gives the address."""
    server = grpc.aio.server()
    add_ExecutionServiceServicer_to_server(scripted, server)
    add_AuditServiceServicer_to_server(scripted, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)
