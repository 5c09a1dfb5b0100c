"""A line to a store that is cut with one of its writes."""

from __future__ import annotations

from collections.abc import Sequence

from services.kit.storage.ports import (
    Collection,
    Document,
    Entry,
    Query,
    Store,
    Write,
    store_unavailable,
)


class Cut:
    """The line of a process to the store that is cut with one of its writes, and then dead.

    Args:
        writes: how many writes happen.
        answered: whether the write it is cut with does not happen; else only its answer is lost.
        keeps_prefix: whether writes that are made at once happen one by one.
    """

    def __init__(self, store: Store, writes: int, *, answered: bool, keeps_prefix: bool) -> None:
        self._store = store
        self._left = writes
        self._answered = answered
        self._keeps_prefix = keeps_prefix
        self.is_cut = False

    async def write(self, *writes: Write) -> None:
        for part in self._parts(writes):
            self._check()
            if self._left == 0:
                self.is_cut = True
                if not self._answered:
                    await self._store.write(*part)
                self._check()
            self._left -= 1
            await self._store.write(*part)

    async def get(self, collection: Collection, org: str, id_: str) -> Document | None:
        self._check()
        return await self._store.get(collection, org, id_)

    async def version(self, collection: Collection, org: str, id_: str) -> int | None:
        self._check()
        return await self._store.version(collection, org, id_)

    async def find(
        self, collection: Collection, org: str, unique: str, value: str
    ) -> Document | None:
        self._check()
        return await self._store.find(collection, org, unique, value)

    async def query(self, query: Query) -> list[Document]:
        self._check()
        return await self._store.query(query)

    async def read(
        self, log: str, org: str, stream: str, after: int, *, limit: int, max_bytes: int
    ) -> list[Entry]:
        self._check()
        return await self._store.read(log, org, stream, after, limit=limit, max_bytes=max_bytes)

    async def last(self, log: str, org: str, stream: str) -> Entry | None:
        self._check()
        return await self._store.last(log, org, stream)

    async def close(self) -> None:
        await self._store.close()

    def _parts(self, writes: Sequence[Write]) -> Sequence[Sequence[Write]]:
        return [(one,) for one in writes] if self._keeps_prefix else [writes]

    def _check(self) -> None:
        if self.is_cut:
            raise store_unavailable()
