"""Keeps programs running: starts them, starts again what dies, ends them all."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from services.mesh.backoff import Backoff
from services.mesh.errors import CannotStart
from services.mesh.logs import size, tail
from services.mesh.process import Lifeline, Process, how

Say = Callable[[str], None]
"""Tells the person in front of the terminal one fact in one line."""

_POLL = 0.05
_HOPELESS = 3
_QUESTIONS = 6
"""How often a program is asked, at most, before its silence counts."""


@dataclass(frozen=True)
class Program:
    """Something to keep running."""

    name: str
    command: Sequence[str]
    env: Mapping[str, str]
    log: Path
    """Where its output goes."""
    healthy: Callable[[], Awaitable[bool]]
    """Asks it once whether it serves."""
    answers: Callable[[], Awaitable[bool]]
    """Asks it once for any answer; one that says that it will end soon is not hung."""


class Keeper:
    """Keeps one program running until it is told to stop.

    Args:
        start_timeout: seconds until a start without health counts as hung; one that does not answer
            yet has as long again from each line of its log on.
        silence: seconds without any answer after which a program that served counts as hung.
        changed: called after every start, when the pid is another.
    """

    def __init__(
        self,
        program: Program,
        lifeline: Lifeline,
        say: Say,
        *,
        start_timeout: float,
        silence: float,
        clock: Callable[[], float],
        changed: Callable[[], None],
    ) -> None:
        self.program = program
        self.serving = asyncio.Event()
        """Set from its first health on."""
        self.pid: int | None = None
        """The pid while it lives."""
        self._lifeline = lifeline
        self._say = say
        self._start_timeout = start_timeout
        self._silence = silence
        self._clock = clock
        self._changed = changed
        self._backoff = Backoff(clock)
        self._stopping = asyncio.Event()
        self._process: Process | None = None
        self._log_start = 0

    async def keep(self, grace: Callable[[], float]) -> None:
        """Run the program until `stop`, then end it within `grace()` seconds.

        Raises:
            CannotStart: its first start failed.
        """
        while not self._stopping.is_set():
            try:
                status, hung = await self._live(grace)
            except OSError as error:
                # No process, no memory, no disk for the log: as good as dead, and as passing.
                status, hung, what = -1, "", f"cannot be started ({error.strerror})"
            else:
                what = hung or how(status)
            if self._stopping.is_set():
                return
            if not self.serving.is_set():
                self._check_first_start(status, hung, what)
            await self._pause(what)

    def stop(self) -> None:
        """End the program and do not start it again."""
        self._stopping.set()

    def kill(self) -> None:
        """End the program at once."""
        self._stopping.set()
        if self._process is not None:
            self._process.kill()

    async def _live(self, grace: Callable[[], float]) -> tuple[int, str]:
        """Live through one process: answers its status and, when it hung, how."""
        self._log_start = size(self.program.log)
        process = await Process.start(
            self.program.command, self.program.env, self.program.log, self._lifeline
        )
        self._process, self.pid = process, process.pid
        end = asyncio.create_task(process.wait())
        hanging = asyncio.create_task(self._hang())
        stop = asyncio.create_task(self._stopping.wait())
        hung = ""
        try:
            self._changed()
            await asyncio.wait({end, hanging, stop}, return_when=asyncio.FIRST_COMPLETED)
            if hanging.done() and not end.done():
                hung = hanging.result()
            else:
                process.interrupt()
                await asyncio.wait({end}, timeout=grace())
        finally:
            process.kill()
            status = await end
            self._process = self.pid = None
            for task in (hanging, stop):
                task.cancel()
            await asyncio.gather(hanging, stop, return_exceptions=True)
        return status, hung

    async def _hang(self) -> str:
        """Wait until it hangs; says how."""
        if not await self._become_healthy():
            return f"did not serve within {self._start_timeout:g} s"
        answered = self._clock()
        while self._clock() - answered < self._silence:
            await asyncio.sleep(self._silence / _QUESTIONS)
            if await self.program.answers():
                answered = self._clock()
        return f"has not answered for {self._silence:g} s"

    async def _become_healthy(self) -> bool:
        started = heard = self._clock()
        logged = self._log_start
        while not await self.program.healthy():
            before, logged = logged, size(self.program.log)
            if logged != before and not await self.program.answers():
                # It may be bringing its store forward. What logs its answers gets no more time for it.
                heard = self._clock()
            if self._clock() - heard > self._start_timeout:
                return False
            await asyncio.sleep(_POLL)
        self._backoff.healthy()
        if self.serving.is_set():
            self._say(f"{self.program.name} serves again after {self._clock() - started:.1f} s")
        self.serving.set()
        return True

    def _check_first_start(self, status: int, hung: str, what: str) -> None:
        """Give a first start up when the program hung, or ended by itself: it has its reasons."""
        if not hung and status < 0 and self._backoff.deaths + 1 < _HOPELESS:
            return
        lines = tail(self.program.log, 5, self._log_start)
        raise CannotStart(
            "\n".join([f"{self.program.name} {what}; its log is {self.program.log}", *lines])
        )

    async def _pause(self, what: str) -> None:
        delay = self._backoff.died()
        when = f"in {delay:g} s" if delay else "at once"
        self._say(f"{self.program.name} {what}; starting it again {when}")
        if self._backoff.deaths >= _HOPELESS:
            for line in tail(self.program.log, 1, self._log_start):
                self._say(f"{self.program.name} said last: {line}")
        if delay:
            await _within(self._stopping.wait(), delay)


class Supervisor:
    """Keeps programs running while its block is open, and none afterwards.

    Args:
        say: told about deaths and restarts.
        start_timeout: as that of a `Keeper`.
        silence: seconds without any answer after which a program that served counts as hung.
        changed: called when a pid is another.
    """

    def __init__(
        self,
        say: Say,
        *,
        start_timeout: float = 30.0,
        silence: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
        changed: Callable[[], None] = lambda: None,
        lifeline: Lifeline | None = None,
    ) -> None:
        self._say = say
        self._start_timeout = start_timeout
        self._silence = silence
        self._clock = clock
        self._changed = changed
        self._lifeline = lifeline or Lifeline()
        self._keepers: dict[str, Keeper] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._end_by = 0.0

    @property
    def pids(self) -> dict[str, int]:
        """The pid of each program that lives."""
        return {name: k.pid for name, k in self._keepers.items() if k.pid is not None}

    def add(self, program: Program) -> None:
        """Start a program and keep it running."""
        keeper = Keeper(
            program,
            self._lifeline,
            self._say,
            start_timeout=self._start_timeout,
            silence=self._silence,
            clock=self._clock,
            changed=self._changed,
        )
        self._keepers[program.name] = keeper
        self._tasks[program.name] = asyncio.create_task(
            keeper.keep(lambda: max(0.0, self._end_by - self._clock())), name=program.name
        )

    async def serving(self) -> None:
        """Wait until every program serves.

        Raises:
            CannotStart: one of them does not.
        """
        everything = asyncio.create_task(self._all_serve())
        try:
            await asyncio.wait(
                {everything, *self._tasks.values()}, return_when=asyncio.FIRST_COMPLETED
            )
            for task in self._tasks.values():
                if task.done():
                    task.result()
            await everything
        finally:
            everything.cancel()

    async def _all_serve(self) -> None:
        for keeper in self._keepers.values():
            await keeper.serving.wait()

    async def broken(self) -> None:
        """Wait for ever, or until keeping a program running has itself failed, which raises."""
        done, _ = await asyncio.wait(self._tasks.values(), return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()

    async def stop(self, *names: str, grace: float) -> None:
        """End programs together: ask, wait up to `grace` seconds, then kill."""
        self._end_by = self._clock() + grace
        chosen = [name for name in names if name in self._keepers]
        for name in chosen:
            self._keepers[name].stop()
        await asyncio.gather(*(self._tasks[name] for name in chosen), return_exceptions=True)

    def kill(self) -> None:
        """End every program at once."""
        self._end_by = self._clock()
        for keeper in self._keepers.values():
            keeper.kill()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Kill what still runs."""
        self.kill()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        self._lifeline.close()


async def _within(work: Awaitable[object], seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await work
    except TimeoutError:
        return
