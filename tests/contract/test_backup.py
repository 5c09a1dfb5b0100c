"""A store copied while it is written to, as docs/operations.md says, is a store of one moment."""

from __future__ import annotations

import asyncio
import re
import shlex
import sys
from pathlib import Path

from services.kit.storage.ports import Append, Collection, Document, Insert, Query
from services.kit.storage.sqlite import SqliteStore

NOTES = Collection("notes")
OPERATIONS = Path(__file__).parents[2] / "docs" / "operations.md"


async def test_a_copy_made_while_the_store_is_written_to_is_whole(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path / "store.db", [NOTES], ["events"])
    answered = await write(store, 0, 50)
    writing = asyncio.create_task(write(store, 50, 600))

    copying = await asyncio.create_subprocess_exec(
        *command(tmp_path / "store.db", tmp_path / "copy.db")
    )
    assert await copying.wait() == 0
    last = await writing
    await store.close()

    copy = await SqliteStore.open(tmp_path / "copy.db", [NOTES], ["events"])
    found = await copy.query(Query(NOTES, "acme", limit=5000))
    numbers = sorted(document.create_time for document in found)
    # What was answered before is there, and of what came meanwhile everything up to some moment.
    assert numbers == list(range(len(numbers)))
    assert answered <= len(numbers) <= last
    for document in found:
        assert await copy.last("events", "acme", document.id) is not None
    await copy.write(*note(last))
    await copy.close()


def command(source: Path, target: Path) -> list[str]:
    """The command of the page, with files of our own."""
    (told,) = re.findall(r"`python (-c '[^`]*VACUUM INTO[^`]*)`", OPERATIONS.read_text())
    flag, code, *files = shlex.split(told)
    assert len(files) == 2
    return [sys.executable, flag, code, str(source), str(target)]


def note(number: int) -> tuple[Insert, Append]:
    name = f"n{number:05}"
    return (
        Insert(NOTES, Document("acme", name, number, {}, {"text": "x" * 500})),
        Append("events", "acme", name, 0, [(1, b"{}", "w")]),
    )


async def write(store: SqliteStore, begin: int, end: int) -> int:
    for number in range(begin, end):
        await store.write(*note(number))
    return end
