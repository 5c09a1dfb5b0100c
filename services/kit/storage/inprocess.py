"""Wake-ups and the work queue within one process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class InProcessWakeups:
    """Wake-ups for watchers in the same process."""

    def __init__(self) -> None:
        self._channels: dict[str, dict[object, Callable[[], None]]] = {}

    async def publish(self, channel: str) -> None:
        """Call whoever is subscribed."""
        subscribers = self._channels.get(channel)
        if subscribers:
            for wake in tuple(subscribers.values()):
                wake()

    def subscribe(self, channel: str, wake: Callable[[], None]) -> Callable[[], None]:
        """Subscribe until the returned function is called; calling it twice is harmless."""
        token = object()
        self._channels.setdefault(channel, {})[token] = wake

        def unsubscribe() -> None:
            subscribers = self._channels.get(channel)
            if subscribers is None:
                return
            subscribers.pop(token, None)
            if not subscribers:
                del self._channels[channel]

        return unsubscribe


class InProcessQueue:
    """A first-in, first-out queue in memory."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[str] = asyncio.Queue()
        self._waiting: set[str] = set()

    async def put(self, item: str) -> None:
        """Add an item unless it waits already."""
        if item not in self._waiting:
            self._waiting.add(item)
            self._queue.put_nowait(item)

    async def take(self) -> str:
        """Take the oldest item."""
        item = await self._queue.get()
        self._waiting.discard(item)
        return item

    async def done(self, item: str) -> None:
        """Nothing: an item lives no longer than the process that takes it."""
