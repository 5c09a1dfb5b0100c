"""A process that does what it is told, on both sides of its standard input and output.

It takes one JSON object a line, `{"do": <name>, ...}`, answers each with one line, and ends with its input.
"""

from __future__ import annotations

import asyncio
import json
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Any

_LINE_LIMIT = 64 * 1024 * 1024


class FailedError(Exception):
    """A measured request failed or an event was lost: the figures mean nothing."""


class Told:
    """Tells a process what to do, and raises what failed there."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def ask(self, do: str, **what: Any) -> dict[str, Any]:
        """Have something done; answers what came of it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"do": do, **what}).encode() + b"\n")
        line = await self._process.stdout.readline()
        if not line:
            raise FailedError(f"the process that was told to do {do} ended")
        answer: dict[str, Any] = json.loads(line)
        if failures := answer.get("failures"):
            raise FailedError(f"{do} {what}: {len(failures)} failed; the first: {failures[0]}")
        return answer


@asynccontextmanager
async def telling(module: str, *arguments: str) -> AsyncIterator[Told]:
    """Start a module that obeys; it ends with the block."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", module, *arguments),
        stdin=PIPE,
        stdout=PIPE,
        limit=_LINE_LIMIT,
        start_new_session=True,
    )
    try:
        yield Told(process)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), 5)
        except TimeoutError:
            process.kill()
            await process.wait()


async def obey(worker: object) -> None:
    """Do what standard input says with the methods of `worker`, until it ends."""
    reader = asyncio.StreamReader(limit=_LINE_LIMIT)
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    while line := await reader.readline():
        command = json.loads(line)
        answer = await getattr(worker, command.pop("do"))(**command)
        known = answer if isinstance(answer, dict) else asdict(answer)
        sys.stdout.write(json.dumps(known) + "\n")
        sys.stdout.flush()
