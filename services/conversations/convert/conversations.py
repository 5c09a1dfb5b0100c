"""Conversations as messages."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from conductor.conversations.v1 import conversation_pb2
from conductor.conversations.v1 import conversation_service_pb2 as pb
from services.conversations.convert.references import named, reference_to_proto
from services.conversations.domain.conversations import Asked, Conversation, Order, Wanted
from services.conversations.domain.messages import Reference
from services.kit.errors import invalid
from services.kit.messages import life_to_proto, timestamp

UPDATABLE = frozenset(
    {
        "title",
        "context",
        "auto_delegate",
        "max_chain_depth",
        "allowed_agents",
        "active_agent",
        "display_order",
    }
)
"""The fields that an update may change."""
_ORDER = "ORDER_"


def asked_of_create(request: pb.CreateConversationRequest) -> Asked:
    """Read what a caller asks to be made."""
    given = request.conversation
    fields = {field.name for field, _ in given.ListFields()} & (UPDATABLE | {"screenplay_id"})
    values = values_of(given, fields)
    if values.get("active_agent", "") is None:
        del values["active_agent"]
    return Asked(values, request.request_id)


def values_of(message: conversation_pb2.Conversation, fields: Collection[str]) -> dict[str, Any]:
    """Read the fields of a conversation that change."""
    return {name: _value(message, name) for name in fields}


def settings_of(request: pb.SetConversationSettingsRequest) -> dict[str, Any]:
    """Read the settings that change.

    Raises:
        DomainError: INVALID_REQUEST, when none does.
    """
    values: dict[str, Any] = {}
    if request.HasField("auto_delegate"):
        values["auto_delegate"] = request.auto_delegate
    if request.HasField("max_chain_depth"):
        values["max_chain_depth"] = request.max_chain_depth
    if not values:
        raise invalid("auto_delegate", "must be there, or max_chain_depth")
    return values


def active_agent_of(request: pb.SetActiveAgentRequest) -> Reference | None:
    """Read who is to answer."""
    return named(request.agent_info)


def _value(message: conversation_pb2.Conversation, name: str) -> Any:
    if name == "active_agent":
        return named(message.active_agent)
    value = getattr(message, name)
    return tuple(value) if name == "allowed_agents" else value


def context_of(request: pb.UploadConversationContextRequest) -> str:
    """Read the text of a file.

    Raises:
        DomainError: INVALID_REQUEST, when it is not UTF-8.
    """
    try:
        return request.file.data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise invalid("file", f"must be text in UTF-8; byte {error.start} is not") from None


def conversation_to_proto(
    conversation: Conversation, keep_days: float
) -> conversation_pb2.Conversation:
    """Print a conversation.

    Args:
        keep_days: how long what is deleted is kept; 0 for ever.
    """
    message = conversation_pb2.Conversation(
        id=conversation.id,
        title=conversation.title,
        context=conversation.context,
        screenplay_id=conversation.screenplay_id,
        auto_delegate=conversation.auto_delegate,
        max_chain_depth=conversation.max_chain_depth,
        allowed_agents=conversation.allowed_agents,
        active_agent=None
        if conversation.active_agent is None
        else reference_to_proto(conversation.active_agent),
        participants=map(reference_to_proto, conversation.participants),
        display_order=conversation.display_order,
        message_count=conversation.message_count,
        last_message_preview=conversation.preview,
        pending_executions=[turn.execution_id for turn in conversation.turns],
        cloned_from=conversation.cloned_from,
        visitor=conversation.visitor,
        create_time=timestamp(conversation.create_time),
        update_time=timestamp(conversation.update_time),
        etag=conversation.etag,
    )
    life_to_proto(conversation.life, message, keep_days)
    return message


def summary_to_proto(conversation: Conversation, keep_days: float) -> conversation_pb2.Conversation:
    """Print a conversation without its context, as in lists."""
    message = conversation_to_proto(conversation, keep_days)
    message.ClearField("context")
    return message


def wanted_of(request: pb.ListConversationsRequest) -> Wanted:
    """Read which conversations to list."""
    name = pb.ListConversationsRequest.Order.Name(request.order).removeprefix(_ORDER)
    return Wanted(
        query=request.query,
        screenplay_id=request.screenplay_id,
        agent_id=request.agent_id,
        order=Order[name] if request.order else Order.UPDATE_TIME,
        reverse=request.reverse,
        deleted=request.deleted,
        visitors=request.visitors,
    )
