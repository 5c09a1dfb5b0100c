"""A full disk is a clear error and harms nothing. Filled by the limit SQLite itself can be given.

Another adapter joins with its own way to be full.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.kit.errors import DomainError, Reason
from services.kit.storage import sqlite
from services.kit.storage.ports import (
    Append,
    Collection,
    Delete,
    Document,
    Erase,
    Insert,
    Query,
    Write,
)
from services.kit.storage.sqlite import SqliteStore
from tests.patience import PATIENCE

NOTES = Collection("notes")
PAGES = 100
CHUNK = "x" * 20_000


@pytest.fixture
async def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[SqliteStore]:
    """A store whose file may have a hundred pages."""
    connect = sqlite._connect

    def limited(path: Path) -> sqlite3.Connection:
        db = connect(path)
        db.execute(f"PRAGMA max_page_count={PAGES}")
        return db

    monkeypatch.setattr(sqlite, "_connect", limited)
    store = await SqliteStore.open(tmp_path / "store.db", [NOTES], ["events"])
    monkeypatch.undo()
    yield store
    await store.close()


def note(number: int) -> tuple[Write, Write]:
    """A document and a log that belong together."""
    name = f"n{number:03}"
    insert = Insert(NOTES, Document("acme", name, number, {}, {"text": CHUNK}))
    return insert, Append("events", "acme", name, 0, [(1, b"{}", "w")])


async def fill(store: SqliteStore) -> int:
    """Write until the store is full; how many writes were answered."""
    refused: DomainError | None = None
    count = 0
    while refused is None:
        assert count < PAGES
        try:
            await store.write(*note(count))
            count += 1
        except DomainError as error:
            refused = error
    assert refused.reason == Reason.REASON_STORE_FULL
    assert refused.retry_after
    assert "disk is full" in refused.message
    return count


async def kept(store: SqliteStore) -> list[int]:
    """The notes that are there, each with its log."""
    found = await store.query(Query(NOTES, "acme", limit=1000))
    for document in found:
        assert document.body == {"text": CHUNK}
        last = await store.last("events", "acme", document.id)
        assert last is not None
    return [document.create_time for document in found]


async def test_a_full_store_says_so_and_keeps_all_that_was_answered(small: SqliteStore) -> None:
    count = await fill(small)
    assert count > 5
    assert await kept(small) == list(range(count))
    # Nothing of what was refused is there, and it goes on being refused.
    assert await small.last("events", "acme", f"n{count:03}") is None
    with pytest.raises(DomainError) as caught:
        await small.write(*note(count))
    assert caught.value.reason == Reason.REASON_STORE_FULL


async def test_many_who_write_into_a_full_store_are_each_told_the_truth(
    small: SqliteStore,
) -> None:
    async with asyncio.timeout(PATIENCE):
        answers = await asyncio.gather(
            *(small.write(*note(number)) for number in range(60)), return_exceptions=True
        )
    answered = [number for number, answer in enumerate(answers) if answer is None]
    refused = [answer for answer in answers if isinstance(answer, DomainError)]
    assert len(answered) + len(refused) == 60
    assert {error.reason for error in refused} == {Reason.REASON_STORE_FULL}
    assert await kept(small) == answered


async def test_a_store_works_again_once_there_is_space(small: SqliteStore) -> None:
    count = await fill(small)
    await small.write(Delete(NOTES, "acme", "n000", 1), Erase("events", "acme", "n000"))
    await small.write(*note(count))
    assert await kept(small) == list(range(1, count + 1))


async def test_a_store_that_was_full_is_whole_when_it_is_opened_again(
    small: SqliteStore, tmp_path: Path
) -> None:
    count = await fill(small)
    await small.close()
    file = sqlite3.connect(tmp_path / "store.db")
    assert file.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    file.close()
    again = await SqliteStore.open(tmp_path / "store.db", [NOTES], ["events"])
    assert await kept(again) == list(range(count))
    await again.write(*note(count))
    await again.close()
