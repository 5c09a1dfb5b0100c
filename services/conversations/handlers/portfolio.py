"""A chat for visitors."""

from __future__ import annotations

from conductor.conversations.v1 import portfolio_service_pb2 as pb
from conductor.conversations.v1.portfolio_service_pb2_grpc import PortfolioServiceServicer
from services.conversations.usecases.portfolio import Portfolio
from services.kit import call
from services.kit.interceptor import Context


class PortfolioHandlers(PortfolioServiceServicer):
    """The rpc of PortfolioService."""

    def __init__(self, portfolio: Portfolio) -> None:
        self._portfolio = portfolio

    async def ChatPortfolio(
        self, request: pb.ChatPortfolioRequest, context: Context
    ) -> pb.ChatPortfolioResponse:
        served = call.current()
        address = served.client or context.peer().rpartition(":")[0]
        reply = await self._portfolio.chat(call.org(), address, request.message, request.session_id)
        served.resource_id = reply.conversation_id
        return pb.ChatPortfolioResponse(response=reply.text, session_id=reply.session_id)
