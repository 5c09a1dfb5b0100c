"""What conversations need to know of agents and screenplays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class AgentCard:
    """An agent, as far as conversations and instances need it."""

    name: str = ""
    emoji: str = ""
    instructions: str = ""
    mcp_servers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Voice:
    """The version of a persona that runs use."""

    text: str = ""
    number: int = 0
    """0 when the agent has no persona."""


class Catalogue(Protocol):
    """The agents and screenplays of the content service, as the caller may see them.

    Each raises SERVICE_UNAVAILABLE when that service is away.
    """

    async def agent(self, agent_id: str) -> AgentCard:
        """Read an agent.

        Raises:
            DomainError: AGENT_NOT_FOUND.
        """
        ...

    async def voice(self, agent_id: str) -> Voice:
        """Read the persona of an agent, as runs use it that name no version."""
        ...

    async def directory(self, screenplay_id: str) -> str:
        """Read where runs on a screenplay work; empty for nowhere.

        Raises:
            DomainError: SCREENPLAY_NOT_FOUND.
        """
        ...
