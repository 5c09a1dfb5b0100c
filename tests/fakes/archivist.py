"""What makes and takes in archives, put together over a store; and content to do it with."""

from __future__ import annotations

import io
import itertools
import zipfile
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from services.content.adapters.archives import ZippedArchives
from services.content.adapters.yamls import PlainYaml
from services.content.domain import personas, screenplays
from services.content.domain.agents import Agent, AgentModel, Definition
from services.content.domain.archives import Layout
from services.content.domain.imports import ImportReport, Progress
from services.content.domain.personas import Draft, Persona
from services.content.domain.screenplays import Screenplay
from services.content.stores import COLLECTIONS
from services.content.stores.agents import StoredAgents
from services.content.stores.archives import StoredImports, StoredLibrary
from services.content.stores.personas import StoredPersonas, StoredVersions
from services.content.stores.screenplays import StoredScreenplays, StoredTexts
from services.content.usecases.exports import Exporter
from services.content.usecases.imports import Asked, Importer
from services.content.usecases.keeping import ImportKeeper
from services.kit.resources import deletions
from services.kit.resources.deletions import Cascade
from services.kit.storage.ports import Store
from tests.fakes.memory import Memory, MemoryStore
from tests.fakes.virtual import EPOCH

ORG = "acme"
TIME = EPOCH


@dataclass
class Archivist:
    """One process with a line to a store."""

    directory: Path
    store: Store
    most_bytes: int = 2**30
    prefix: str = "1"
    batch: int = 100
    now: int = TIME
    seconds: float = 0.0

    def __post_init__(self) -> None:
        numbers = itertools.count(1)
        self.library = StoredLibrary(self.store)
        self.imports = StoredImports(self.store)
        self.archives = ZippedArchives(self.directory, self.most_bytes)
        self.keeper = ImportKeeper(self.imports, monotonic=lambda: self.seconds)
        self.exporter = Exporter(self.library, self.archives, PlainYaml())
        self.importer = Importer(
            self.library,
            self.imports,
            self.archives,
            self.keeper,
            PlainYaml(),
            clock=lambda: self.now,
            monotonic=lambda: self.seconds,
            new_id=lambda: f"import_{self.prefix}_{next(numbers):06}",
            new_play_id=lambda: f"play_{self.prefix}_{next(numbers):06}",
            batch=self.batch,
        )
        self.agents = StoredAgents(self.store)
        self.personas = StoredPersonas(self.store)
        self.versions = StoredVersions(self.store)
        self.screenplays = StoredScreenplays(self.store)
        self.texts = StoredTexts(self.store)

    async def export(self, layout: Layout = Layout.BACKUP, org: str = ORG) -> bytes:
        """Make an archive."""
        parts = [part async for part in self.exporter.export(org, layout)]
        return b"".join(part for part in parts if isinstance(part, bytes))

    async def take_in(
        self,
        raw: bytes,
        layout: Layout = Layout.BACKUP,
        org: str = ORG,
        *,
        dry_run: bool = False,
        force: bool = False,
    ) -> ImportReport:
        """Take an archive in."""
        *_, report = await self.steps(raw, Asked(layout, dry_run, force, "ann"), org)
        assert isinstance(report, ImportReport)
        return report

    async def steps(
        self, raw: bytes, asked: Asked, org: str = ORG
    ) -> Sequence[Progress | ImportReport]:
        """Take an archive in, and keep what is answered."""
        return [step async for step in self.importer.run(org, asked, pieces(raw))]

    # Content

    async def agent(self, id_: str, **definition: object) -> Agent:
        """Make an agent."""
        self.now += 1
        told = {"name": id_.title(), **definition}
        made = Agent(ORG, id_, Definition(**told), self.now, self.now)  # type: ignore[arg-type]  # told by name
        return await self.agents.add(made)

    async def persona(self, agent_id: str, *texts: str) -> Persona:
        """Give an agent a persona with so many versions more."""
        persona = await self.personas.get(ORG, agent_id)
        for text in texts:
            self.now += 1
            draft = Draft(text, {"n": 1, "x": 1.0, "ok": True}, "key:ann", "because")
            if persona is None:
                version = personas.first_version(ORG, agent_id, draft, self.now)
                persona = await self.personas.begin(personas.begun(version), version)
            else:
                version = personas.next_version(persona, draft, self.now)
                persona = await self.personas.append(personas.followed(persona, version), version)
        assert persona is not None
        return persona

    async def screenplay(self, id_: str, *texts: str, **values: object) -> Screenplay:
        """Make a screenplay that had these texts."""
        self.now += 1
        first, *others = texts
        asked = screenplays.Asked({"name": id_, **values, "content": first})
        play = screenplays.made(ORG, id_, asked, self.now, "key:ann")
        play = await self.screenplays.add(play)
        for text in others:
            changed = screenplays.changed(play, {"content": text}, self.now, "key:bob")
            assert changed is not None
            play = await self.screenplays.save_text(changed, screenplays.text_of(play))
        return play

    async def furnish(self) -> None:
        """Make some of everything there is."""
        await self.agent(
            "writer",
            name="Schreiber ✍️",
            instructions="Do this.\r\nThen that.\n",
            tags=("a", "Ä"),
            tools=("web_fetch",),
            fallbacks=(AgentModel("openai"), AgentModel(model="mock")),
        )
        persona = await self.persona("writer", "# One", "# Two\r\n", "# Three\n\n👋")
        named = personas.with_alias(persona, "production", 2, self.now)
        await self.personas.save(personas.with_alias(named, "canary", 3, self.now))
        used = await self.versions.get(ORG, "writer", 1)
        assert used is not None
        await self.versions.save(replace(used, used=True))
        await self.agent("writer-2")
        gone = await self.agent("Gone")
        await self.persona("Gone", "# Gone")
        await self.delete(gone)
        await self.screenplay(
            "play_1", "# A", "# B\r\n", "", file_path="notes/ä.md", tags=("x",), description="y"
        )
        await self.screenplay("play_2", "# C", working_directory="/tmp", import_path="notes/ä.md")
        play = await self.screenplay("play_3", "# D", file_path="notes/ä.MD")
        life = deletions.deleted(play.life, "del_3", self.now, Cascade.NONE)
        await self.screenplays.save(replace(play, life=life))

    async def delete(self, agent: Agent) -> None:
        """Delete an agent with its persona."""
        life = deletions.deleted(agent.life, "del_1", self.now)
        await self.agents.save(replace(agent, life=deletions.done(life)))
        persona = await self.personas.get(ORG, agent.id)
        if persona is not None:
            marked = deletions.marked(persona.life, "del_1", self.now)
            assert marked is not None
            await self.personas.save(replace(persona, life=marked))


def archivist(directory: Path, memory: Memory | None = None, **how: object) -> Archivist:
    """Open a store in memory."""
    store = MemoryStore(memory or Memory(), COLLECTIONS)
    return Archivist(directory, store, **how)  # type: ignore[arg-type]  # told by name


async def pieces(raw: bytes, size: int = 50_000) -> AsyncIterator[bytes]:
    """Send an archive piece by piece."""
    for place in range(0, len(raw), size):
        yield raw[place : place + size]


def files(raw: bytes) -> dict[str, bytes]:
    """The files of an archive, by their paths."""
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def zipped(content: Mapping[str, bytes]) -> bytes:
    """An archive of files, as other programs make them."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, raw in content.items():
            archive.writestr(path, raw)
    return buffer.getvalue()
