"""What is said in a conversation, and what happens to it afterwards."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from services.kit.errors import DomainError, Reason, Resource, invalid, of_field
from services.kit.resources import request_ids

PREVIEW = 200
"""How many characters of a message its conversation shows."""


@dataclass(frozen=True, slots=True)
class Reference:
    """An agent, perhaps as one of its instances."""

    agent_id: str
    instance_id: str = ""
    name: str = ""
    emoji: str = ""


class Type(StrEnum):
    """Who says something."""

    USER = "user"
    AGENT = "agent"
    DELEGATION = "delegation"
    SYSTEM = "system"


class Status(StrEnum):
    """Whether a message is complete."""

    PENDING = "pending"
    """An answer that is awaited."""
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Part(StrEnum):
    """Which message of a turn one is."""

    NONE = ""
    USER = "user"
    ANSWER = "answer"


@dataclass(frozen=True, slots=True)
class Draft:
    """A message to add."""

    type: Type
    content: str
    author: str
    status: Status = Status.COMPLETED
    agent: Reference | None = None
    target: Reference | None = None
    """Whom work is handed to."""
    reply_to: str = ""
    """The id of a message of the same conversation."""
    execution_id: str = ""
    """The run it starts or answers."""
    part: Part = Part.NONE
    """Which message of the turn of that run it is. A turn has one of each, however often it is added."""
    request_id: str = ""
    withdrawn: bool = False
    """Whether it only takes the place of what must not be said any more: it is deleted from the start."""


@dataclass(frozen=True, slots=True)
class Message:
    """A stored message."""

    org: str
    id: str
    conversation_id: str
    position: int
    """Its place in the conversation, from 1 without gaps."""
    create_time: int
    """Microseconds since the epoch; no earlier than that of the position before."""
    type: Type
    author: str
    content: str = ""
    """Empty where it was not read: lists leave long texts out, as `is_whole` tells."""
    content_bytes: int = 0
    """Of the content in UTF-8."""
    preview: str = ""
    """The first characters of the content."""
    status: Status = Status.COMPLETED
    agent: Reference | None = None
    target: Reference | None = None
    reply_to: str = ""
    execution_id: str = ""
    part: Part = Part.NONE
    error_reason: str = ""
    error_message: str = ""
    hidden: bool = False
    """Whether it is left out of what later runs are told."""
    delete_time: int | None = None
    """Microseconds since the epoch; None while it is not deleted."""
    complete_time: int | None = None
    """When an answer was complete, or was known not to come."""
    change: str = ""
    """The id of the last change that hid or deleted it, or took that back."""
    withdrawn: bool = False
    """Whether its turn was taken back: it is deleted, or is about to be, and never comes back."""
    request_id: str = ""
    digest: str = ""
    """Of the request that added it, when it had a request_id."""
    version: int = 1
    """Of the stored document."""

    @property
    def resource(self) -> Resource:
        """Itself, as errors name it."""
        return Resource("message", self.id)

    @property
    def is_kept(self) -> bool:
        """Whether it is not deleted."""
        return self.delete_time is None

    @property
    def is_seen(self) -> bool:
        """Whether it is neither deleted nor hidden."""
        return self.is_kept and not self.hidden

    @property
    def is_told(self) -> bool:
        """Whether later runs are told it: it says something, and is neither deleted nor hidden.

        An answer that was cut off says what there was of it.

        The answer of a run that has not left its conversation's turns is not yet told, whatever this
        says: `conversations.is_told` knows.
        """
        return self.is_seen and (self.status is Status.COMPLETED or bool(self.content_bytes))

    @property
    def is_whole(self) -> bool:
        """Whether its content was read."""
        return bool(self.content) or not self.content_bytes


@dataclass(frozen=True, slots=True)
class Change:
    """A decision about a message that its conversation counts already."""

    id: str
    position: int
    """Of the message."""
    deleted: bool
    """Whether it is deleted from then on."""
    hidden: bool
    """Whether it is hidden from then on."""
    time: int
    """Microseconds since the epoch."""


class Showing(StrEnum):
    """Which messages are read, by what became of them."""

    ALL = "all"
    KEPT = "kept"
    """Those that are not deleted."""
    OPEN = "open"
    """Those that are not hidden."""
    SEEN = "seen"
    """Those that are neither deleted nor hidden."""
    TOLD = "told"
    """Those of them that say something, also what was cut off."""


@dataclass(frozen=True, slots=True)
class Span:
    """Which messages of a conversation are read, in the order of their positions."""

    conversation_id: str
    after: int = 0
    """Only those behind this position; 0 for all."""
    before: int = 0
    """Only those in front of this position; 0 for all."""
    newest_first: bool = False
    showing: Showing = Showing.KEPT
    reply_to: str = ""
    """Only replies to this message."""

    def beyond(self, position: int) -> Span:
        """Go on behind a message of it, in the order it is read in."""
        if self.newest_first:
            return replace(self, before=min(position, self.before or position))
        return replace(self, after=max(position, self.after))

    def content(self) -> list[Any]:
        """Return what page tokens are bound to."""
        return [
            self.conversation_id,
            self.after,
            self.before,
            self.newest_first,
            self.showing.value,
            self.reply_to,
        ]


def document_id(conversation_id: str, position: int) -> str:
    """Make the id of a message's document: the next one is taken by whoever comes first."""
    return f"{conversation_id}.{position:010d}"


def checked(draft: Draft, at: str = "message.") -> Draft:
    """Check what a caller asks to be added.

    Args:
        at: what stands before the names of fields in errors.

    Raises:
        DomainError: INVALID_REQUEST.
    """
    if not draft.content.strip():
        raise invalid(f"{at}content", "must say something besides white space")
    speaks = draft.type in (Type.AGENT, Type.DELEGATION)
    if speaks and draft.agent is None:
        raise invalid(f"{at}agent", "is needed for what an agent says: give its agent_id")
    if not speaks and draft.agent is not None:
        raise invalid(f"{at}agent", "is only for TYPE_AGENT and TYPE_DELEGATION; leave it out")
    if draft.type is Type.DELEGATION and draft.target is None:
        raise invalid(f"{at}target", "is needed for TYPE_DELEGATION: whom work is handed to")
    if draft.type is not Type.DELEGATION and draft.target is not None:
        raise invalid(f"{at}target", "is only for TYPE_DELEGATION; leave it out")
    return draft


def placed(
    draft: Draft,
    org: str,
    id_: str,
    conversation_id: str,
    position: int,
    now: int,
    digest: str = "",
) -> Message:
    """Make a message of what is to be said.

    Args:
        position: the next one of its conversation.
        now: microseconds since the epoch.
        digest: of the request, when the draft has a request_id.
    """
    return Message(
        org=org,
        id=id_,
        conversation_id=conversation_id,
        position=position,
        create_time=now,
        type=draft.type,
        author=draft.author,
        content=draft.content,
        content_bytes=len(draft.content.encode()),
        preview=preview(draft.content),
        status=draft.status,
        agent=draft.agent,
        target=draft.target,
        reply_to=draft.reply_to,
        execution_id=draft.execution_id,
        part=draft.part,
        delete_time=now if draft.withdrawn else None,
        withdrawn=draft.withdrawn,
        request_id=draft.request_id,
        digest=digest,
    )


def digest_of(draft: Draft, conversation_id: str) -> str:
    """Make the digest of what is asked to be added, and where."""
    agents = [
        None if one is None else [one.agent_id, one.instance_id]
        for one in (draft.agent, draft.target)
    ]
    return request_ids.digest(
        [conversation_id, draft.type.value, draft.content, draft.reply_to, agents]
    )


def filled(
    message: Message,
    status: Status,
    content: str,
    now: int,
    *,
    error_reason: str = "",
    error_message: str = "",
) -> Message:
    """Complete an answer that is awaited; one that is not awaited any more stays as it is.

    Args:
        status: how its run ended.
        now: microseconds since the epoch.
    """
    if message.status is not Status.PENDING:
        return message
    return replace(
        message,
        status=status,
        content=content,
        content_bytes=len(content.encode()),
        preview=preview(content),
        error_reason=error_reason,
        error_message=error_message,
        complete_time=max(now, message.create_time),
    )


def withdrawn(message: Message, now: int) -> Message:
    """Take back that something is said; an answer is no longer awaited. It is to be deleted then.

    Args:
        now: microseconds since the epoch.
    """
    return replace(filled(message, Status.CANCELLED, "", now), withdrawn=True)


def applied(message: Message, change: Change) -> Message:
    """Do to a message what was decided; done again it changes nothing."""
    delete_time = message.delete_time
    if change.deleted != (delete_time is not None):
        delete_time = max(change.time, message.create_time) if change.deleted else None
    return replace(message, delete_time=delete_time, hidden=change.hidden, change=change.id)


def preview(content: str) -> str:
    """Take the first characters of a text; marks stay with the letters they belong to."""
    end = PREVIEW
    if len(content) > end and unicodedata.category(content[end])[0] == "M":
        while end > 0 and unicodedata.category(content[end])[0] == "M":
            end -= 1
    return content[: end or PREVIEW]


# Errors


def not_found(message_id: str, conversation_id: str, field: str = "") -> DomainError:
    """Make the error for an id that no message of the conversation has.

    Args:
        field: of the request that names it, where that is not the message it is about.
    """
    error = DomainError(
        Reason.REASON_MESSAGE_NOT_FOUND,
        f"The conversation {conversation_id} has no message with the id {message_id}.",
        resources=[Resource("message", message_id)],
    )
    return of_field(error, field)
