"""Personas put together over a store, with the agents whose personas they are."""

from __future__ import annotations

import itertools

from services.content.domain.agents import Asked, Definition
from services.content.domain.personas import Draft, Persona, Wanted
from services.content.stores.agents import AGENTS, StoredAgents
from services.content.stores.personas import PERSONAS, VERSIONS, StoredPersonas, StoredVersions
from services.content.usecases.agents import AgentService
from services.content.usecases.personas import PersonaKin, PersonaService, VersionKin
from services.kit.resources.cascades import Cascades, Purge
from services.kit.storage.ports import Store
from services.kit.tasks import Workbench
from tests.fakes.virtual import EPOCH

ORG, AGENT = "acme", "writer"
COLLECTIONS = (AGENTS, PERSONAS, VERSIONS)


class Desk:
    """One process over a store."""

    _clocks = itertools.count(EPOCH)

    def __init__(self, store: Store) -> None:
        self.now = 0
        agents, stored, versions = StoredAgents(store), StoredPersonas(store), StoredVersions(store)
        self.cascades = Cascades(agents, [PersonaKin(stored, versions)], monotonic=lambda: 0.0)
        self.ends = Cascades(stored, [VersionKin(stored, versions)], monotonic=lambda: 0.0)
        self.agents = AgentService(agents, self.cascades, clock=self.clock, new_id=self.new_id)
        self.personas = PersonaService(
            stored,
            versions,
            self.agents,
            self.ends,
            self.cascades.settle,
            clock=self.clock,
            new_id=self.new_id,
            workbench=Workbench(),
        )
        self.purge = Purge(self.ends, keep_days=30, clock=self.clock)

    def clock(self) -> int:
        return self.now + next(self._clocks)

    def new_id(self) -> str:
        return f"del_{next(self._clocks):020d}"

    async def begin(self) -> None:
        """Go on after a restart."""
        await self.cascades.sweep(alone=True)
        await self.ends.sweep(alone=True)

    async def write(self, *texts: str) -> Persona:
        """Make an agent and its persona, with a version for each text."""
        await self.agents.create(ORG, Asked(Definition("Writer"), AGENT))
        persona = await self.personas.create(ORG, AGENT, Draft(texts[0]))
        for text in texts[1:]:
            persona = await self.update(text)
        return persona

    async def update(self, text: str, etag: str = "") -> Persona:
        changes = {"content": text}
        return await self.personas.update(
            ORG, AGENT, changes, etag, force=not etag, author="ann", reason=""
        )

    async def numbers(self) -> list[int]:
        _, found = await self.personas.versions(ORG, AGENT, Wanted(ascending=True), None, 1000)
        return [version.number for version in found]

    async def texts(self) -> list[str]:
        return [
            (await self.personas.version(ORG, AGENT, str(number)))[1].content
            for number in await self.numbers()
        ]
