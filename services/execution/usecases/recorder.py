"""Recording an answer while a model says it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable


class Recorder:
    """Gathers an answer and has it stored in pieces: the first at once, then one at a time.

    Args:
        store: stores a piece; called again only after it returned.
        every: seconds between two pieces, at least.
        failed: called once when a piece could not be stored; nothing is stored after that.
    """

    def __init__(
        self,
        store: Callable[[str], Awaitable[None]],
        every: float,
        failed: Callable[[Exception], None],
    ) -> None:
        self._store = store
        self._every = every
        self._failed = failed
        self._loop = asyncio.get_running_loop()
        self._said: list[str] = []
        self._pending: list[str] = []
        self._size = 0
        self._next = 0.0
        self._timer: asyncio.Handle | None = None
        self._storing: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def answer(self) -> str:
        """All that was added."""
        return "".join(self._said)

    def add(self, text: str) -> int:
        """Add a piece of the answer; returns how many characters are not stored yet.

        Once it is closed nothing is added any more.
        """
        if self._closed:
            return 0
        self._said.append(text)
        self._pending.append(text)
        self._size += len(text)
        if self._timer is None and self._storing is None:
            # Not at once: a model that has its whole answer ready gets it into one write.
            self._timer = self._loop.call_at(self._next, self._begin)
        return self._size

    async def flushed(self) -> None:
        """Wait until what was added is stored, or cannot be."""
        if self._timer is not None:
            self._timer.cancel()
            self._begin()
        if self._storing is not None:
            await asyncio.wait([self._storing])

    def hold(self) -> None:
        """Begin to store no more: nothing is added any more, and `close` gives the rest."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()

    async def close(self) -> str:
        """Stop storing and return what is not stored yet."""
        self.hold()
        if self._storing is not None:
            await asyncio.wait([self._storing])
        return "".join(self._pending)

    def _begin(self) -> None:
        self._timer = None
        text = "".join(self._pending)
        self._pending.clear()
        self._size = 0
        self._next = self._loop.time() + self._every
        self._storing = asyncio.create_task(self._store_piece(text), name="store a piece")

    async def _store_piece(self, text: str) -> None:
        try:
            await self._store(text)
        except Exception as error:  # noqa: BLE001 a lost piece must not go unnoticed
            self._failed(error)
            return
        self._storing = None
        if self._pending and not self._closed:
            self._timer = self._loop.call_at(self._next, self._begin)
