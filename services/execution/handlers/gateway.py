"""The routes that chat clients know."""

from __future__ import annotations

from collections.abc import AsyncIterator

from google.api.httpbody_pb2 import HttpBody

from conductor.gateway.v1 import gateway_service_pb2 as pb
from conductor.gateway.v1.gateway_service_pb2_grpc import GatewayServiceServicer
from services.execution.convert import gateway as convert
from services.execution.convert import streams
from services.execution.handlers.streams import server_sent_events
from services.execution.usecases.executions import ExecutionService
from services.execution.usecases.health import Health
from services.execution.usecases.watches import Watches
from services.kit import VERSION, call, ids
from services.kit.interceptor import Context
from services.kit.signing import Signer

_TOKEN_MICROSECONDS = 600_000_000
"""How long the token of a stream outlives the timeout of its run."""


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
        self, request: pb.GetHealthRequest, context: Context
    ) -> pb.GetHealthResponse:
        return convert.health_to_proto(await self._health.check(), VERSION)

    async def Execute(self, request: pb.ExecuteRequest, context: Context) -> pb.ExecuteResponse:
        served = call.current()
        org = served.principal.org_id
        asked = convert.asked_of_execute(request)
        started = await self._executions.start(org, asked, call.author())
        served.resource_id = started.id
        ended = self._watches.ended(org, started.id)
        return convert.answer_to_proto(await self._executions.answer(org, started.id, ended))

    async def ExecuteAgent(
        self, request: pb.ExecuteAgentRequest, context: Context
    ) -> pb.ExecuteAgentResponse:
        served = call.current()
        org = served.principal.org_id
        asked = convert.asked_of_execute_agent(request)
        started = await self._executions.start(org, asked, call.author())
        served.resource_id = started.id
        ended = self._watches.ended(org, started.id)
        return convert.outcome_to_proto(await self._executions.outcome(org, started.id, ended))

    async def StreamExecute(
        self, request: pb.ExecuteRequest, context: Context
    ) -> pb.StreamExecuteResponse:
        asked = convert.asked_of_execute(request)
        execution = await self._executions.start(call.org(), asked, call.author())
        token = ""
        if self._signer is not None:
            expire = ids.now() + execution.order.timeout_ms * 1000 + _TOKEN_MICROSECONDS
            token = self._signer.stream_token(execution.org, execution.id, expire)
        return convert.job_to_proto(execution, token)

    async def StreamJob(
        self, request: pb.StreamJobRequest, context: Context
    ) -> AsyncIterator[HttpBody]:
        after = streams.cursor(request.after_sequence, call.current().metadata)
        frames, end = streams.job_frames, streams.job_end_frame
        async for body in server_sent_events(self._watches, request.job_id, after, frames, end):
            yield body
