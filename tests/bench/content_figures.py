"""The figures of content: calls beside the echo, and many things beside a hundredth of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from google.protobuf.message import Message

from conductor.content.v1.agent_pb2 import Agent
from conductor.content.v1.screenplay_pb2 import Screenplay
from services.kit.settings import Settings
from tests.bench import library
from tests.bench.figures import Pace, callers_named, rates
from tests.bench.generator import LoadGenerator, load_generator
from tests.bench.library import screenplay_id
from tests.bench.load import Calls
from tests.bench.pairs import Pair
from tests.bench.stand import Stand
from tests.bench.table import Row
from tests.bench.told import FailedError

EDITED = 32
"""How many screenplays are changed, by a caller each."""
READ = EDITED
"""The number of the screenplay that is read, which nobody changes."""
_SCREENPLAYS = "/api/screenplays"
_AGENT = f"/api/agents/{library.AGENT}"
_VERSIONS = f"{_AGENT}/persona/versions"
_ECHO = "/bench"

SIZES = {"screenplays", "versions"}
_MANY, _FEW = 10_000, 100
_MANY_VERSIONS, _FEW_VERSIONS = 1000, 10
_PAGE = 50
_VERSIONS_PAGE = 5
_SOME_PAGE = _FEW // library.SOME_EACH
_TENTH_PAGE = _FEW // 10


async def keep(settings: Settings) -> None:
    """Store what `Calling` needs."""
    await library.fill(settings, _FEW, _FEW_VERSIONS, EDITED)


async def echoed(stand: Stand) -> Mapping[str, Message]:
    """Read what the echo is to answer, by rpc."""
    read = await stand.message(f"{_SCREENPLAYS}/{screenplay_id(READ)}", Screenplay)
    agent = await stand.message(_AGENT, Agent)
    return {"EchoScreenplay": read, "EchoUpdate": read, "EchoAgent": agent}


@dataclass(frozen=True, slots=True)
class Calling:
    """Measures calls of content over REST, beside the echo of as many bytes."""

    stand: Stand
    load: LoadGenerator
    pace: Pace

    async def figures(self) -> list[Row]:
        """Get and update a screenplay, and get an agent."""
        rows: list[Row] = []
        for callers in (1, EDITED):
            named = callers_named(callers)
            path = f"screenplays/{screenplay_id(READ)}"
            rows.append(await self._gets(f"GetScreenplay of 4 KiB / echo, {named}", path, callers))
            path = f"agents/{library.AGENT}"
            rows.append(await self._gets(f"GetAgent of 4 KiB / echo, {named}", path, callers))
            rows.append(await self._saves(f"UpdateScreenplay of 4 KiB / echo, {named}", callers))
        return rows

    async def _gets(self, figure: str, path: str, callers: int) -> Row:
        ours: list[Calls] = []
        echo: list[Calls] = []
        for number in range(-1, self.pace.rounds):
            for prefix, measured in ((_ECHO, echo), ("/api", ours)):
                calls = await self.load.calls(
                    f"{prefix}/{path}", callers, self.pace.seconds, self.pace.warm_up
                )
                if number >= 0:
                    measured.append(calls)
        return rates(figure, ours, echo, None)

    async def _saves(self, figure: str, callers: int) -> Row:
        """Let callers save two texts in turn, each to a screenplay of its own."""
        ours: list[Calls] = []
        echo: list[Calls] = []
        for number in range(-1, self.pace.rounds):
            reference = await self._save(_ECHO, callers, number)
            before = await self._versions()
            measured = await self._save("/api", callers, number)
            saved = await self._versions() - before
            if saved != measured.answers:
                raise FailedError(f"{figure}: {measured.answers} saves made {saved} versions")
            if number >= 0:
                echo.append(reference)
                ours.append(measured)
        return rates(figure, ours, echo, None)

    async def _save(self, prefix: str, callers: int, number: int) -> Calls:
        changes = {
            f"{prefix}/screenplays/{screenplay_id(play)}?force=true": [
                {"content": library.text(f"Screenplay {play}, {callers}, {number}, {turn}")}
                for turn in range(2)
            ]
            for play in range(callers)
        }
        return await self.load.changes(changes, self.pace.seconds, self.pace.warm_up)

    async def _versions(self) -> int:
        paths = [f"{_SCREENPLAYS}/{screenplay_id(play)}" for play in range(EDITED)]
        found = await asyncio.gather(*map(self.stand.read, paths))
        return sum(play["version"] for play in found)


@dataclass(frozen=True, slots=True)
class Shelf:
    """A content service over so many things, and a generator that reads them."""

    stand: Stand
    load: LoadGenerator
    plays: int
    versions: int

    async def last_page(self, path: str, rows: int, size: int) -> str:
        """Go through a list of so many rows; answers the path of its last page."""
        at = path
        for _ in range(rows // size - 1):
            at = f"{path}&page_token={(await self.stand.read(at))['next_page_token']}"
        if (await self.stand.read(at))["next_page_token"]:
            raise FailedError(f"{path} has more than {rows} rows")
        return at


@asynccontextmanager
async def shelf(folder: Path, plays: int, versions: int) -> AsyncIterator[Shelf]:
    """Run a mesh of its own over so many things, until the block ends."""
    data = folder / "data"
    await library.fill(Settings(data_dir=data), plays, versions)
    async with (
        Stand(folder) as stand,
        load_generator(stand.port) as load,
        stand.service(data),
    ):
        yield Shelf(stand, load, plays, versions)


async def scale(folder: Path, pace: Pace, chosen: Collection[str]) -> list[Row]:
    """Read many of SIZES, those that are chosen, and beside them a hundredth."""
    rows: list[Row] = []
    async with (
        shelf(folder / "many", _MANY, _MANY_VERSIONS) as many,
        shelf(folder / "few", _FEW, _FEW_VERSIONS) as few,
    ):
        if "screenplays" in chosen:
            rows += await _of_screenplays(many, few, pace)
        if "versions" in chosen:
            rows += await _of_versions(many, few, pace)
    return rows


async def _of_screenplays(many: Shelf, few: Shelf, pace: Pace) -> list[Row]:
    """Read lists and single ones.

    A page has as many rows on both sides, so its size is what few things can fill: 50 rows beside 10
    would say more of the rows than of how many there are to choose from. A word of the oldest alone,
    and two words that are seldom together, are the worst that can be asked: all that have the word,
    or one of them, are read for a page, a hundred times as many of many things.
    """
    rows: list[Row] = []
    of = f"{_MANY:,} screenplays / {_FEW}"
    pair = Pair(many, few, pace, of, "screenplays")
    first, by_name = f"{_SCREENPLAYS}?page_size={_PAGE}", "&order=ORDER_NAME"
    rows.append(await pair.one("get", f"{_SCREENPLAYS}/{screenplay_id(READ)}"))
    for name, order in (("last used first", ""), ("by name", by_name)):
        path = first + order
        rows.append(await pair.page(f"first page, {name}", _PAGE, path, path))
        last = [await side.last_page(path, side.plays, _PAGE) for side in (many, few)]
        rows.append(await pair.page(f"last page, {name}", _PAGE, *last))
    for name, words, size in (
        (f"word of {library.FEW}", library.RARE, library.FEW),
        (f"word of 1 in {library.SOME_EACH}", library.SOME, _SOME_PAGE),
        ("word of 1 in 10", library.EVEN_TENTH, _TENTH_PAGE),
        ("word of the oldest tenth", library.OLD_TENTH, _TENTH_PAGE),
        ("word of every other one", library.HALF, _PAGE),
        (
            f"two such words, {library.FEW} with both",
            f"{library.HALF}+{library.OTHER_HALF}",
            library.FEW,
        ),
    ):
        path = f"{_SCREENPLAYS}?page_size={size}&query={words}"
        rows.append(await pair.page(f"search, {name}", size, path, path))
    return rows


async def _of_versions(many: Shelf, few: Shelf, pace: Pace) -> list[Row]:
    of = f"{_MANY_VERSIONS:,} versions of a persona / {_FEW_VERSIONS}"
    pair = Pair(many, few, pace, of, "persona_versions")
    first = f"{_VERSIONS}?page_size={_VERSIONS_PAGE}"
    last = [await side.last_page(first, side.versions, _VERSIONS_PAGE) for side in (many, few)]
    compare = f"{_VERSIONS}:compare?from_version=first&to_version=latest"
    return [
        await pair.page("first page", _VERSIONS_PAGE, first, first),
        await pair.page("last page", _VERSIONS_PAGE, *last),
        await pair.one("get", f"{_VERSIONS}/{_FEW_VERSIONS // 2}"),
        await pair.one("latest", f"{_VERSIONS}/latest"),
        await pair.one("compare", compare),
    ]
