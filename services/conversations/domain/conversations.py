"""Conversations, and how their messages change what they say of themselves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from services.conversations.domain import messages, turns
from services.conversations.domain.messages import Change, Message, Part, Reference, Type
from services.conversations.domain.turns import Turns
from services.kit.errors import DomainError, Reason, Resource, Violation, invalid
from services.kit.resources import conflicts, labels, request_ids
from services.kit.resources.controls import has_controls, has_controls_in_prose
from services.kit.resources.deletions import Life
from services.kit.resources.words import folded

LONGEST_CONTEXT = 50_000
DEFAULT_CHAIN_DEPTH = 10
MOST_PARTICIPANTS = 100
_SHORTEST_TITLE, LONGEST_TITLE = 3, 100


@dataclass(frozen=True, slots=True)
class Conversation:
    """A stored conversation: what is said of its messages follows the messages.

    Every change of a message that counts is decided by a change of this: the next position, the turns
    and the `changes`. So whoever replaces the version that was read knows of all of them.
    """

    org: str
    id: str
    title: str
    create_time: int
    """Microseconds since the epoch."""
    update_time: int
    """When it, or a message of it, last changed."""
    context: str = ""
    """Empty where it was not read."""
    screenplay_id: str = ""
    auto_delegate: bool = True
    max_chain_depth: int = DEFAULT_CHAIN_DEPTH
    allowed_agents: tuple[str, ...] = ()
    """Those that may take part; empty for all."""
    active_agent: Reference | None = None
    """Who answers messages that name no agent; None for the default one."""
    participants: tuple[Reference, ...] = ()
    display_order: float = 0.0
    revision: int = 1
    """How often it changed but for its messages, from 1; what the etag says."""
    head: int = 0
    """The position of the newest message that is counted here."""
    message_count: int = 0
    """How many messages are not deleted."""
    told_count: int = 0
    """How many messages later runs are told."""
    preview: str = ""
    preview_position: int = 0
    """Of the message that the preview is of; 0 for none."""
    turns: Turns = ()
    """The runs that answer in it, the one that runs first."""
    changes: tuple[Change, ...] = ()
    """What was decided about messages and may still be to do: it is counted here already."""
    cloned_from: str = ""
    visitor: bool = False
    """Whether it is the talk of a visitor, who has no name."""
    instance_ids: Mapping[str, str] = field(default_factory=dict)
    """Of a copy: the id of each instance's copy, by the id of the instance."""
    request_id: str = ""
    request_rpc: str = ""
    """The rpc whose request_id that is."""
    digest: str = ""
    """Of the request that made it, when it had a request_id."""
    screenplay_deletion: str = ""
    """The newest deletion of its screenplay that it heard of."""
    life: Life = field(default_factory=Life)
    version: int = 1
    """Of the stored document."""

    @property
    def etag(self) -> str:
        """What changes with each change but those that messages make."""
        return str(self.revision)

    @property
    def resource(self) -> Resource:
        """Itself, as errors name it."""
        return Resource("conversation", self.id)

    def answers(self, execution_id: str) -> bool:
        """Whether a run is among its turns."""
        return turns.place_of(self.turns, execution_id) is not None


@dataclass(frozen=True, slots=True)
class Asked:
    """What a caller asks to be made."""

    values: Mapping[str, Any]
    """By the names of the fields of Conversation that a caller gives."""
    request_id: str = ""


class Order(StrEnum):
    """What lists of conversations are in the order of."""

    UPDATE_TIME = "update_time"
    """By the newest message or change, newest first."""
    CREATE_TIME = "create_time"
    """Newest first."""
    TITLE = "title"
    """Whatever its case."""
    DISPLAY = "display"
    """By hand, the smallest first."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which conversations a list shows, and in which order."""

    query: str = ""
    """Words that all begin a word of the title."""
    screenplay_id: str = ""
    agent_id: str = ""
    """Who takes part."""
    order: Order = Order.UPDATE_TIME
    reverse: bool = False
    deleted: bool = False
    """Those that are deleted, instead of those that are not."""
    visitors: bool = False
    """The talks of visitors, instead of all others."""

    @property
    def place_type(self) -> type[int | str]:
        """What a place in the list begins with: a time, or text."""
        return int if self.order is Order.CREATE_TIME else str

    @property
    def newest_first(self) -> bool:
        """Whether it begins with the greatest."""
        return (self.order in (Order.UPDATE_TIME, Order.CREATE_TIME)) != self.reverse

    def content(self) -> list[Any]:
        """Return what page tokens are bound to."""
        return [
            self.query,
            self.screenplay_id,
            self.agent_id,
            self.order.value,
            self.reverse,
            self.deleted,
            self.visitors,
        ]


def title_key(title: str) -> str:
    """Make what orders conversations by title, whatever its case."""
    return folded(title)


# Rules


def tidy(values: Mapping[str, Any], at: str = "conversation.") -> dict[str, Any]:
    """Bring what a caller gives to the form it is stored in.

    Args:
        values: by the names of fields of Conversation.
        at: what stands before the names of fields in errors.

    Raises:
        DomainError: INVALID_REQUEST.
    """
    tidied = dict(values)
    if "title" in tidied:
        tidied["title"] = normal_title(tidied["title"], f"{at}title")
    if "context" in tidied:
        check_context(tidied["context"], f"{at}context")
    if tidied.get("max_chain_depth") == 0:
        tidied["max_chain_depth"] = DEFAULT_CHAIN_DEPTH
    if "display_order" in tidied:
        # There are two zeros, which are one place.
        tidied["display_order"] += 0.0
    return tidied


def normal_title(title: str, at: str) -> str:
    """Bring a title to the form it is kept in.

    Raises:
        DomainError: INVALID_REQUEST.
    """
    title = title.strip()
    if not _SHORTEST_TITLE <= len(title) <= LONGEST_TITLE:
        raise invalid(
            at,
            f"must have {_SHORTEST_TITLE} to {LONGEST_TITLE} characters besides blanks around them",
        )
    if has_controls(title):
        raise invalid(at, "must not hold control characters, such as line breaks")
    if not labels.is_seen(title):
        raise invalid(at, labels.UNSEEN)
    return title


def check_context(context: str, at: str) -> None:
    """Check a context.

    Raises:
        DomainError: INVALID_REQUEST.
    """
    if len(context) > LONGEST_CONTEXT:
        raise invalid(at, f"must have at most {LONGEST_CONTEXT} characters, not {len(context)}")
    if has_controls_in_prose(context):
        raise invalid(at, "must not hold control characters but tabs and line breaks")


def default_title(now: int) -> str:
    """Make the title of a conversation that was given none.

    Args:
        now: microseconds since the epoch.
    """
    time = datetime.fromtimestamp(now // 1_000_000, UTC)
    return f"Conversation {time:%Y-%m-%d %H:%M}"


def check_allowed(conversation: Conversation) -> None:
    """Check that who answers may take part.

    Raises:
        DomainError: AGENT_NOT_ALLOWED.
    """
    active = conversation.active_agent
    if active is not None:
        check_agent_allowed(conversation, active.agent_id)


def check_agent_allowed(conversation: Conversation, agent_id: str) -> None:
    """Check that an agent may take part.

    Raises:
        DomainError: AGENT_NOT_ALLOWED.
    """
    allowed = conversation.allowed_agents
    if allowed and agent_id not in allowed:
        raise DomainError(
            Reason.REASON_AGENT_NOT_ALLOWED,
            f"The conversation {conversation.id} lets only {', '.join(allowed)} take part, and "
            f"{agent_id} is none of them; change its allowed_agents, or choose one of them.",
            resources=[Resource("agent", agent_id), conversation.resource],
        )


# Changes


def made(org: str, id_: str, asked: Asked, now: int, digest: str = "") -> Conversation:
    """Make a conversation.

    Args:
        asked: with tidy values, and agents that were looked up.
        now: microseconds since the epoch.
        digest: of what was asked for, when it had a request_id.

    Raises:
        DomainError: AGENT_NOT_ALLOWED.
    """
    values = {"title": default_title(now), "display_order": now / 1_000_000, **asked.values}
    conversation = Conversation(
        org=org,
        id=id_,
        create_time=now,
        update_time=now,
        request_id=asked.request_id,
        request_rpc="CreateConversation" if asked.request_id else "",
        digest=digest,
        **values,
    )
    check_allowed(conversation)
    return joined(conversation, conversation.active_agent)


def digest_of(asked: Asked) -> str:
    """Make the digest of what was asked for, tidy; names and emojis were looked up, not asked for."""
    values = {name: value for name, value in asked.values.items() if value}
    active = values.get("active_agent")
    if active is not None:
        values["active_agent"] = [active.agent_id, active.instance_id]
    return request_ids.digest(values)


def changed(conversation: Conversation, values: Mapping[str, Any], now: int) -> Conversation | None:
    """Change a conversation, which makes a new etag; None when nothing changes.

    Args:
        values: tidy ones, by the names of fields.
        now: microseconds since the epoch.

    Raises:
        DomainError: AGENT_NOT_ALLOWED.
    """
    if all(getattr(conversation, name) == value for name, value in values.items()):
        return None
    after = replace(conversation, revision=conversation.revision + 1, **values)
    check_allowed(after)
    return touched(joined(after, after.active_agent), now)


def touched(conversation: Conversation, now: int) -> Conversation:
    """Note that it, or a message of it, changed."""
    # Lists in the order of changes know no two changes of one conversation at one time.
    return replace(conversation, update_time=max(now, conversation.update_time + 1))


def joined(conversation: Conversation, agent: Reference | None) -> Conversation:
    """Make an agent a participant; one that is keeps its place and gets its newest name."""
    if agent is None:
        return conversation
    found = conversation.participants
    for number, one in enumerate(found):
        if (one.agent_id, one.instance_id) == (agent.agent_id, agent.instance_id):
            return replace(
                conversation, participants=(*found[:number], agent, *found[number + 1 :])
            )
    if len(found) >= MOST_PARTICIPANTS:
        return conversation
    return replace(conversation, participants=(*found, agent))


# What messages make of it


def is_told(conversation: Conversation, message: Message) -> bool:
    """Whether later runs are told a message: an answer is not before its run left the turns."""
    return message.is_told and not is_awaited(conversation, message)


def is_shown(conversation: Conversation, message: Message) -> bool:
    """Whether a message may be the one that is previewed."""
    return message.is_seen and bool(message.preview) and not is_awaited(conversation, message)


def is_awaited(conversation: Conversation, message: Message) -> bool:
    """Whether a message is the answer of a run that has not left the turns."""
    return message.part is Part.ANSWER and conversation.answers(message.execution_id)


def followed(conversation: Conversation, message: Message) -> Conversation:
    """Count the message at the next position.

    Raises:
        ValueError: it is at another one.
    """
    if message.position != conversation.head + 1:
        raise ValueError(f"position {message.position} does not follow {conversation.head}")
    grown = replace(
        conversation,
        head=message.position,
        message_count=conversation.message_count + message.is_kept,
        update_time=max(message.create_time, conversation.update_time + 1),
    )
    return told(grown, message)


def told(conversation: Conversation, message: Message) -> Conversation:
    """Count a message, or an answer whose run just left the turns, among what is told and shown."""
    after = replace(
        conversation,
        told_count=conversation.told_count + is_told(conversation, message),
    )
    if is_shown(after, message):
        if message.position > after.preview_position:
            after = replace(after, preview=message.preview, preview_position=message.position)
        if message.type is Type.AGENT:
            after = joined(after, message.agent)
    return after


def left(
    conversation: Conversation, execution_id: str, answer: Message | None, now: int
) -> Conversation:
    """Let a run leave the turns; from now on its answer counts, if it has one.

    Args:
        answer: as it is stored, read after the conversation; None when there is none.
        now: microseconds since the epoch.
    """
    if not conversation.answers(execution_id):
        return conversation
    rest = turns.ended(conversation.turns, execution_id)
    after = touched(replace(conversation, turns=rest), now)
    return after if answer is None else told(after, answer)


def decided(
    conversation: Conversation, message: Message, change: Change, newest: Message | None
) -> Conversation:
    """Decide a change of a message, and count what it makes.

    Args:
        message: as it is stored, read after the conversation.
        newest: the newest other message that is shown; it counts when this one was previewed, and goes.
    """
    after = messages.applied(message, change)
    counted = replace(
        conversation,
        message_count=conversation.message_count + after.is_kept - message.is_kept,
        told_count=conversation.told_count
        + is_told(conversation, after)
        - is_told(conversation, message),
        changes=(*conversation.changes, change),
    )
    counted = touched(counted, change.time)
    shown = is_shown(conversation, after)
    if shown and message.position > conversation.preview_position:
        return replace(counted, preview=message.preview, preview_position=message.position)
    if not shown and message.position == conversation.preview_position:
        return replace(
            counted,
            preview="" if newest is None else newest.preview,
            preview_position=0 if newest is None else newest.position,
        )
    return counted


def settled(conversation: Conversation, change: Change) -> Conversation:
    """Note that a change of a message is done."""
    rest = tuple(one for one in conversation.changes if one.id != change.id)
    return replace(conversation, changes=rest)


# Errors


def not_found(conversation_id: str) -> DomainError:
    """Make the error for an id nobody has."""
    return DomainError(
        Reason.REASON_CONVERSATION_NOT_FOUND,
        f"No conversation has the id {conversation_id}.",
        resources=[Resource("conversation", conversation_id)],
    )


def is_deleted(conversation: Conversation) -> DomainError:
    """Make the error for a conversation that is deleted and can be taken back."""
    how = (
        f"its screenplay {conversation.screenplay_id} is, and it comes back with that"
        if conversation.life.inherited
        else "take it back with UndeleteConversation to use it"
    )
    return DomainError(
        Reason.REASON_CONVERSATION_NOT_FOUND,
        f"The conversation {conversation.id} is deleted; {how}.",
        resources=[Resource("conversation", conversation.id, "deleted")],
    )


def contended(conversation_id: str) -> DomainError:
    """Make the error for a conversation that many change at once; its id is empty before it has one."""
    return conflicts.contended(Resource("conversation", conversation_id))


def went_with_screenplay(conversation: Conversation) -> DomainError:
    """Make the error for a conversation that comes back with its screenplay alone."""
    description = "deleted; take it back, and the conversation comes back with it"
    return DomainError(
        Reason.REASON_SCREENPLAY_NOT_FOUND,
        f"The screenplay {conversation.screenplay_id} of the conversation is {description}.",
        violations=[Violation("conversation_id", f"belongs to a screenplay that is {description}")],
        resources=[Resource("screenplay", conversation.screenplay_id, "deleted")],
    )
