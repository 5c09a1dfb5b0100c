"""Agents, models, and which of them a run was given."""

from __future__ import annotations

from dataclasses import dataclass, field

from services.execution.domain.spend import Price

SEPARATOR = "\n\n"
"""Between persona and instructions."""


@dataclass(frozen=True, slots=True)
class Wish:
    """A model as somebody asks for it; what is empty is left open."""

    ai_provider: str = ""
    model: str = ""


@dataclass(frozen=True, slots=True)
class AgentSnapshot:
    """What is noted with a run of the agent it used."""

    name: str = ""
    etag: str = ""
    """Of its definition."""
    persona_version: int = 0
    """The number of the version of its persona; 0 when it had none."""
    persona_alias: str = ""
    """What that version was found by; empty when it was not by an alias."""
    tools: tuple[str, ...] = ()
    mcp_servers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Agent:
    """An agent as it is now, with one version of its persona."""

    id: str
    ai_provider: str = ""
    """Its provider; empty leaves the choice to the model or the settings."""
    model: str = ""
    """Its model; empty leaves the choice to the settings."""
    fallbacks: tuple[Wish, ...] = ()
    """What is asked in this order when its model fails before it said anything."""
    persona: str = ""
    """What models are told of who they are; may be empty."""
    instructions: str = ""
    """What they are told of how they work; may be empty."""
    snapshot: AgentSnapshot = field(default_factory=AgentSnapshot)


def trimmed(text: str) -> str:
    """Take the blank lines off a text of an agent; one that is nothing but white space is empty."""
    return text.strip("\r\n") if text.strip() else ""


def system(persona: str, instructions: str) -> str:
    """Put together what models are told: who they are, a blank line, how they work.

    Args:
        persona: trimmed, like the instructions; either may be empty.
    """
    return SEPARATOR.join(text for text in (persona, instructions) if text)


@dataclass(frozen=True, slots=True)
class Model:
    """A model an agent can run on."""

    id: str
    ai_provider: str
    description: str = ""
    context_tokens: int | None = None
    """The most of input and output together; None when unknown."""
    max_output_tokens: int | None = None
    """The most of one answer; None when unknown."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A model that a run may call, as it was when the run was accepted."""

    ai_provider: str
    model: str
    price: Price | None = None
    """None when it was unknown."""
    max_output_tokens: int | None = None
    """The most of one answer; None when it was unknown."""
    context_tokens: int | None = None
    """The most of input and output together; None when it was unknown."""
