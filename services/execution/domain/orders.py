"""What callers ask for: as they give it, and with its defaults filled in."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from services.execution.domain.events import MAX_ANSWER_BYTES, MAX_RESULT_BYTES
from services.execution.domain.models import AgentSnapshot, Choice, Wish

DEFAULT_PRIORITY = 3
"""Of 1 to 5, 1 the most urgent."""


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
    system: str = ""
    """What models are told before the input. Not known where the input is not, as in lists."""

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


def digest(asked: Asked) -> str:
    """Digest a request, so that a repetition can be told from another request."""
    content = orjson.dumps(asked.content(), option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(content).hexdigest()
