"""What a run is to its conversation: the turn it takes there, and what its answer comes to."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class BusyPolicy(StrEnum):
    """What happens while other runs answer in the conversation."""

    QUEUE = "queue"
    REJECT = "reject"
    INTERRUPT = "interrupt"


class Errand(StrEnum):
    """What is left to be done for a run at its conversation, whoever does it."""

    NONE = ""
    APPEND = "append"
    """Its message is to be added. Until then it is held: no worker takes it."""
    FILL = "fill"
    """Its answer is to be completed: it has ended, or its end is decided and waits for that."""
    WITHDRAW = "withdraw"
    """It never came to be, and nobody knows whether its message was added. It is shown to nobody."""


@dataclass(frozen=True, slots=True)
class Talk:
    """The part of a run that its conversation, or its instance, is told of."""

    busy_policy: BusyPolicy = BusyPolicy.QUEUE
    reply_to: str = ""
    """The message that its input replies to."""
    author: str = ""
    """Who says the input, as in audit records."""
    emoji: str = ""
    """Of its agent, or of the instance."""
    message_id: str = ""
    answer_id: str = ""
    place: int = 0
    """How many runs answered before it when its message was added."""


@dataclass(frozen=True, slots=True)
class Placement:
    """Who answers, and where: as an instance or a conversation says it. Empty for nothing said."""

    agent_id: str = ""
    instance_id: str = ""
    conversation_id: str = ""
    screenplay_id: str = ""
    cwd: str = ""
    emoji: str = ""
    mcp_servers: tuple[str, ...] = ()
    """Beside those of the agent."""
    task_count: int = 0
    """How many runs of the instance have been counted."""


@dataclass(frozen=True, slots=True)
class Appended:
    """A message that was added, with the answer that is awaited."""

    message_id: str
    answer_id: str
    place: int = 0
    """How many runs answer before it."""
    interrupted: tuple[str, ...] = ()
    """The runs before it that have to be cancelled."""


@dataclass(frozen=True, slots=True)
class Filling:
    """How a run ended, as its conversation and its history are told."""

    org: str
    execution_id: str
    conversation_id: str
    agent_id: str
    instance_id: str
    agent_name: str
    emoji: str
    input: str
    status: str
    """`completed`, `failed` or `cancelled`."""
    content: str = ""
    """The answer; empty when there is none."""
    error_reason: str = ""
    error_message: str = ""
    duration: int = 0
    """Microseconds."""
