"""What callers ask for: as they give it, and with its defaults filled in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from services.execution.domain.events import MAX_ANSWER_BYTES, MAX_RESULT_BYTES
from services.execution.domain.models import AgentSnapshot, Choice, Wish, system
from services.execution.domain.talks import Placement
from services.kit.resources import request_ids

DEFAULT_PRIORITY = 3
"""Of 1 to 5, 1 the most urgent."""


class ContextMode(StrEnum):
    """What a run is told besides its input."""

    STATELESS = "stateless"
    """Its agent's persona and instructions."""
    CONTEXTUAL = "contextual"
    """Besides these the screenplay, and what there is of its conversation."""
    INTERACTIVE = "interactive"
    """The same, in a conversation that goes on."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a caller asks to run, as given. Empty means the default."""

    input: str
    agent_id: str = ""
    ai_provider: str = ""
    model: str = ""
    cwd: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    request_id: str = ""
    timeout_ms: int | None = None
    conversation_id: str = ""
    instance_id: str = ""
    priority: int = 0
    max_output_tokens: int = 0
    max_cost: int | None = None
    """Nano-dollars."""
    fallbacks: tuple[Wish, ...] = ()
    persona_version: str = ""
    """A number, `latest`, `first` or an alias."""
    busy_policy: str = ""
    """One of BusyPolicy."""
    reply_to: str = ""
    apart: bool = False
    """Whether to stay out of the conversation that the instance is placed in."""
    context_mode: ContextMode | None = None
    screenplay_id: str = ""

    def content(self) -> dict[str, Any]:
        """Gather what was given, for telling a repetition from another request."""
        return {name: value for name in self.__slots__ if (value := getattr(self, name))}


@dataclass(frozen=True, slots=True)
class Order:
    """What a caller asks to run, checked and with its defaults filled in."""

    input: str
    agent_id: str
    choices: tuple[Choice, ...]
    """The model, then its fallbacks."""
    timeout_ms: int
    cwd: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    request_id: str = ""
    conversation_id: str = ""
    instance_id: str = ""
    priority: int = DEFAULT_PRIORITY
    max_output_tokens: int | None = None
    max_cost: int | None = None
    """Nano-dollars."""
    agent: AgentSnapshot | None = None
    """What it uses of the agent; None when the release that accepted it did not note it."""
    persona: str = ""
    """What models are told of who they are. Not known where the input is not, as in lists."""
    instructions: str = ""
    """What they are told of how they work; not known there either."""
    context_mode: ContextMode = ContextMode.STATELESS
    screenplay_id: str = ""
    earlier_runs: int = 0
    """How many runs of its instance had been counted when it was accepted, where it is told of these."""

    @property
    def system(self) -> str:
        """What models are told before the input when they are told nothing else."""
        return system(self.persona, self.instructions)

    @property
    def has_context(self) -> bool:
        """Whether more is told than this."""
        return self.context_mode is not ContextMode.STATELESS

    @property
    def goes_on(self) -> bool:
        """Whether later runs are likely to be told what it is told, and then more."""
        return self.has_context and bool(self.conversation_id or self.instance_id)

    @property
    def ai_provider(self) -> str:
        """The provider of the model that is asked first."""
        return self.choices[0].ai_provider

    @property
    def model(self) -> str:
        """The model that is asked first."""
        return self.choices[0].model

    @property
    def most_result_bytes(self) -> int:
        """How large its answer may grow."""
        return MAX_ANSWER_BYTES if self.conversation_id else MAX_RESULT_BYTES


def context_mode(asked: Asked, placement: Placement) -> ContextMode:
    """Decide what a run is told: as asked, else all there is when the request names any of it."""
    if asked.context_mode is not None:
        return asked.context_mode
    if placement.conversation_id or placement.instance_id or asked.screenplay_id:
        return ContextMode.CONTEXTUAL
    return ContextMode.STATELESS


def earlier_runs(mode: ContextMode, placement: Placement) -> int:
    """Count the runs whose history a run is told: in a conversation it is told of that instead."""
    if mode is ContextMode.STATELESS or placement.conversation_id:
        return 0
    return placement.task_count


def digest(asked: Asked) -> str:
    """Digest a request, so that a repetition can be told from another request."""
    return request_ids.digest(asked.content())
