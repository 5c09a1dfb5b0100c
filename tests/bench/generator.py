"""The load generator, as it is told from here."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from tests.bench.load import Calls, FirstFrames, Replays, Watched
from tests.bench.told import Told, telling


class LoadGenerator:
    """Tells a load generator what to do."""

    def __init__(self, told: Told) -> None:
        self._told = told

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
            **await self._told.ask(
                "calls", path=path, callers=callers, seconds=seconds, warm_up=warm_up, body=body
            )
        )

    async def changes(
        self, changes: Mapping[str, Sequence[dict[str, Any]]], seconds: float, warm_up: float
    ) -> Calls:
        """Let a caller for each path change what is there, to each of its bodies in turn."""
        return Calls(
            **await self._told.ask("changes", changes=changes, seconds=seconds, warm_up=warm_up)
        )

    async def replays(self, paths: Sequence[str], times: int, readers: int = 1) -> Replays:
        """Let readers read streams to their end."""
        return Replays(
            **await self._told.ask("replays", paths=list(paths), times=times, readers=readers)
        )

    async def first_frames(self, **what: Any) -> FirstFrames:
        """Let starters start and stream runs while callers call something else."""
        return FirstFrames(**await self._told.ask("first_frames", **what))

    async def watch(self, paths: Sequence[str]) -> None:
        """Begin to watch streams."""
        await self._told.ask("watch", paths=list(paths))

    async def ended(self) -> float:
        """Wait for the ends of the streams; answers the generator's own processor seconds."""
        return float((await self._told.ask("ended"))["own"])

    async def judge(self) -> Watched:
        """Judge what was watched."""
        return Watched(**await self._told.ask("judge"))

    async def release(self) -> None:
        """Go away from the streams."""
        await self._told.ask("release")


@asynccontextmanager
async def load_generator(port: int) -> AsyncIterator[LoadGenerator]:
    """Start a load generator that calls a port of this machine."""
    async with telling("tests.bench.load", str(port)) as told:
        yield LoadGenerator(told)
