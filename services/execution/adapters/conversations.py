"""Conversations and instances as their service keeps them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import NoReturn, Protocol, TypedDict, TypeVar

import grpc
from google.protobuf.duration_pb2 import Duration

from conductor.conversations.v1 import busy_policy_pb2, conversation_pb2
from conductor.conversations.v1.conversation_service_pb2 import (
    CreateConversationRequest,
    GetConversationRequest,
)
from conductor.conversations.v1.instance_pb2 import Instance
from conductor.conversations.v1.instance_service_pb2 import GetInstanceRequest
from conductor.conversations.v1.turn_service_pb2 import (
    AppendTurnRequest,
    AppendTurnResponse,
    FillAnswerRequest,
    FillAnswerResponse,
    ReadHistoryRequest,
    ReadHistoryResponse,
    ReadTurnRequest,
    ReadTurnResponse,
    WithdrawTurnRequest,
    WithdrawTurnResponse,
)
from services.execution.domain import (
    Appended,
    Context,
    Execution,
    Filling,
    Placement,
    Remark,
    Talk,
    Voice,
    unavailable_feature,
)
from services.execution.ports import AwayError, Left
from services.kit import ids
from services.kit.errors import DomainError, Reason, code_of, of_field
from services.kit.peers import Metadata

OWNER = "conversations"
"""The service that keeps them."""

_ANSWER_SECONDS = 2.0
_READ_SECONDS = 5.0
_AGAIN_SECONDS = 0.1
_HISTORY_BYTES = 3 * 1024 * 1024
_PREVIEW_CHARACTERS = 2000
_MESSAGE_CHARACTERS = 2000
_AUTHOR_CHARACTERS = 200
_CONTENT_BYTES = 1024 * 1024
_FIELDS = {
    Reason.REASON_CONVERSATION_NOT_FOUND: "conversation_id",
    Reason.REASON_INSTANCE_NOT_FOUND: "instance_id",
    Reason.REASON_MESSAGE_NOT_FOUND: "reply_to",
    Reason.REASON_AGENT_NOT_ALLOWED: "agent_id",
}
_MADE_OF = {
    "conversation.screenplay_id": "screenplay_id",
    "conversation.active_agent.agent_id": "agent_id",
    "conversation.active_agent.instance_id": "instance_id",
}
_FINAL_CODES = frozenset(
    {
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.ALREADY_EXISTS,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.FAILED_PRECONDITION,
    }
)
_FINAL_REASONS = frozenset({Reason.REASON_CONVERSATION_BUSY, Reason.REASON_TURN_WITHDRAWN})

T = TypeVar("T")


class _Own(TypedDict):
    """How this service asks."""

    timeout: float
    metadata: Metadata


class TurnStub(Protocol):
    """What is asked of turns: the generated stub."""

    def AppendTurn(  # noqa: N802 generated
        self, request: AppendTurnRequest, *, timeout: float, metadata: Metadata
    ) -> Awaitable[AppendTurnResponse]:
        """Add a turn."""
        ...

    def ReadTurn(  # noqa: N802 generated
        self, request: ReadTurnRequest, *, timeout: float, metadata: Metadata
    ) -> Awaitable[ReadTurnResponse]:
        """Read a turn."""
        ...

    def ReadHistory(  # noqa: N802 generated
        self, request: ReadHistoryRequest, *, timeout: float, metadata: Metadata
    ) -> Awaitable[ReadHistoryResponse]:
        """Read what earlier runs came to."""
        ...

    def FillAnswer(  # noqa: N802 generated
        self, request: FillAnswerRequest, *, timeout: float, metadata: Metadata
    ) -> Awaitable[FillAnswerResponse]:
        """Complete an answer."""
        ...

    def WithdrawTurn(  # noqa: N802 generated
        self, request: WithdrawTurnRequest, *, timeout: float, metadata: Metadata
    ) -> Awaitable[WithdrawTurnResponse]:
        """Take a turn back."""
        ...


class InstanceStub(Protocol):
    """What is asked of instances: a part of the generated stub."""

    def GetInstance(  # noqa: N802 generated
        self, request: GetInstanceRequest, *, timeout: float, metadata: Metadata
    ) -> Awaitable[Instance]:
        """Read an instance."""
        ...


class ConversationStub(Protocol):
    """What is asked of conversations: a part of the generated stub."""

    def GetConversation(  # noqa: N802 generated
        self, request: GetConversationRequest, *, timeout: float, metadata: Metadata
    ) -> Awaitable[conversation_pb2.Conversation]:
        """Read a conversation."""
        ...

    def CreateConversation(  # noqa: N802 generated
        self, request: CreateConversationRequest, *, timeout: float, metadata: Metadata
    ) -> Awaitable[conversation_pb2.Conversation]:
        """Make a conversation."""
        ...


class KeptConversations:
    """The conversations of their service, asked for by this one as itself.

    Each question may be asked twice: a process that was away may be back, or another one there.

    Args:
        itself: makes the metadata of a call of this service's own, about an organisation.
    """

    def __init__(
        self,
        turns: TurnStub,
        instances: InstanceStub,
        conversations: ConversationStub,
        itself: Callable[[str], Metadata],
    ) -> None:
        self._turns = turns
        self._instances = instances
        self._conversations = conversations
        self._itself = itself

    async def instance(self, org: str, instance_id: str) -> Placement:
        """Read where an agent is placed."""
        request = GetInstanceRequest(instance_id=instance_id)
        found = await self._ask(org, lambda own: self._instances.GetInstance(request, **own))
        return Placement(
            agent_id=found.agent_id,
            instance_id=found.instance_id,
            conversation_id=found.conversation_id,
            screenplay_id=found.screenplay_id,
            cwd=found.cwd,
            emoji=found.emoji,
            mcp_servers=tuple(found.mcp_configs),
            task_count=found.statistics.task_count,
        )

    async def active(self, org: str, conversation_id: str) -> Placement:
        """Read who answers in a conversation."""
        request = GetConversationRequest(conversation_id=conversation_id)
        found = await self._ask(
            org, lambda own: self._conversations.GetConversation(request, **own)
        )
        agent = found.active_agent
        return Placement(
            agent_id=agent.agent_id,
            instance_id=agent.instance_id,
            conversation_id=conversation_id,
            screenplay_id=found.screenplay_id,
            emoji=agent.emoji,
        )

    async def create(self, org: str, who: Placement, request_id: str) -> str:
        """Make a conversation."""
        request = CreateConversationRequest(
            conversation=conversation_pb2.Conversation(screenplay_id=who.screenplay_id),
            request_id=request_id or ids.new_id("open"),
        )
        if who.agent_id:
            agent = request.conversation.active_agent
            agent.agent_id, agent.instance_id = who.agent_id, who.instance_id
        try:
            made = await self._ask(
                org, lambda own: self._conversations.CreateConversation(request, **own), tries=2
            )
        except DomainError as error:
            raise _of_the_session(error) from error
        return made.id

    async def append(self, execution: Execution) -> Appended:
        """Add the message of a run and the answer that is awaited."""
        order, talk = execution.order, execution.talk or Talk()
        request = AppendTurnRequest(
            execution_id=execution.id,
            conversation_id=order.conversation_id,
            input=order.input,
            agent=_agent(
                order.agent_id,
                order.instance_id,
                "" if order.agent is None else order.agent.name,
                talk.emoji,
            ),
            reply_to=talk.reply_to,
            busy_policy=busy_policy_pb2.BusyPolicy.Value(f"BUSY_POLICY_{talk.busy_policy.upper()}"),
            author=talk.author[:_AUTHOR_CHARACTERS],
        )
        added = await self._ask(
            execution.org, lambda own: self._turns.AppendTurn(request, **own), tries=2
        )
        return Appended(
            added.message_id, added.answer_id, added.place, tuple(added.interrupted_executions)
        )

    async def place(self, execution: Execution) -> int:
        """Count the runs that answer before one."""
        request = ReadTurnRequest(
            execution_id=execution.id, conversation_id=execution.order.conversation_id
        )
        read = await self._ask(execution.org, lambda own: self._turns.ReadTurn(request, **own))
        return read.place

    async def read(self, execution: Execution, max_bytes: int) -> Context:
        """Read what was said before a run, as it is told of it."""
        order = execution.order
        request = ReadTurnRequest(
            execution_id=execution.id,
            conversation_id=order.conversation_id,
            max_bytes=min(max_bytes, _HISTORY_BYTES),
        )
        read = await self._ask(
            execution.org, lambda own: self._turns.ReadTurn(request, **own), seconds=_READ_SECONDS
        )
        itself = order.agent_id, order.instance_id
        return Context(
            title=read.title,
            context=read.context,
            history=[_remark(message, itself) for message in read.history],
            omitted=read.omitted_count,
        )

    async def recall(self, execution: Execution, max_bytes: int) -> Context:
        """Read what the earlier runs of an instance outside of conversations were asked and answered."""
        order = execution.order
        request = ReadHistoryRequest(
            instance_id=order.instance_id,
            task_count=order.earlier_runs,
            max_bytes=min(max_bytes, _HISTORY_BYTES),
        )
        read = await self._ask(
            execution.org,
            lambda own: self._turns.ReadHistory(request, **own),
            seconds=_READ_SECONDS,
        )
        history = []
        for run in read.history:
            history.append(Remark(Voice.USER, _marked(run.user_input)))
            history.append(Remark(Voice.SELF, _marked(run.ai_response)))
        return Context(history=history, omitted=2 * read.omitted_count)

    async def fill(self, filling: Filling) -> None:
        """Complete an answer."""
        seconds, rest = divmod(filling.duration, 1_000_000)
        content = filling.content
        if not filling.conversation_id:
            # Of runs outside of conversations histories keep the beginning alone.
            content = content.encode()[:_CONTENT_BYTES].decode(errors="ignore")
        request = FillAnswerRequest(
            execution_id=filling.execution_id,
            conversation_id=filling.conversation_id,
            agent=_agent(filling.agent_id, filling.instance_id, filling.agent_name, filling.emoji),
            input_preview=filling.input[:_PREVIEW_CHARACTERS],
            status=conversation_pb2.Message.Status.Value(f"STATUS_{filling.status.upper()}"),
            content=content,
            error_reason=filling.error_reason,
            error_message=filling.error_message[:_MESSAGE_CHARACTERS],
            duration=Duration(seconds=seconds, nanos=rest * 1000),
        )
        await self._ask(filling.org, lambda own: self._turns.FillAnswer(request, **own))

    async def withdraw(self, left: Left) -> None:
        """Take the message and the answer of a run back."""
        request = WithdrawTurnRequest(execution_id=left.id, conversation_id=left.conversation_id)
        await self._ask(left.org, lambda own: self._turns.WithdrawTurn(request, **own))

    async def _ask(
        self,
        org: str,
        ask: Callable[[_Own], Awaitable[T]],
        *,
        tries: int = 1,
        seconds: float = _ANSWER_SECONDS,
    ) -> T:
        own: _Own = {"timeout": seconds, "metadata": self._itself(org)}
        asked = 0
        while True:
            asked += 1
            try:
                return await ask(own)
            except DomainError as error:
                is_final = _is_final(error)
                refusal = of_field(error, _FIELDS.get(error.reason, "")) if is_final else error
                if is_final and asked == 1:
                    raise refusal from error
                if is_final or asked == tries:
                    # What is refused now may have been done when it was asked for first.
                    raise AwayError(refusal) from error
            await asyncio.sleep(_AGAIN_SECONDS)


class NoConversations:
    """Conversations where the settings do not say who keeps them: whatever needs them is refused."""

    async def instance(self, org: str, instance_id: str) -> Placement:  # noqa: ARG002 the port's
        """Refuse an instance."""
        raise _missing("instance_id", "agent instances")

    async def active(self, org: str, conversation_id: str) -> Placement:  # noqa: ARG002 the port's
        """Refuse a conversation."""
        raise _missing("conversation_id", "conversations")

    async def create(self, org: str, who: Placement, request_id: str) -> str:  # noqa: ARG002 the port's
        """Refuse to make one."""
        raise _missing("template.conversation_id", "conversations")

    async def append(self, execution: Execution) -> Appended:  # noqa: ARG002 the port's
        """Refuse a message."""
        raise _missing("conversation_id", "conversations")

    async def read(self, execution: Execution, max_bytes: int) -> Context:  # noqa: ARG002 the port's
        """Wait for settings that say it."""
        self._wait()

    async def place(self, execution: Execution) -> int:  # noqa: ARG002 the port's
        """Wait for settings that say it."""
        self._wait()

    async def recall(self, execution: Execution, max_bytes: int) -> Context:  # noqa: ARG002 the port's
        """Wait for settings that say it."""
        self._wait()

    async def fill(self, filling: Filling) -> None:  # noqa: ARG002 the port's
        """Wait for settings that say it."""
        self._wait()

    async def withdraw(self, left: Left) -> None:  # noqa: ARG002 the port's
        """Wait for settings that say it."""
        self._wait()

    @staticmethod
    def _wait() -> NoReturn:
        sentence = "The settings do not say where conversations are kept."
        raise AwayError(DomainError(Reason.REASON_SERVICE_UNAVAILABLE, sentence, retry_after=5.0))


def _missing(field: str, what: str) -> DomainError:
    return unavailable_feature(
        field, f"this mesh keeps no {what}: CONDUCTOR_PEERS names no {OWNER}; leave it empty"
    )


def _agent(
    agent_id: str, instance_id: str, name: str, emoji: str
) -> conversation_pb2.AgentReference:
    return conversation_pb2.AgentReference(
        agent_id=agent_id, instance_id=instance_id, name=name, emoji=emoji
    )


def _remark(message: conversation_pb2.Message, itself: tuple[str, str]) -> Remark:
    """Read a message as the agent hears it that is, or runs as, `itself`."""
    agent = message.agent
    match message.type:
        case conversation_pb2.Message.TYPE_SYSTEM:
            voice = Voice.MESH
        case conversation_pb2.Message.TYPE_AGENT | conversation_pb2.Message.TYPE_DELEGATION:
            is_own = (agent.agent_id, agent.instance_id) == itself
            voice = Voice.SELF if is_own else Voice.AGENT
        case _:
            voice = Voice.USER
    name = (agent.name or agent.agent_id) if voice is Voice.AGENT else ""
    return Remark(voice, message.content, name)


def _marked(text: str) -> str:
    """Say of a text of which histories keep the beginning alone that it goes on."""
    return text if len(text) < _PREVIEW_CHARACTERS else f"{text} […]"


def _of_the_session(error: DomainError) -> DomainError:
    """Say which field of a session is wrong, instead of one of the conversation made for it."""
    for one in error.violations:
        said = DomainError(
            error.reason, one.description, resources=error.resources, metadata=error.metadata
        )
        return of_field(said, _MADE_OF.get(one.field, one.field))
    return error


def _is_final(error: DomainError) -> bool:
    """Whether the same answer would come again, and nothing was done."""
    return error.reason in _FINAL_REASONS or code_of(error.reason) in _FINAL_CODES
