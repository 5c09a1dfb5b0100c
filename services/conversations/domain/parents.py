"""What another service keeps, and conversations and instances belong to: its newest deletion."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from services.conversations.domain.conversations import Conversation
from services.kit.resources import deletions
from services.kit.resources.ties import tie


class Kind(StrEnum):
    """Kinds of things of the content service."""

    AGENT = "agent"
    SCREENPLAY = "screenplay"


@dataclass(frozen=True, slots=True)
class Parent:
    """What was heard of the deletions of a thing, whose ids are in their order."""

    org: str
    kind: Kind
    id: str
    """Of the thing."""
    create_time: int
    """When it was first heard of, in microseconds since the epoch."""
    deletion: str = ""
    """The newest one; empty before the first."""
    delete_time: int = 0
    """When that was, in microseconds since the epoch."""
    gone: bool = False
    """Whether that counts: it was not taken back, and not all is purged that went with it."""
    version: int = 1
    """Of the stored document."""

    @property
    def tie(self) -> str:
        """How things are tied to it."""
        return tie(self.kind, self.id)


def deleted(parent: Parent, deletion: str, time: int) -> Parent | None:
    """Hear that it was deleted; None when that is old.

    Args:
        time: when that was, in microseconds since the epoch.
    """
    if deletion < parent.deletion or (deletion == parent.deletion and not parent.gone):
        return None
    return replace(parent, deletion=deletion, delete_time=time, gone=True)


def back(parent: Parent, deletion: str) -> Parent | None:
    """Hear that it came back from its deletions up to this one; None when that is old."""
    if deletion < parent.deletion:
        return None
    return replace(parent, deletion=deletion, gone=False)


def taken(conversation: Conversation, deletion: str, time: int) -> Conversation | None:
    """Let a conversation go with its screenplay; None when it heard of that deletion, or a newer one.

    One that was deleted by itself stays as it is, and only hears of it.

    Args:
        time: when the screenplay was deleted, in microseconds since the epoch.
    """
    if deletion <= conversation.screenplay_deletion:
        return None
    life = conversation.life
    # Its own deletions have their ids from another clock, so they say nothing of which is newer.
    own = deletion if deletion > life.last_deletion else f"{life.last_deletion}+"
    gone = deletions.marked(life, own, time) or life
    return replace(conversation, life=gone, screenplay_deletion=deletion)


def returned(conversation: Conversation, deletion: str) -> Conversation | None:
    """Let a conversation come back with its screenplay; None when that changes nothing.

    Args:
        deletion: of the screenplay: it came back from all up to this one.
    """
    life, heard = conversation.life, conversation.screenplay_deletion
    back = deletions.unmarked(life, life.deletion) or life
    if deletion < heard or (deletion == heard and back == life):
        return None
    return replace(conversation, life=back, screenplay_deletion=deletion)
