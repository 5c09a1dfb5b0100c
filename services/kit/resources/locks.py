"""Locks by name, for work that several processes may do at once and one does better in turn."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable
from weakref import WeakValueDictionary


class Locks:
    """One lock for each name, as long as somebody holds it or waits for it.

    They spare the tasks of a process to try in vain; what keeps things right is in the store.
    """

    def __init__(self) -> None:
        self._locks: WeakValueDictionary[Hashable, asyncio.Lock] = WeakValueDictionary()

    def of(self, name: Hashable) -> asyncio.Lock:
        """Find the lock of a name."""
        return self._locks.setdefault(name, asyncio.Lock())
