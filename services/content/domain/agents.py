"""Agents: what they are, and the rules of their changes."""

from __future__ import annotations

from dataclasses import dataclass, field

from services.content.domain.deletions import Life

DEFAULT_ID = "default"
"""The agent of every organisation that cannot be deleted."""


@dataclass(frozen=True, slots=True)
class AgentModel:
    """A model an agent asks for; what is empty is left open."""

    ai_provider: str = ""
    model: str = ""


@dataclass(frozen=True, slots=True)
class Definition:
    """What an agent is, as its author says it."""

    name: str
    description: str = ""
    instructions: str = ""
    group: str = ""
    emoji: str = ""
    color: str = ""
    author: str = ""
    definition_version: str = ""
    tags: tuple[str, ...] = ()
    capabilities: tuple[str, ...] = ()
    tools: tuple[str, ...] = ()
    mcp_servers: tuple[str, ...] = ()
    ai_provider: str = ""
    model: str = ""
    fallbacks: tuple[AgentModel, ...] = ()


@dataclass(frozen=True, slots=True)
class Agent:
    """A stored agent."""

    org: str
    id: str
    definition: Definition
    create_time: int
    """Microseconds since the epoch."""
    update_time: int
    """When the definition last changed, in microseconds since the epoch."""
    revision: int = 1
    """How often the definition changed, from 1; what the etag says."""
    template_id: str = ""
    request_id: str = ""
    digest: str = ""
    """Of the request that made it, when it had a request_id."""
    life: Life = field(default_factory=Life)
    version: int = 1
    """Of the stored document."""

    @property
    def etag(self) -> str:
        """What changes with each change of the definition."""
        return str(self.revision)

    @property
    def built_in(self) -> bool:
        """Whether it cannot be deleted."""
        return self.id == DEFAULT_ID
