"""The shared store: MongoDB, or a server that speaks its protocol.

Every write is one operation of the server, and it is the server that keeps unique keys and versions:
nothing is checked first and written then. Writes are answered when a majority of the replica set has
them in its journal, and reads see only what a majority has, so that what was seen is never lost.

It is written against the calls that Motor's client and PyMongo's own asyncio client share, and so
runs on either. Conditions say `$eq` where a bare value would mean the same: some servers use an index
for the one and not for the other.

A lost server costs a second until UNAVAILABLE is answered; the driver looks for it by itself and work
goes on once it is back.
"""

from __future__ import annotations

import asyncio
import logging
import math
import re
import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import orjson
from pymongo import ASCENDING, DESCENDING, AsyncMongoClient, IndexModel, UpdateOne, WriteConcern
from pymongo.errors import (
    ConfigurationError,
    DocumentTooLarge,
    DuplicateKeyError,
    ExecutionTimeout,
    OperationFailure,
    PyMongoError,
    WriteConcernError,
)
from pymongo.read_concern import ReadConcern
from pymongo.read_preferences import ReadPreference

from services.kit.errors import DomainError
from services.kit.settings import PREFIX, SettingsError
from services.kit.storage.ports import (
    Append,
    AtMost,
    Collection,
    ConflictError,
    Delete,
    Document,
    DuplicateError,
    Entry,
    Erase,
    Insert,
    LimitError,
    Query,
    Replace,
    UnreadableStoreError,
    Write,
    store_full,
    store_unavailable,
)

_LOG = logging.getLogger(__name__)
_LOG_SCHEMA_VERSION = 1
_DATABASE = "conductor"
_SETTING = f"{PREFIX}STORE_URL"

_CLIENT_OPTIONS = {
    "serverSelectionTimeoutMS": 1000,
    "connectTimeoutMS": 1000,
    "socketTimeoutMS": 5000,
    "waitQueueTimeoutMS": 5000,
    "retryWrites": True,
    "retryReads": True,
}
_MAJORITY_MS = 4000

_OUT_OF_DISK = 14031
_FULL = re.compile(
    r"\b(disk|database|space)\b.{0,40}\b(full|exhausted)\b|no space left|out of disk"
)
_UNAUTHORIZED, _AUTHENTICATION_FAILED, _ATLAS = 13, 18, 8000
_TOO_LARGE = {10334, 17419, 17420}
_TAKEN = "UNIQUE constraint failed"
"""How FerretDB 1.x says that an update would break a unique key; it has no code for it."""

_REMEMBERED = 10_000
_TRUSTED_SECONDS = 5.0
"""How long a process goes by the end of a log it wrote itself. Only an `Erase` elsewhere takes it away."""

_ROOM_SECONDS = 1.0
_ROOM_PART = 8
_MIGRATED_AT_ONCE = 1000
_SMALL_ENTRY = 256


class MongoStore:
    """Documents and logs in one database. Made by `open`.

    A write of several parts keeps those before one that fails.

    `AtMost` is exact within a process: what it has under way is counted too. It goes by one count for
    up to a second, or until it has let through an eighth of the room it found. So of P processes the
    other P - 1 may each pass the limit by an eighth of the room there was a second ago: as a rule by a
    few, and a limit of 10,000 by 2,500 when one of three processes fills an empty store within the
    second and the other two, which had counted before, go on then.
    """

    def __init__(
        self, client: Any, service: str, collections: Iterable[Collection], logs: Iterable[str]
    ) -> None:
        self._client = client
        self._database = client.get_default_database(
            _DATABASE,
            read_preference=ReadPreference.PRIMARY,
            write_concern=WriteConcern("majority", wtimeout=_MAJORITY_MS, j=True),
            read_concern=ReadConcern("majority"),
        )
        self._service = service
        self._collections = {
            collection.name: _Documents(collection, self._named(collection.name))
            for collection in collections
        }
        self._logs = {name: _Log(self._named(name)) for name in logs}
        self._closed = False
        self._writing = 0
        self._idle = asyncio.Event()
        self._idle.set()

    @classmethod
    async def open(
        cls,
        url: str,
        driver: Literal["motor", "pymongo"],
        service: str,
        collections: Iterable[Collection],
        logs: Iterable[str],
    ) -> MongoStore:
        """Connect, and make what is missing of collections, indexes and fields.

        Args:
            url: `mongodb://…` or `mongodb+srv://…`; its database, or `conductor` when it names none.
            driver: whose client speaks to the server.
            service: what the names of collections begin with.
            collections: the kinds of documents there are.
            logs: the names of the logs.

        Raises:
            SettingsError: the URL is none, or the server refuses its user or what a store needs.
            UnreadableStoreError: a newer release wrote it.
            DomainError: STORE_UNAVAILABLE or STORE_FULL.
        """
        try:
            client = _connect(url, driver, service)
        except (PyMongoError, ValueError):
            # What the driver says may quote a part of the URL, and so of its password.
            raise _unusable_url() from None
        try:
            store = cls(client, service, collections, logs)
            await store._prepare()
        except ConfigurationError:
            await _let_go(client)
            raise _unusable_url() from None
        except PyMongoError as error:
            await _let_go(client)
            raise _refusal(error) from None
        except BaseException:
            await _let_go(client)
            raise
        return store

    def _named(self, name: str) -> Any:
        return self._database[f"{self._service}_{name}"]

    async def _prepare(self) -> None:
        versions = self._named("schema_versions")
        for name, log in self._logs.items():
            await self._hold_version(versions, name, _LOG_SCHEMA_VERSION)
            await log.prepare()
        for name, documents in self._collections.items():
            collection = documents.collection
            known = await self._hold_version(versions, name, collection.schema_version)
            columns = {*collection.fields, *collection.unique}
            if known is not None:
                await documents.add_missing(columns - known)
            await documents.prepare()
            if known is None or not columns <= known:
                fields = sorted(columns | (known or set()))
                await versions.update_one({"_id": name}, {"$set": {"fields": fields}})

    async def _hold_version(self, versions: Any, name: str, version: int) -> set[str] | None:
        """Write down the version of a collection; answers the fields its documents have by now."""
        try:
            await versions.update_one({"_id": name}, {"$max": {"version": version}}, upsert=True)
        except DuplicateKeyError:
            # Another process begins at the same moment; its document is there now.
            await versions.update_one({"_id": name}, {"$max": {"version": version}})
        found = await versions.find_one({"_id": name})
        if found["version"] > version:
            raise UnreadableStoreError(
                f"The database {self._database.name} holds {name} of schema version "
                f"{found['version']}, written by a newer release; this one knows versions up to "
                f"{version}. Run the newer release."
            )
        return set(found["fields"]) if "fields" in found else None

    # Writing

    async def write(self, *writes: Write) -> None:
        """Do the writes in order, each durable on a majority; those before one that fails stay."""
        self._check_open()
        self._writing += 1
        self._idle.clear()
        try:
            for write in writes:
                with _translated():
                    await self._do(write)
        finally:
            self._writing -= 1
            if not self._writing:
                self._idle.set()

    async def _do(self, write: Write) -> None:
        match write:
            case Append():
                await self._logs[write.log].append(write)
            case Insert(collection, document):
                await self._collections[collection.name].insert(document)
            case Replace(collection, document):
                await self._collections[collection.name].replace(document)
            case Delete(collection, org, id_, version):
                await self._collections[collection.name].delete(org, id_, version)
            case Erase(log, org, stream):
                await self._logs[log].erase(org, stream)
            case AtMost():
                await self._collections[write.collection.name].hold(write)

    # Reading

    async def get(self, collection: Collection, org: str, id_: str) -> Document | None:
        """Read a document by key."""
        self._check_open()
        with _translated():
            return await self._collections[collection.name].get(org, id_)

    async def version(self, collection: Collection, org: str, id_: str) -> int | None:
        """Read only the version of a document."""
        self._check_open()
        with _translated():
            return await self._collections[collection.name].version(org, id_)

    async def find(
        self, collection: Collection, org: str, unique: str, value: str
    ) -> Document | None:
        """Read a document of an organisation by one of its unique keys."""
        self._check_open()
        with _translated():
            return await self._collections[collection.name].find(org, unique, value)

    async def query(self, query: Query) -> list[Document]:
        """Read a page of documents."""
        self._check_open()
        with _translated():
            return await self._collections[query.collection.name].query(query)

    async def read(
        self, log: str, org: str, stream: str, after: int, *, limit: int, max_bytes: int
    ) -> list[Entry]:
        """Read entries after a sequence."""
        self._check_open()
        with _translated():
            return await self._logs[log].read(org, stream, after, limit, max_bytes)

    async def last(self, log: str, org: str, stream: str) -> Entry | None:
        """Read the newest entry of a stream."""
        self._check_open()
        with _translated():
            return await self._logs[log].last(org, stream)

    def _check_open(self) -> None:
        if self._closed:
            raise store_unavailable()

    async def close(self) -> None:
        """Wait for the writes under way, then let go of the server."""
        if self._closed:
            return
        self._closed = True
        await self._idle.wait()
        await _let_go(self._client)


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


class _Documents:
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
                IndexModel([org, (column, ASCENDING)], name=f"unique_{column}", unique=True)
                for column in self.collection.unique
            ),
        ]
        await _create_indexes(self._documents, indexes)

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
        content = {
            "_id": _key(document.org, document.id),
            "org": document.org,
            "id": document.id,
            "create_time": document.create_time,
            **self._content(document, document.version),
        }
        with self._counted(document):
            try:
                await self._documents.insert_one(content)
            except OperationFailure as error:
                if not _is_duplicate(error):
                    raise
                field_ = await self._taken(error, document, is_new=True)
                raise DuplicateError(field_) from None

    async def replace(self, document: Document) -> None:
        # Not replace_one: the create_time that is stored stays.
        change = {"$set": self._content(document, document.version + 1)}
        with self._counted(document):
            try:
                done = await self._documents.update_one(
                    self._at(document.org, document.id, document.version), change
                )
            except OperationFailure as error:
                if not _is_duplicate(error):
                    raise
                field_ = await self._taken(error, document, is_new=False)
                raise DuplicateError(field_) from None
        if done.matched_count == 0:
            raise ConflictError

    async def delete(self, org: str, id_: str, version: int) -> None:
        done = await self._documents.delete_one(self._at(org, id_, version))
        if done.deleted_count == 0:
            raise ConflictError

    def _content(self, document: Document, version: int) -> dict[str, Any]:
        return {
            "version": version,
            **{column: document.fields[column] for column in self._columns},
            "body": orjson.dumps(document.body).decode(),
            "content": orjson.dumps(document.content).decode(),
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
        """Let the writes after it happen only below the limit; see `MongoStore` for how exactly."""
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
        found = await self._documents.find_one(_by_key(org, id_))
        return None if found is None else self._document(found)

    async def version(self, org: str, id_: str) -> int | None:
        found = await self._documents.find_one(_by_key(org, id_), {"version": 1})
        return None if found is None else int(found["version"])

    async def find(self, org: str, unique: str, value: str) -> Document | None:
        found = await self._documents.find_one({"org": {"$eq": org}, unique: {"$eq": value}})
        return None if found is None else self._document(found)

    async def query(self, query: Query) -> list[Document]:
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
        if query.after is not None:
            at, id_ = query.after
            condition["$or"] = [
                {"create_time": {beyond: at}},
                {"create_time": {"$eq": at}, "id": {beyond: id_}},
            ]
        left_out = {"body": 0, "content": 0} if query.keys_only else {"content": 0}
        cursor = self._documents.find(condition, left_out)
        cursor = cursor.sort([("create_time", direction), ("id", direction)]).limit(query.limit)
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


class _Log:
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
        key = [("org", ASCENDING), ("stream", ASCENDING), ("last", ASCENDING)]
        await _create_indexes(self._chunks, [IndexModel(key, name="stream")])

    async def append(self, append: Append) -> None:
        org, stream, after = append.org, append.stream, append.after
        if after and not await self._has_end(org, stream, after):
            raise ConflictError
        if not append.entries:
            return
        last = after + len(append.entries)
        chunk = {
            "_id": f"{_key(org, stream)}/{after + 1:010}",
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
            if not _is_duplicate(error):
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
        self._ends.pop((org, stream), None)
        await self._chunks.delete_many(_of_stream(org, stream))

    async def read(
        self, org: str, stream: str, after: int, limit: int, max_bytes: int
    ) -> list[Entry]:
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
        chunk = await self._chunks.find_one(_of_stream(org, stream), sort=[("last", DESCENDING)])
        return None if chunk is None else _entries(chunk)[-1]


def _entries(chunk: Mapping[str, Any]) -> list[Entry]:
    numbered = enumerate(zip(chunk["datas"], chunk["writers"], strict=True), chunk["first"])
    return [(sequence, data, writer) for sequence, (data, writer) in numbered]


def _of_stream(org: str, stream: str) -> dict[str, Any]:
    return {"org": {"$eq": org}, "stream": {"$eq": stream}}


def _by_key(org: str, id_: str) -> dict[str, Any]:
    """Find a document; its organisation, which `_id` says as well, is what a sharded one is sought by."""
    return {"_id": _key(org, id_), "org": {"$eq": org}}


def _key(*parts: str) -> str:
    """Join texts such that no two lists of texts make the same key."""
    return "/".join(part.replace("%", "%25").replace("/", "%2F") for part in parts)


def _connect(url: str, driver: Literal["motor", "pymongo"], service: str) -> Any:
    options: dict[str, Any] = {**_CLIENT_OPTIONS, "appname": f"conductor-{service}"}
    if driver == "motor":
        from motor.motor_asyncio import AsyncIOMotorClient  # noqa: PLC0415 only when it is chosen

        return AsyncIOMotorClient(url, **options)
    return AsyncMongoClient(url, **options)


async def _create_indexes(collection: Any, indexes: Iterable[IndexModel]) -> None:
    present = await collection.index_information()
    # MongoDB passes over what is there already; FerretDB falls over it.
    if missing := [index for index in indexes if index.document["name"] not in present]:
        await collection.create_indexes(missing)


async def _let_go(client: Any) -> None:
    closing = client.close()
    if closing is not None:  # Motor closes at once.
        await closing


def _is_duplicate(error: PyMongoError) -> bool:
    return isinstance(error, DuplicateKeyError) or (
        isinstance(error, OperationFailure) and _TAKEN in str(error)
    )


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except DocumentTooLarge as error:
        raise ValueError("A document is larger than the 16 MiB MongoDB takes.") from error
    except PyMongoError as error:
        if isinstance(error, OperationFailure) and error.code in _TOO_LARGE:
            raise ValueError("A document is larger than the 16 MiB MongoDB takes.") from error
        raise _translate(error) from error


def _translate(error: PyMongoError) -> DomainError:
    _LOG.warning("the store failed: %s", error)
    if isinstance(error, OperationFailure) and (
        error.code == _OUT_OF_DISK or _FULL.search(str(error).lower())
    ):
        return store_full()
    return store_unavailable()


def _unusable_url() -> SettingsError:
    return SettingsError(
        f"{_SETTING} cannot be used: it has to be an address such as "
        "mongodb://user:password@host:27017/conductor, with every special character of the "
        "password written as its percent code."
    )


def _refusal(error: PyMongoError) -> SettingsError | DomainError:
    """What to say when the store cannot be opened."""
    if not isinstance(error, OperationFailure) or isinstance(
        error, (WriteConcernError, ExecutionTimeout)
    ):
        return _translate(error)
    if error.code in {_AUTHENTICATION_FAILED, _ATLAS}:
        return SettingsError(f"{_SETTING}: MongoDB refuses its user and password.")
    if error.code == _UNAUTHORIZED:
        return SettingsError(
            f"{_SETTING}: MongoDB lets its user not read and write the database; give it the role "
            "readWrite there, or name a user that has it."
        )
    translated = _translate(error)
    if translated.reason == store_full().reason:
        return translated
    said = (error.details or {}).get("errmsg", "")
    return SettingsError(f"{_SETTING}: MongoDB refuses what a store needs: {said}.")
