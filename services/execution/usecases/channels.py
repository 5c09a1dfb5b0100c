"""The names of wake-up channels and work items."""

from __future__ import annotations

import re

from services.execution.domain import Execution, Turn, Waiting

_NEW = "new"
_RESUMED = "resumed"
_ITEM = re.compile(rf"({_NEW}|{_RESUMED}):(\d*)/(-?\d+)/([^/]+)/(.+)", re.DOTALL)


def events_channel(org: str, execution_id: str) -> str:
    """Name the channel woken when a run's log grew."""
    return f"events/{org}/{execution_id}"


def stop_channel(org: str, execution_id: str) -> str:
    """Name the channel woken when somebody else ended a run."""
    return f"stop/{org}/{execution_id}"


def turn_channel(org: str, conversation_id: str) -> str:
    """Name the channel woken when another run may be next to answer in a conversation."""
    return f"turn/{org}/{conversation_id}"


def context_channel(execution: Execution) -> str:
    """Name the channel of runs that wait until the same services answer, which know what they are told."""
    order = execution.order
    return "context/screenplay" if order.has_context and order.screenplay_id else "context"


def work_item(waiting: Waiting) -> str:
    """Name a run in the work queue that waits for its turn."""
    return f"{_NEW}:/{waiting.priority}/{waiting.id}/{waiting.org}"


def resumed_item(waiting: Waiting, slot: int | None) -> str:
    """Name a run in the work queue that had its turn and was handed back, with its slot."""
    held = "" if slot is None else str(slot)
    return f"{_RESUMED}:{held}/{waiting.priority}/{waiting.id}/{waiting.org}"


def read_work_item(item: str) -> Turn | None:
    """Read a run back from its name in the work queue; None when it is no such name.

    A run that waits has no slot yet.
    """
    named = _ITEM.fullmatch(item)
    if named is None:
        return None
    kind, slot, priority, id_, org = named.groups()
    waiting = Waiting(org, int(priority), id_)
    return Turn(waiting, int(slot) if slot else None, resumed=kind == _RESUMED)
