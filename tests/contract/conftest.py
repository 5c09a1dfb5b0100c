"""The adapters every suite runs over; another adapter is another parameter."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Protocol

import pytest

from services.kit.storage.inprocess import InProcessQueue, InProcessWakeups
from services.kit.storage.ports import Collection, Store, Wakeups, WorkQueue
from services.kit.storage.redis import RedisQueue, RedisWakeups
from services.kit.storage.sqlite import SqliteStore
from tests.fakes.memory import Memory, MemoryStore
from tests.servers.redis import RedisServer

COLLECTIONS = (
    Collection("runs", fields=("state", "agent"), unique=("request_key",)),
    Collection("leases"),
)
LOGS = ("events", "audit")


class OpenStore(Protocol):
    """Opens the test's store, again and again with the same content."""

    async def __call__(
        self, collections: Sequence[Collection] = COLLECTIONS, logs: Sequence[str] = LOGS
    ) -> Store: ...


@pytest.fixture(params=["sqlite", "memory"])
async def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[OpenStore]:
    opened: list[Store] = []
    memory = Memory()

    async def open_(
        collections: Sequence[Collection] = COLLECTIONS, logs: Sequence[str] = LOGS
    ) -> Store:
        store: Store
        if request.param == "sqlite":
            store = await SqliteStore.open(tmp_path / "store.db", collections, logs)
        else:
            store = MemoryStore(memory, collections)
        opened.append(store)
        return store

    yield open_
    for store in opened:
        await store.close()


@pytest.fixture
async def store(open_store: OpenStore) -> Store:
    return await open_store()


@pytest.fixture(params=["inprocess", "redis"])
async def queue(request: pytest.FixtureRequest) -> AsyncIterator[WorkQueue]:
    if request.param == "inprocess":
        yield InProcessQueue()
        return
    server: RedisServer = request.getfixturevalue("redis_server")
    queue = RedisQueue(server.url(), "test")
    yield queue
    await queue.close()


@pytest.fixture(params=["inprocess", "redis"])
async def wakeups(request: pytest.FixtureRequest) -> AsyncIterator[Wakeups]:
    if request.param == "inprocess":
        yield InProcessWakeups()
        return
    server: RedisServer = request.getfixturevalue("redis_server")
    wakeups = RedisWakeups(server.url(), "test")
    yield wakeups
    await wakeups.close()
