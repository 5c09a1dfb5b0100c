"""Documents in MongoDB: one collection, its indexes, keys, versions and limits."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import orjson
from pymongo import ASCENDING, DESCENDING, IndexModel, UpdateOne
from pymongo.errors import OperationFailure

from services.kit.storage.mongo_server import create_indexes, is_duplicate, key
from services.kit.storage.ports import (
    AtMost,
    Collection,
    ConflictError,
    Document,
    DuplicateError,
    LimitError,
    Query,
)

_REMEMBERED = 10_000
_ROOM_SECONDS = 1.0
_ROOM_PART = 8
_MIGRATED_AT_ONCE = 1000


@dataclass
class _Room:
    """What is known of a limit: how many more matching documents may be written before counting."""

    limit: int
    equal: Mapping[str, str]
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    sent: int = 0
    """How many matching documents this process has sent."""
    landed: int = 0
    """Of these, how many the server has answered, whichever way."""
    enough: int = 0
    """The `sent` at which to count again."""
    until: float = 0.0
    """The monotonic time at which to count again."""


class Documents:
    """One collection of documents.

    The bodies are JSON text: their keys may be what MongoDB gives a meaning, they come back with the
    types they had, and nothing of the server ever looks into them. Unique keys are unique within an
    organisation, so that the collection can be sharded by it.
    """

    def __init__(self, collection: Collection, documents: Any) -> None:
        self.collection = collection
        self._documents = documents
        self._columns = (*collection.fields, *collection.unique)
        self._rooms: dict[tuple[int, tuple[tuple[str, str], ...]], _Room] = {}

    async def prepare(self) -> None:
        """Make the indexes."""
        by_time = (("create_time", ASCENDING), ("id", ASCENDING))
        org = ("org", ASCENDING)
        indexes = [
            IndexModel([org, *by_time], name="time"),
            *(
                IndexModel([org, (column, ASCENDING), *by_time], name=f"by_{column}")
                for column in self.collection.fields
            ),
            *(
                IndexModel([(column, ASCENDING), *by_time], name=f"swept_{column}")
                for column in self.collection.swept
            ),
            *(
                IndexModel(
                    [org, (leader, ASCENDING), (then, ASCENDING), ("id", ASCENDING)],
                    name=f"by_{leader}_then_{then}",
                )
                for leader, then in self.collection.orders
            ),
            *(
                IndexModel([org, (column, ASCENDING)], name=f"unique_{column}", unique=True)
                for column in self.collection.unique
            ),
        ]
        if self.collection.searched:
            indexes.append(IndexModel([org, ("terms", ASCENDING), *by_time], name="terms"))
        await create_indexes(self._documents, indexes)

    async def add_missing(self, columns: set[str]) -> None:
        """Bring the documents of an earlier release forward.

        A new field is empty in what is stored already, and a new unique key is the document's id.
        """
        for column in sorted(columns):
            missing = {column: {"$exists": False}}
            if column in self.collection.fields:
                await self._documents.update_many(missing, {"$set": {column: ""}})
                continue
            changes: list[UpdateOne] = []
            async for found in self._documents.find(missing, {"id": 1}):
                changes.append(UpdateOne({"_id": found["_id"]}, {"$set": {column: found["id"]}}))
                if len(changes) == _MIGRATED_AT_ONCE:
                    await self._documents.bulk_write(changes, ordered=False)
                    changes.clear()
            if changes:
                await self._documents.bulk_write(changes, ordered=False)

    # Writing

    async def insert(self, document: Document) -> None:
        """Insert a document."""
        content = {
            "_id": key(document.org, document.id),
            "org": document.org,
            "id": document.id,
            "create_time": document.create_time,
            **self._content(document, document.version),
        }
        with self._counted(document):
            try:
                await self._documents.insert_one(content)
            except OperationFailure as error:
                if not is_duplicate(error):
                    raise
                field_ = await self._taken(error, document, is_new=True)
                raise DuplicateError(field_) from None

    async def replace(self, document: Document) -> None:
        """Replace a document of the version it names."""
        # Not replace_one: the create_time that is stored stays.
        change = {"$set": self._content(document, document.version + 1)}
        with self._counted(document):
            try:
                done = await self._documents.update_one(
                    self._at(document.org, document.id, document.version), change
                )
            except OperationFailure as error:
                if not is_duplicate(error):
                    raise
                field_ = await self._taken(error, document, is_new=False)
                raise DuplicateError(field_) from None
        if done.matched_count == 0:
            raise ConflictError

    async def delete(self, org: str, id_: str, version: int) -> None:
        """Delete a document of that version."""
        done = await self._documents.delete_one(self._at(org, id_, version))
        if done.deleted_count == 0:
            raise ConflictError

    def _content(self, document: Document, version: int) -> dict[str, Any]:
        if document.terms and not self.collection.searched:
            raise ValueError(f"{self.collection.name} is not searched")
        terms = {"terms": sorted(document.terms)} if self.collection.searched else {}
        return {
            "version": version,
            **{column: document.fields[column] for column in self._columns},
            "body": orjson.dumps(document.body).decode(),
            "content": orjson.dumps(document.content).decode(),
            **terms,
        }

    def _at(self, org: str, id_: str, version: int) -> dict[str, Any]:
        return {**_by_key(org, id_), "version": {"$eq": version}}

    async def _taken(self, error: OperationFailure, document: Document, *, is_new: bool) -> str:
        """Which key is taken: the server says it, or is asked by a read."""
        pattern = (error.details or {}).get("keyPattern")
        if pattern is not None:
            named = [column for column in pattern if column in self.collection.unique]
            return named[0] if named else "id"
        if is_new and await self.version(document.org, document.id) is not None:
            return "id"
        for column in self.collection.unique:
            other = await self._documents.find_one(
                {"org": {"$eq": document.org}, column: {"$eq": document.fields[column]}}, {"id": 1}
            )
            if other is not None and other["id"] != document.id:
                return column
        return "id"

    # Limits

    async def hold(self, most: AtMost) -> None:
        """Let the writes after it happen only below the limit; see `MongoStore` for how exact it is."""
        condition = self._matching(most.equal)
        if most.limit <= 0:
            raise LimitError
        key = (most.limit, tuple(sorted(most.equal.items())))
        if key not in self._rooms and len(self._rooms) >= _REMEMBERED:
            self._rooms.clear()
        room = self._rooms.setdefault(key, _Room(most.limit, dict(most.equal)))
        # Nothing is awaited between leaving and the next write's being counted as sent.
        async with room.lock:
            if room.sent < room.enough and time.monotonic() < room.until:
                return
            landed = room.landed
            found = await self._documents.count_documents(condition, limit=most.limit)
            under_way = room.sent - landed
            left = most.limit - found - under_way
            if left <= 0:
                room.enough = 0
                raise LimitError
            room.enough = room.sent + math.ceil(left / _ROOM_PART)
            room.until = time.monotonic() + _ROOM_SECONDS

    @contextmanager
    def _counted(self, document: Document) -> Iterator[None]:
        """Count a document under the limits it matches."""
        rooms = [
            room
            for room in self._rooms.values()
            if all(document.fields[name] == value for name, value in room.equal.items())
        ]
        for room in rooms:
            room.sent += 1
        try:
            yield
        finally:
            for room in rooms:
                room.landed += 1

    # Reading

    async def get(self, org: str, id_: str) -> Document | None:
        """Read a document by key."""
        found = await self._documents.find_one(_by_key(org, id_), {"terms": 0})
        return None if found is None else self._document(found)

    async def version(self, org: str, id_: str) -> int | None:
        """Read only the version of a document."""
        found = await self._documents.find_one(_by_key(org, id_), {"version": 1})
        return None if found is None else int(found["version"])

    async def find(self, org: str, unique: str, value: str) -> Document | None:
        """Read a document by a unique key."""
        found = await self._documents.find_one(
            {"org": {"$eq": org}, unique: {"$eq": value}}, {"terms": 0}
        )
        return None if found is None else self._document(found)

    async def query(self, query: Query) -> list[Document]:
        """Read a page of documents."""
        direction, beyond = (DESCENDING, "$lt") if query.newest_first else (ASCENDING, "$gt")
        condition = self._matching(query.equal)
        if query.org is not None:
            condition = {"org": {"$eq": query.org}, **condition}
        times: dict[str, int] = {}
        if query.from_time is not None:
            times["$gte"] = query.from_time
        if query.before_time is not None:
            times["$lt"] = query.before_time
        if times:
            condition["create_time"] = times
        value = query.order or "create_time"
        also: list[dict[str, Any]] = [{"terms": {"$eq": term}} for term in query.terms]
        if query.after is not None:
            at, id_ = query.after
            # The first says again what the second does, and is what the server begins the index at.
            also.append({value: {f"{beyond}e": at}})
            condition["$or"] = [
                {value: {beyond: at}},
                {value: {"$eq": at}, "id": {beyond: id_}},
            ]
        if also:
            condition["$and"] = also
        left_out = {"terms": 0, "content": 0} | ({"body": 0} if query.keys_only else {})
        cursor = self._documents.find(condition, left_out)
        cursor = cursor.sort([(value, direction), ("id", direction)]).limit(query.limit)
        return [self._document(found) async for found in cursor]

    def _matching(self, equal: Mapping[str, str]) -> dict[str, Any]:
        if unknown := equal.keys() - set(self._columns):
            raise KeyError(f"{self.collection.name} has no field {', '.join(unknown)}")
        return {name: {"$eq": value} for name, value in equal.items()}

    def _document(self, found: Mapping[str, Any]) -> Document:
        # A process of an earlier release may still write documents without the newest fields.
        fields = dict.fromkeys(self.collection.fields, "")
        fields |= dict.fromkeys(self.collection.unique, found["id"])
        fields |= {column: found[column] for column in self._columns if column in found}
        return Document(
            org=found["org"],
            id=found["id"],
            version=found["version"],
            create_time=found["create_time"],
            fields=fields,
            body=orjson.loads(found.get("body", b"{}")),
            content=orjson.loads(found.get("content", b"{}")),
        )


def _by_key(org: str, id_: str) -> dict[str, Any]:
    """Find a document; its organisation, which `_id` says as well, is what a sharded one is sought by."""
    return {"_id": key(org, id_), "org": {"$eq": org}}
