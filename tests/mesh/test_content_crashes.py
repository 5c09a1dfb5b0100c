"""What `kill -9` does to deletions, restores and imports of content: all of each, or nothing."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
from pydantic import SecretStr

from services.content.domain.archives import Layout
from services.content.domain.personas import Persona
from services.content.settings import ContentSettings
from services.content.stores import COLLECTIONS, LOGS, agents, personas, screenplays
from services.content.stores.archives import IMPORTS, STAGED
from services.kit.storage.opening import open_store
from services.kit.storage.ports import Collection, Document, Query, Store
from tests.fakes.archivist import Archivist
from tests.fakes.memory import Memory, MemoryStore
from tests.mesh.gardening import (
    APPLY,
    BACKUP,
    DIRECTORY,
    STAGE,
    Garden,
    Grower,
    Sack,
    Sower,
    Writer,
)
from tests.mesh.started import Mesh
from tests.servers.mongo import own

ORG = "default"


@pytest.fixture(params=["sqlite", "mongodb"])
def gardened(
    new_mesh: Callable[..., Mesh], request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[Mesh]:
    """A mesh that is not started yet."""
    processes = os.environ.get("CRASH_PROCESSES", "1")
    if request.param == "sqlite":
        yield new_mesh(CONTENT_PROCESSES=processes)
        return
    (tmp_path / "mongo").mkdir()
    with own(tmp_path / "mongo") as server:
        yield new_mesh(CONTENT_PROCESSES=processes, STORE_URL=server.url("crashes"))


@pytest.mark.timeout(240 + 15 * int(os.environ.get("CRASH_KILLS", "0")))
async def test_nothing_is_ever_seen_half_done_however_often_content_is_killed(
    gardened: Mesh, tmp_path: Path
) -> None:
    seed = os.environ.get("CRASH_SEED", str(time.time_ns()))
    print(f"CRASH_SEED={seed}")  # noqa: T201 shown when the test fails, to do the same again
    dice = random.Random(seed)
    kills = int(os.environ.get("CRASH_KILLS") or (3 if "STORE_URL" in gardened.settings else 5))
    sacks = [await backup(tmp_path, word) for word in ("one", "two")]
    trees = [await directory(tmp_path, word) for word in ("one", "two")]
    await gardened.start()
    # What takes longer has to have a chance.
    most_seconds = 2.0 if "STORE_URL" in gardened.settings else 1.0
    names = [name for name in gardened.pids() if name.startswith("content")]
    async with AsyncExitStack() as stack:
        garden = await stack.enter_async_context(a_garden(gardened, alone=len(names) == 1))
        sower, planter = Sower(garden, "sown-"), Sower(garden, "laid-")

        async def sow(number: int) -> None:
            match number % 4:
                case 0:  # where nothing is
                    await sower.sow(sacks[0], force=False)
                case 1:
                    await planter.sow(trees[number // 4 % 2], force=True)
                case 2:
                    await sower.sow(sacks[1], force=True)
                case _:
                    await sower.weed()

        stop = asyncio.Event()
        growers = [Grower(garden, f"grown-{number}") for number in range(2)]
        work = [*(one.season for one in growers), Writer(garden, "plays/a.md").season, sow]
        working = [asyncio.create_task(seasons(one, stop)) for one in work]
        for _ in range(kills):
            name = dice.choice(names)
            dead = gardened.pids()[name]
            await moment(garden, dice, most_seconds)
            os.kill(dead, signal.SIGKILL)
            if any(one.done() for one in working):
                break
            await gardened.serves_again(name, dead)
        stop.set()
        numbers = await asyncio.gather(*working)
        print(  # noqa: T201 how much was at stake
            f"{kills} kills, seasons {numbers}, {garden.repeated} calls repeated, "
            f"{sower.cut + planter.cut} imports cut, of these {sower.undone + planter.undone} undone"
        )
        store = await stack.enter_async_context(the_store(gardened))
        await drained(store)
        await assert_whole(store)
    assert garden.repeated


async def moment(garden: Garden, dice: random.Random, most_seconds: float) -> None:
    """Wait for a moment to kill at: any, or one while an import is written, when there is one."""
    phase = dice.choice((None, STAGE, APPLY, APPLY))
    if phase is None:
        await asyncio.sleep(dice.uniform(0.0, most_seconds))
        return
    garden.phases[phase].clear()
    with suppress(TimeoutError):
        await asyncio.wait_for(garden.phases[phase].wait(), 3 * most_seconds)
    if phase == STAGE:
        await asyncio.sleep(dice.uniform(0.0, most_seconds / 20))


async def seasons(season: Callable[[int], object], stop: asyncio.Event) -> int:
    """Do the same again and again, at least once; answers how often."""
    number = 0
    while number == 0 or not stop.is_set():
        await season(number)  # type: ignore[misc]  # each is a coroutine function
        number += 1
    return number


@asynccontextmanager
async def a_garden(mesh: Mesh, *, alone: bool) -> AsyncIterator[Garden]:
    """A client of a mesh that comes back at once after each crash."""
    options = [
        ("grpc.max_receive_message_length", -1),
        ("grpc.initial_reconnect_backoff_ms", 50),
        ("grpc.max_reconnect_backoff_ms", 100),
    ]
    async with grpc.aio.insecure_channel(mesh.address, options=options) as channel:
        yield Garden(channel, alone=alone)


async def backup(folder: Path, word: str) -> Sack:
    """Make a backup of agents with many versions and screenplays with many texts."""
    maker = Archivist(folder, MemoryStore(Memory(), COLLECTIONS))
    for number in range(14):
        await maker.agent(f"sown-{number:02}", description=word)
        texts = (f"{word} {number} {version}" for version in range(8))
        await maker.persona(f"sown-{number:02}", *texts)
        texts = (f"# {word} {number} {revision}" for revision in range(4))
        # Those of the other one have the same paths, each another's.
        path = f"sown/{number if word == 'one' else 13 - number}.md"
        await maker.screenplay(f"sown-{number:02}", *texts, file_path=path)
    return Sack.of(await maker.export(), BACKUP)


async def directory(folder: Path, word: str) -> Sack:
    """Make a directory of agents and screenplays."""
    maker = Archivist(folder, MemoryStore(Memory(), COLLECTIONS))
    for number in range(30):
        await maker.agent(f"laid-{number:02}", description=word)
        await maker.persona(f"laid-{number:02}", f"You are {word} {number}.")
        path = f"laid-{number:02}.md"
        await maker.screenplay(f"laid-{number:02}", f"# {word} {number}", file_path=path)
    return Sack.of(await maker.export(Layout.DIRECTORY), DIRECTORY)


@asynccontextmanager
async def the_store(mesh: Mesh) -> AsyncIterator[Store]:
    """The store of content."""
    async with AsyncExitStack() as stack:
        url = SecretStr(mesh.settings.get("STORE_URL", ""))
        settings = ContentSettings(data_dir=mesh.data, store_url=url)
        yield await open_store(settings, "content", COLLECTIONS, LOGS, stack)


async def drained(store: Store) -> None:
    """Wait until nothing is left to be done."""
    async with asyncio.timeout(45):
        while left := await unfinished(store):
            await asyncio.sleep(0.2)
    assert not left


async def unfinished(store: Store) -> list[str]:
    """Name what is left to be done."""
    left = [f"{one.name} {doc.id}" for one in (IMPORTS, STAGED) for doc in await all_of(store, one)]
    for collection in (agents.AGENTS, personas.PERSONAS, screenplays.SCREENPLAYS):
        documents = await all_of(store, collection)
        left += [f"{collection.name} {doc.id}" for doc in documents if doc.fields["cascade"]]
    return left


async def assert_whole(store: Store) -> None:
    """Whatever belongs to something is there with it, and is as it is."""
    roots = {doc.id: agents.from_document(doc) for doc in await all_of(store, agents.AGENTS)}
    lives = [personas.from_document(doc) for doc in await all_of(store, personas.PERSONAS)]
    numbers: dict[str, list[int]] = {}
    for document in await all_of(store, personas.VERSIONS):
        version = personas.version_from_document(document)
        numbers.setdefault(version.agent_id, []).append(version.number)
    assert numbers.keys() == {persona.agent_id for persona in lives} <= roots.keys()
    for persona in lives:
        assert sorted(numbers[persona.agent_id]) == list(range(1, persona.number + 1))
        assert follows(persona, roots[persona.agent_id].life.deletion), persona
    plays = [screenplays.from_document(d) for d in await all_of(store, screenplays.SCREENPLAYS)]
    newest = {play.id: play.text_revision for play in plays}
    for document in await all_of(store, screenplays.TEXTS):
        text = screenplays.text_from_document(document)
        assert text.revision <= newest[text.screenplay_id], text


def follows(persona: Persona, deletion: str) -> bool:
    """Whether a persona is deleted with its agent, or is not because that is not."""
    life = persona.life
    return life.deletion == deletion if life.inherited else bool(life.deletion) or not deletion


async def all_of(store: Store, collection: Collection) -> list[Document]:
    """Read all documents of the organisation."""
    found: list[Document] = []
    query = Query(collection, ORG, limit=500)
    while page := await store.query(query):
        found += page
        query = replace(query, after=(page[-1].create_time, page[-1].id))
    return found
