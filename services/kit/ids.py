"""Ids: a prefix and a UUIDv7, so that they sort by creation; and the clock they share."""

from __future__ import annotations

import time

from uuid_utils import uuid7


def new_id(prefix: str) -> str:
    """Make an id such as `exec_0193e0…`, unique and sortable by creation."""
    return f"{prefix}_{uuid7().hex}"


def now() -> int:
    """Return the time: microseconds since the epoch, UTC."""
    return time.time_ns() // 1000
