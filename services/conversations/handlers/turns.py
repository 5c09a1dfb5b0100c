"""Turns: a message and the run that answers it."""

from __future__ import annotations

from conductor.conversations.v1 import turn_service_pb2 as pb
from conductor.conversations.v1.turn_service_pb2_grpc import TurnServiceServicer
from services.conversations.convert import turns as convert
from services.conversations.convert.histories import entry_to_proto
from services.conversations.usecases.histories import HistoryService
from services.conversations.usecases.turns import TurnService
from services.kit import call
from services.kit.interceptor import Context


class TurnHandlers(TurnServiceServicer):
    """The rpcs of TurnService."""

    def __init__(self, service: TurnService, histories: HistoryService) -> None:
        self._turns = service
        self._histories = histories

    async def AppendTurn(
        self, request: pb.AppendTurnRequest, context: Context
    ) -> pb.AppendTurnResponse:
        asked = convert.asked_of(request, call.org(), call.author())
        return convert.added_to_proto(await self._turns.append(asked))

    async def ReadTurn(self, request: pb.ReadTurnRequest, context: Context) -> pb.ReadTurnResponse:
        told = await self._turns.read(
            call.org(), request.execution_id, request.conversation_id, request.max_bytes
        )
        return convert.told_to_proto(told)

    async def ReadHistory(
        self, request: pb.ReadHistoryRequest, context: Context
    ) -> pb.ReadHistoryResponse:
        told, omitted = await self._histories.told(
            call.org(), request.instance_id, request.task_count, request.max_bytes
        )
        return pb.ReadHistoryResponse(history=map(entry_to_proto, told), omitted_count=omitted)

    async def FillAnswer(
        self, request: pb.FillAnswerRequest, context: Context
    ) -> pb.FillAnswerResponse:
        answer = await self._turns.fill(convert.filling_of(request, call.org()))
        return pb.FillAnswerResponse(answer_id="" if answer is None else answer.id)

    async def WithdrawTurn(
        self, request: pb.WithdrawTurnRequest, context: Context
    ) -> pb.WithdrawTurnResponse:
        await self._turns.withdraw(call.org(), request.execution_id, request.conversation_id)
        return pb.WithdrawTurnResponse()
