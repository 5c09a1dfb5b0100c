"""The use cases of agents, personas and templates put together over a store."""

from __future__ import annotations

import itertools
from typing import Any

from services.content.domain.agents import Agent, Asked, Definition, Wanted
from services.content.domain.personas import Draft
from services.content.domain.templates import Category, Template
from services.content.stores.agents import AGENTS, StoredAgents
from services.content.stores.personas import PERSONAS, VERSIONS, StoredPersonas, StoredVersions
from services.content.usecases.agents import AgentService, Resolver
from services.content.usecases.personas import PersonaKin, PersonaService, VersionKin
from services.content.usecases.templates import TemplateService
from services.kit.errors import DomainError
from services.kit.resources.cascades import Cascades, Kin, Purge
from services.kit.storage.ports import Store
from services.kit.tasks import Workbench
from tests.fakes.memory import Memory, MemoryStore
from tests.fakes.virtual import EPOCH

ORG = "acme"
COLLECTIONS = (AGENTS, PERSONAS, VERSIONS)
TEMPLATES = (
    Category(
        "writing",
        "Writing",
        "Agents that write.",
        (
            Template("editor", "writing", Definition("Editor", group="writing"), "# Editor"),
            Template("scribe", "writing", Definition("Scribe", group="writing"), "# Scribe"),
        ),
    ),
    Category(
        "data",
        "Data",
        "Agents that count.",
        (Template("analyst", "data", Definition("Analyst", group="data"), "# Analyst"),),
    ),
)


class Catalogue:
    """One process over a store.

    Args:
        kin: how it reaches the personas that belong to agents, if otherwise.
    """

    def __init__(
        self,
        store: Store | None = None,
        *,
        prefix: str = "",
        kin: Kin | None = None,
    ) -> None:
        self.store = store or MemoryStore(Memory(), COLLECTIONS)
        self.now = EPOCH
        self.seconds = 0.0
        self._prefix = prefix
        self._ticks = itertools.count(1)
        self._ids = itertools.count(1)
        self.agents = StoredAgents(self.store)
        lives, versions = StoredPersonas(self.store), StoredVersions(self.store)
        self.lives, self.versions = lives, versions
        timing: dict[str, Any] = {"monotonic": lambda: self.seconds}
        self.kin = PersonaKin(lives, versions)
        self.cascades = Cascades(self.agents, [kin or self.kin], **timing)
        self.ends = Cascades(lives, [VersionKin(lives, versions)], **timing)
        making: dict[str, Any] = {"clock": self.clock, "new_id": self.new_id}
        self.service = AgentService(self.agents, self.cascades, **making)
        self.personas = PersonaService(
            lives,
            versions,
            self.service,
            self.ends,
            self.cascades.settle,
            **making,
            workbench=Workbench(),
        )
        self.resolver = Resolver(self.service, self.personas)
        self.templates = TemplateService(
            TEMPLATES, self.agents, self.cascades, self.personas, **making
        )
        self.purge = Purge(self.cascades, keep_days=30, clock=self.clock)

    def clock(self) -> int:
        return self.now + next(self._ticks)

    def new_id(self) -> str:
        return f"del_{self.now:016d}{next(self._ids):06d}{self._prefix}"

    async def create(self, id_: str = "writer", name: str = "", **fields: Any) -> Agent:
        """Make an agent with a persona."""
        agent = await self.service.create(ORG, Asked(Definition(name or id_, **fields), id_))
        await self.personas.create(ORG, agent.id, Draft(f"# {agent.id}", author="ann"))
        return agent

    async def listed(self, wanted: Wanted | None = None, limit: int = 100) -> list[str]:
        found = await self.service.list(ORG, wanted or Wanted(), None, limit)
        return [agent.id for agent in found]

    async def state(self, agent_id: str) -> str:
        """What callers see of an agent: `live`, `deleted` or `absent`."""
        try:
            agent = await self.service.get(ORG, agent_id, include_deleted=True)
        except DomainError:
            return "absent"
        return "live" if agent.life.live else "deleted"

    async def has_persona(self, agent_id: str) -> bool:
        """Whether a list of personas shows that of an agent."""
        found = await self.personas.list(ORG, None, 100, deleted=False)
        return agent_id in {persona.agent_id for persona in found}

    async def sweep(self, *, alone: bool = False) -> None:
        """Finish what others left."""
        await self.cascades.sweep(alone=alone)
        await self.ends.sweep(alone=alone)
