"""The rpcs of conversations that execution asks, over `FakeTurns`, for a server of a test."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import grpc
from google.protobuf.message import Message as Proto
from grpc_status import rpc_status

from conductor.conversations.v1 import busy_policy_pb2
from conductor.conversations.v1 import conversation_pb2 as conversations
from conductor.conversations.v1 import conversation_service_pb2 as conversation_service
from conductor.conversations.v1 import instance_service_pb2 as instance_service
from conductor.conversations.v1 import turn_service_pb2 as pb
from conductor.conversations.v1.instance_pb2 import HistoryEntry, Instance, InstanceStatistics
from services.execution.domain import BusyPolicy, Filling, Placement
from services.execution.ports import AwayError
from services.kit.errors import DomainError, to_status
from tests.fakes.turns import FakeTurns, Message

_PACKAGE = "conductor.conversations.v1"
Context = grpc.aio.ServicerContext[Any, Any]
Answer = Callable[[Any], Awaitable[Proto]]


class TurnRpcs:
    """What a server registers, and the requests it got."""

    def __init__(self, turns: FakeTurns) -> None:
        self._turns = turns
        self.requests: list[Proto] = []

    def handlers(self) -> Iterator[grpc.GenericRpcHandler]:
        """The rpcs, each service by itself."""
        services: tuple[tuple[str, dict[str, tuple[Answer, Any]]], ...] = (
            (
                "TurnService",
                {
                    "AppendTurn": (self._append, pb.AppendTurnRequest),
                    "ReadTurn": (self._read, pb.ReadTurnRequest),
                    "ReadHistory": (self._recall, pb.ReadHistoryRequest),
                    "FillAnswer": (self._fill, pb.FillAnswerRequest),
                    "WithdrawTurn": (self._withdraw, pb.WithdrawTurnRequest),
                },
            ),
            (
                "ConversationService",
                {
                    "GetConversation": (self._get, conversation_service.GetConversationRequest),
                    "CreateConversation": (
                        self._create,
                        conversation_service.CreateConversationRequest,
                    ),
                },
            ),
            (
                "InstanceService",
                {"GetInstance": (self._instance, instance_service.GetInstanceRequest)},
            ),
        )
        for service, methods in services:
            rpcs: dict[str, Any] = {
                name: self._rpc(answer, request) for name, (answer, request) in methods.items()
            }
            yield grpc.method_handlers_generic_handler(f"{_PACKAGE}.{service}", rpcs)

    def _rpc(self, answer: Answer, request: Any) -> Any:
        async def serve(asked: Proto, context: Context) -> Proto:
            self.requests.append(asked)
            try:
                return await answer(asked)
            except AwayError as away:
                await context.abort(grpc.StatusCode.UNAVAILABLE, str(away))
                raise
            except DomainError as error:
                await context.abort_with_status(rpc_status.to_status(to_status(error)))
                raise

        return grpc.unary_unary_rpc_method_handler(
            serve, request.FromString, lambda message: message.SerializeToString()
        )

    async def _append(self, request: pb.AppendTurnRequest) -> Proto:
        policy = busy_policy_pb2.BusyPolicy.Name(request.busy_policy).removeprefix("BUSY_POLICY_")
        said = Message(request.execution_id, request.input, reply_to=request.reply_to)
        added = await self._turns._ask(
            "append",
            lambda: self._turns.add(request.conversation_id, said, BusyPolicy(policy.lower())),
        )
        return pb.AppendTurnResponse(
            message_id=added.message_id,
            answer_id=added.answer_id,
            place=added.place,
            interrupted_executions=added.interrupted,
        )

    async def _read(self, request: pb.ReadTurnRequest) -> Proto:
        id_, where = request.execution_id, request.conversation_id
        place = await self._turns._ask("place", lambda: self._turns.place_of(where, id_))
        kept = self._turns.conversation(where)
        history: list[conversations.Message] = []
        for one in kept.messages:
            if one.execution_id == id_:
                break
            if one.status == "completed":
                kind = "TYPE_AGENT" if one.agent else "TYPE_USER"
                history.append(
                    conversations.Message(
                        type=conversations.Message.Type.Value(kind),
                        content=one.content,
                        agent=_agent(Placement(one.agent)) if one.agent else None,
                    )
                )
        return pb.ReadTurnResponse(
            title="A title",
            context="A context",
            history=history if request.max_bytes else [],
            place=place,
        )

    async def _recall(self, request: pb.ReadHistoryRequest) -> Proto:
        runs = await self._turns._ask("recall", lambda: list(self._turns.runs.values()))
        own = [one for one in runs if one.instance_id == request.instance_id]
        history = [
            HistoryEntry(user_input=one.input[:2000], ai_response=one.content[:2000])
            for one in own[: request.task_count]
        ]
        return pb.ReadHistoryResponse(history=history, omitted_count=1)

    async def _fill(self, request: pb.FillAnswerRequest) -> Proto:
        status = conversations.Message.Status.Name(request.status).removeprefix("STATUS_")
        filling = Filling(
            "default",
            request.execution_id,
            request.conversation_id,
            request.agent.agent_id,
            request.agent.instance_id,
            request.agent.name,
            request.agent.emoji,
            request.input_preview,
            status.lower(),
            request.content,
            request.error_reason,
            request.error_message,
            request.duration.ToMicroseconds(),
        )
        await self._turns._ask("fill", lambda: self._turns.complete(filling))
        return pb.FillAnswerResponse()

    async def _withdraw(self, request: pb.WithdrawTurnRequest) -> Proto:
        where, id_ = request.conversation_id, request.execution_id
        await self._turns._ask("withdraw", lambda: self._turns.take_back(where, id_))
        return pb.WithdrawTurnResponse()

    async def _get(self, request: conversation_service.GetConversationRequest) -> Proto:
        id_ = request.conversation_id
        found = await self._turns._ask("active", lambda: self._turns.conversation(id_))
        return conversations.Conversation(id=id_, active_agent=_agent(found.active))

    async def _create(self, request: conversation_service.CreateConversationRequest) -> Proto:
        agent = request.conversation.active_agent
        who = Placement(agent.agent_id, agent.instance_id)
        id_ = await self._turns._ask("create", lambda: self._turns.make(who, request.request_id))
        return conversations.Conversation(id=id_, active_agent=agent)

    async def _instance(self, request: instance_service.GetInstanceRequest) -> Proto:
        id_ = request.instance_id
        found = await self._turns._ask("instance", lambda: self._turns.instance_of(id_))
        return Instance(
            instance_id=id_,
            agent_id=found.agent_id,
            conversation_id=found.conversation_id,
            cwd=found.cwd,
            emoji=found.emoji,
            mcp_configs=found.mcp_servers,
            statistics=InstanceStatistics(task_count=found.task_count),
        )


def _agent(who: Placement) -> conversations.AgentReference:
    return conversations.AgentReference(agent_id=who.agent_id, instance_id=who.instance_id)
