"""What only the embedded store has: a file that may be something else."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
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
    UnreadableStoreError,
)
from services.kit.storage.sqlite import SqliteStore
from tests.contract.sheets import SHEETS, expected, place, queries, read, sheet, shelves


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
        async with asyncio.timeout(5):
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


@pytest.mark.parametrize("few", [1, 4, 8])
async def test_pages_are_exact_whichever_way_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, few: int
) -> None:
    monkeypatch.setattr(sqlite_documents, "_FEW", few)
    documents = shelves() + shelves("umbrella")[:9]
    store = await SqliteStore.open(tmp_path / "store.db", [SHEETS], LOGS)
    try:
        await store.write(*(Insert(SHEETS, one) for one in documents))
        for query in queries():
            assert await read(store, query) == expected(documents, query), query
    finally:
        await store.close()


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
    monkeypatch.setattr(sqlite_documents, "_FEW", 20)
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
    monkeypatch.setattr(sqlite_documents, "_FEW", 20)
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
    return sheet(f"s{number:05}", create_time=number, fields=fields, terms=frozenset(terms))


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
