"""What only the embedded store has: a file that may be something else."""

from __future__ import annotations

import asyncio
import itertools
import logging
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from services.execution.stores import COLLECTIONS, EVENTS, LOGS
from services.kit.errors import DomainError, Reason
from services.kit.storage import sqlite, sqlite_documents
from services.kit.storage.ports import (
    Append,
    AtMost,
    Collection,
    ConflictError,
    Delete,
    Document,
    Insert,
    LimitError,
    Query,
    Replace,
    UnreadableStoreError,
)
from services.kit.storage.sqlite import SqliteStore
from services.kit.storage.sqlite_documents import DocumentsSql
from tests.contract.sheets import SHEETS, expected, place, queries, read, sheet, shelves
from tests.patience import PATIENCE


async def test_a_file_that_is_no_database_is_refused_with_a_sentence_and_left_alone(
    tmp_path: Path,
) -> None:
    path = tmp_path / "execution.db"
    path.write_text("this is a letter, not a database\n" * 100)
    with pytest.raises(UnreadableStoreError, match=r"execution\.db cannot be read"):
        await SqliteStore.open(path, COLLECTIONS, LOGS)
    assert path.read_text().startswith("this is a letter")


class Lost(sqlite3.Connection):
    """A connection that can lose its disk in the middle of a transaction, and then not go back."""

    disk = True

    def execute(self, sql: str, parameters: object = (), /) -> sqlite3.Cursor:
        if not self.disk and sql in {"COMMIT", "ROLLBACK"}:
            raise sqlite3.OperationalError("disk I/O error")
        return super().execute(sql, parameters)  # type: ignore[arg-type]  # as it was given


async def test_a_writer_that_cannot_even_go_back_begins_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Lost] = []

    def connect(path: Path) -> sqlite3.Connection:
        made.append(
            sqlite3.connect(path, isolation_level=None, check_same_thread=False, factory=Lost)
        )
        return made[-1]

    monkeypatch.setattr(sqlite, "_connect", connect)
    store = await SqliteStore.open(tmp_path / "execution.db", COLLECTIONS, LOGS)
    try:
        made[0].disk = False
        async with asyncio.timeout(PATIENCE):
            with pytest.raises(DomainError) as caught:
                await store.write(Append(EVENTS, "acme", "a", 0, [(1, b"lost", "w")]))
            assert caught.value.reason == Reason.REASON_STORE_UNAVAILABLE
            await store.write(Append(EVENTS, "acme", "a", 0, [(1, b"kept", "w")]))
        assert await store.last(EVENTS, "acme", "a") == (1, b"kept", "w")
    finally:
        await store.close()


NOTES = Collection("notes")


def note(id_: str) -> Document:
    return Document("acme", id_, 1, {})


async def test_a_limit_counts_what_another_process_has_written(tmp_path: Path) -> None:
    path, most = tmp_path / "store.db", AtMost(NOTES, {}, 3)
    one = await SqliteStore.open(path, [NOTES], LOGS)
    other = await SqliteStore.open(path, [NOTES], LOGS)
    try:
        await one.write(most, Insert(NOTES, note("a")))
        await other.write(Insert(NOTES, note("b")), Insert(NOTES, note("c")))
        with pytest.raises(LimitError):
            await one.write(most, Insert(NOTES, note("d")))
    finally:
        await one.close()
        await other.close()


async def test_a_limit_does_not_go_by_what_was_undone(tmp_path: Path) -> None:
    most = AtMost(NOTES, {}, 1)
    store = await SqliteStore.open(tmp_path / "store.db", [NOTES], LOGS)
    try:
        await store.write(Insert(NOTES, note("a")))
        with pytest.raises(ConflictError):
            await store.write(
                Delete(NOTES, "acme", "a", 1), most, Append(EVENTS, "acme", "a", 7, [(8, b"", "w")])
            )
        with pytest.raises(LimitError):
            await store.write(most, Insert(NOTES, note("b")))
    finally:
        await store.close()


def count_as_many(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """Let so many documents be as many as there may be at most."""
    monkeypatch.setattr(sqlite_documents, "_FEW", count)
    monkeypatch.setattr(sqlite_documents, "_SOME", count)
    monkeypatch.setattr(sqlite_documents, "_TRIED", count)


@pytest.mark.parametrize("few", [1, 4, 8])
async def test_pages_are_exact_whichever_way_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, few: int
) -> None:
    count_as_many(monkeypatch, few)
    documents = shelves() + shelves("umbrella")[:9]
    store = await SqliteStore.open(tmp_path / "store.db", [SHEETS], LOGS)
    try:
        await store.write(*(Insert(SHEETS, one) for one in documents))
        for query in queries():
            assert await read(store, query) == expected(documents, query), query
    finally:
        await store.close()


def at_times_apart() -> list[Document]:
    """Make documents of which some come within a millisecond, in no order."""
    return [
        sheet(
            f"s{number:02}",
            create_time=5_000_000 + number // 2 * 300,
            fields={"shelf": "trash" if number % 11 == 3 else "live"},
            terms=frozenset({"all", "even"} if number % 2 else {"all"}),
        )
        for number in (n * 17 % 60 for n in range(60))
    ]


@pytest.mark.parametrize("few", [1, 500])
@pytest.mark.parametrize("newest_first", [False, True])
async def test_what_is_found_by_time_is_in_exact_order_however_close_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, newest_first: bool, few: int
) -> None:
    count_as_many(monkeypatch, few)
    documents = at_times_apart()
    store = await SqliteStore.open(tmp_path / "store.db", [SHEETS], LOGS)
    try:
        await store.write(*(Insert(SHEETS, one) for one in documents))
        for terms, equal, limit in itertools.product(
            (("all",), ("all", "even")), ({}, LIVE, {"shelf": "trash"}), (1, 3, 7)
        ):
            query = Query(SHEETS, "acme", equal, limit=limit, terms=terms)
            query = replace(query, newest_first=newest_first)
            for asked in (query, replace(query, from_time=5_001_500, before_time=5_006_000)):
                assert await read(store, asked) == expected(documents, asked), asked
    finally:
        await store.close()


def write_rows(path: Path, documents: Sequence[Document]) -> None:
    """Write a file as an earlier release did: a row for each term of each document, and no places."""
    columns = ("shelf", "name", "path")
    with closing(sqlite3.connect(path)) as db, db:
        texts = "".join(f", {column} TEXT NOT NULL" for column in columns)
        db.execute(
            "CREATE TABLE sheets (org TEXT NOT NULL, id TEXT NOT NULL, version INTEGER NOT NULL, "
            f"create_time INTEGER NOT NULL{texts}, body TEXT NOT NULL, content TEXT NOT NULL)"
        )
        db.execute("CREATE UNIQUE INDEX sheets_key ON sheets (org, id)")
        db.execute("CREATE INDEX sheets_name ON sheets (name, create_time, id)")
        db.execute(
            "CREATE TABLE sheets_terms (org TEXT NOT NULL, term TEXT NOT NULL, "
            "create_time INTEGER NOT NULL, id TEXT NOT NULL, "
            "PRIMARY KEY (org, term, create_time, id)) WITHOUT ROWID"
        )
        db.execute("CREATE INDEX sheets_terms_document ON sheets_terms (org, id)")
        db.execute("CREATE TABLE schema_versions (name TEXT PRIMARY KEY, version INTEGER NOT NULL)")
        db.execute("INSERT INTO schema_versions VALUES ('sheets', 1)")
        for one in documents:
            key = (one.org, one.id, 3, one.create_time)
            fields = (one.fields[column] for column in columns)
            row = (*key, *fields, '{"n":1}', '{"text":"long"}')
            db.execute("INSERT INTO sheets VALUES (?,?,?,?,?,?,?,?,?)", row)
            for term in one.terms:
                row = (one.org, term, one.create_time, one.id)
                db.execute("INSERT INTO sheets_terms VALUES (?,?,?,?)", row)


async def test_a_file_with_a_row_for_each_term_is_brought_forward(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    documents = shelves() + shelves("umbrella")[:9]
    strange = sheet("strange", terms=frozenset({"tag:A b", "", "\u00e9_", "_5f"}))
    write_rows(path, [*documents, strange])
    documents = [replace(one, fields={**one.fields, "touched": ""}) for one in documents]
    for _ in range(2):
        store = await SqliteStore.open(path, [SHEETS], LOGS)
        try:
            for query in queries():
                if query.equal != {"shelf": "live", "touched": "000"}:
                    found = expected([*documents, strange], query)
                    assert await read(store, query) == found, query
            for term in strange.terms:
                assert await read(store, Query(SHEETS, "acme", terms=(term,))) == ["strange"]
            got = await store.get(SHEETS, "acme", "strange")
            assert got is not None
            assert (got.version, got.body, got.content) == (3, {"n": 1}, {"text": "long"})
        finally:
            await store.close()
    with closing(sqlite3.connect(path)) as db:
        tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master")}
        (version,) = db.execute(
            "SELECT version FROM schema_versions WHERE name='sheets'"
        ).fetchone()
    assert not tables & {"sheets_terms", "sheets_before"}
    assert version == 2, "an earlier release has to refuse it"


@contextmanager
def calling(back: Callable[[], object]) -> Iterator[None]:
    """Call back whenever the store says something in its log, at once."""
    logger = logging.getLogger(sqlite.__name__)
    handler = logging.Handler()
    handler.emit = lambda _: back()  # type: ignore[method-assign, assignment]  # all it has to do
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


async def test_what_takes_long_to_be_brought_forward_says_that_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sqlite, "_TOLD_SECONDS", 0.001)
    caplog.set_level("INFO")
    path = tmp_path / "store.db"
    told = threading.Event()

    def wait(_: object, db: sqlite3.Connection) -> None:
        assert told.wait(5)

    monkeypatch.setattr(DocumentsSql, "bring_forward", wait)
    with calling(told.set):
        store = await SqliteStore.open(path, [SHEETS], LOGS)
    said = len(caplog.messages)
    await store.write(*(Insert(SHEETS, sheet(f"new {number}")) for number in range(100)))
    await store.close()

    assert caplog.messages == [f"{path} is being brought forward"] * said


async def test_a_file_that_another_process_brings_forward_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sqlite, "_BUSY_SECONDS", 0.01)
    caplog.set_level("INFO")
    path = tmp_path / "store.db"
    write_rows(path, shelves())
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("PRAGMA journal_mode=WAL")
        other.execute("BEGIN IMMEDIATE")
        # It is done when somebody has said that it is waited for.
        with calling(other.rollback):
            store = await SqliteStore.open(path, [SHEETS], LOGS)
        await store.close()
    assert caplog.messages == [f"{path} is in the hands of another process; waiting for it"]


async def test_a_file_that_stays_in_other_hands_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "_BUSY_SECONDS", 0.01)
    monkeypatch.setattr(sqlite, "_OPENING_TRIES", 3)
    path = tmp_path / "store.db"
    write_rows(path, shelves())
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("PRAGMA journal_mode=WAL")
        other.execute("BEGIN IMMEDIATE")

        with pytest.raises(DomainError) as refused:
            await SqliteStore.open(path, [SHEETS], LOGS)
    assert refused.value.reason is Reason.REASON_STORE_UNAVAILABLE


async def test_what_was_brought_forward_is_written_as_before(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    write_rows(path, [sheet(name, terms=frozenset({"x"})) for name in ("a", "b", "c")])
    store = await SqliteStore.open(path, [SHEETS], LOGS)
    try:
        await store.write(
            Replace(SHEETS, sheet("a", version=3, terms=frozenset({"y"}))),
            Delete(SHEETS, "acme", "b", 3),
            Insert(SHEETS, sheet("d", terms=frozenset({"x", "y"}))),
        )
        assert await read(store, Query(SHEETS, "acme", terms=("x",))) == ["c", "d"]
        assert await read(store, Query(SHEETS, "acme", terms=("y",))) == ["a", "d"]
    finally:
        await store.close()


async def test_what_narrows_a_search_may_join_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count_as_many(monkeypatch, 100)
    path, documents = tmp_path / "store.db", shelves()
    for orders in ((), SHEETS.orders, (("touched", "name"),)):
        collection = replace(SHEETS, orders=orders)
        store = await SqliteStore.open(path, [collection], LOGS)
        try:
            if not orders:
                await store.write(*(Insert(collection, one) for one in documents))
            query = Query(collection, "acme", LIVE, terms=("all",))
            assert await read(store, query) == expected(documents, query)
            query = replace(query, equal={"touched": "001"})
            assert await read(store, query) == expected(documents, query)
        finally:
            await store.close()


async def test_a_sqlite_without_search_is_refused_with_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def connect(path: Path) -> sqlite3.Connection:
        return sqlite3.connect(path, isolation_level=None, factory=Plain)

    monkeypatch.setattr(sqlite, "_connect", connect)
    with pytest.raises(UnreadableStoreError, match=r"store\.db needs FTS5.*CONDUCTOR_STORE_URL\.$"):
        await SqliteStore.open(tmp_path / "store.db", [SHEETS], LOGS)


class Plain(sqlite3.Connection):
    """A connection of an SQLite that was built without FTS5."""

    def execute(self, sql: str, parameters: object = (), /) -> sqlite3.Cursor:
        return super().execute(sql.replace("USING fts5", "USING fts5_"), parameters)  # type: ignore[arg-type]  # as it was given


LIVE = {"shelf": "live"}


@pytest.mark.parametrize("newest_first", [False, True])
@pytest.mark.parametrize(
    ("order", "equal", "terms"),
    [
        *((order, LIVE, terms) for order in ("", "name") for terms in ((), ("all",), ("rare",))),
        ("", {}, ("all",)),
        ("", {}, ("all", "rare")),
        ("name", LIVE, ("all", "rare")),
        ("", {"shelf": "trash"}, ()),
        ("name", {"shelf": "trash"}, ("all",)),
        ("name", {**LIVE, "touched": "seldom"}, ()),
    ],
)
async def test_a_page_takes_no_more_work_when_there_are_twenty_times_as_many(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    order: str,
    equal: dict[str, str],
    terms: tuple[str, ...],
    newest_first: bool,
) -> None:
    count_as_many(monkeypatch, 20)
    work: list[list[int]] = []
    for count in (60, 1200):
        documents = [numbered(number, count) for number in range(count)]
        query = Query(
            SHEETS, "acme", equal, order=order, newest_first=newest_first, terms=terms, limit=10
        )
        names = expected(documents, query)
        by_name = {one.id: one for one in documents}
        deep = by_name[names[(len(names) - 1) * 2 // 3]]
        store = await SqliteStore.open(tmp_path / f"{count}.db", [SHEETS], LOGS)
        try:
            await store.write(*(Insert(SHEETS, one) for one in documents))
            work.append([await steps(store, query)])
            work[-1].append(await steps(store, replace(query, after=place(deep, order))))
        finally:
            await store.close()
    for few, many in zip(*work, strict=True):
        assert many < 2 * few


def is_among_the_last(number: int, count: int) -> bool:
    return number >= count - 30


def is_a_fourth(number: int, count: int) -> bool:
    return number % 4 == 0


@pytest.mark.parametrize("others", [(), ("all",)])
@pytest.mark.parametrize("has_it", [is_among_the_last, is_a_fourth])
async def test_an_order_is_walked_along_only_when_what_is_sought_is_met_soon(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    has_it: Callable[[int, int], bool],
    others: tuple[str, ...],
) -> None:
    count_as_many(monkeypatch, 20)
    query = Query(SHEETS, "acme", LIVE, order="name", terms=(*others, "it"), limit=10)
    work: list[int] = []
    for count in (120, 1200):
        documents = [
            sheet(
                f"s{number:05}",
                terms=frozenset({"all", "it"} if has_it(number, count) else {"all"}),
            )
            for number in range(count)
        ]
        store = await SqliteStore.open(tmp_path / f"{count}.db", [SHEETS], LOGS)
        try:
            await store.write(*(Insert(SHEETS, one) for one in documents))
            work.append(await steps(store, query))
            assert await read(store, query) == expected(documents, query)
        finally:
            await store.close()
    few, many = work
    assert many < 2 * few


def numbered(number: int, count: int) -> Document:
    """Make one of many: three of them are rare, whichever way they are sought."""
    is_rare = number in {2, count // 2, count - 3}
    terms = {"all", "rare"} if is_rare else {"all"}
    fields = {
        "name": f"{number * 7919 % count:05}",
        "shelf": "trash" if number in {1, count // 3, count - 2} else "live",
        "touched": "seldom" if is_rare else "often",
    }
    return sheet(
        f"s{number:05}", create_time=number * 1_000_000, fields=fields, terms=frozenset(terms)
    )


async def steps(store: SqliteStore, query: Query) -> int:
    """Count how many of its instructions SQLite takes for a page, in tens."""
    taken = 0

    def count() -> int:
        nonlocal taken
        taken += 1
        return 0

    store._scanner.set_progress_handler(count, 10)
    assert await store.query(query)
    store._scanner.set_progress_handler(None, 0)
    return taken
