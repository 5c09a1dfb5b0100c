"""What it takes to look whether the mesh is set up well."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from services.content.domain.agents import Agent, Wanted
from services.content.domain.personas import Persona
from services.content.domain.system import Known


class Probe(Protocol):
    """The store, as something that may be ill."""

    async def store_seconds(self) -> float:
        """Write a document, read it, remove it; return how long it took.

        Raises DomainError STORE_UNAVAILABLE, STORE_FULL.
        """
        ...

    async def space(self) -> tuple[int, int] | None:
        """Return free and all bytes of the disk it is on; None when that is not here."""
        ...


class Others(Protocol):
    """The other services."""

    async def health(self) -> Mapping[str, str]:
        """Ask each whether it serves: what is wrong, empty where nothing is."""
        ...


class Models(Protocol):
    """The models that runs can use."""

    async def known(self) -> Known:
        """Ask which there are. Raises DomainError SERVICE_UNAVAILABLE."""
        ...


class AgentList(Protocol):
    """The agents of an organisation."""

    async def list(
        self, org: str, wanted: Wanted, after: tuple[int | str, str] | None, limit: int
    ) -> Sequence[Agent]:
        """Read a page of agents."""
        ...


class PersonaParts(Protocol):
    """Personas and which versions of them there are."""

    async def persona(self, org: str, agent_id: str) -> Persona | None:
        """Read the persona of an agent."""
        ...

    async def has_version(self, org: str, agent_id: str, number: int) -> bool:
        """Tell whether a version is there."""
        ...


class TemplateFiles(Protocol):
    """The templates as files."""

    async def check(self) -> tuple[int, str]:
        """Read them all; return how many there are, and what is wrong, empty when nothing is."""
        ...
