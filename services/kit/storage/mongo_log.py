"""Logs in MongoDB: what is appended at once is one document."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from pymongo import ASCENDING, DESCENDING, IndexModel
from pymongo.errors import OperationFailure

from services.kit.storage.mongo_server import create_indexes, is_duplicate, key
from services.kit.storage.ports import Append, ConflictError, Entry

_REMEMBERED = 10_000
_TRUSTED_SECONDS = 5.0
"""How long a process goes by the end of a log it wrote itself. Only an `Erase` elsewhere takes it away."""

_SMALL_ENTRY = 256


class Log:
    """One log. What is appended at once is one document, and so there whole or not at all.

    Its `_id` ends with the sequence of its first entry: of two who append at one place, the server
    lets one through. It is read by the sequence of its last entry, so a cursor in the middle of a
    document finds it as well.
    """

    def __init__(self, chunks: Any) -> None:
        self._chunks = chunks
        self._ends: OrderedDict[tuple[str, str], tuple[int, float]] = OrderedDict()
        """Where this process ended streams, and until when it believes that they go that far."""

    async def prepare(self) -> None:
        """Make the index."""
        by_last = [("org", ASCENDING), ("stream", ASCENDING), ("last", ASCENDING)]
        await create_indexes(self._chunks, [IndexModel(by_last, name="stream")])

    async def append(self, append: Append) -> None:
        """Append where the log ends."""
        org, stream, after = append.org, append.stream, append.after
        if after and not await self._has_end(org, stream, after):
            raise ConflictError
        if not append.entries:
            return
        last = after + len(append.entries)
        chunk = {
            "_id": f"{key(org, stream)}/{after + 1:010}",
            "org": org,
            "stream": stream,
            "first": after + 1,
            "last": last,
            "datas": [data for _, data, _ in append.entries],
            "writers": [writer for _, _, writer in append.entries],
        }
        try:
            await self._chunks.insert_one(chunk)
        except OperationFailure as error:
            if not is_duplicate(error):
                raise
            raise ConflictError from None
        self._ends[org, stream] = (last, time.monotonic() + _TRUSTED_SECONDS)
        self._ends.move_to_end((org, stream))
        if len(self._ends) > _REMEMBERED:
            self._ends.popitem(last=False)

    async def _has_end(self, org: str, stream: str, end: int) -> bool:
        """Whether something that was appended ends here; whether more follows, the `_id` decides."""
        known, until = self._ends.get((org, stream), (0, 0.0))
        if known == end and time.monotonic() < until:
            return True
        condition = {**_of_stream(org, stream), "last": {"$eq": end}}
        return await self._chunks.find_one(condition, {"last": 1}) is not None

    async def erase(self, org: str, stream: str) -> None:
        """Delete a stream."""
        self._ends.pop((org, stream), None)
        await self._chunks.delete_many(_of_stream(org, stream))

    async def read(
        self, org: str, stream: str, after: int, limit: int, max_bytes: int
    ) -> list[Entry]:
        """Read entries after a sequence, which may lie within a document."""
        condition = {**_of_stream(org, stream), "last": {"$gt": after}}
        cursor = self._chunks.find(condition).sort([("last", ASCENDING)]).limit(limit)
        cursor = cursor.batch_size(min(limit, max_bytes // _SMALL_ENTRY + 1))
        entries: list[Entry] = []
        size = 0
        try:
            async for chunk in cursor:
                for entry in _entries(chunk):
                    if entry[0] <= after:
                        continue
                    entries.append(entry)
                    size += len(entry[1])
                    if len(entries) >= limit or size >= max_bytes:
                        return entries
        finally:
            await cursor.close()
        return entries

    async def last(self, org: str, stream: str) -> Entry | None:
        """Read the newest entry."""
        chunk = await self._chunks.find_one(_of_stream(org, stream), sort=[("last", DESCENDING)])
        return None if chunk is None else _entries(chunk)[-1]


def _entries(chunk: Mapping[str, Any]) -> list[Entry]:
    numbered = enumerate(zip(chunk["datas"], chunk["writers"], strict=True), chunk["first"])
    return [(sequence, data, writer) for sequence, (data, writer) in numbered]


def _of_stream(org: str, stream: str) -> dict[str, Any]:
    return {"org": {"$eq": org}, "stream": {"$eq": stream}}
