"""Background tasks: whoever starts one ends it and waits for its end."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

_LOG = logging.getLogger(__name__)


async def ended(task: asyncio.Task[Any]) -> None:
    """Cancel a task and wait until it is over; a fault it met is logged."""
    task.cancel()
    await asyncio.wait([task])
    if not task.cancelled() and (error := task.exception()) is not None:
        _LOG.error("the task %s failed", task.get_name(), exc_info=error)
