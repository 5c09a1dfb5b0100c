"""Background tasks: whoever starts one ends it and waits for its end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

_LOG = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")


async def ended(task: asyncio.Task[Any]) -> None:
    """Cancel a task and wait until it is over; a fault it met is logged."""
    task.cancel()
    await asyncio.wait([task])
    if not task.cancelled() and (error := task.exception()) is not None:
        _LOG.error("the task %s failed", task.get_name(), exc_info=error)


class Workbench:
    """Where work is done that keeps a processor busy, in threads.

    Python runs one thread at a time, and each one more keeps the event loop waiting longer; so few have
    a place here at once, and who is cancelled leaves it only when the thread has ended.
    """

    def __init__(self, places: int = 2) -> None:
        self._places = asyncio.Semaphore(places)

    async def do(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Do some work once there is a place for it."""
        async with self._places:
            return await threaded(work, *args, **kwargs)


async def threaded(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Do work that blocks in a thread.

    Who is cancelled meanwhile goes on once the thread has ended, so that nothing is taken from under it.
    """
    task = asyncio.create_task(asyncio.to_thread(work, *args, **kwargs))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        if not task.cancelled():
            task.exception()  # nobody asks any more
        raise
