"""The shared store: MongoDB, or a server that speaks its protocol.

Every write is one operation of the server, and it is the server that keeps unique keys and versions:
nothing is checked first and written then. Writes are answered when a majority of the replica set has
them in its journal, and reads see only what a majority has, so that what was seen is never lost.

It is written against the calls that Motor's client and PyMongo's own asyncio client share, and so
runs on either. Conditions say `$eq` where a bare value would mean the same: some servers use an index
for the one and not for the other.

A lost server costs a second until UNAVAILABLE is answered, and from then on only those who seek it;
work goes on once it is back.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any, Literal

from pymongo import WriteConcern
from pymongo.errors import (
    ConfigurationError,
    DuplicateKeyError,
    PyMongoError,
    ServerSelectionTimeoutError,
)
from pymongo.read_concern import ReadConcern
from pymongo.read_preferences import ReadPreference

from services.kit.errors import DomainError
from services.kit.storage.mongo_documents import Documents
from services.kit.storage.mongo_log import Log
from services.kit.storage.mongo_server import connect, let_go, refusal, translated, unusable_url
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
    store_unavailable,
)

_LOG_SCHEMA_VERSION = 1
_DATABASE = "conductor"
_MAJORITY_MS = 4000
_ANSWER_SECONDS = 6.0


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
            collection.name: Documents(collection, self._named(collection.name))
            for collection in collections
        }
        self._logs = {name: Log(self._named(name)) for name in logs}
        self._closed = False
        self._lost = False
        """Whether no server was found when one was last sought."""
        self._seeking = False
        """Whether somebody seeks it again; others need not wait for that."""
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
        described, named = tuple(collections), tuple(logs)
        client = connect(url, driver, service, prepares=True)
        try:
            store = cls(client, service, described, named)
            await store._prepare()
        except ConfigurationError:
            raise unusable_url() from None
        except PyMongoError as error:
            raise refusal(error) from None
        finally:
            await let_go(client)
        return cls(connect(url, driver, service), service, described, named)

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
        """Do the writes in order, each durable on a majority; those before one that fails stay.

        After STORE_UNAVAILABLE the one that failed may have been done: only its answer was lost.
        """
        if self._closed:
            raise store_unavailable()
        self._writing += 1
        self._idle.clear()
        try:
            for write in writes:
                async with self._reaching():
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
        async with self._reaching():
            return await self._collections[collection.name].get(org, id_)

    async def version(self, collection: Collection, org: str, id_: str) -> int | None:
        """Read only the version of a document."""
        async with self._reaching():
            return await self._collections[collection.name].version(org, id_)

    async def find(
        self, collection: Collection, org: str, unique: str, value: str
    ) -> Document | None:
        """Read a document of an organisation by one of its unique keys."""
        async with self._reaching():
            return await self._collections[collection.name].find(org, unique, value)

    async def query(self, query: Query) -> list[Document]:
        """Read a page of documents."""
        async with self._reaching():
            return await self._collections[query.collection.name].query(query)

    async def read(
        self, log: str, org: str, stream: str, after: int, *, limit: int, max_bytes: int
    ) -> list[Entry]:
        """Read entries after a sequence."""
        async with self._reaching():
            return await self._logs[log].read(org, stream, after, limit, max_bytes)

    async def last(self, log: str, org: str, stream: str) -> Entry | None:
        """Read the newest entry of a stream."""
        async with self._reaching():
            return await self._logs[log].last(org, stream)

    @asynccontextmanager
    async def _reaching(self) -> AsyncIterator[None]:
        """Bound the time of an operation, and put what goes wrong into our words.

        While the server is lost one operation at a time seeks it and the others fail at once: Motor
        would let them wait for one another, ten each second.
        """
        if self._lost and self._seeking:
            raise store_unavailable()
        seeks = self._lost
        self._seeking = self._seeking or seeks
        try:
            with translated():
                async with asyncio.timeout(_ANSWER_SECONDS):
                    yield
        except DomainError as error:
            self._lost = self._lost or isinstance(error.__cause__, ServerSelectionTimeoutError)
            raise
        except (ConflictError, DuplicateError, LimitError):
            self._lost = False
            raise
        else:
            self._lost = False
        finally:
            self._seeking = self._seeking and not seeks

    async def close(self) -> None:
        """Wait for the writes under way, then let go of the server."""
        if self._closed:
            return
        self._closed = True
        await self._idle.wait()
        await let_go(self._client)
