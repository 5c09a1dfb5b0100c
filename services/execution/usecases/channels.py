"""The names of wake-up channels and work items."""

from __future__ import annotations

from services.execution.domain import Waiting


def events_channel(org: str, execution_id: str) -> str:
    """Name the channel woken when a run's log grew."""
    return f"events/{org}/{execution_id}"


def stop_channel(org: str, execution_id: str) -> str:
    """Name the channel woken when somebody else ended a run."""
    return f"stop/{org}/{execution_id}"


def work_item(waiting: Waiting) -> str:
    """Name a run in the work queue."""
    return f"{waiting.org}/{waiting.priority}/{waiting.id}"


def read_work_item(item: str) -> Waiting:
    """Read a run back from its name in the work queue."""
    org, priority, id_ = item.rsplit("/", 2)
    return Waiting(org, int(priority), id_)
