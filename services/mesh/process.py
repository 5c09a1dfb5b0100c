"""One child process, in a session of its own, that cannot outlive this process."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, STDOUT
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from services.mesh.logs import open_log

_GUARD = Path(__file__).with_name("guard.py")


class Lifeline:
    """What ties children to this process: the kernel on Linux, elsewhere a pipe they watch.

    Args:
        pipe: whether to use the pipe; by default where the kernel does not do it.
    """

    def __init__(self, pipe: bool = sys.platform != "linux") -> None:
        # The write end is never written to and never closed: it closes when this process ends.
        self.read, self._write = os.pipe() if pipe else (-1, -1)

    @property
    def inherited(self) -> tuple[int, ...]:
        """The descriptors a child needs."""
        return () if self.read < 0 else (self.read,)

    def close(self) -> None:
        """Let go; children that still live end now."""
        if self.read >= 0:
            os.close(self.read)
            os.close(self._write)


class Process:
    """A running child and its process group."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.pid = process.pid

    @classmethod
    async def start(
        cls, command: Sequence[str], env: Mapping[str, str], log: Path, lifeline: Lifeline
    ) -> Process:
        """Start a program with its output appended to `log`.

        It gets a session, so the terminal's Ctrl-C reaches this process alone.
        """
        output = open_log(log)
        try:
            # Not a preexec_fn: Python code between fork and exec is not safe beside gRPC's threads.
            guard = (sys.executable, "-I", "-S", str(_GUARD), str(os.getpid()), str(lifeline.read))
            process = await asyncio.create_subprocess_exec(
                *guard,
                *command,
                env=env,
                stdin=DEVNULL,
                stdout=output,
                stderr=STDOUT,
                start_new_session=True,
                pass_fds=lifeline.inherited,
            )
        finally:
            os.close(output)
        return cls(process)

    async def wait(self) -> int:
        """Wait for its end; answers its exit status, or the signal that ended it as a negative."""
        status = await self._process.wait()
        # Whatever it started and left behind is in its group.
        self._signal_group(signal.SIGKILL)
        return status

    def interrupt(self) -> None:
        """Ask it to end now.

        By SIGINT: on SIGTERM a service goes on for a while, for those who send it calls.
        """
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGINT)

    def kill(self) -> None:
        """End it and its group at once."""
        if self._process.returncode is None:
            self._signal_group(signal.SIGKILL)

    def _signal_group(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)


def how(status: int) -> str:
    """Say how a process ended."""
    if status >= 0:
        return f"ended with exit status {status}"
    try:
        return f"was ended by {signal.Signals(-status).name}"
    except ValueError:
        return f"was ended by signal {-status}"
