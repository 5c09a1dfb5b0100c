"""A conversation of so many messages, stored as the conversations service stores it."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import AsyncExitStack, closing
from pathlib import Path

from services.conversations.domain import conversations, messages
from services.conversations.domain.conversations import Asked
from services.conversations.domain.messages import Draft, Reference, Type
from services.conversations.stores import COLLECTIONS, LOGS
from services.conversations.stores import conversations as stored
from services.conversations.stores.messages import MESSAGES, to_document
from services.kit import ids
from services.kit.settings import Settings
from services.kit.storage.opening import open_store
from services.kit.storage.ports import Insert
from services.kit.storage.sqlite_documents import DocumentsSql

CONVERSATION = "conv_bench"
FEW = 10
"""How many messages have RARE, however many there are, and how many both halves."""
RARE, SOME, HALF, OTHER_HALF = "zeppelin", "xylophone", "waterfall", "volcano"
"""Words: FEW have the first, one of SOME_EACH the second, every other one the third, and all others the
fourth, as do those that have the first."""
OLD_TENTH = "jasmine"
"""A word that the oldest tenth have."""
SOME_EACH = 25

_ORG = "default"
_AUTHOR = "bench"
_AGENT = Reference("default", name="Default")
_CACHE_KIB = 256 * 1024
_SECOND_US = 1_000_000
_WORDS = (
    *("plan", "of", "a", "release", "that", "tells", "customers", "about", "changes", "in"),
    *("how", "team", "handles", "questions", "from", "people", "first", "day", "their", "notes"),
)
_ASKED, _ANSWERED = 4, 8
"""How many words are said to an agent, and by it."""


async def fill(data: Path, count: int) -> None:
    """Store CONVERSATION where a conversations service keeps its own under a data directory.

    The documents are those of the service, but nothing is synced: it would take ten minutes.

    Args:
        count: how many messages it has, a multiple of FEW.
    """
    async with AsyncExitStack() as stack:
        await open_store(Settings(data_dir=data), "conversations", COLLECTIONS, LOGS, stack)
    await asyncio.to_thread(_write, data / "conversations" / "conversations.db", count)


def _write(path: Path, count: int) -> None:
    inserted = {one.name: DocumentsSql(one) for one in (stored.CONVERSATIONS, MESSAGES)}
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        for fast in ("journal_mode=OFF", "synchronous=OFF", f"cache_size=-{_CACHE_KIB}"):
            db.execute(f"PRAGMA {fast}")
        db.execute("BEGIN")
        for write in _conversation(count, ids.now()):
            inserted[write.collection.name].insert(db, write.document)
        db.execute("COMMIT")


def _conversation(count: int, now: int) -> Iterator[Insert]:
    # The same one each time.
    chance = random.Random(count)
    began = now - (count + 1) * _SECOND_US
    talk = conversations.made(_ORG, CONVERSATION, Asked({"title": "A long talk"}), began)
    for number in range(count):
        draft = _draft(number, count, chance)
        time = began + (number + 1) * _SECOND_US
        id_ = f"msg_{number:032x}"
        message = messages.placed(draft, _ORG, id_, CONVERSATION, number + 1, time)
        yield Insert(MESSAGES, to_document(message))
        talk = conversations.followed(talk, message)
    yield Insert(stored.CONVERSATIONS, stored.to_document(talk))


def _draft(number: int, count: int, chance: random.Random) -> Draft:
    is_answer = number % 2 == 1
    words = chance.choices(_WORDS, k=_ANSWERED if is_answer else _ASKED)
    content = " ".join([f"{number}:", *_marks(number, count), *words])
    if is_answer:
        return Draft(Type.AGENT, content, f"agent:{_AGENT.agent_id}", agent=_AGENT)
    return Draft(Type.USER, content, _AUTHOR)


def _marks(number: int, count: int) -> Iterable[str]:
    """Yield the words that a message is to be found by."""
    is_rare, is_even = number % (count // FEW) == 0, number % 2 == 0
    if is_rare:
        yield RARE
    if number % SOME_EACH == 0:
        yield SOME
    if number < count // 10:
        yield OLD_TENTH
    if is_rare or is_even:
        yield HALF
    if is_rare or not is_even:
        yield OTHER_HALF
