"""The service beside itself: the same calls on two stands in turn, told apart by one thing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from services.mesh.addresses import free_ports
from tests.bench.figures import START, WORK, Pace, rates
from tests.bench.generator import LoadGenerator, load_generator
from tests.bench.load import Calls
from tests.bench.stand import HOST, Stand
from tests.bench.table import Row, Target

_CALLERS = 32
_TELEMETRY_TARGET = Target(0.9)


@dataclass(frozen=True, slots=True)
class Side:
    """A stand whose service runs, and a generator that calls it."""

    stand: Stand
    load: LoadGenerator
    run: str
    """A finished run, to be read."""

    async def reads(self, pace: Pace) -> Calls:
        """Let callers read the run."""
        path = f"{START}/{self.run}"
        return await self.load.calls(path, _CALLERS, pace.seconds, pace.warm_up)

    async def starts(self, pace: Pace) -> Calls:
        """Let callers start instant runs; these have ended when this answers."""
        measured = await self.load.calls(START, _CALLERS, pace.seconds, pace.warm_up, WORK)
        await self.stand.all_ended()
        return measured


@asynccontextmanager
async def side(
    folder: Path, processes: int = 1, settings: Mapping[str, object] | None = None
) -> AsyncIterator[Side]:
    """Run a service on a stand of its own."""
    async with (
        Stand(folder, processes, settings) as stand,
        load_generator(stand.port) as load,
        stand.service(folder / "data"),
    ):
        run = await stand.start_run("mock")
        await stand.all_ended()
        yield Side(stand, load, run)


async def compare(
    name: str, one: Side, other: Side, pace: Pace, target: Target | None
) -> list[Row]:
    """Read a run and start instant ones, here and there in turn."""
    return [
        await _compared("GetExecution", name, one, other, pace, target, starts=False),
        await _compared(
            "StartExecution, instant runs", name, one, other, pace, target, starts=True
        ),
    ]


async def _compared(
    what: str, name: str, one: Side, other: Side, pace: Pace, target: Target | None, *, starts: bool
) -> Row:
    ours: list[Calls] = []
    reference: list[Calls] = []
    for number in range(-1, pace.rounds):
        for each, measured in ((other, reference), (one, ours)):
            calls = await (each.starts(pace) if starts else each.reads(pace))
            if number >= 0:
                measured.append(calls)
    return rates(f"{what}, {_CALLERS} callers: {name}", ours, reference, target)


async def telemetry(folder: Path, pace: Pace) -> list[Row]:
    """Traces and metrics of everything against none."""
    (port,) = free_ports(1)
    endpoint = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{HOST}:{port}"}
    async with side(folder / "off") as off:
        await off.stand.start_beside("collector", port)
        async with side(folder / "on", 1, endpoint) as on:
            return await compare("telemetry on / off", on, off, pace, _TELEMETRY_TARGET)
