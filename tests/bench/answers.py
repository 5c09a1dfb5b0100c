"""Answers of models: read over and over by callers, whoever it is they call."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from statistics import median
from time import perf_counter

Read = Callable[[], Awaitable[str]]
"""Makes one call and answers all its text."""


@dataclass(frozen=True, slots=True)
class Answers:
    """What reading answers took."""

    seconds: float
    """For all of them."""
    median: float
    """Seconds, for one."""
    texts: list[str]
    """What was said, each once."""
    processor: float = 0.0
    """Seconds of processor of the process that called the model."""


async def read_answers(read: Read, times: int, callers: int) -> Answers:
    """Read so many answers, that many at a time."""
    latencies: list[float] = []
    texts: set[str] = set()
    turns = iter(range(times))

    async def call() -> None:
        # Each caller takes the next turn there is.
        for _ in turns:
            began = perf_counter()
            texts.add(await read())
            latencies.append(perf_counter() - began)

    began = perf_counter()
    async with asyncio.TaskGroup() as tasks:
        for _ in range(callers):
            tasks.create_task(call())
    return Answers(perf_counter() - began, median(latencies), sorted(texts))
