"""Work that keeps a processor busy: how much of it is done at a time."""

from __future__ import annotations

import asyncio
from threading import Event, Semaphore

from services.kit.tasks import Workbench
from tests.patience import PATIENCE


async def test_work_waits_for_a_place_that_a_caller_who_leaves_does_not_free() -> None:
    bench = Workbench(places=2)
    begun, go_on, third = Semaphore(0), Event(), Event()

    def work() -> None:
        begun.release()
        go_on.wait(PATIENCE)

    callers = [asyncio.create_task(bench.do(work)) for _ in range(2)]
    for _ in callers:
        assert await asyncio.to_thread(begun.acquire, timeout=PATIENCE)
    last = asyncio.create_task(bench.do(third.set))
    callers[0].cancel()
    # Threads come and go: turns enough for one that would not wait.
    for _ in range(20):
        await asyncio.to_thread(bool)
    assert not third.is_set()

    go_on.set()
    await asyncio.wait_for(last, PATIENCE)
    assert third.is_set()
    await asyncio.wait(callers)
    assert callers[0].cancelled()
