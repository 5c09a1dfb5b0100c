"""The figures: what is measured, against what, and what it should come to."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from tests.bench import web
from tests.bench.generator import LoadGenerator
from tests.bench.load import Calls, Watched
from tests.bench.process import Usage
from tests.bench.stand import Stand
from tests.bench.table import Row, Target
from tests.bench.told import FailedError

ECHO = "/bench/executions/any"
START = "/api/executions"
STREAM_START = "/api/v1/stream-execute"
WORK = {"input": "Tell me in a few words what you keep, and for how long.", "model": "mock"}

LIVE_MODEL = "bench-50"
LIVE_RUNS = 10
_TOKENS_A_SECOND = 50
_MIXED_CALLERS = 16
_MIXED_STARTERS = 4


@dataclass(frozen=True, slots=True)
class Pace:
    """How long the bench takes over things."""

    rounds: int = 5
    seconds: float = 1.25
    warm_up: float = 0.3
    events: int = 10_000
    replays: int = 12
    restarts: int = 3
    watchers: int = 1000
    live_seconds: float = 12.0
    calls: int = 200
    read_seconds: float = 0.5
    """For what is read from many things and from few."""

    def live_models(self) -> dict[str, dict[str, float]]:
        """The model of the live runs, as the service is told of it."""
        tokens = round(self.live_seconds * _TOKENS_A_SECOND)
        return {LIVE_MODEL: {"tokens": tokens, "delay_ms": 1000 / _TOKENS_A_SECOND}}


@dataclass(frozen=True, slots=True)
class Figures:
    """Measures one figure after the other."""

    stand: Stand
    load: LoadGenerator
    pace: Pace
    data: Path
    runs: Sequence[str]
    """Finished runs of many events."""
    read: str
    """A finished run of a few events, which the reference answers too."""
    own: list[float]
    """What the generator took for an answer of the echo, seconds of processor."""

    async def get(self, *, beside_web: bool = True) -> list[Row]:
        """GetExecution over REST."""
        rows: list[Row] = []
        paths = [ECHO, f"{START}/{self.read}"]
        if beside_web:
            paths.append(f"{web.PREFIX}/executions/{self.read}")
        for callers in (1, 32):
            rounds = [
                [await self._calls(path, callers) for path in paths]
                for _ in range(-1, self.pace.rounds)
            ]
            echo, ours, *fastapi = zip(*rounds[1:], strict=True)
            self.own.append(median(calls.own for calls in echo))
            figure = f"GetExecution / echo, {callers_named(callers)}"
            rows.append(rates(figure, ours, echo, Target(0.65)))
            for measured in fastapi:
                target = Target(0.8) if callers > 1 else None
                figure = f"GetExecution / FastAPI, {callers_named(callers)}"
                rows.append(rates(figure, ours, measured, target))
        return rows

    async def replay(self) -> list[Row]:
        """Replays of finished runs: more runs in turn than are kept, then the same one again."""
        others, same = list(self.runs), [self.runs[0]]
        return [
            await self._replays("replay of 10,000 events, from the store", others, Target(0.4)),
            await self._replays("replay of 10,000 events, the same again", same, Target(0.4)),
            await self._replays(
                "replay of 10,000 events, store, 8 readers", others, None, readers=8
            ),
        ]

    async def replay_cold(self) -> list[Row]:
        """The first replay after a restart of the service."""
        run = self.runs[0]
        ours: list[float] = []
        bare: list[float] = []
        for _ in range(self.pace.restarts):
            async with self.stand.service(self.data):
                bare.append((await self.load.replays([f"/bench/stream/{run}"], 3)).median)
                ours.append((await self.load.replays([f"/api/v1/stream/{run}"], 1)).median)
        ratios = [reference / time for time, reference in zip(ours, bare, strict=True)]
        return [
            Row(
                "replay of 10,000 events, first after a restart",
                printed_time(median(ours)),
                printed_time(median(bare)),
                ratios,
            )
        ]

    async def first_frame(self) -> list[Row]:
        """From the request that starts a run to its first event, beside callers of the echo."""
        rows: list[Row] = []
        for figure, callers, starters, target in (
            ("first frame / echo, 1 starter + 1 caller", 1, 1, None),
            (
                f"first frame / echo, {_MIXED_STARTERS} starters + {_MIXED_CALLERS} callers",
                _MIXED_CALLERS,
                _MIXED_STARTERS,
                Target(4, at_least=False),
            ),
        ):
            frames: list[float] = []
            echoes: list[float] = []
            for number in range(-1, self.pace.rounds):
                measured = await self.load.first_frames(
                    path=STREAM_START,
                    body=WORK,
                    starters=starters,
                    echo=ECHO,
                    callers=callers,
                    seconds=self.pace.seconds,
                    warm_up=self.pace.warm_up,
                )
                await self.stand.all_ended()
                if not measured.count:
                    raise FailedError("no run was started")
                if number >= 0:
                    frames.append(measured.first_frame)
                    echoes.append(measured.echo)
            ratios = [frame / echo for frame, echo in zip(frames, echoes, strict=True)]
            rows.append(
                Row(
                    figure,
                    printed_time(median(frames)),
                    printed_time(median(echoes)),
                    ratios,
                    None,
                    target,
                )
            )
        return rows

    async def start_paused(self) -> list[Row]:
        """Durable starts while nothing runs."""
        rows, ids = await self._starts("running paused", Target(0.3), waits=False)
        await self._check_all("QUEUED", ids)
        return rows

    async def start_running(self) -> list[Row]:
        """Durable starts while what was started runs."""
        rows, ids = await self._starts("instant runs", Target(0.2), waits=True)
        await self._check_all("SUCCEEDED", ids)
        return rows

    async def watchers(self, service: Usage) -> list[Row]:
        """Watchers of live runs: one each, and many."""
        return [
            *await self._watch_latency(LIVE_RUNS),
            *await self._watch_many(service, self.pace.watchers),
        ]

    async def _watch_latency(self, watchers: int) -> list[Row]:
        name = f"{watchers:,} watchers of {LIVE_RUNS} live runs"
        await self._watch_live(watchers)
        await self.load.ended()
        return _latency(name, await self.load.judge())

    async def _watch_many(self, service: Usage, watchers: int) -> list[Row]:
        await self._watch_live(watchers)
        used = [service.processor(), self.stand.envoy.processor()]
        began = asyncio.get_running_loop().time()
        own = await self.load.ended()
        elapsed = asyncio.get_running_loop().time() - began
        shares = [
            (after - before) / elapsed
            for before, after in zip(
                used, [service.processor(), self.stand.envoy.processor()], strict=True
            )
        ]
        memory = service.memory()
        name = f"{watchers:,} watchers of {LIVE_RUNS} live runs"
        return [
            *_latency(name, await self.load.judge()),
            Row(
                f"{name}: processor",
                f"service {shares[0]:.0%}, Envoy {shares[1]:.0%}, generator {own / elapsed:.0%}",
            ),
            Row(f"{name}: service memory at their end", f"{memory:.0f} MB"),
        ]

    async def _watch_live(self, watchers: int) -> None:
        runs = [await self.stand.start_run(LIVE_MODEL) for _ in range(LIVE_RUNS)]
        paths = [f"/api/v1/stream/{runs[n % LIVE_RUNS]}" for n in range(watchers)]
        await self.load.watch(paths)

    async def memory(self, service: Usage) -> list[Row]:
        """Resident memory, idle and with many open streams."""
        await asyncio.sleep(1)
        idle, envoy_idle = service.memory(), self.stand.envoy.memory()
        run = await self.stand.start_run("mock")
        await self.load.watch([f"/api/v1/stream/{run}"] * self.pace.watchers)
        await asyncio.sleep(1)
        busy, envoy_busy = service.memory(), self.stand.envoy.memory()
        await self.load.release()
        streams = f"{self.pace.watchers:,} open streams"
        return [
            _memory("memory of the service, idle", idle, 90),
            _memory(f"memory of the service, {streams}", busy, 120),
            _memory("memory of Envoy, idle", envoy_idle),
            _memory(f"memory of Envoy, {streams}", envoy_busy),
        ]

    async def _calls(self, path: str, callers: int, body: dict[str, str] | None = None) -> Calls:
        return await self.load.calls(path, callers, self.pace.seconds, self.pace.warm_up, body)

    async def _starts(
        self, how: str, target: Target, *, waits: bool
    ) -> tuple[list[Row], list[str]]:
        rows: list[Row] = []
        ids: list[str] = []
        for callers in (1, 32):
            ours: list[Calls] = []
            echo: list[Calls] = []
            for number in range(-1, self.pace.rounds):
                reference = await self._calls(ECHO, callers)
                measured = await self._calls(START, callers, WORK)
                ids += measured.ids
                if waits:
                    await self.stand.all_ended()
                if number >= 0:
                    echo.append(reference)
                    ours.append(measured)
            figure = f"StartExecution / echo, {how}, {callers_named(callers)}"
            rows.append(rates(figure, ours, echo, target if callers > 1 else None))
        return rows, ids

    async def _check_all(self, state: str, ids: Sequence[str]) -> None:
        if len(set(ids)) != len(ids):
            raise FailedError("two starts answered the same run")
        missing = set(ids) - await self.stand.in_state(state)
        if missing:
            raise FailedError(f"{len(missing)} of {len(ids)} runs are not {state}: {min(missing)}")

    async def _replays(
        self, figure: str, runs: Sequence[str], target: Target | None, readers: int = 1
    ) -> Row:
        ours: list[float] = []
        bare: list[float] = []
        times = max(len(runs), self.pace.replays // readers)
        for number in range(-1, self.pace.rounds):
            reference = await self.load.replays(
                [f"/bench/stream/{run}" for run in runs], times, readers
            )
            measured = await self.load.replays(
                [f"/api/v1/stream/{run}" for run in runs], times, readers
            )
            if measured.digests != reference.digests:
                raise FailedError("a replay brought other bytes than the stream before")
            if number >= 0:
                bare.append(reference.median)
                ours.append(measured.median)
        ratios = [reference / time for time, reference in zip(ours, bare, strict=True)]
        return Row(
            figure, printed_time(median(ours)), printed_time(median(bare)), ratios, None, target
        )


def rates(figure: str, ours: Sequence[Calls], other: Sequence[Calls], target: Target | None) -> Row:
    """Compare calls with those of the same round."""
    ratios = [one.rate / reference.rate for one, reference in zip(ours, other, strict=True)]
    return Row(figure, _rate(ours), _rate(other), ratios, None, target)


def _rate(calls: Sequence[Calls]) -> str:
    rate, middle = median(one.rate for one in calls), median(one.median for one in calls)
    return f"{rate:,.0f}/s, {printed_time(middle)}"


def _latency(name: str, seen: Watched) -> list[Row]:
    return [
        Row(f"{name}: streams", f"all complete, {seen.events} events each"),
        Row(f"{name}: append to receipt, median", printed_time(seen.median)),
        Row(f"{name}: append to receipt, p99", printed_time(seen.p99)),
    ]


def _memory(figure: str, megabytes: float, limit: float | None = None) -> Row:
    target = Target(limit, at_least=False, unit=" MB") if limit else None
    return Row(figure, f"{megabytes:.0f} MB", value=megabytes, target=target)


def printed_time(seconds: float) -> str:
    """Print a time."""
    return f"{seconds * 1000:.3g} ms" if seconds < 1 else f"{seconds * 1000:.0f} ms"


def callers_named(count: int) -> str:
    """Print a number of callers."""
    return "1 caller" if count == 1 else f"{count} callers"
