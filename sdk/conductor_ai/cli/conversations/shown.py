"""Conversations and messages, as people read them."""

from __future__ import annotations

from datetime import UTC, datetime

import grpc

from conductor.conversations.v1.conversation_pb2 import AgentReference, Conversation, Message
from conductor.conversations.v1.instance_pb2 import Instance
from conductor.conversations.v1.message_service_pb2 import ListMessagesRequest
from conductor_ai.cli import times
from conductor_ai.cli.output import enum_name, write_said
from conductor_ai.client import Client
from conductor_ai.errors import ConductorError


def agent_name(agent: AgentReference) -> str:
    """Name an agent, and the instance it is; empty for none."""
    instance = f" as {agent.instance_id}" if agent.instance_id else ""
    return f"{agent.agent_id}{instance}" if agent.agent_id else ""


def instance_name(instance: Instance) -> str:
    """Name an instance, and the agent it is one of."""
    return agent_name(AgentReference(agent_id=instance.agent_id, instance_id=instance.instance_id))


def active_name(conversation: Conversation) -> str:
    """Name who answers messages that name no agent."""
    return agent_name(conversation.active_agent) or "default"


def speaker(message: Message) -> str:
    """Name who says a message."""
    if message.type == Message.TYPE_AGENT:
        return message.agent.agent_id
    if message.type == Message.TYPE_DELEGATION:
        return f"{message.agent.agent_id} to {message.target.agent_id}"
    return "system" if message.type == Message.TYPE_SYSTEM else "user"


def state(message: Message) -> str:
    """Tell whether a message is complete, and what was done to it since."""
    name = enum_name(Message.Status, message.status, "STATUS_")
    marks = [name, "hidden" * message.hidden, "deleted" * message.HasField("delete_time")]
    return " ".join(mark for mark in marks if mark)


def text(message: Message) -> str:
    """Give what is said, and why not more of it."""
    parts = [message.content]
    if message.error_reason:
        parts.append(f"{message.error_reason}: {message.error_message}")
    return "\n\n".join(part for part in parts if part)


def transcript(message: Message) -> None:
    """Print a message whole, under a line that says whose it is."""
    age = times.age(message.create_time, datetime.now(UTC))
    # What is as usual needs no word.
    standing = state(message).removeprefix("completed").strip()
    aside = f" ({standing})" if standing else ""
    # Several instances of one agent may speak in turn.
    whose = agent_name(message.agent) if message.type == Message.TYPE_AGENT else speaker(message)
    write_said(f"#{message.position} {whose}, {age} ago{aside}", text(message))


async def message_id(client: Client, conversation_id: str, reference: str) -> str:
    """Give the id of a message that somebody names by its number, or by its id.

    Raises:
        ConductorError: no message has this number.
    """
    if not (reference.isascii() and reference.isdigit()):
        return reference
    number = int(reference)
    if 1 <= number < 2**32 - 1:
        filters = ListMessagesRequest(
            conversation_id=conversation_id,
            page_size=1,
            after_position=number - 1,
            before_position=number + 1,
            include_deleted=True,
        )
        async for message in client.conversations.messages.list(filters):
            return message.id
    raise ConductorError(
        grpc.StatusCode.NOT_FOUND,
        "MESSAGE_NOT_FOUND",
        f"{conversation_id} has no message {reference}",
    )


async def newest(
    client: Client, filters: ListMessagesRequest, limit: int
) -> tuple[list[Message], bool]:
    """Get the newest messages in the order they came in, and whether there are older ones."""
    asked = ListMessagesRequest()
    asked.CopyFrom(filters)
    asked.newest_first = True
    found: list[Message] = []
    async for message in client.conversations.messages.list(asked):
        if len(found) == limit:
            return found[::-1], True
        found.append(message)
    return found[::-1], False
