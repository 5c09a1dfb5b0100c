"""The names of wake-up channels and work items."""

from __future__ import annotations


def events_channel(org: str, execution_id: str) -> str:
    """Name the channel woken when a run's log grew."""
    return f"events/{org}/{execution_id}"


def stop_channel(org: str, execution_id: str) -> str:
    """Name the channel woken when somebody else ended a run."""
    return f"stop/{org}/{execution_id}"


def work_item(org: str, execution_id: str) -> str:
    """Name a run in the work queue."""
    return f"{org}/{execution_id}"


def read_work_item(item: str) -> tuple[str, str]:
    """Read organisation and id back from a work item."""
    org, _, execution_id = item.partition("/")
    return org, execution_id
