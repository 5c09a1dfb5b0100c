"""What only the embedded store has: a file that may be something else."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest

from services.execution.stores import COLLECTIONS, EVENTS, LOGS
from services.kit.errors import DomainError, Reason
from services.kit.storage import sqlite
from services.kit.storage.ports import (
    Append,
    AtMost,
    Collection,
    ConflictError,
    Delete,
    Document,
    Insert,
    LimitError,
    UnreadableStoreError,
)
from services.kit.storage.sqlite import SqliteStore


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
