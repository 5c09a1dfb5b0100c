"""The catalogue of agents put together over a store, with personas that are one document each."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from services.content.domain import deletions
from services.content.domain.agents import Agent, Asked, Definition, Wanted
from services.content.domain.deletions import Life
from services.content.domain.personas import PersonaVersion
from services.content.domain.templates import Category, Template
from services.content.stores.agents import AGENTS, StoredAgents
from services.content.stores.deletions import (
    LIFE_FIELDS,
    LIFE_SWEPT,
    life_body,
    life_fields,
    read_life,
)
from services.content.usecases.agents import AgentService, Resolver
from services.content.usecases.deletions import Cascades, Kin, Purge
from services.content.usecases.templates import TemplateService
from services.kit.errors import DomainError
from services.kit.storage.ports import (
    Collection,
    ConflictError,
    Delete,
    Document,
    DuplicateError,
    Insert,
    Query,
    Replace,
    Store,
)
from tests.fakes.memory import Memory, MemoryStore
from tests.fakes.virtual import EPOCH

ORG = "acme"
PERSONAS = Collection("personas", fields=LIFE_FIELDS, swept=LIFE_SWEPT)
COLLECTIONS = (AGENTS, PERSONAS)
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


@dataclass(frozen=True)
class FakePersona:
    org: str
    agent_id: str
    content: str
    life: Life = field(default_factory=Life)
    version: int = 1


class FakePersonas:
    """Personas with one version, which go and come with their agents."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.used: list[str] = []

    async def get(self, org: str, agent_id: str) -> FakePersona | None:
        found = await self._store.get(PERSONAS, org, agent_id)
        if found is None:
            return None
        life = read_life(found.fields, found.body["life"])
        return FakePersona(org, agent_id, found.body["content"], life, found.version)

    async def plant(
        self,
        org: str,
        agent_id: str,
        content: str,
        metadata: Mapping[str, Any],
        author: str,
        reason: str,
    ) -> None:
        planted = FakePersona(org, agent_id, content)
        try:
            await self._store.write(Insert(PERSONAS, _document(planted)))
        except DuplicateError:
            found = await self.get(org, agent_id)
            if found is not None:
                await self._save(replace(found, content=content, life=Life()))

    async def resolve(
        self, org: str, agent_id: str, reference: str
    ) -> tuple[PersonaVersion, str] | None:
        found = await self.get(org, agent_id)
        if found is None or not found.life.live:
            return None
        self.used.append(agent_id)
        return PersonaVersion(org, agent_id, 1, found.content, 0), reference

    async def delete(self, org: str, agent_id: str, deletion: str, now: int) -> None:
        """Delete a persona by itself."""
        while (found := await self.get(org, agent_id)) is not None and found.life.live:
            life = deletions.deleted(found.life, deletion, now, deletions.Cascade.NONE)
            if await self._save(replace(found, life=life)):
                return

    async def mark(self, org: str, parent_id: str, deletion: str, time: int) -> None:
        while (found := await self.get(org, parent_id)) is not None:
            life = deletions.marked(found.life, deletion, time)
            if life is None or await self._save(replace(found, life=life)):
                return

    async def unmark(self, org: str, parent_id: str, deletion: str) -> None:
        while (found := await self.get(org, parent_id)) is not None:
            life = deletions.unmarked(found.life, deletion)
            if life is None or await self._save(replace(found, life=life)):
                return

    async def purge(self, org: str, parent_id: str) -> None:
        while (found := await self.get(org, parent_id)) is not None:
            try:
                await self._store.write(Delete(PERSONAS, org, parent_id, found.version))
            except ConflictError:
                continue

    async def live(self, org: str) -> set[str]:
        found = await self._store.query(Query(PERSONAS, org, {"life": "live"}))
        return {one.id for one in found}

    async def _save(self, persona: FakePersona) -> bool:
        try:
            await self._store.write(Replace(PERSONAS, _document(persona)))
        except ConflictError:
            return False
        return True


class Catalogue:
    """One process over a store.

    Args:
        patience: for how many seconds others are left to their purges.
        kin: how it reaches the personas that belong to agents, if otherwise.
    """

    def __init__(
        self,
        store: Store | None = None,
        *,
        prefix: str = "",
        patience: float = 5.0,
        kin: Kin | None = None,
    ) -> None:
        self.store = store or MemoryStore(Memory(), COLLECTIONS)
        self.now = EPOCH
        self.seconds = 0.0
        self._prefix = prefix
        self._ticks = itertools.count(1)
        self._ids = itertools.count(1)
        self.personas = FakePersonas(self.store)
        self.agents = StoredAgents(self.store)
        self.cascades: Cascades[Agent] = Cascades(
            self.agents, [kin or self.personas], monotonic=lambda: self.seconds, patience=patience
        )
        self.service = AgentService(
            self.agents, self.cascades, clock=self.clock, new_id=self.new_id
        )
        self.resolver = Resolver(self.service, self.personas)
        self.templates = TemplateService(
            TEMPLATES,
            self.agents,
            self.cascades,
            self.personas,
            clock=self.clock,
            new_id=self.new_id,
        )
        self.purge = Purge(self.cascades, keep_days=30, clock=self.clock)

    def clock(self) -> int:
        return self.now + next(self._ticks)

    def new_id(self) -> str:
        return f"del_{self.now:016d}{next(self._ids):06d}{self._prefix}"

    async def create(self, id_: str = "writer", name: str = "", **fields: Any) -> Agent:
        """Make an agent with a persona."""
        agent = await self.service.create(ORG, Asked(Definition(name or id_, **fields), id_))
        await self.personas.plant(ORG, agent.id, f"# {agent.id}", {}, "ann", "")
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
        await self.cascades.settle(ORG)
        return agent_id in await self.personas.live(ORG)


def _document(persona: FakePersona) -> Document:
    body = {"content": persona.content, "life": life_body(persona.life)}
    fields = life_fields(persona.life)
    return Document(persona.org, persona.agent_id, EPOCH, fields, body, version=persona.version)


def new_persona(agent_id: str) -> Document:
    return _document(FakePersona(ORG, agent_id, f"# {agent_id}"))
