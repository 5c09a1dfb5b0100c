"""An event loop whose clock jumps to the next timer as soon as nothing is left to do.

An hour of leases and heartbeats passes in a moment, always in the same order. What waits for nothing
at all is a failure at once instead of a hang.
"""

from __future__ import annotations

import asyncio
import functools
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec

EPOCH = 1_700_000_000_000_000
"""Microseconds since the epoch at which virtual time begins."""

P = ParamSpec("P")


class StuckError(Exception):
    """Every task waits and no timer runs."""


class _Selector(selectors.SelectSelector):
    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready:
            if timeout is None:
                raise StuckError
            self.now += max(timeout, 0)
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop in virtual time."""

    def __init__(self) -> None:
        self._virtual = _Selector()
        super().__init__(self._virtual)

    def time(self) -> float:
        return self._virtual.now


def monotonic() -> float:
    """Seconds of virtual time."""
    return asyncio.get_running_loop().time()


def clock() -> int:
    """Microseconds since the epoch, in virtual time."""
    return EPOCH + round(monotonic() * 1e6)


def in_virtual_time(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Run an asynchronous test in a loop of its own, in virtual time."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            runner.run(test(*args, **kwargs))

    return run
