"""What is asked of turns by those who run them, and what they are answered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from services.conversations.domain.conversations import Conversation
from services.conversations.domain.messages import Message, Reference, Status
from services.conversations.domain.turns import Placed, Policy


@dataclass(frozen=True, slots=True)
class Asked:
    """A turn to add."""

    org: str
    execution_id: str
    conversation_id: str
    input: str
    agent: Reference
    """Who answers, with name and emoji as they are now."""
    author: str
    reply_to: str = ""
    policy: Policy = Policy.QUEUE


@dataclass(frozen=True, slots=True)
class Added:
    """A turn that was added."""

    message: Message
    answer: Message
    placed: Placed


@dataclass(frozen=True, slots=True)
class Told:
    """What a run is told of its conversation."""

    conversation: Conversation
    place: int
    """How many runs answer before it. While any does, no history is told."""
    history: Sequence[Message] = ()
    """In the order of their positions."""
    omitted: int = 0
    """How many more there were."""


@dataclass(frozen=True, slots=True)
class Filling:
    """How a run ended."""

    org: str
    execution_id: str
    conversation_id: str
    """Empty for none."""
    agent: Reference
    question: str
    """The beginning of what was asked."""
    status: Status
    content: str
    duration: int
    """Microseconds."""
    error_reason: str = ""
    error_message: str = ""
