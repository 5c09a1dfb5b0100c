"""Turns as messages of the protos."""

from __future__ import annotations

from conductor.conversations.v1 import busy_policy_pb2, conversation_pb2
from conductor.conversations.v1 import turn_service_pb2 as pb
from services.conversations.convert.messages import STATUSES, message_to_proto
from services.conversations.domain.exchanges import Added, Asked, Filling, Told
from services.conversations.domain.messages import Reference
from services.conversations.domain.turns import Policy

_POLICIES = {
    busy_policy_pb2.BUSY_POLICY_UNSPECIFIED: Policy.QUEUE,
    busy_policy_pb2.BUSY_POLICY_REJECT: Policy.REJECT,
    busy_policy_pb2.BUSY_POLICY_QUEUE: Policy.QUEUE,
    busy_policy_pb2.BUSY_POLICY_INTERRUPT: Policy.INTERRUPT,
}
_STATUSES = {number: status for status, number in STATUSES.items()}
_MOST_BYTES = 4 * 1024 * 1024 - 64 * 1024
"""What a message may have that every client takes, with some room for what goes with it."""


def asked_of(request: pb.AppendTurnRequest, org: str, author: str) -> Asked:
    """Read a turn to add.

    Args:
        author: who asks, for when the request does not say who says it.
    """
    return Asked(
        org,
        request.execution_id,
        request.conversation_id,
        request.input,
        _agent_of(request.agent),
        request.author or author,
        request.reply_to,
        _POLICIES[request.busy_policy],
    )


def added_to_proto(added: Added) -> pb.AppendTurnResponse:
    """Print a turn that was added."""
    return pb.AppendTurnResponse(
        message_id=added.message.id,
        answer_id=added.answer.id,
        place=added.placed.place,
        interrupted_executions=added.placed.interrupted,
    )


def told_to_proto(told: Told) -> pb.ReadTurnResponse:
    """Print what a run is told; of many short messages the oldest ones do not fit."""
    conversation = told.conversation
    printed = pb.ReadTurnResponse(
        title=conversation.title,
        context=conversation.context,
        history=map(message_to_proto, told.history),
        omitted_count=told.omitted,
        place=told.place,
    )
    size = printed.ByteSize()
    dropped = 0
    while size > _MOST_BYTES:
        size -= printed.history[dropped].ByteSize()
        dropped += 1
    del printed.history[:dropped]
    printed.omitted_count += dropped
    return printed


def filling_of(request: pb.FillAnswerRequest, org: str) -> Filling:
    """Read how a run ended."""
    duration = request.duration
    return Filling(
        org,
        request.execution_id,
        request.conversation_id,
        _agent_of(request.agent),
        request.input_preview,
        _STATUSES[request.status],
        request.content,
        max(duration.seconds * 1_000_000 + duration.nanos // 1000, 0),
        request.error_reason,
        request.error_message,
    )


def _agent_of(given: conversation_pb2.AgentReference) -> Reference:
    # With name and emoji: who runs it has looked them up.
    return Reference(given.agent_id, given.instance_id, given.name, given.emoji)
