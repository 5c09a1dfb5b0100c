"""The command line as a person or a script starts it."""

from __future__ import annotations

import asyncio
import os
import pty
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.patience import PATIENCE

COMMAND = Path(sys.executable).with_name("conductor")
COLOUR = "\x1b["

# What the person who runs the tests has chosen is not what is tested.
_CHOSEN = (
    "NO_COLOR",
    "FORCE_COLOR",
    "TTY_COMPATIBLE",
    "CONDUCTOR_HTTP_PORT",
    "CONDUCTOR_API_KEY",
)
_STYLE = re.compile(r"\x1b\[[0-9;]*m")


@dataclass
class Outcome:
    """How a command ended, and what it wrote."""

    status: int
    out: str
    err: str


class Terminal:
    """Starts `conductor` against a mesh."""

    def __init__(self, address: str) -> None:
        chosen = {name: value for name, value in os.environ.items() if name not in _CHOSEN}
        self.env = chosen | {
            "CONDUCTOR_ADDRESS": address,
            "TERM": "xterm-256color",
            "COLUMNS": "140",
        }

    async def start(self, *arguments: str, **streams: int) -> asyncio.subprocess.Process:
        pipe = asyncio.subprocess.PIPE
        return await asyncio.create_subprocess_exec(
            COMMAND,
            *arguments,
            env=self.env,
            **({"stdin": pipe, "stdout": pipe, "stderr": pipe} | streams),  # type: ignore[arg-type]  # mypy takes them for every argument there is
        )

    async def run(self, *arguments: str, stdin: bytes = b"") -> Outcome:
        """Run a command with pipes at its ends."""
        process = await self.start(*arguments)
        out, err = await asyncio.wait_for(process.communicate(stdin), PATIENCE)
        assert process.returncode is not None
        return Outcome(process.returncode, out.decode(), err.decode())

    async def show(
        self, *arguments: str, screen: tuple[str, ...] = ("stdout", "stderr"), typed: bytes = b""
    ) -> Outcome:
        """Run a command with a terminal at some of its ends.

        What it shows is `out`, or `err` when stdout goes elsewhere.
        """
        ours, theirs = pty.openpty()
        try:
            process = await self.start(*arguments, **dict.fromkeys(screen, theirs))
        finally:
            os.close(theirs)
        os.write(ours, typed)
        reading = asyncio.create_task(asyncio.to_thread(_read, ours))
        out, err = await asyncio.wait_for(process.communicate(), PATIENCE)
        shown = await asyncio.wait_for(reading, PATIENCE)
        os.close(ours)
        assert process.returncode is not None
        screened = shown.decode().replace("\r\n", "\n")
        if "stdout" in screen:
            return Outcome(process.returncode, screened, (err or b"").decode())
        return Outcome(process.returncode, out.decode(), screened)


def unstyled(shown: str) -> str:
    """What a terminal shows, without colours."""
    return _STYLE.sub("", shown)


def _read(terminal: int) -> bytes:
    shown = b""
    while True:
        try:
            piece = os.read(terminal, 65536)
        except OSError:  # how Linux says that nobody writes any more
            return shown
        if not piece:
            return shown
        shown += piece
