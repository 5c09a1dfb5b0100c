"""Two processes of the service over MongoDB and Redis, and whatever dies of all that."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import groupby
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr

from services.execution.stores import COLLECTIONS, EVENTS, LOGS
from services.kit.settings import Settings
from services.kit.storage.opening import open_store
from tests.mesh.started import Mesh
from tests.mesh.watching import Followed, chat_client, follow, insist, start_job
from tests.servers.mongo import OwnServer, own
from tests.servers.redis import RedisServer

RUNS = 50
KILLS = 20
PROCESSES = ("execution-1", "execution-2")

Trouble = Callable[[RedisServer, random.Random], Awaitable[None]]


@pytest.fixture
def mongo(tmp_path: Path) -> Iterator[OwnServer]:
    (tmp_path / "mongo").mkdir()
    with own(tmp_path / "mongo") as server:
        yield server


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def production(new_mesh: Callable[..., Mesh], mongo: OwnServer, redis: RedisServer) -> Mesh:
    return new_mesh(
        EXECUTION_PROCESSES="2", STORE_URL=mongo.url("production"), QUEUE_URL=redis.url()
    )


async def nothing_else(redis: RedisServer, dice: random.Random) -> None:
    """Leave Redis alone."""


async def redis_forgets(redis: RedisServer, dice: random.Random) -> None:
    """Flush Redis, or restart it empty, at random."""
    while True:
        await asyncio.sleep(dice.uniform(0.2, 1))
        await asyncio.to_thread(redis.flush if dice.random() < 0.5 else redis.restart)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("trouble", [nothing_else, redis_forgets])
async def test_every_accepted_run_ends_whole_whichever_process_is_killed(
    production: Mesh, redis: RedisServer, trouble: Trouble
) -> None:
    seed = os.environ.get("CRASH_SEED", str(time.time_ns()))
    print(f"CRASH_SEED={seed}")  # noqa: T201 shown when the test fails, to do the same again
    dice = random.Random(seed)
    await production.start()
    async with chat_client(production.url) as client:
        requests = [f"run-{number}" for number in range(RUNS)]
        opened = asyncio.Event()
        following = asyncio.gather(*(start_and_follow(client, one, opened) for one in requests))
        # On a busy machine they could all be dead before anything is at stake.
        await opened.wait()
        async with beside(trouble(redis, dice)):
            for _ in range(KILLS):
                await asyncio.sleep(dice.uniform(0, 1))
                await production.kill(dice.choice(PROCESSES))
        followed = await following
        await assert_whole(client, followed)
        again = [await start_job(client, request_id, "mock-slow") for request_id in requests]
        assert again == [seen.job_id for seen in followed]
    assert any(seen.connections > 1 for seen in followed)


@pytest.mark.timeout(120)
async def test_callers_are_told_that_the_store_is_away_and_nothing_accepted_is_lost(
    production: Mesh, mongo: OwnServer
) -> None:
    await production.start()
    async with chat_client(production.url) as client:
        following = [
            asyncio.create_task(start_and_follow(client, f"run-{number}")) for number in range(20)
        ]
        await asyncio.sleep(1)
        await asyncio.to_thread(mongo.stop)
        told = await answers_for(client, seconds=5)
        await asyncio.to_thread(mongo.start)
        await assert_whole(client, await asyncio.gather(*following))
    assert told
    for response in told:
        assert response.status_code == 503
        assert int(response.headers["retry-after"]) >= 1
        assert response.json()["code"] == 14


@pytest.mark.timeout(120)
async def test_a_worker_that_was_frozen_beyond_its_lease_writes_no_more(
    production: Mesh, mongo: OwnServer
) -> None:
    production.settings["EXECUTION_LEASE_SECONDS"] = "1"
    await production.start()
    async with chat_client(production.url) as client:
        jobs = [await start_job(client, f"run-{number}", "mock-slow") for number in range(20)]
        following = asyncio.gather(*(follow(client, job) for job in jobs))
        await asyncio.sleep(0.5)
        frozen = production.pids()[PROCESSES[0]]
        os.kill(frozen, signal.SIGSTOP)
        await asyncio.sleep(4)
        os.kill(frozen, signal.SIGCONT)
        followed = await following
        await assert_whole(client, followed)
    writers = [await workers_of(job, mongo.url("production")) for job in jobs]
    assert any(len(workers) > 1 for workers in writers), "no run was taken over"
    assert all(len(workers) == len(set(workers)) for workers in writers), "one came back"


async def workers_of(job_id: str, url: str) -> list[str]:
    """Who wrote the log of a run, one after the other."""
    async with AsyncExitStack() as stack:
        settings = Settings(store_url=SecretStr(url))
        store = await open_store(settings, "execution", COLLECTIONS, LOGS, stack)
        entries = await store.read(EVENTS, "default", job_id, 0, limit=10_000, max_bytes=10**9)
    return [writer for writer, _ in groupby(writer for _, _, writer in entries)]


async def start_and_follow(
    client: httpx.AsyncClient, request_id: str, opened: asyncio.Event | None = None
) -> Followed:
    return await follow(client, await start_job(client, request_id, "mock-slow"), opened)


async def answers_for(client: httpx.AsyncClient, seconds: float) -> list[httpx.Response]:
    """What callers are answered for a while."""
    end = time.monotonic() + seconds
    told: list[httpx.Response] = []
    while time.monotonic() < end:
        told.append(await client.post("/api/executions", json={"input": "Hello"}))
        await asyncio.sleep(0.2)
    return told


async def assert_whole(client: httpx.AsyncClient, followed: list[Followed]) -> None:
    """Each run ended once and well, what was said of it is what is kept, and there are no others."""
    for seen in followed:
        seen.assert_complete()
        execution = await insist(client, "GET", f"/api/executions/{seen.job_id}")
        assert execution["state"] == "STATE_SUCCEEDED"
        assert execution["result"] == seen.last_attempt == seen.terminal[0]["data"]["result"]
    listed = await insist(client, "GET", "/api/executions", params={"page_size": 200})
    assert Counter(one["id"] for one in listed["executions"]) == Counter(
        seen.job_id for seen in followed
    )


@asynccontextmanager
async def beside(work: Awaitable[None]) -> AsyncIterator[None]:
    """Do something while the block runs; that it fails, fails the block."""
    task = asyncio.ensure_future(work)
    try:
        yield
        if task.done():
            task.result()
    finally:
        task.cancel()
        await asyncio.wait([task])
