"""Runs, watches, sessions and models."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from contextlib import aclosing

from google.api.httpbody_pb2 import HttpBody
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message

from conductor.execution.v1 import execution_pb2
from conductor.execution.v1 import execution_service_pb2 as pb
from conductor.execution.v1.execution_service_pb2_grpc import ExecutionServiceServicer
from services.execution.convert import events, executions, models, sessions
from services.execution.convert.streams import cursor
from services.execution.handlers.streams import event_stream
from services.execution.usecases.catalogue import Catalogue
from services.execution.usecases.circuits import Circuits
from services.execution.usecases.executions import ExecutionService
from services.execution.usecases.sessions import Opened, Refused, Sessions, Speaker, Told
from services.execution.usecases.watches import Page, Watches
from services.kit import call, ids, paging
from services.kit.cache import VersionedBytes
from services.kit.interceptor import Context, serialized

_CACHE_BYTES = 8 * 1024 * 1024


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
        asked = executions.asked_of_start(request)
        execution = await self._executions.start(call.org(), asked, call.author())
        return executions.execution_to_proto(execution)

    async def RunExecution(
        self, request: pb.StartExecutionRequest, context: Context
    ) -> AsyncIterator[pb.WatchExecutionResponse]:
        asked = executions.asked_of_start(request)
        execution = await self._executions.start(call.org(), asked, call.author())
        call.current().resource_id = execution.id
        async for response in self._watch(execution.id, 0):
            yield response

    async def RunExecutionSse(
        self, request: pb.StartExecutionRequest, context: Context
    ) -> AsyncIterator[HttpBody]:
        asked = executions.asked_of_start(request)
        execution = await self._executions.start(call.org(), asked, call.author())
        call.current().resource_id = execution.id
        async for body in event_stream(self._watches, execution.id, 0):
            yield body

    async def Converse(
        self, request_iterator: AsyncIterator[pb.ConverseRequest], context: Context
    ) -> AsyncIterator[pb.ConverseResponse]:
        said, served = aiter(request_iterator), call.current()
        template = sessions.template_of_session(await anext(said, None), self._check)
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
            message = executions.execution_to_proto(execution).SerializeToString()
            if not execution.waiting:
                # The place of a run that waits changes while the run itself does not.
                self._messages.put(key, execution.version, message)
        return serialized(execution_pb2.Execution, message)

    async def ListExecutions(
        self, request: pb.ListExecutionsRequest, context: Context
    ) -> pb.ListExecutionsResponse:
        where = executions.filter_of_list(request)
        page = paging.page(request, where.content())
        found = await self._executions.list(call.org(), where, page.after, page.size + 1)
        shown = executions.page_of_summaries(found[: page.size])
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
        return executions.execution_to_proto(execution)

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
        after = cursor(request.after_sequence, call.current().metadata)
        async for body in event_stream(self._watches, request.execution_id, after):
            yield body

    async def ListModels(
        self, request: pb.ListModelsRequest, context: Context
    ) -> pb.ListModelsResponse:
        default, now = self._catalogue.default, ids.now()
        shown = [
            models.model_to_proto(
                model, choice, default, self._circuits.state(choice.ai_provider, choice.model), now
            )
            for model, choice in self._catalogue.models
        ]
        return pb.ListModelsResponse(models=shown, open_providers=self._catalogue.open_providers)

    async def _watch(
        self, execution_id: str, after: int
    ) -> AsyncIterator[pb.WatchExecutionResponse]:
        watch = await self._watches.open(call.org(), execution_id, after)
        if watch.end is not None:
            yield events.response(execution_id, watch.end)
        async with aclosing(watch.pages) as pages:
            async for page in pages:
                if page is None:
                    yield events.heartbeat(ids.now())
                    continue
                for response in page.form(events.responses):
                    yield response


async def _said(requests: AsyncIterator[pb.ConverseRequest]) -> AsyncGenerator[str | None, None]:
    """Read what is said in a session that is open."""
    async for request in requests:
        yield sessions.said_in_session(request)


def _told(told: Told) -> Iterable[pb.ConverseResponse]:
    """Print what comes out of a session."""
    match told:
        case None:
            return [sessions.session_heartbeat(ids.now())]
        case Opened():
            return [sessions.session_opened(told.conversation_id)]
        case Refused():
            return [sessions.session_refusal(told.error)]
        case Page():
            return told.form(sessions.session_events)
        case _:
            return [sessions.session_started(told)]
