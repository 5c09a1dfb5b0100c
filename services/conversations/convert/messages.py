"""What is said as messages of the protos."""

from __future__ import annotations

from conductor.conversations.v1 import conversation_pb2 as pb
from conductor.conversations.v1 import message_service_pb2
from services.conversations.convert.references import named, reference_to_proto
from services.conversations.domain.messages import Draft, Message, Showing, Span, Status, Type
from services.kit.messages import timestamp

TYPES = {
    Type.USER: pb.Message.TYPE_USER,
    Type.AGENT: pb.Message.TYPE_AGENT,
    Type.DELEGATION: pb.Message.TYPE_DELEGATION,
    Type.SYSTEM: pb.Message.TYPE_SYSTEM,
}
STATUSES = {
    Status.PENDING: pb.Message.STATUS_PENDING,
    Status.COMPLETED: pb.Message.STATUS_COMPLETED,
    Status.FAILED: pb.Message.STATUS_FAILED,
    Status.CANCELLED: pb.Message.STATUS_CANCELLED,
}
_BY_NUMBER = {number: type_ for type_, number in TYPES.items()}


def draft_of(request: message_service_pb2.AppendMessageRequest, author: str) -> Draft:
    """Read what is to be said.

    Args:
        author: who asks, as in audit records.
    """
    given = request.message
    return Draft(
        type=_BY_NUMBER.get(given.type, Type.USER),
        content=given.content,
        author=author,
        agent=named(given.agent),
        target=named(given.target),
        reply_to=given.reply_to,
        request_id=request.request_id,
    )


def wanted_of(request: message_service_pb2.ListMessagesRequest) -> Span:
    """Read which messages to list."""
    showing = Showing.ALL if request.include_deleted else Showing.KEPT
    if request.exclude_hidden:
        showing = Showing.OPEN if request.include_deleted else Showing.SEEN
    return Span(
        conversation_id=request.conversation_id,
        after=request.after_position,
        before=request.before_position,
        newest_first=request.newest_first,
        showing=showing,
        reply_to=request.reply_to,
    )


def message_to_proto(message: Message) -> pb.Message:
    """Print a message."""
    printed = pb.Message(
        id=message.id,
        conversation_id=message.conversation_id,
        position=message.position,
        type=TYPES[message.type],
        content=message.content,
        status=STATUSES[message.status],
        reply_to=message.reply_to,
        execution_id=message.execution_id,
        error_reason=message.error_reason,
        error_message=message.error_message,
        hidden=message.hidden,
        author=message.author,
        create_time=timestamp(message.create_time),
    )
    if message.agent is not None:
        printed.agent.CopyFrom(reference_to_proto(message.agent))
    if message.target is not None:
        printed.target.CopyFrom(reference_to_proto(message.target))
    if message.complete_time is not None:
        printed.complete_time.CopyFrom(timestamp(message.complete_time))
    if message.delete_time is not None:
        printed.delete_time.CopyFrom(timestamp(message.delete_time))
    return printed
