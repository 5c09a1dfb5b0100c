"""The service as a process of its own, and a collector that never answers it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.fakes.content import FakeContent
from tests.patience import PATIENCE


@dataclass(frozen=True)
class Service:
    """A process that serves."""

    process: Process
    port: int

    async def stop(self) -> list[dict[str, Any]]:
        """Stop it; returns what it logged since it serves."""
        self.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(PATIENCE):
            _, errors = await self.process.communicate()
        assert self.process.returncode == 0
        return [json.loads(line) for line in errors.decode().splitlines()]


def inherited() -> dict[str, str]:
    """The variables of this process, without those that the service reads."""
    ours = ("CONDUCTOR_", "OTEL_")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)}


@asynccontextmanager
async def process(data_dir: Path, **variables: str) -> AsyncIterator[Service]:
    """Start the service and wait until it serves; kill it at the end if it has not ended."""
    command = [sys.executable, "-m", "services.execution"]
    async with FakeContent() as content:
        env = inherited() | {
            "CONDUCTOR_DATA_DIR": str(data_dir),
            "CONDUCTOR_EXECUTION_ADDRESS": "127.0.0.1:0",
            "CONDUCTOR_PEERS": json.dumps({"content": content.target}),
            **variables,
        }
        started = await asyncio.create_subprocess_exec(*command, env=env, stderr=PIPE)
        try:
            async with asyncio.timeout(PATIENCE):
                port = await _port(started)
            yield Service(started, port)
        finally:
            if started.returncode is None:
                started.kill()
                await started.wait()


async def _port(started: Process) -> int:
    """Read what it logs until it serves."""
    assert started.stderr is not None
    while line := await started.stderr.readline():
        if b'"serving"' in line:
            return int(json.loads(line)["port"])
    raise AssertionError("it ended")


@asynccontextmanager
async def silent_port() -> AsyncIterator[int]:
    """A port that takes connections and never says a word."""
    connections: list[asyncio.StreamWriter] = []

    async def connected(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()
    for writer in connections:
        writer.transport.abort()
    await server.wait_closed()
