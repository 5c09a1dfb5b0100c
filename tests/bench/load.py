"""The load generator: a process of its own, the same for everything that is measured.

Run as `python -m tests.bench.load <port>`; what it is told is in `tests.bench.told`.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import resource
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from time import perf_counter, process_time
from typing import Any, TypeVar

import uvloop

from tests.bench.client import (
    Caller,
    Connection,
    Load,
    Replayer,
    Starter,
    Tally,
    Watcher,
    get,
    patch,
    post,
    unchunked,
)
from tests.bench.judge import judge
from tests.bench.told import obey

HOST = "127.0.0.1"
_AT_A_TIME = 100
"""Connections that are opened together."""

C = TypeVar("C", bound=Connection)


@dataclass(frozen=True, slots=True)
class Calls:
    """What callers of one request measured."""

    rate: float
    """Answers a second."""
    median: float
    """Seconds."""
    p99: float
    own: float
    """Seconds of processor the generator itself took for an answer."""
    failures: list[str]
    ids: list[str] = field(default_factory=list)
    """Of what was started, before the measurement too."""
    answers: int = 0
    """How many there were, before the measurement and after it too."""


@dataclass(frozen=True, slots=True)
class Replays:
    """What readers of whole streams measured."""

    median: float
    """Seconds."""
    digests: list[str]
    """Of the bodies, each once."""
    failures: list[str]


@dataclass(frozen=True, slots=True)
class FirstFrames:
    """What starters measured, and callers beside them."""

    first_frame: float
    """The median, seconds from the request that starts to the first event."""
    count: int
    echo: float
    """The median of the callers."""
    failures: list[str]


@dataclass(frozen=True, slots=True)
class Watched:
    """What watchers of live runs saw."""

    events: int
    """Of one run, the fewest and most being the same for all its watchers."""
    delays: int
    """How many arrivals were measured."""
    median: float
    """Seconds from append to arrival."""
    p99: float
    failures: list[str]


class Generator:
    """Does what it is told."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._watchers: list[tuple[str, Watcher]] = []

    async def calls(
        self,
        path: str,
        callers: int,
        seconds: float,
        warm_up: float,
        body: dict[str, Any] | None = None,
    ) -> Calls:
        """Let callers send one request again and again."""
        load = Load(keep_bodies=body is not None)
        request = _request(path, body)
        return await self._calls(load, [[request]] * callers, seconds, warm_up)

    async def changes(
        self, changes: Mapping[str, Sequence[dict[str, Any]]], seconds: float, warm_up: float
    ) -> Calls:
        """Let a caller for each path change what is there, to each of its bodies in turn."""
        requests = [
            [patch(path, json.dumps(body).encode()) for body in bodies]
            for path, bodies in changes.items()
        ]
        return await self._calls(Load(), requests, seconds, warm_up)

    async def _calls(
        self, load: Load, requests: Sequence[Sequence[bytes]], seconds: float, warm_up: float
    ) -> Calls:
        """Let a caller for each list of requests send them."""
        callers = await self._open([Caller(load, some) for some in requests])
        cpu, elapsed = await _measure(load, callers, seconds, warm_up)
        tally = load.tally
        done = len(tally.latencies)
        return Calls(
            rate=done / elapsed,
            median=_quantile(tally.latencies, 0.5),
            p99=_quantile(tally.latencies, 0.99),
            own=cpu / max(done, 1),
            failures=tally.failures,
            ids=[_id(json.loads(answer)) for answer in load.bodies],
            answers=load.answers,
        )

    async def replays(self, paths: Sequence[str], times: int, readers: int = 1) -> Replays:
        """Read streams to their end."""
        load = Load()
        requests = [get(path) for path in paths]
        connections = await self._open([Replayer(load, requests, times) for _ in range(readers)])
        for connection in connections:
            connection.begin()
        await asyncio.gather(*(connection.ended for connection in connections))
        digests = {hashlib.sha256(unchunked(answer)).hexdigest() for answer in load.bodies}
        return Replays(median(load.tally.latencies or [0.0]), sorted(digests), load.tally.failures)

    async def first_frames(
        self,
        path: str,
        body: dict[str, Any],
        starters: int,
        echo: str,
        callers: int,
        seconds: float,
        warm_up: float,
    ) -> FirstFrames:
        """Let starters start and stream runs while callers call something else."""
        load = Load()
        connections: list[Connection] = [Caller(load, [get(echo)]) for _ in range(callers)]
        connections += [
            Starter(load, post(path, json.dumps(body).encode())) for _ in range(starters)
        ]
        await self._open(connections)
        await _measure(load, connections, seconds, warm_up)
        tally = load.tally
        return FirstFrames(
            first_frame=_quantile(tally.first_frames, 0.5),
            count=len(tally.first_frames),
            echo=_quantile(tally.latencies, 0.5),
            failures=tally.failures,
        )

    async def watch(self, paths: Sequence[str]) -> dict[str, Any]:
        """Begin to watch streams; answers when each has begun."""
        load = Load()
        self._watchers = [(path, Watcher(load, get(path))) for path in paths]
        watchers = [watcher for _, watcher in self._watchers]
        for begin in range(0, len(watchers), _AT_A_TIME):
            some = await self._open(watchers[begin : begin + _AT_A_TIME])
            for watcher in some:
                watcher.begin()
            await asyncio.gather(*(watcher.begun for watcher in some))
        return {"failures": load.tally.failures}

    async def ended(self) -> dict[str, Any]:
        """Wait for the ends of the streams that are watched."""
        cpu = process_time()
        await asyncio.gather(*(watcher.ended for _, watcher in self._watchers))
        return {"own": process_time() - cpu}

    async def judge(self) -> Watched:
        """Judge what was watched."""
        failures: list[str] = []
        delays: list[float] = []
        events: dict[str, int] = {}
        for path, watcher in self._watchers:
            verdict = judge(watcher.pieces)
            count = len(verdict.sequences)
            fault = verdict.fault
            if not fault and events.setdefault(path, count) != count:
                fault = f"{count} events where another watcher got {events[path]}"
            if fault:
                failures.append(f"{path}: {fault}")
            delays += verdict.delays
        self._watchers = []
        return Watched(
            events=max(events.values(), default=0),
            delays=len(delays),
            median=_quantile(delays, 0.5),
            p99=_quantile(delays, 0.99),
            failures=failures,
        )

    async def release(self) -> dict[str, Any]:
        """Go away from the streams that are watched."""
        for _, watcher in self._watchers:
            watcher.release()
        self._watchers = []
        return {}

    async def _open(self, connections: list[C]) -> list[C]:
        loop = asyncio.get_running_loop()

        async def connect(connection: C) -> None:
            await loop.create_connection(lambda: connection, HOST, self._port)

        await asyncio.gather(*map(connect, connections))
        return connections


async def _measure(
    load: Load, connections: Sequence[Connection], seconds: float, warm_up: float
) -> tuple[float, float]:
    """Let connections work; answers processor time and time of what `load.tally` holds then."""
    for connection in connections:
        connection.begin()
    await asyncio.sleep(warm_up)
    failed = load.tally.failures
    tally = load.tally = Tally(failures=failed)
    cpu, began = process_time(), perf_counter()
    await asyncio.sleep(seconds)
    cpu, elapsed = process_time() - cpu, perf_counter() - began
    load.tally, load.more = Tally(failures=failed), False
    await asyncio.gather(*(connection.ended for connection in connections))
    load.tally = tally
    return cpu, elapsed


def _request(path: str, body: dict[str, Any] | None) -> bytes:
    return get(path) if body is None else post(path, json.dumps(body).encode())


def _id(answer: Mapping[str, Any]) -> str:
    """Read the id of what was made: a thing has one, and the answer of a run that of the run."""
    return str(answer["execution_id"] if "id" not in answer else answer["id"])


def _quantile(values: list[float], part: float) -> float:
    if not values:
        return 0.0
    return sorted(values)[min(len(values) - 1, int(len(values) * part))]


def allow_many_files() -> None:
    """Raise the limit of open files: each connection is one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


if __name__ == "__main__":
    allow_many_files()
    uvloop.run(obey(Generator(int(sys.argv[1]))))
