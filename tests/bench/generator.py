"""The load generator, as it is told from here."""

from __future__ import annotations

import asyncio
import json
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from tests.bench.load import Calls, FirstFrames, Replays, Watched

_LINE_LIMIT = 64 * 1024 * 1024


class FailedError(Exception):
    """A measured request failed or an event was lost: the figures mean nothing."""


class LoadGenerator:
    """Tells a load generator what to do, and raises what failed there."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def calls(
        self,
        path: str,
        callers: int,
        seconds: float,
        warm_up: float,
        body: dict[str, Any] | None = None,
    ) -> Calls:
        """Let callers send one request again and again."""
        return Calls(
            **await self._ask(
                "calls", path=path, callers=callers, seconds=seconds, warm_up=warm_up, body=body
            )
        )

    async def replays(self, paths: Sequence[str], times: int, readers: int = 1) -> Replays:
        """Let readers read streams to their end."""
        return Replays(
            **await self._ask("replays", paths=list(paths), times=times, readers=readers)
        )

    async def first_frames(self, **what: Any) -> FirstFrames:
        """Let starters start and stream runs while callers call something else."""
        return FirstFrames(**await self._ask("first_frames", **what))

    async def watch(self, paths: Sequence[str]) -> None:
        """Begin to watch streams."""
        await self._ask("watch", paths=list(paths))

    async def ended(self) -> float:
        """Wait for the ends of the streams; answers the generator's own processor seconds."""
        return float((await self._ask("ended"))["own"])

    async def judge(self) -> Watched:
        """Judge what was watched."""
        return Watched(**await self._ask("judge"))

    async def release(self) -> None:
        """Go away from the streams."""
        await self._ask("release")

    async def _ask(self, do: str, **what: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"do": do, **what}).encode() + b"\n")
        line = await self._process.stdout.readline()
        if not line:
            raise FailedError(f"the load generator ended while it did {do}")
        answer: dict[str, Any] = json.loads(line)
        if failures := answer.get("failures"):
            raise FailedError(f"{do} {what}: {len(failures)} failed; the first: {failures[0]}")
        return answer


@asynccontextmanager
async def load_generator(port: int) -> AsyncIterator[LoadGenerator]:
    """Start a load generator that calls a port of this machine."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "tests.bench.load", str(port)),
        stdin=PIPE,
        stdout=PIPE,
        limit=_LINE_LIMIT,
        start_new_session=True,
    )
    try:
        yield LoadGenerator(process)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), 5)
        except TimeoutError:
            process.kill()
            await process.wait()
