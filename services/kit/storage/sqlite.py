"""The embedded store: one SQLite file in WAL mode.

Writes go through one thread that commits everything waiting as one transaction and syncs it to disk
(`synchronous=FULL`), so a hundred writers share one sync. Reads by key run on the event loop: a hop
to a thread costs thirty times the read. Queries, which may scan, run in a thread of their own.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import queue
import sqlite3
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from services.kit.errors import DomainError
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
from services.kit.storage.sqlite_documents import DocumentsSql

_LOG = logging.getLogger(__name__)
_LOG_SCHEMA_VERSION = 1
_MAX_BATCH = 512
_BUSY_SECONDS = 5.0
_OPENING_TRIES = 120
"""How often another process is waited for that may be bringing a file forward, `_BUSY_SECONDS` each."""
_TOLD_SECONDS = 5.0
"""Between two lines that say that a file is being brought forward."""
_FULL = {sqlite3.SQLITE_FULL}
_DAMAGED = {sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT}

_Request = tuple[Sequence[Write], "asyncio.Future[None]"]
_Outcome = tuple["asyncio.Future[None]", Exception | None]
_Limit = tuple[str, int, tuple[tuple[str, str], ...]]
"""What `AtMost` counts: the name of a collection, the most there may be, and the values that match."""


class SqliteStore:
    """Documents and logs in one SQLite file. Made by `open`."""

    def __init__(self, path: Path, collections: Iterable[Collection], logs: Iterable[str]) -> None:
        self._path = path
        self._sql = {collection.name: DocumentsSql(collection) for collection in collections}
        self._logs = {name: _LogSql(name) for name in logs}
        self._loop = asyncio.get_running_loop()
        self._requests: queue.SimpleQueue[_Request | None] = queue.SimpleQueue()
        self._closed = False
        self._changed = 0
        """How many documents the writer has inserted and replaced."""
        self._room: dict[_Limit, tuple[int, int]] = {}
        """The version of the file in which it was counted, and the `_changed` that may exhaust it."""
        writer = _connect(path)
        try:
            self._prepare(writer)
            self._reader = _connect(path)
            self._scanner = _connect(path)
        except BaseException:
            writer.close()
            raise
        self._scans = ThreadPoolExecutor(1, thread_name_prefix="store-scan")
        self._thread = threading.Thread(
            target=self._write_loop, args=(writer,), name="store-write", daemon=True
        )
        self._thread.start()

    @classmethod
    async def open(
        cls, path: Path, collections: Iterable[Collection], logs: Iterable[str]
    ) -> SqliteStore:
        """Open the file, making it and its tables when they are missing.

        Raises:
            UnreadableStoreError: a newer release wrote it, it is no database, or this Python's SQLite
                has no full-text search.
            DomainError: STORE_UNAVAILABLE or STORE_FULL.
        """
        try:
            return cls(path, collections, logs)
        except sqlite3.Error as error:
            if getattr(error, "sqlite_errorcode", None) in _DAMAGED:
                raise UnreadableStoreError(
                    f"{path} cannot be read ({error}). Put a backup in its place, or move it away "
                    "to begin with an empty store."
                ) from error
            if "no such module: fts5" in str(error):
                raise UnreadableStoreError(
                    f"{path} needs FTS5, which the SQLite of {sys.executable} was built without. Take "
                    "another Python, or name a MongoDB in CONDUCTOR_STORE_URL."
                ) from error
            raise _translate(error) from error

    def _prepare(self, db: sqlite3.Connection) -> None:
        db.execute("PRAGMA journal_mode=WAL")
        self._begin(db)
        with self._telling():
            self._bring_forward(db)

    @contextmanager
    def _telling(self) -> Iterator[None]:
        """Say now and then that work goes on: whoever keeps this process takes silence for hanging."""
        done = threading.Event()

        def tell() -> None:
            while not done.wait(_TOLD_SECONDS):
                _LOG.info("%s is being brought forward", self._path)

        thread = threading.Thread(target=tell, name="telling", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def _bring_forward(self, db: sqlite3.Connection) -> None:
        db.execute(
            "CREATE TABLE IF NOT EXISTS schema_versions "
            "(name TEXT PRIMARY KEY, version INTEGER NOT NULL)"
        )
        versions = {name: sql.schema_version for name, sql in self._sql.items()}
        versions |= dict.fromkeys(self._logs, _LOG_SCHEMA_VERSION)
        for name, version in versions.items():
            row = db.execute("SELECT version FROM schema_versions WHERE name=?", (name,)).fetchone()
            if row is not None and row[0] > version:
                db.execute("ROLLBACK")
                raise UnreadableStoreError(
                    f"{self._path} holds {name} of schema version {row[0]}, written by a newer "
                    f"release; this one knows versions up to {version}. Run the newer release."
                )
            db.execute("INSERT OR REPLACE INTO schema_versions VALUES (?,?)", (name, version))
        for sql in self._sql.values():
            sql.bring_forward(db)
        creates = [sql.create for sql in self._sql.values()]
        creates += [sql.create for sql in self._logs.values()]
        for statement in itertools.chain.from_iterable(creates):
            db.execute(statement)
        db.execute("COMMIT")

    def _begin(self, db: sqlite3.Connection) -> None:
        """Begin to prepare the file once no other process does."""
        for _ in range(_OPENING_TRIES - 1):
            try:
                db.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_BUSY:
                    raise
                _LOG.info("%s is in the hands of another process; waiting for it", self._path)
            else:
                return
        db.execute("BEGIN IMMEDIATE")

    # Writing

    async def write(self, *writes: Write) -> None:
        """Do all writes or none, and sync them to disk."""
        if self._closed:
            raise store_unavailable()
        future: asyncio.Future[None] = self._loop.create_future()
        self._requests.put((writes, future))
        await future

    def _write_loop(self, db: sqlite3.Connection) -> None:
        stopping = False
        while not stopping:
            batch: list[_Request] = []
            request = self._requests.get()
            while True:
                if request is None:
                    stopping = True
                    break
                batch.append(request)
                if len(batch) >= _MAX_BATCH:
                    break
                try:
                    request = self._requests.get_nowait()
                except queue.Empty:
                    break
            if batch:
                try:
                    outcomes = self._commit(db, batch)
                except Exception:  # noqa: BLE001 the writer must outlive whatever happens
                    # Not even the rollback went well. Nothing was committed; begin anew.
                    _LOG.exception("the connection that writes to %s is lost", self._path)
                    outcomes = [(future, store_unavailable()) for _, future in batch]
                    db = self._reconnected(db)
                self._loop.call_soon_threadsafe(_resolve, outcomes)
        db.close()

    def _reconnected(self, db: sqlite3.Connection) -> sqlite3.Connection:
        self._room.clear()
        try:
            db.close()
            return _connect(self._path)
        except sqlite3.Error as error:
            _LOG.warning("%s cannot be opened again yet: %s", self._path, error)
            return db

    def _commit(self, db: sqlite3.Connection, batch: Sequence[_Request]) -> list[_Outcome]:
        """Commit the batch; a request that has to be undone is parted from the others first.

        That is rare, and so no request pays for a savepoint.
        """
        try:
            db.execute("BEGIN IMMEDIATE")
            outcomes = [(future, self._apply(db, writes)) for writes, future in batch]
            db.execute("COMMIT")
        except sqlite3.Error as error:
            self._room.clear()
            if db.in_transaction:
                db.execute("ROLLBACK")
            failure = _translate(error)
            return [(future, failure) for _, future in batch]
        except Exception as error:  # noqa: BLE001 one impossible write must not end the writer
            self._room.clear()
            db.execute("ROLLBACK")
            if len(batch) == 1:
                return [(batch[0][1], error)]
            middle = len(batch) // 2
            return self._commit(db, batch[:middle]) + self._commit(db, batch[middle:])
        return outcomes

    def _apply(self, db: sqlite3.Connection, writes: Sequence[Write]) -> Exception | None:
        """Do one request's writes; what the caller got wrong is returned if nothing was done yet.

        Raises:
            ConflictError: as the caller shall get it, with something done that has to be undone.
            DuplicateError: the same.
            LimitError: the same.
        """
        for done, write in enumerate(writes):
            try:
                self._do(db, write)
            except (ConflictError, DuplicateError, LimitError) as error:
                if done:
                    raise
                return error
        return None

    def _do(self, db: sqlite3.Connection, write: Write) -> None:
        match write:
            case Append():
                self._logs[write.log].append(db, write)
            case Insert(collection, document):
                self._changed += 1
                self._sql[collection.name].insert(db, document)
            case Replace(collection, document):
                self._changed += 1
                self._sql[collection.name].replace(db, document)
            case Delete(collection, org, id_, version):
                self._sql[collection.name].delete(db, org, id_, version)
            case Erase(log, org, stream):
                db.execute(self._logs[log].erase, (org, stream))
            case AtMost():
                self._hold(db, write)

    def _hold(self, db: sqlite3.Connection, most: AtMost) -> None:
        """Hold a limit.

        To count takes the longer the more there are, so it is done again only when as many documents
        were written as there was room for, or somebody else has written.
        """
        limit = (most.collection.name, most.limit, tuple(most.equal.items()))
        (others,) = db.execute("PRAGMA data_version").fetchone()
        if limit in self._room:
            version, enough = self._room[limit]
            if version == others and self._changed < enough:
                return
        counting, values = self._sql[most.collection.name].count(most.equal, most.limit)
        (found,) = db.execute(counting, values).fetchone()
        if found >= most.limit:
            raise LimitError
        self._room[limit] = (others, self._changed + most.limit - found)

    # Reading

    async def get(self, collection: Collection, org: str, id_: str) -> Document | None:
        """Read a document by key."""
        sql = self._sql[collection.name]
        row = self._fetch_one(sql.select_one, (org, id_))
        return None if row is None else sql.document(row)

    async def find(
        self, collection: Collection, org: str, unique: str, value: str
    ) -> Document | None:
        """Read a document of an organisation by one of its unique keys."""
        sql = self._sql[collection.name]
        row = self._fetch_one(sql.select_unique[unique], (value, org))
        return None if row is None else sql.document(row)

    async def version(self, collection: Collection, org: str, id_: str) -> int | None:
        """Read only the version of a document."""
        row = self._fetch_one(self._sql[collection.name].select_version, (org, id_))
        return None if row is None else int(row[0])

    async def query(self, query: Query) -> list[Document]:
        """Read a page of documents in the scanning thread."""
        sql = self._sql[query.collection.name]

        if self._closed:
            raise store_unavailable()
        try:
            return await self._loop.run_in_executor(self._scans, sql.query, self._scanner, query)
        except sqlite3.Error as error:
            raise _translate(error) from error

    async def read(
        self, log: str, org: str, stream: str, after: int, *, limit: int, max_bytes: int
    ) -> list[Entry]:
        """Read entries after a sequence."""
        entries: list[Entry] = []
        size = 0
        try:
            cursor = self._reader.execute(self._logs[log].select_after, (org, stream, after, limit))
            for entry in cursor:
                entries.append(entry)
                size += len(entry[1])
                if size >= max_bytes:
                    cursor.close()
                    break
        except sqlite3.Error as error:
            raise _translate(error) from error
        return entries

    async def last(self, log: str, org: str, stream: str) -> Entry | None:
        """Read the newest entry of a stream."""
        entry: Entry | None = self._fetch_one(self._logs[log].select_last, (org, stream))
        return entry

    def _fetch_one(self, statement: str, values: Sequence[Any]) -> Any:
        try:
            cursor = self._reader.execute(statement, values)
            row = cursor.fetchone()
            cursor.close()
        except sqlite3.Error as error:
            raise _translate(error) from error
        return row

    async def close(self) -> None:
        """Commit what waits, then close the file."""
        if self._closed:
            return
        self._closed = True
        self._requests.put(None)
        await self._loop.run_in_executor(None, self._thread.join)
        self._scans.shutdown()
        self._scanner.close()
        self._reader.close()


class _LogSql:
    """The statements of one log."""

    def __init__(self, name: str) -> None:
        self.create = [
            (
                f"CREATE TABLE IF NOT EXISTS {name} (org TEXT NOT NULL, stream TEXT NOT NULL, "
                "sequence INTEGER NOT NULL, data BLOB NOT NULL, writer TEXT NOT NULL, "
                f"schema_version INTEGER NOT NULL DEFAULT {_LOG_SCHEMA_VERSION}, "
                "PRIMARY KEY (org, stream, sequence)) WITHOUT ROWID"
            )
        ]
        columns = "sequence, data, writer"
        key = "WHERE org=? AND stream=?"
        self._insert = f"INSERT INTO {name} (org, stream, {columns}) VALUES (?,?,?,?,?)"
        self._exists = f"SELECT 1 FROM {name} {key} AND sequence=?"
        self.erase = f"DELETE FROM {name} {key}"
        self.select_after = (
            f"SELECT {columns} FROM {name} {key} AND sequence>? ORDER BY sequence LIMIT ?"
        )
        self.select_last = f"SELECT {columns} FROM {name} {key} ORDER BY sequence DESC LIMIT 1"

    def append(self, db: sqlite3.Connection, append: Append) -> None:
        org, stream, after = append.org, append.stream, append.after
        if after and db.execute(self._exists, (org, stream, after)).fetchone() is None:
            raise ConflictError
        try:
            for entry in append.entries:
                db.execute(self._insert, (org, stream, *entry))
        except sqlite3.IntegrityError:
            # The first entry is the only one that can be taken, so nothing has to be undone.
            raise ConflictError from None


def _resolve(outcomes: Iterable[_Outcome]) -> None:
    for future, failure in outcomes:
        if future.done():
            continue
        if failure is None:
            future.set_result(None)
        else:
            future.set_exception(failure)


def _connect(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    db.execute("PRAGMA synchronous=FULL")
    db.execute("PRAGMA cache_size=-4096")
    return db


def _translate(error: sqlite3.Error) -> DomainError:
    _LOG.warning("the store failed: %s", error)
    if getattr(error, "sqlite_errorcode", None) in _FULL:
        return store_full()
    return store_unavailable()
