"""What agents need from outside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from services.content.domain.agents import Agent, Wanted
from services.content.domain.personas import PersonaVersion
from services.kit.resources.ports import Roots


class Agents(Roots[Agent], Protocol):
    """The agents that are stored; of each organisation's `default` only once it is needed."""

    async def add(self, agent: Agent) -> Agent:
        """Store a new agent.

        Raises:
            TakenError: `id` or `request_key`.
        """
        ...

    async def by_request_id(self, org: str, request_id: str) -> Agent | None:
        """Read the agent a request_id made, deleted or not."""
        ...

    async def list(
        self, org: str, wanted: Wanted, after: tuple[int | str, str] | None, limit: int
    ) -> Sequence[Agent]:
        """Read a page of agents, without their instructions."""
        ...

    def place(self, agent: Agent, wanted: Wanted) -> tuple[int | str, str]:
        """Tell the place of an agent in a list."""
        ...

    async def known(self, org: str, limit: int) -> Sequence[tuple[str, str]]:
        """Read the ids and name keys of agents that are not deleted, in the order of their names."""
        ...


class Personas(Protocol):
    """The personas, as runs and templates need them."""

    async def resolve(
        self, org: str, agent_id: str, reference: str
    ) -> tuple[PersonaVersion, str] | None:
        """Find a version of an agent's persona, and note that it was used.

        Args:
            reference: a number, `latest`, `first` or an alias; empty for the active version.

        Returns:
            The version and the alias it was found by, if any; None when the agent has no persona.

        Raises:
            DomainError: PERSONA_VERSION_NOT_FOUND.
        """
        ...

    async def plant(
        self,
        org: str,
        agent_id: str,
        content: str,
        metadata: Mapping[str, Any],
        author: str,
        reason: str,
    ) -> object:
        """Make version 1 of a persona before its agent is there; again when it was made already."""
        ...
