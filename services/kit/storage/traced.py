"""A store whose operations are spans of whatever they are done for.

Only what belongs to a call or a run is told of: sweeps, leases and the feeds of watchers have no span
of their own, and so make none here. Of one call or run the first operations are told of and the others
counted, because a long answer is a write every few milliseconds.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable
from typing import TypeVar

from services.kit import conventions as names
from services.kit import tracing
from services.kit.errors import DomainError, reason_name
from services.kit.settings import Settings
from services.kit.storage.ports import (
    Append,
    AtMost,
    Collection,
    ConflictError,
    Document,
    DuplicateError,
    Entry,
    Erase,
    LimitError,
    Query,
    Store,
    Write,
)
from services.kit.telemetry import Tracer
from services.kit.tracing import Attributes, Kind, Span

_MOST_IN_A_SPAN = 100
_REFUSALS = {ConflictError: "conflict", DuplicateError: "duplicate", LimitError: "limit"}

T = TypeVar("T")


class TracedStore:
    """Passes everything on to a store, and tells a tracer.

    Args:
        system: what the conventions call it, `sqlite` or `mongodb`.
        namespace: the name of the database.
        reads_by_key: whether these are told of; a read from a file takes less time than its span.
    """

    def __init__(
        self, store: Store, tracer: Tracer, system: str, namespace: str, *, reads_by_key: bool
    ) -> None:
        self._store = store
        self._tracer = tracer
        self._where = {names.DB_SYSTEM_NAME: system, names.DB_NAMESPACE: namespace}
        self._reads_by_key = reads_by_key
        self._known: dict[tuple[str, str, int], tuple[str, Attributes]] = {}

    async def write(self, *writes: Write) -> None:
        """Do the writes in order."""
        span = tracing.current()
        if span is None:
            await self._store.write(*writes)
        else:
            told = [one for one in writes if not isinstance(one, AtMost)] or writes
            await self._told(span, "write", _target(told[0]), len(told), self._store.write(*writes))

    async def get(self, collection: Collection, org: str, id_: str) -> Document | None:
        """Read a document by key."""
        work = self._store.get(collection, org, id_)
        return await self._read("get", collection.name, work)

    async def version(self, collection: Collection, org: str, id_: str) -> int | None:
        """Read only the version of a document."""
        work = self._store.version(collection, org, id_)
        return await self._read("version", collection.name, work)

    async def find(
        self, collection: Collection, org: str, unique: str, value: str
    ) -> Document | None:
        """Read a document of an organisation by one of its unique keys."""
        work = self._store.find(collection, org, unique, value)
        return await self._read("find", collection.name, work)

    async def query(self, query: Query) -> list[Document]:
        """Read a page of documents."""
        span = tracing.current()
        work = self._store.query(query)
        if span is None:
            return await work
        return await self._told(span, "query", query.collection.name, 1, work)

    async def read(
        self, log: str, org: str, stream: str, after: int, *, limit: int, max_bytes: int
    ) -> list[Entry]:
        """Read entries after a sequence."""
        work = self._store.read(log, org, stream, after, limit=limit, max_bytes=max_bytes)
        return await self._read("read", log, work)

    async def last(self, log: str, org: str, stream: str) -> Entry | None:
        """Read the newest entry of a stream."""
        return await self._read("last", log, self._store.last(log, org, stream))

    async def close(self) -> None:
        """Let go of the store."""
        await self._store.close()

    async def _read(self, operation: str, target: str, work: Awaitable[T]) -> T:
        span = tracing.current() if self._reads_by_key else None
        if span is None:
            return await work
        return await self._told(span, operation, target, 1, work)

    async def _told(
        self, span: Span, operation: str, target: str, size: int, work: Awaitable[T]
    ) -> T:
        """Do an operation and tell of it, or count it when its span has told of enough."""
        span.operations += 1
        if span.operations > _MOST_IN_A_SPAN:
            span.untold += 1
            return await work
        name, about = self._about(operation, target, size)
        start, failed = time.time_ns(), False
        try:
            return await work
        except (ConflictError, DuplicateError, LimitError) as refusal:
            about = {**about, names.CONDUCTOR_STORE_REFUSED: _REFUSALS[type(refusal)]}
            raise
        except DomainError as error:
            about = {**about, names.ERROR_TYPE: reason_name(error.reason)}
            failed = True
            raise
        finally:
            self._tracer.tell(span, name, Kind.CLIENT, start, about, failed=failed)

    def _about(self, operation: str, target: str, size: int) -> tuple[str, Attributes]:
        known = self._known.get((operation, target, size))
        if known is None:
            about: dict[str, tracing.Value] = {
                **self._where,
                names.DB_OPERATION_NAME: operation,
                names.DB_COLLECTION_NAME: target,
            }
            if size > 1:
                about[names.DB_OPERATION_BATCH_SIZE] = size
            known = self._known[operation, target, size] = f"{operation} {target}", about
        return known


def traced(store: Store, tracer: Tracer | None, settings: Settings, service: str) -> Store:
    """Put the spans of its operations around a store, when somebody wants them.

    Args:
        service: what the store is called in the spans.
    """
    if tracer is None:
        return store
    remote = bool(settings.store_url.get_secret_value())
    system = "mongodb" if remote else "sqlite"
    return TracedStore(store, tracer, system, service, reads_by_key=remote)


def _target(write: Write) -> str:
    return write.log if isinstance(write, (Append, Erase)) else write.collection.name
