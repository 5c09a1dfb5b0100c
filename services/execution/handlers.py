"""The servicers: convert in, one use case, convert out."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from contextlib import aclosing

from google.api.httpbody_pb2 import HttpBody
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message

from conductor.auth.v1 import key_pb2
from conductor.auth.v1 import key_service_pb2 as keys_pb
from conductor.auth.v1.key_service_pb2_grpc import KeyServiceServicer
from conductor.execution.v1 import execution_pb2
from conductor.execution.v1 import execution_service_pb2 as pb
from conductor.execution.v1.execution_service_pb2_grpc import ExecutionServiceServicer
from conductor.gateway.v1 import gateway_service_pb2 as gateway_pb
from conductor.gateway.v1.gateway_service_pb2_grpc import GatewayServiceServicer
from services.execution import convert
from services.execution.usecases.catalogue import Catalogue
from services.execution.usecases.circuits import Circuits
from services.execution.usecases.executions import ExecutionService
from services.execution.usecases.health import Health
from services.execution.usecases.keys import KeyKeeper
from services.execution.usecases.sessions import Opened, Refused, Sessions, Speaker, Told
from services.execution.usecases.watches import Page, Watches
from services.kit import VERSION, call, ids, paging
from services.kit.cache import VersionedBytes
from services.kit.errors import DomainError, Reason
from services.kit.interceptor import Context, serialized
from services.kit.signing import Signer

_CACHE_BYTES = 8 * 1024 * 1024
_TOKEN_MICROSECONDS = 600_000_000
"""How long the token of a stream outlives the timeout of its run."""

Frames = Callable[..., bytes]


class ExecutionHandlers(ExecutionServiceServicer):
    """The rpcs of ExecutionService.

    Args:
        check: holds a message against the rules of its proto.
    """

    def __init__(
        self,
        executions: ExecutionService,
        watches: Watches,
        sessions: Sessions,
        catalogue: Catalogue,
        circuits: Circuits,
        check: Callable[[Message], None],
    ) -> None:
        self._executions = executions
        self._watches = watches
        self._sessions = sessions
        self._check = check
        self._catalogue = catalogue
        self._circuits = circuits
        self._messages = VersionedBytes(_CACHE_BYTES)

    async def StartExecution(
        self, request: pb.StartExecutionRequest, context: Context
    ) -> execution_pb2.Execution:
        asked = convert.asked_of_start(request)
        execution = await self._executions.start(call.org(), asked, call.author())
        return convert.execution_to_proto(execution)

    async def RunExecution(
        self, request: pb.StartExecutionRequest, context: Context
    ) -> AsyncIterator[pb.WatchExecutionResponse]:
        asked = convert.asked_of_start(request)
        execution = await self._executions.start(call.org(), asked, call.author())
        call.current().resource_id = execution.id
        async for response in self._watch(execution.id, 0):
            yield response

    async def RunExecutionSse(
        self, request: pb.StartExecutionRequest, context: Context
    ) -> AsyncIterator[HttpBody]:
        asked = convert.asked_of_start(request)
        execution = await self._executions.start(call.org(), asked, call.author())
        call.current().resource_id = execution.id
        async for body in _event_stream(self._watches, execution.id, 0):
            yield body

    async def Converse(
        self, request_iterator: AsyncIterator[pb.ConverseRequest], context: Context
    ) -> AsyncIterator[pb.ConverseResponse]:
        said, served = aiter(request_iterator), call.current()
        template = convert.template_of_session(await anext(said, None), self._check)
        who = Speaker(call.org(), call.author(), f"call:{served.call_id}")
        session = self._sessions.converse(who, template, _said(said))
        async with aclosing(session):
            async for told in session:
                if isinstance(told, Opened):
                    served.resource_id = told.conversation_id
                for response in _told(told):
                    yield response

    async def GetExecution(
        self, request: pb.GetExecutionRequest, context: Context
    ) -> execution_pb2.Execution:
        key = (call.org(), request.execution_id)
        message = self._messages.get(key, await self._executions.version(*key))
        if message is None:
            execution = await self._executions.get(*key)
            message = convert.execution_to_proto(execution).SerializeToString()
            if not execution.waiting:
                # The place of a run that waits changes while the run itself does not.
                self._messages.put(key, execution.version, message)
        return serialized(execution_pb2.Execution, message)

    async def ListExecutions(
        self, request: pb.ListExecutionsRequest, context: Context
    ) -> pb.ListExecutionsResponse:
        where = convert.filter_of_list(request)
        page = paging.page(request, where.content())
        found = await self._executions.list(call.org(), where, page.after, page.size + 1)
        shown = convert.page_of_summaries(found[: page.size])
        return pb.ListExecutionsResponse(
            executions=shown, next_page_token=page.next_token(found, len(shown))
        )

    async def CancelExecution(
        self, request: pb.CancelExecutionRequest, context: Context
    ) -> execution_pb2.Execution:
        served = call.current()
        execution = await self._executions.cancel(
            served.principal.org_id, request.execution_id, f"call:{served.call_id}"
        )
        return convert.execution_to_proto(execution)

    async def DeleteExecution(self, request: pb.DeleteExecutionRequest, context: Context) -> Empty:
        await self._executions.delete(call.org(), request.execution_id)
        return Empty()

    async def WatchExecution(
        self, request: pb.WatchExecutionRequest, context: Context
    ) -> AsyncIterator[pb.WatchExecutionResponse]:
        async for response in self._watch(request.execution_id, request.after_sequence):
            yield response

    async def WatchExecutionSse(
        self, request: pb.WatchExecutionRequest, context: Context
    ) -> AsyncIterator[HttpBody]:
        after = convert.cursor(request.after_sequence, call.current().metadata)
        async for body in _event_stream(self._watches, request.execution_id, after):
            yield body

    async def ListModels(
        self, request: pb.ListModelsRequest, context: Context
    ) -> pb.ListModelsResponse:
        default, now = self._catalogue.default, ids.now()
        models = [
            convert.model_to_proto(
                model, choice, default, self._circuits.state(choice.ai_provider, choice.model), now
            )
            for model, choice in self._catalogue.models
        ]
        return pb.ListModelsResponse(models=models, open_providers=self._catalogue.open_providers)

    async def _watch(
        self, execution_id: str, after: int
    ) -> AsyncIterator[pb.WatchExecutionResponse]:
        watch = await self._watches.open(call.org(), execution_id, after)
        if watch.end is not None:
            yield convert.response(execution_id, watch.end)
        async with aclosing(watch.pages) as pages:
            async for page in pages:
                if page is None:
                    yield convert.heartbeat(ids.now())
                    continue
                for response in page.form(convert.responses):
                    yield response


class GatewayHandlers(GatewayServiceServicer):
    """The rpcs of GatewayService.

    Args:
        signer: makes the tokens of streams; None while authentication is off.
    """

    def __init__(
        self,
        executions: ExecutionService,
        watches: Watches,
        health: Health,
        signer: Signer | None,
    ) -> None:
        self._executions = executions
        self._watches = watches
        self._health = health
        self._signer = signer

    async def GetHealth(
        self, request: gateway_pb.GetHealthRequest, context: Context
    ) -> gateway_pb.GetHealthResponse:
        return convert.health_to_proto(await self._health.check(), VERSION)

    async def Execute(
        self, request: gateway_pb.ExecuteRequest, context: Context
    ) -> gateway_pb.ExecuteResponse:
        served = call.current()
        org = served.principal.org_id
        asked = convert.asked_of_execute(request)
        started = await self._executions.start(org, asked, call.author())
        served.resource_id = started.id
        ended = self._watches.ended(org, started.id)
        return convert.answer_to_proto(await self._executions.answer(org, started.id, ended))

    async def ExecuteAgent(
        self, request: gateway_pb.ExecuteAgentRequest, context: Context
    ) -> gateway_pb.ExecuteAgentResponse:
        served = call.current()
        org = served.principal.org_id
        asked = convert.asked_of_execute_agent(request)
        started = await self._executions.start(org, asked, call.author())
        served.resource_id = started.id
        ended = self._watches.ended(org, started.id)
        return convert.outcome_to_proto(await self._executions.outcome(org, started.id, ended))

    async def StreamExecute(
        self, request: gateway_pb.ExecuteRequest, context: Context
    ) -> gateway_pb.StreamExecuteResponse:
        asked = convert.asked_of_execute(request)
        execution = await self._executions.start(call.org(), asked, call.author())
        token = ""
        if self._signer is not None:
            expire = ids.now() + execution.order.timeout_ms * 1000 + _TOKEN_MICROSECONDS
            token = self._signer.stream_token(execution.org, execution.id, expire)
        return convert.job_to_proto(execution, token)

    async def StreamJob(
        self, request: gateway_pb.StreamJobRequest, context: Context
    ) -> AsyncIterator[HttpBody]:
        after = convert.cursor(request.after_sequence, call.current().metadata)
        frames, end = convert.job_frames, convert.job_end_frame
        async for body in _server_sent_events(self._watches, request.job_id, after, frames, end):
            yield body


class KeyHandlers(KeyServiceServicer):
    """The rpcs of KeyService."""

    def __init__(self, keys: KeyKeeper) -> None:
        self._keys = keys

    async def CreateKey(self, request: keys_pb.CreateKeyRequest, context: Context) -> key_pb2.Key:
        asked = convert.asked_of_key(request.key)
        key, text = await self._keys.create(call.current().principal, asked)
        return convert.key_to_proto(key, text)

    async def ListKeys(
        self, request: keys_pb.ListKeysRequest, context: Context
    ) -> keys_pb.ListKeysResponse:
        org = call.current().principal.org_to_list(request.org_id)
        page = paging.page(request, org)
        found = await self._keys.list(org, page.after, page.size + 1)
        shown = [convert.key_to_proto(key) for key in found[: page.size]]
        return keys_pb.ListKeysResponse(
            keys=shown, next_page_token=page.next_token(found, len(shown))
        )

    async def RevokeKey(self, request: keys_pb.RevokeKeyRequest, context: Context) -> key_pb2.Key:
        key = await self._keys.revoke(call.current().principal, request.key_id)
        return convert.key_to_proto(key)

    async def ResolveKey(
        self, request: keys_pb.ResolveKeyRequest, context: Context
    ) -> key_pb2.KeyRecord:
        key = await self._keys.resolve(request.key_id, request.digest)
        return convert.key_record_to_proto(key)


async def _said(requests: AsyncIterator[pb.ConverseRequest]) -> AsyncGenerator[str | None, None]:
    """Read what is said in a session that is open."""
    async for request in requests:
        yield convert.said_in_session(request)


def _told(told: Told) -> Iterable[pb.ConverseResponse]:
    """Print what comes out of a session."""
    match told:
        case None:
            return [convert.session_heartbeat(ids.now())]
        case Opened():
            return [convert.session_opened(told.conversation_id)]
        case Refused():
            return [convert.session_refusal(told.error)]
        case Page():
            return told.form(convert.session_events)
        case _:
            return [convert.session_started(told)]


def _event_stream(watches: Watches, execution_id: str, after: int) -> AsyncIterator[HttpBody]:
    """Stream ExecutionEvent JSON."""
    frames, end = convert.event_frames, convert.event_end_frame
    return _server_sent_events(watches, execution_id, after, frames, end)


async def _server_sent_events(
    watches: Watches, execution_id: str, after: int, frames: Frames, end_frame: Frames
) -> AsyncIterator[HttpBody]:
    """Stream a run as server-sent events; when the server stops, the stream just ends."""
    watch = await watches.open(call.org(), execution_id, after)
    content = convert.opening_frame(execution_id)
    if watch.end is not None:
        content += end_frame(execution_id, watch.end.time)
    if watch.caught_up:
        yield next(convert.http_bodies(content))
        content = b""
    try:
        async with aclosing(watch.pages) as pages:
            async for page in pages:
                content += convert.HEARTBEAT_FRAME if page is None else page.form(frames)
                for body in convert.http_bodies(content):
                    yield body
                content = b""
    except DomainError as error:
        if error.reason != Reason.REASON_SHUTTING_DOWN:
            raise
        if content:
            # Without a body it has no content type, and a browser does not come back to that.
            yield next(convert.http_bodies(content))
