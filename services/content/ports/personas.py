"""What personas need from outside."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from services.content.domain.agents import Agent
from services.content.domain.personas import Persona, PersonaVersion
from services.kit.resources.ports import Roots


class Personas(Roots[Persona], Protocol):
    """The personas, each under the id of its agent; what is read has no text."""

    async def begin(self, persona: Persona, version: PersonaVersion | None = None) -> Persona:
        """Store the first version of a persona, then the persona.

        Args:
            version: None when it is stored.

        Raises:
            TakenError: somebody else has stored one of them; the version may be stored now.
        """
        ...

    async def append(self, persona: Persona, version: PersonaVersion) -> Persona:
        """Store a version, then the persona that it makes of the stored one.

        Raises:
            TakenError: somebody else made a version of this number; nothing happened.
            FencedError: somebody else changed the persona; the version may be stored or not.
        """
        ...

    async def list(
        self, org: str, after: tuple[int, str] | None, limit: int, *, deleted: bool
    ) -> Sequence[Persona]:
        """Read a page of personas, newest first."""
        ...


class Versions(Protocol):
    """The versions of personas."""

    async def get(self, org: str, agent_id: str, number: int) -> PersonaVersion | None:
        """Read a version with its text."""
        ...

    async def list(
        self,
        org: str,
        agent_id: str,
        beyond: int | None,
        limit: int,
        *,
        ascending: bool = False,
    ) -> Sequence[PersonaVersion]:
        """Read a page of versions without their texts, in the order of their numbers.

        Args:
            beyond: the number before the first of the page; None for the beginning of the list.
            ascending: whether the oldest come first.
        """
        ...

    async def save(self, version: PersonaVersion) -> PersonaVersion:
        """Store a version anew, so that nobody removes it who read it before.

        Raises:
            FencedError: it is gone, or somebody else did this.
        """
        ...

    async def remove(self, versions: Sequence[PersonaVersion]) -> int:
        """Remove versions for good, but for those somebody stored anew.

        Returns:
            How many of them are gone.
        """
        ...


class Agents(Protocol):
    """The agents whose personas these are."""

    async def get(self, org: str, agent_id: str, *, include_deleted: bool = False) -> Agent:
        """Read an agent.

        Raises:
            DomainError: AGENT_NOT_FOUND.
        """
        ...

    async def live(self, org: str, agent_id: str) -> Agent:
        """Read an agent that is not deleted, with all that belongs to it as it is.

        Raises:
            DomainError: AGENT_NOT_FOUND.
        """
        ...
