"""The command line in this process, used against the content service in another one.

A command that is started as a program takes most of a second to import what it needs; here it takes
what it does.
"""

from __future__ import annotations

import asyncio
import io
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from conductor_ai.cli import app
from tests.patience import PATIENCE
from tests.rpc.process import inherited
from tests.rpc.terminal import Outcome, Terminal

_CONDUCTOR = get_command(app)


class Commands:
    """Runs `conductor` as a script does: with pipes at its ends."""

    def __init__(self, address: str, patch: pytest.MonkeyPatch) -> None:
        self.address = address
        self.patch = patch
        self.columns = 140
        patch.setenv("CONDUCTOR_ADDRESS", address)
        patch.delenv("CONDUCTOR_API_KEY", raising=False)
        patch.delenv("VISUAL", raising=False)

    def run(self, *arguments: str, stdin: bytes = b"") -> Outcome:
        """Run a command and answer how it ended."""
        status = 0
        ends = [io.BytesIO(content) for content in (stdin, b"", b"")]
        pipes = [io.TextIOWrapper(end, "utf-8", write_through=True) for end in ends]
        with self.patch.context() as patch:
            for name, pipe in zip(("stdin", "stdout", "stderr"), pipes, strict=True):
                patch.setattr(sys, name, pipe)
            try:
                _CONDUCTOR.main([*arguments], "conductor")
            except SystemExit as ended:
                status = int(ended.code or 0)
        out, err = (end.getvalue().decode() for end in ends[1:])
        return Outcome(status, out, err)

    def done(self, *arguments: str, stdin: bytes = b"") -> str:
        """Run a command that has to succeed; answers what it printed."""
        outcome = self.run(*arguments, stdin=stdin)
        assert outcome.status == 0, outcome
        return outcome.out

    def told(self, *arguments: str) -> Any:
        """Run a command that has to succeed and prints one object of JSON."""
        return json.loads(self.done(*arguments, "--json"))

    def shown(self, *arguments: str, typed: bytes = b"") -> str:
        """Run a command at a terminal, as a program, and answer what it shows."""
        screen = ("stdin", "stdout", "stderr")
        terminal = Terminal(self.address)
        terminal.env["COLUMNS"] = str(self.columns)
        return asyncio.run(terminal.show(*arguments, screen=screen, typed=typed)).out

    def edits(self, script: Path, *steps: str) -> None:
        """Let the editor do one of some lines of shell each time it is opened, to `$1`."""
        counter = script.with_suffix(".count")
        counter.write_text("")
        cases = "\n".join(f"{number}) {step};;" for number, step in enumerate(steps, start=1))
        script.write_text(
            f"#!/bin/sh\necho >> {counter}\ncase $(wc -l < {counter}) in\n{cases}\n*) exit 9;;\nesac\n"
        )
        script.chmod(0o755)
        self.patch.setenv("EDITOR", str(script))


@contextmanager
def content_process(data_dir: Path, **variables: str) -> Iterator[str]:
    """Start the content service and give its address; end it with the block."""
    env = inherited() | {
        "CONDUCTOR_DATA_DIR": str(data_dir),
        "CONDUCTOR_CONTENT_ADDRESS": "127.0.0.1:0",
        **variables,
    }
    command = [sys.executable, "-m", "services.content"]
    with subprocess.Popen(command, env=env, stderr=subprocess.PIPE) as started:
        assert started.stderr is not None
        try:
            lines = []
            for line in started.stderr:
                lines.append(line)
                if b'"serving"' in line:
                    yield f"127.0.0.1:{json.loads(line)['port']}"
                    break
            else:
                raise AssertionError(b"".join(lines).decode())
        finally:
            started.terminate()
            started.communicate(timeout=PATIENCE)


@contextmanager
def talks_process() -> Iterator[str]:
    """Start the conversations service beside some agents and give its address; end it with the block.

    It knows an instance `worked` of the agent `writer` that has run three times.
    """
    command = [sys.executable, "-m", "tests.rpc.talks"]
    with subprocess.Popen(command, env=inherited(), stdout=subprocess.PIPE) as started:
        assert started.stdout is not None
        try:
            port = started.stdout.readline().decode().strip()
            assert port
            yield f"127.0.0.1:{port}"
        finally:
            started.terminate()
            started.communicate(timeout=PATIENCE)
