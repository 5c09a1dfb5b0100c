"""Run the bench: `python -m tests.bench [--only NAME ...] [--quick] [--json FILE]`."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from functools import partial
from pathlib import Path
from statistics import median
from time import monotonic

from conductor.execution.v1.execution_pb2 import Execution
from services.kit.settings import Settings
from tests.bench import content_figures, talk_figures
from tests.bench.comparisons import telemetry
from tests.bench.content_figures import Calling
from tests.bench.figures import START, Figures, Pace
from tests.bench.generator import load_generator
from tests.bench.load import allow_many_files
from tests.bench.machine import facts
from tests.bench.model_figures import SDKS, idle_memory, model_figures, provider_settings
from tests.bench.production import production, replicas
from tests.bench.seed import seed
from tests.bench.stand import Stand
from tests.bench.table import Row, table
from tests.bench.told import FailedError

NAMES = (
    *("memory", "get", "replay", "first-frame", "start", "watchers", "tokens", "calls"),
    *("content", "screenplays", "versions", "conversations", "production", "replicas", "telemetry"),
)
QUICK = Pace(
    rounds=3,
    seconds=0.5,
    warm_up=0.2,
    replays=6,
    restarts=1,
    watchers=200,
    live_seconds=4.0,
    read_seconds=0.2,
)
_MANY = 10_000_000
"""Runs that may wait while nothing runs."""
_RUNS = 6
"""Runs replayed in turn; their pages are more than a service keeps."""
_READ_EVENTS = 30
"""Of the run that GetExecution reads: an answer of a few sentences."""


async def measure(chosen: set[str], pace: Pace, folder: Path) -> tuple[list[Row], float]:
    """Measure figures; answers their rows and what the generator took for an answer."""
    data, paused = folder / "data", folder / "paused"
    print("preparing ...", file=sys.stderr)
    kept = Settings(data_dir=data)
    runs = await seed(kept, _RUNS, pace.events)
    (read,) = await seed(kept, 1, _READ_EVENTS)
    await content_figures.keep(kept)
    rows: list[Row] = []
    async with Stand(folder) as stand, load_generator(stand.port) as load:
        async with stand.service(data):
            chunks = {run: await stand.chunks(run) for run in runs}
            echoed = {
                "Echo": await stand.message(f"{START}/{read}", Execution),
                **await content_figures.echoed(stand),
            }
            await stand.start_references(echoed, chunks)
            await stand.start_web(data, read)
        figures = Figures(stand, load, pace, data, runs, read, [])
        if chosen & {"memory", "start"}:
            unending = {"execution_concurrency": 0, "execution_queue_limit": _MANY}
            async with stand.service(paused, **unending) as service:
                if "memory" in chosen:
                    rows += _shown(await figures.memory(service))
                if "start" in chosen:
                    rows += _shown(await figures.start_paused())
        models = json.dumps(pace.live_models())
        async with stand.service(data, execution_mock_models=models) as service:
            for name, measured in (
                ("get", figures.get),
                ("replay", figures.replay),
                ("first-frame", figures.first_frame),
                ("start", figures.start_running),
                ("content", Calling(stand, load, pace).figures),
                ("watchers", partial(figures.watchers, service)),
            ):
                if name in chosen:
                    rows += _shown(await measured())
        if "replay" in chosen:
            rows += _shown(await figures.replay_cold())
        rows += await _of_models(chosen, stand, pace, folder)
    rows += await _of_backends(chosen, pace, folder)
    return rows, median(figures.own) if figures.own else 0.0


async def _of_backends(chosen: set[str], pace: Pace, folder: Path) -> list[Row]:
    """Measure the mesh over much, over other backends, in several processes, and watched."""
    rows: list[Row] = []
    if sizes := chosen & content_figures.SIZES:
        rows += _shown(await content_figures.scale(folder / "scale", pace, sizes))
    if "conversations" in chosen:
        rows += _shown(await talk_figures.figures(folder / "talks", pace))
    if "production" in chosen:
        rows += _shown(await production(folder / "production", pace))
    if "replicas" in chosen:
        rows += _shown(await replicas(folder / "replicas", pace))
    if "telemetry" in chosen:
        rows += _shown(await telemetry(folder / "telemetry", pace))
    return rows


async def _of_models(chosen: set[str], stand: Stand, pace: Pace, folder: Path) -> list[Row]:
    """Measure what has to do with providers and their SDKs."""
    if not chosen & {"memory", "tokens", "calls"}:
        return []
    rows: list[Row] = []
    url = await stand.start_models()
    for names in (("openai",), tuple(SDKS)):
        settings = provider_settings(url, *names)
        async with stand.service(folder / "called", execution_providers=settings) as service:
            if "memory" in chosen:
                rows += _shown([await idle_memory(service, names)])
            if names != tuple(SDKS):
                continue
            async with model_figures(stand, service, url, pace.rounds, pace.calls) as figures:
                if "tokens" in chosen:
                    rows += _shown(await figures.tokens())
                if "calls" in chosen:
                    rows += _shown(await figures.calls())
    return rows


def _shown(rows: list[Row]) -> list[Row]:
    for row in rows:
        print("  ".join(cell for cell in row.cells() if cell), file=sys.stderr, flush=True)
    return rows


def main() -> None:
    """Measure and print; ends with status 1 when a request failed or an event was lost."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--only", action="append", choices=NAMES, help="may be repeated")
    parser.add_argument("--quick", action="store_true", help="short rounds, for trying")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    asked = parser.parse_args()
    allow_many_files()
    began = monotonic()
    with tempfile.TemporaryDirectory(prefix="conductor-bench-") as name:
        machine = facts(Path(name))
        try:
            rows, own = asyncio.run(
                measure(set(asked.only or NAMES), QUICK if asked.quick else Pace(), Path(name))
            )
        except FailedError as error:
            sys.exit(f"FAILED: {error}")
    print()
    print(table(rows))
    print()
    for fact in machine:
        print(fact)
    if own:
        print(f"load generator: {own * 1e6:.0f} us of its own processor time for an answer")
    print(f"{monotonic() - began:.0f} s")
    if asked.json:
        written = {"machine": machine, "figures": [row.to_json() for row in rows]}
        asked.json.write_text(json.dumps(written, indent=2) + "\n")


if __name__ == "__main__":
    main()
