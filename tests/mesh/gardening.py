"""Clients of content that come back after every crash, and know what has to be there."""

from __future__ import annotations

import asyncio
import io
import zipfile
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import grpc

from conductor.content.v1 import (
    agent_service_pb2,
    agent_service_pb2_grpc,
    archive_service_pb2,
    archive_service_pb2_grpc,
    persona_service_pb2,
    persona_service_pb2_grpc,
    screenplay_service_pb2,
    screenplay_service_pb2_grpc,
)
from tests.patience import PATIENCE

A = TypeVar("A")

BACKUP = archive_service_pb2.ARCHIVE_LAYOUT_BACKUP
DIRECTORY = archive_service_pb2.ARCHIVE_LAYOUT_DIRECTORY
STAGE = archive_service_pb2.ArchiveProgress.PHASE_STAGE
APPLY = archive_service_pb2.ArchiveProgress.PHASE_APPLY
NOT_FOUND, TAKEN = grpc.StatusCode.NOT_FOUND, grpc.StatusCode.ALREADY_EXISTS

Files = Mapping[str, bytes]


class Garden:
    """Stubs of content, and calls that are made again until they are answered.

    Args:
        alone: whether content has one process. Then whatever was under way when it died has come to an
            end before anybody is answered again, and nobody is told to wait for it.
    """

    def __init__(self, channel: grpc.aio.Channel, *, alone: bool) -> None:
        self._alone = alone
        self.agents = agent_service_pb2_grpc.AgentServiceStub(channel)
        self.personas = persona_service_pb2_grpc.PersonaServiceStub(channel)
        self.screenplays = screenplay_service_pb2_grpc.ScreenplayServiceStub(channel)
        self.archives = archive_service_pb2_grpc.ArchiveServiceStub(channel)
        self.repeated = 0
        """How many calls were made again because nobody answered."""
        self.phases = {STAGE: asyncio.Event(), APPLY: asyncio.Event()}
        """Set when an import sets aside what it holds, and when it has applied a part of it."""

    async def ask(
        self,
        call: Callable[..., Awaitable[A]],
        request: object,
        *settled: grpc.StatusCode,
    ) -> A | None:
        """Call until there is an answer.

        Args:
            settled: what says, once a call was left unanswered, that it was done; answered as None.
        """
        again = False
        async with asyncio.timeout(PATIENCE):
            while True:
                try:
                    return await call(request, timeout=PATIENCE)
                except grpc.aio.AioRpcError as error:
                    if again and error.code() in settled:
                        return None
                    if not self._is_away(error):
                        raise
                    # Another one is just at it, or nobody: only the latter leaves an answer out.
                    again = again or error.code() is not grpc.StatusCode.ABORTED
                self.repeated += 1
                await asyncio.sleep(0.02)

    async def refused(self, call: Callable[..., Awaitable[object]], request: object) -> str:
        """Call until it is refused; answers with what."""
        try:
            await self.ask(call, request)
        except grpc.aio.AioRpcError as error:
            return error.code().name
        return "OK"

    async def export(self, layout: archive_service_pb2.ArchiveLayout.ValueType) -> dict[str, bytes]:
        """Read everything there is as files."""

        async def read(request: Any, timeout: float) -> bytes:
            stream = self.archives.ExportArchive(request, timeout=timeout)
            return b"".join([part.chunk async for part in stream])

        raw = await self.ask(read, archive_service_pb2.ExportArchiveRequest(layout=layout))
        assert raw
        return files_of(raw)

    async def take_in_once(self, raw: bytes, **options: Any) -> bool:
        """Take an archive in; tells whether that was answered."""

        def requests() -> Iterator[archive_service_pb2.ImportArchiveRequest]:
            request = archive_service_pb2.ImportArchiveRequest
            yield request(options=archive_service_pb2.ImportArchiveOptions(**options))
            for place in range(0, len(raw), 500_000):
                yield request(chunk=raw[place : place + 500_000])

        try:
            async for answer in self.archives.ImportArchive(requests(), timeout=PATIENCE):
                if reached := self.phases.get(answer.progress.phase):
                    reached.set()
        except grpc.aio.AioRpcError as error:
            if not self._is_away(error):
                raise
            return False
        return True

    def _is_away(self, error: grpc.aio.AioRpcError) -> bool:
        """Whether nobody answered to the end, or somebody asked to try again."""
        details = error.details() or ""
        match error.code():
            case grpc.StatusCode.UNAVAILABLE:
                return True
            case grpc.StatusCode.INTERNAL:  # what Envoy and then gRPC make of a stream that is cut
                return "RST_STREAM" in details or "error from Core" in details
            case grpc.StatusCode.ABORTED:
                return not self._alone and "etag" not in details
        return False


@dataclass
class Grower:
    """Makes, changes, deletes and takes back an agent with its persona, and then all again."""

    garden: Garden
    id: str
    texts: list[str] = field(default_factory=list)
    """What the versions of its persona say; those of all earlier seasons are purged."""

    async def season(self, number: int) -> None:
        """Work with it from its making to its end."""
        agents, personas, ask = self.garden.agents, self.garden.personas, self.garden.ask
        await self._plant(number)
        delete = agent_service_pb2.DeleteAgentRequest(agent_id=self.id)
        undelete = agent_service_pb2.UndeleteAgentRequest(agent_id=self.id)
        mine = persona_service_pb2.DeletePersonaRequest(agent_id=self.id)
        mine_back = persona_service_pb2.UndeletePersonaRequest(agent_id=self.id)

        for _ in range(3):
            await ask(agents.DeleteAgent, delete, NOT_FOUND)
            await self._is_gone()
            await ask(agents.UndeleteAgent, undelete)
            await self._is_whole()
        await self._write(f"{number} once more")

        await ask(personas.DeletePersona, mine, NOT_FOUND)
        await ask(agents.DeleteAgent, delete, NOT_FOUND)
        await ask(agents.UndeleteAgent, undelete)
        get = persona_service_pb2.GetPersonaRequest(agent_id=self.id)
        assert await self.garden.refused(personas.GetPersona, get) == "NOT_FOUND"
        await ask(personas.UndeletePersona, mine_back)
        await self._is_whole()

        purge = agent_service_pb2.DeleteAgentRequest(agent_id=self.id, purge=True)
        await ask(agents.DeleteAgent, purge, NOT_FOUND)
        await self._is_gone(for_good=True)
        self.texts.clear()

    async def _plant(self, number: int) -> None:
        create = agent_service_pb2.CreateAgentRequest(request_id=f"{self.id}-{number}")
        create.agent.id, create.agent.name = self.id, f"Agent {number}"
        made = await self.garden.ask(self.garden.agents.CreateAgent, create)
        assert made is not None
        assert made.name == create.agent.name
        persona = persona_service_pb2.CreatePersonaRequest()
        persona.persona.agent_id, persona.persona.content = self.id, f"{number} first"
        await self.garden.ask(self.garden.personas.CreatePersona, persona, TAKEN)
        self.texts.append(persona.persona.content)
        await self._is_whole()
        for _ in range(3):
            await self._write(f"{number} and {len(self.texts)}")

    async def _write(self, text: str) -> None:
        """Make a version with the etag of the one before, however often it takes."""
        get = persona_service_pb2.GetPersonaRequest(agent_id=self.id)
        persona = await self.garden.ask(self.garden.personas.GetPersona, get)
        assert persona is not None
        update = persona_service_pb2.UpdatePersonaRequest()
        update.persona.agent_id, update.persona.content = self.id, text
        update.persona.etag = persona.etag
        await self.garden.ask(self.garden.personas.UpdatePersona, update)
        self.texts.append(text)
        await self._is_whole()

    async def _is_whole(self) -> None:
        get = persona_service_pb2.GetPersonaRequest(agent_id=self.id)
        persona = await self.garden.ask(self.garden.personas.GetPersona, get)
        assert persona is not None
        assert persona.content == self.texts[-1], self.id
        numbers = [version.version for version in await self._versions()]
        assert numbers == list(range(1, len(self.texts) + 1)), (self.id, self.texts)

    async def _is_gone(self, *, for_good: bool = False) -> None:
        refused = self.garden.refused
        get = agent_service_pb2.GetAgentRequest(agent_id=self.id)
        persona = persona_service_pb2.GetPersonaRequest(agent_id=self.id)
        assert await refused(self.garden.agents.GetAgent, get) == "NOT_FOUND", self.id
        assert await refused(self.garden.personas.GetPersona, persona) == "NOT_FOUND", self.id
        get.include_deleted = True
        found = await refused(self.garden.agents.GetAgent, get)
        assert found == ("NOT_FOUND" if for_good else "OK"), self.id
        listed = await self.garden.ask(
            self.garden.personas.ListPersonas,
            persona_service_pb2.ListPersonasRequest(page_size=200),
        )
        assert listed is not None
        assert self.id not in {one.agent_id for one in listed.personas}

    async def _versions(self) -> Sequence[Any]:
        request = persona_service_pb2.ListPersonaVersionsRequest(agent_id=self.id)
        listed = await self.garden.ask(self.garden.personas.ListPersonaVersions, request)
        assert listed is not None
        return sorted(listed.persona_versions, key=lambda version: version.version)


@dataclass
class Writer:
    """Makes, changes, deletes and takes back screenplays of one path."""

    garden: Garden
    path: str

    async def season(self, number: int) -> None:
        """Work with one from its making to its end."""
        plays, ask, refused = self.garden.screenplays, self.garden.ask, self.garden.refused
        made = await self._make(f"{self.path}-{number}")
        for revision in (2, 3, 4):
            made = await self._write(made, revision)
        delete = screenplay_service_pb2.DeleteScreenplayRequest(screenplay_id=made.id)
        undelete = screenplay_service_pb2.UndeleteScreenplayRequest(screenplay_id=made.id)
        await ask(plays.DeleteScreenplay, delete, NOT_FOUND)
        other = await self._make(f"{self.path}-{number}-other")
        assert other.id != made.id
        assert await refused(plays.UndeleteScreenplay, undelete) == "ALREADY_EXISTS"
        gone = screenplay_service_pb2.DeleteScreenplayRequest(screenplay_id=other.id, purge=True)
        await ask(plays.DeleteScreenplay, gone, NOT_FOUND)
        back = await ask(plays.UndeleteScreenplay, undelete)
        assert back is not None
        assert (back.file_path, back.content) == (made.file_path, made.content)
        kept = screenplay_service_pb2.ListScreenplayVersionsRequest(screenplay_id=made.id)
        listed = await ask(plays.ListScreenplayVersions, kept)
        assert listed is not None
        assert [one.version for one in listed.screenplay_versions] == [4, 3, 2, 1]
        delete.purge = True
        await ask(plays.DeleteScreenplay, delete, NOT_FOUND)
        assert await refused(plays.ListScreenplayVersions, kept) == "NOT_FOUND"

    async def _make(self, request_id: str) -> Any:
        create = screenplay_service_pb2.CreateScreenplayRequest(request_id=request_id)
        create.screenplay.name = "A play"
        create.screenplay.file_path = self.path
        create.screenplay.content = "# 1\n"
        made = await self.garden.ask(self.garden.screenplays.CreateScreenplay, create)
        again = await self.garden.ask(self.garden.screenplays.CreateScreenplay, create)
        assert made is not None
        assert again is not None
        assert made.id == again.id
        return made

    async def _write(self, play: Any, revision: int) -> Any:
        update = screenplay_service_pb2.UpdateScreenplayRequest()
        update.screenplay.id, update.screenplay.etag = play.id, play.etag
        update.screenplay.content = f"# {revision}\n"
        changed = await self.garden.ask(self.garden.screenplays.UpdateScreenplay, update)
        assert changed is not None
        assert changed.content == update.screenplay.content
        return changed


@dataclass(frozen=True)
class Sack:
    """An archive, and how what it holds looks once it is taken in."""

    raw: bytes
    layout: archive_service_pb2.ArchiveLayout.ValueType
    files: Files

    @staticmethod
    def of(raw: bytes, layout: archive_service_pb2.ArchiveLayout.ValueType) -> Sack:
        """Make one of an archive."""
        return Sack(raw, layout, files_of(raw))


@dataclass
class Sower:
    """Takes archives of the same things in, one after the other, and looks after each crash."""

    garden: Garden
    marked: str
    """What the names of all its things begin with."""
    there: Files = field(default_factory=dict)
    """How it looks now."""
    cut: int = 0
    """How many imports were left unanswered."""
    undone: int = 0
    """How many of those had not happened, so the others had."""

    async def sow(self, sack: Sack, *, force: bool) -> None:
        """Take one in until that is answered; in between there is what was, or what comes."""
        async with asyncio.timeout(2 * PATIENCE):
            while not await self.garden.take_in_once(sack.raw, layout=sack.layout, force=force):
                self.cut += 1
                seen = await self.look(sack.layout)
                if seen == sack.files:
                    continue
                assert seen == self.there, difference(seen, self.there, sack.files)
                self.undone += 1
        self.there = await self.look(sack.layout)
        assert self.there == sack.files, difference(self.there, sack.files, sack.files)

    async def weed(self) -> None:
        """Purge all its things."""
        ask, agents, plays = self.garden.ask, self.garden.agents, self.garden.screenplays
        backup = await self.look(BACKUP)
        for id_ in {path.split("/")[1] for path in backup if path.startswith("agents/")}:
            agent = agent_service_pb2.DeleteAgentRequest(agent_id=id_, purge=True)
            await ask(agents.DeleteAgent, agent, NOT_FOUND)
        for id_ in {path.split("/")[1] for path in backup if path.startswith("screenplays/")}:
            play = screenplay_service_pb2.DeleteScreenplayRequest(screenplay_id=id_, purge=True)
            await ask(plays.DeleteScreenplay, play, NOT_FOUND)
        self.there = await self.look(BACKUP)
        assert self.there == {}

    async def look(self, layout: archive_service_pb2.ArchiveLayout.ValueType) -> dict[str, bytes]:
        """Read all its things."""
        files = await self.garden.export(layout)
        return {path: raw for path, raw in files.items() if f"/{self.marked}" in path}


def files_of(raw: bytes) -> dict[str, bytes]:
    """Unpack an archive but for its manifest."""
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        return {path: archive.read(path) for path in archive.namelist() if path != "manifest.json"}


def difference(seen: Files, *others: Files) -> str:
    """Say in which files something is neither what it was nor what it was to be."""
    said = []
    for other in others:
        wrong = [path for path in sorted({*seen, *other}) if seen.get(path) != other.get(path)]
        said.append(f"{len(wrong)} differ, such as {wrong[:5]}")
    return "; ".join(said)
