"""Copies of conversations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from services.conversations.domain.conversations import (
    LONGEST_TITLE,
    Conversation,
    is_awaited,
    touched,
)
from services.conversations.domain.messages import Message, Part, Reference, Status
from services.kit.resources import deletions
from services.kit.resources.deletions import Life


def copied_title(title: str) -> str:
    """Make the title of a copy."""
    ending = " (copy)"
    return f"{title[: LONGEST_TITLE - len(ending)].rstrip()}{ending}"


def copied(conversation: Conversation, id_: str, title: str, now: int, life: Life) -> Conversation:
    """Begin a copy without messages.

    Args:
        title: empty for that of the conversation, marked as a copy.
        now: microseconds since the epoch.
        life: of what nobody sees yet.
    """
    return Conversation(
        org=conversation.org,
        id=id_,
        title=title or copied_title(conversation.title),
        create_time=now,
        update_time=now,
        context=conversation.context,
        screenplay_id=conversation.screenplay_id,
        auto_delegate=conversation.auto_delegate,
        max_chain_depth=conversation.max_chain_depth,
        allowed_agents=conversation.allowed_agents,
        active_agent=conversation.active_agent,
        participants=conversation.participants,
        display_order=now / 1_000_000,
        cloned_from=conversation.id,
        life=life,
    )


def recast(copy: Conversation, instance_ids: Mapping[str, str]) -> Conversation:
    """Let the copies of instances take part in a copy in place of the instances."""
    return replace(
        copy,
        active_agent=recast_agent(copy.active_agent, instance_ids),
        participants=tuple(
            agent
            for one in copy.participants
            if (agent := recast_agent(one, instance_ids)) is not None
        ),
        instance_ids=instance_ids,
    )


def recast_agent(agent: Reference | None, instance_ids: Mapping[str, str]) -> Reference | None:
    """Name the copy of an instance; one that was not copied is left to its agent."""
    if agent is None or not agent.instance_id:
        return agent
    return replace(agent, instance_id=instance_ids.get(agent.instance_id, ""))


def is_copied(conversation: Conversation, message: Message) -> bool:
    """Whether a copy has a message: not what is deleted, and no answer that is awaited."""
    awaited = message.status is Status.PENDING or is_awaited(conversation, message)
    return message.is_kept and not awaited


def copied_message(
    message: Message, copy: Conversation, position: int, ids: Mapping[str, str]
) -> Message:
    """Make the copy of a message; no run starts or answers it.

    Args:
        ids: of the copies, by those of the messages: of this one and of all before it.
    """
    return replace(
        message,
        id=ids[message.id],
        conversation_id=copy.id,
        position=position,
        agent=recast_agent(message.agent, copy.instance_ids),
        target=recast_agent(message.target, copy.instance_ids),
        reply_to=ids.get(message.reply_to, ""),
        execution_id="",
        part=Part.NONE,
        change="",
        request_id="",
        digest="",
        version=1,
    )


def begun(copy: Conversation, now: int) -> Conversation:
    """Let a copy be seen."""
    return touched(replace(copy, life=deletions.begun(copy.life)), now)
