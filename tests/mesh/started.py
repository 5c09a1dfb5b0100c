"""`conductor up` as a user starts it, for tests that look at it from outside."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from services.mesh.addresses import free_ports
from tests.patience import PATIENCE
from tests.processes import alive, until

COMMAND = Path(sys.executable).with_name("conductor")


@dataclass
class Mesh:
    """A mesh of its own port and data directory; it can be started again and again.

    `settings` are environment variables without their prefix.
    """

    folder: Path
    settings: dict[str, str] = field(default_factory=dict)
    port: int = field(default_factory=lambda: free_ports(1)[0])
    seen: set[int] = field(default_factory=set)
    """Every pid there ever was; `pids` and `end` note them."""
    _process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where REST is."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def address(self) -> str:
        """Where gRPC is."""
        return f"127.0.0.1:{self.port}"

    @property
    def data(self) -> Path:
        """The data directory."""
        return self.folder / "data"

    @property
    def env(self) -> dict[str, str]:
        """The environment a user would have."""
        ours = {"HTTP_PORT": str(self.port), "DATA_DIR": str(self.data)} | self.settings
        theirs = {k: v for k, v in os.environ.items() if not k.startswith("CONDUCTOR_")}
        return theirs | {f"CONDUCTOR_{name}": value for name, value in ours.items()}

    @property
    def pid(self) -> int:
        """The pid of the supervisor."""
        assert self._process is not None
        return self._process.pid

    @property
    def output(self) -> str:
        """What it has printed since its first start, both streams."""
        path = self.folder / "output"
        return path.read_text() if path.exists() else ""

    async def start(self) -> None:
        """Start it, and wait for its line `ready:`."""
        before = self.output.count("\nready: ")
        self.begin()
        await until(lambda: self.output.count("\nready: ") > before or self.ended, PATIENCE)
        assert not self.ended, self.output
        self.pids()

    def begin(self) -> None:
        """Start it without waiting."""
        assert self.ended, "it runs already"
        self.folder.mkdir(exist_ok=True)
        with (self.folder / "output").open("ab") as output:
            self._process = subprocess.Popen(
                [COMMAND, "up"],
                cwd=self.folder,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def pids(self) -> dict[str, int]:
        """The pids of the processes that run now, by name: `execution`, `envoy`."""
        state: dict[str, Any] = json.loads((self.data / "run" / "mesh.json").read_text())
        pids = {
            name: one["pid"] for name, one in state["processes"].items() if one["pid"] is not None
        }
        self.seen.update(pids.values())
        return pids

    async def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> int:
        """Kill one of its processes, without a warning; answers which pid that was."""
        # What was killed just now may still be written down.
        await until(lambda: alive(self.pids().get(name, 0)), PATIENCE)
        pid = self.pids()[name]
        os.kill(pid, number)
        return pid

    async def serves_again(self, name: str, after: int) -> None:
        """Wait until a process of that name runs that is not `after`, and the mesh is healthy."""
        await until(lambda: self.pids().get(name, after) != after, PATIENCE)
        await self.healthy()

    async def says(self, text: str) -> None:
        """Wait until it has printed a text."""
        await until(lambda: text in self.output, PATIENCE)

    async def healthy(self) -> None:
        """Wait until GET /health is 200."""
        async with (
            asyncio.timeout(PATIENCE),
            httpx.AsyncClient(base_url=self.url, trust_env=False) as client,
        ):
            while not await self._is_healthy(client):
                await asyncio.sleep(0.05)

    @staticmethod
    async def _is_healthy(client: httpx.AsyncClient) -> bool:
        try:
            return (await client.get("/health")).status_code == 200
        except httpx.TransportError:
            return False

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the supervisor."""
        assert self._process is not None
        self._process.send_signal(number)

    @property
    def ended(self) -> bool:
        """Whether the supervisor has ended."""
        return self._process is None or self._process.poll() is not None

    async def end(self, seconds: float = PATIENCE) -> int:
        """Wait for the end of the supervisor; answers its exit status."""
        assert self._process is not None
        await until(lambda: self.ended, seconds)
        return self._process.returncode

    async def stop(self) -> int:
        """Stop it as a service manager does; answers its exit status."""
        self.signal(signal.SIGTERM)
        return await self.end()

    async def crash(self) -> None:
        """Kill the supervisor, without a warning."""
        self.pids()
        self.signal(signal.SIGKILL)
        await self.end()

    def left(self) -> set[int]:
        """The pids of its processes that still run."""
        return {pid for pid in self.seen if alive(pid)}

    def clean_up(self) -> None:
        """Leave nothing behind, whatever the test did."""
        if self._process is not None:
            if self._process.poll() is None:
                self._process.kill()
            self._process.wait()
