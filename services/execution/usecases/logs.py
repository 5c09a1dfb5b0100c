"""Whole logs, and the summaries that fell behind them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from services.execution import domain
from services.execution.domain import Errand, Execution
from services.execution.ports import Executions, FencedError

_FIRST_LOOK, _LAST_LOOK = 0.01, 0.1
_TOLD_SECONDS = 2.0
"""How long an end is kept from watchers while its conversation is not told of it."""


async def repair(executions: Executions, execution: Execution) -> None:
    """Bring a projection that fell behind up to its log, unless somebody is faster."""
    log = await whole_log(executions, execution.org, execution.id)
    projected, _ = domain.repair(execution, log)
    with suppress(FencedError):
        await executions.save(projected)


async def settle(
    executions: Executions, org: str, id_: str, last: domain.Event, clock: Callable[[], int]
) -> None:
    """See that a run whose log has ended is stored as ended, and that its conversation knows.

    Its writer, between two writes, is given a moment; then it counts as dead. Its conversation is given
    a while from the end on; the one who ended it is about to tell.
    """
    pause = _FIRST_LOOK
    while (execution := await executions.get(org, id_)) is not None and not execution.finished:
        if pause > _LAST_LOOK:
            await repair(executions, execution)
        else:
            await asyncio.sleep(pause)
            pause *= 2
    # The end was stored by another clock, which may be ahead.
    until = min(last.time, clock()) + _TOLD_SECONDS * 1e6
    while execution is not None and execution.errand is Errand.FILL and clock() < until:
        await asyncio.sleep(_LAST_LOOK)
        execution = await executions.get(org, id_)


async def whole_log(executions: Executions, org: str, id_: str) -> list[domain.Event]:
    """Read every event of a run."""
    log: list[domain.Event] = []
    while page := await executions.events(org, id_, log[-1].sequence if log else 0):
        log.extend(page)
    return log
