"""Agents, models, and which of them a run was given."""

from __future__ import annotations

from dataclasses import dataclass

from services.execution.domain.spend import Price


@dataclass(frozen=True, slots=True)
class Wish:
    """A model as somebody asks for it; what is empty is left open."""

    ai_provider: str = ""
    model: str = ""


@dataclass(frozen=True, slots=True)
class Agent:
    """An agent that can run."""

    id: str
    ai_provider: str = ""
    """Its provider; empty leaves the choice to the model or the settings."""
    model: str = ""
    """Its model; empty leaves the choice to the settings."""
    fallbacks: tuple[Wish, ...] = ()
    """What is asked in this order when its model fails before it said anything."""


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
