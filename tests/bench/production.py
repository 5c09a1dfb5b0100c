"""The figures once more with a server of MongoDB's protocol and Redis behind the service.

Both run on this machine, beside all that is measured: the figures say what the way to them costs, and
nothing of a MongoDB on machines of its own.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from pydantic import SecretStr

from conductor.execution.v1.execution_pb2 import Execution
from services.kit.settings import Settings
from tests.bench.comparisons import compare, side
from tests.bench.figures import START, Figures, Pace
from tests.bench.generator import load_generator
from tests.bench.seed import seed
from tests.bench.stand import Stand
from tests.bench.table import Row
from tests.servers import mongo, redis

_RUNS = 3
_READ_EVENTS = 30


@contextmanager
def backends(folder: Path) -> Iterator[Backends]:
    """Start both servers, until the block ends."""
    folder.mkdir(parents=True, exist_ok=True)
    queue = redis.RedisServer(folder)
    with mongo.own(folder) as store:
        queue.start()
        try:
            yield Backends(store, queue)
        finally:
            queue.stop()


class Backends:
    """A store and a queue that are servers of their own."""

    def __init__(self, store: mongo.OwnServer, queue: redis.RedisServer) -> None:
        self._store = store
        self._queue = queue
        self._used = 0

    def settings(self, name: str) -> dict[str, object]:
        """Tell a service where they are; each name is a mesh of its own."""
        self._used += 1
        return {"store_url": self._store.url(name), "queue_url": self._queue.url(self._used)}


async def production(folder: Path, pace: Pace) -> list[Row]:
    """The figures of the service over both."""
    rows: list[Row] = []
    with backends(folder / "servers") as servers:
        settings, paused = servers.settings("bench"), servers.settings("paused")
        kept = Settings(store_url=SecretStr(str(settings["store_url"])))
        runs = await seed(kept, _RUNS, pace.events)
        (read,) = await seed(kept, 1, _READ_EVENTS)
        data = folder / "data"
        async with (
            Stand(folder / "stand", settings=settings) as stand,
            load_generator(stand.port) as load,
        ):
            async with stand.service(data):
                chunks = {run: await stand.chunks(run) for run in runs}
                echoed = {"Echo": await stand.message(f"{START}/{read}", Execution)}
                await stand.start_references(echoed, chunks)
            figures = Figures(stand, load, pace, data, runs, read, [])
            unending = {"execution_concurrency": 0, "execution_queue_limit": 10_000_000}
            async with stand.service(data, **paused, **unending):
                rows += await figures.start_paused()
            models = json.dumps(pace.live_models())
            async with stand.service(data, execution_mock_models=models) as service:
                rows += await figures.get(beside_web=False)
                rows += await figures.replay()
                rows += await figures.first_frame()
                rows += await figures.start_running()
                rows += await figures.watchers(service)
    backend = f"{mongo.version()} + Redis"
    return [replace(row, figure=f"{backend}: {row.figure}", target=None) for row in rows]


async def replicas(folder: Path, pace: Pace) -> list[Row]:
    """Two processes of the service against one, over the same servers."""
    with backends(folder / "servers") as servers:
        async with (
            side(folder / "one", 1, servers.settings("one")) as one,
            side(folder / "two", 2, servers.settings("two")) as two,
        ):
            return await compare("2 processes / 1", two, one, pace, None)
