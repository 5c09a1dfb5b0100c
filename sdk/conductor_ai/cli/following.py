"""Following a run until its end, or until somebody leaves."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing
from typing import Any

import grpc

from conductor.execution.v1.event_pb2 import ExecutionEvent
from conductor_ai.cli.exits import Exit
from conductor_ai.cli.output import tell
from conductor_ai.cli.printers import Printer, outcome
from conductor_ai.client import Client, ConductorError


async def show(events: AsyncGenerator[ExecutionEvent, None], printer: Printer) -> Exit:
    """Show events to the last one; answers the outcome."""
    status = Exit.FAILED
    async with aclosing(events):
        async for event in events:
            printer.event(event)
            ended = outcome(event)
            if ended is not None:
                status = ended
    return status


async def unless(
    leave: asyncio.Event, following: Coroutine[Any, Any, Exit], printer: Printer
) -> Exit | None:
    """Follow to the end and answer the outcome; None when it was time to leave before.

    Raises:
        ConductorError: the mesh said no; what was being printed has its line ended.
    """
    task = asyncio.create_task(following)
    leaving = asyncio.create_task(leave.wait())
    try:
        await asyncio.wait({task, leaving}, return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() else None
    except ConductorError:
        printer.end_line()
        raise
    finally:
        for each in (task, leaving):
            each.cancel()
        await asyncio.gather(task, leaving, return_exceptions=True)


async def cancel(client: Client, execution_id: str, printer: Printer) -> None:
    """Cancel a run that somebody follows, trying until the mesh answers."""
    printer.status("cancelling; Ctrl-C once more leaves at once")
    while True:
        try:
            await client.cancel(execution_id)
        except ConductorError as error:
            if error.code is grpc.StatusCode.UNAVAILABLE:
                await asyncio.sleep(error.retry_after or 0.5)
                continue
            if error.reason != "EXECUTION_FINISHED":
                printer.end_line()
                tell(f"error: the run cannot be cancelled: {error.message}")
        return


async def watch(client: Client, execution_id: str, after: int, printer: Printer) -> Exit:
    """Watch a run that somebody started; Ctrl-C stops watching and leaves the run alone."""
    leave = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, leave.set)
    events = client.watch(execution_id, after, on_wait=printer.waiting)
    status = await unless(leave, show(events, printer), printer)
    if status is not None:
        return status
    printer.end_line()
    tell(f"stopped watching; {execution_id} was not cancelled")
    return Exit.CANCELLED
