"""The terms of documents in SQLite: an index of FTS5 that is in the order of time.

FTS5 keeps for each token the rows that have it, a few bytes for each, and finds the rows that have several
tokens by going along their lists at once. It answers in the order of the rows' numbers and in no other, so
a document has a `place`: a number in the order of create times.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing

from services.kit.storage.ports import Collection, Query

_TICK_BITS = 10
_NUMBER_BITS = 21
_ESCAPED = re.compile("[^0-9a-z\x80-\U0010ffff]")
_APART = "__"


def first_place(create_time: int) -> int:
    """Tell the first place of what was created at a time.

    A place is a tick of 1,024 microseconds and a number within it, of which there are some two million.
    Until the year 2112 places are integers of SQLite.
    """
    return create_time >> _TICK_BITS << _NUMBER_BITS


def last_place(create_time: int) -> int:
    """Tell the last place of what was created at a time."""
    return first_place(create_time) | ((1 << _NUMBER_BITS) - 1)


def tick_of(place: int) -> int:
    """Tell the tick of a place."""
    return place >> _NUMBER_BITS


class TermsSql:
    """The tokens of one collection's documents, by place.

    A document has a token for each of its terms, and one for each field within which there are orders: so
    what a page is mostly narrowed by can be part of the intersection. Each begins with the organisation.
    What has no terms has no tokens.
    """

    def __init__(self, collection: Collection) -> None:
        self._documents = collection.name
        self.table = f"{collection.name}_search"
        self._leaders = sorted({leader for leader, _ in collection.orders})
        self._columns = ("terms", *self._leaders)
        columns, marks = ", ".join(self._columns), ", ".join("?" * (1 + len(self._columns)))
        # Nothing is kept but which rows have a token.
        self.create = (
            f"CREATE VIRTUAL TABLE IF NOT EXISTS {self.table} USING fts5({columns}, "
            "detail=none, columnsize=0, tokenize=\"ascii tokenchars '_'\")"
        )
        self._insert = f"INSERT INTO {self.table} (rowid, {columns}) VALUES ({marks})"
        self._select = f"SELECT {columns} FROM {self.table} WHERE rowid=?"
        self._delete = f"DELETE FROM {self.table} WHERE rowid=?"
        self._counted = f"SELECT 1 FROM {self.table} WHERE {self.table} MATCH ? LIMIT ?"

    def bring_forward(self, db: sqlite3.Connection) -> None:
        """Make the index anew that an earlier release kept in another way.

        Its documents have places already. It kept a row for each term of each document, or was narrowed
        by other fields.
        """
        rows, before = f"{self._documents}_terms", f"{self.table}_before"
        columns = columns_of(db, self.table)
        if columns_of(db, rows):
            db.execute(self.create)
            for place, org, id_, fields in self._stored(db):
                found = db.execute(f"SELECT term FROM {rows} WHERE org=? AND id=?", (org, id_))
                self.keep(db, place, org, [term for (term,) in found], fields)
            db.execute(f"DROP TABLE {rows}")
        elif columns and columns != self._columns:
            db.execute(f"ALTER TABLE {self.table} RENAME TO {before}")
            db.execute(self.create)
            for place, org, _, fields in self._stored(db):
                found = db.execute(f"SELECT terms FROM {before} WHERE rowid=?", (place,))
                for (tokens,) in found.fetchall():
                    self._keep(db, place, org, tokens, fields)
            db.execute(f"DROP TABLE {before}")

    def _stored(self, db: sqlite3.Connection) -> Iterable[tuple[int, str, str, Mapping[str, str]]]:
        """Read the documents: place, organisation, id, and the fields they are narrowed by."""
        columns = ", ".join(("place", "org", "id", *self._leaders))
        with closing(db.execute(f"SELECT {columns} FROM {self._documents}")) as found:
            for place, org, id_, *values in found:
                yield place, org, id_, dict(zip(self._leaders, values, strict=True))

    # Writing

    def keep(
        self,
        db: sqlite3.Connection,
        place: int,
        org: str,
        terms: Iterable[str],
        fields: Mapping[str, str],
    ) -> None:
        """Let a document be found by its terms, and by no others."""
        self._keep(db, place, org, " ".join(sorted(_token(org, term) for term in terms)), fields)

    def _keep(
        self, db: sqlite3.Connection, place: int, org: str, tokens: str, fields: Mapping[str, str]
    ) -> None:
        row = (tokens, *(_narrowing(org, name, fields[name]) for name in self._leaders))
        stored = db.execute(self._select, (place,)).fetchone()
        if stored == (row if tokens else None):
            return
        if stored is not None:
            self.drop(db, place)
        if tokens:
            db.execute(self._insert, (place, *row))

    def drop(self, db: sqlite3.Connection, place: int) -> None:
        """Let a document be found no more."""
        db.execute(self._delete, (place,))

    # Reading

    def sought(self, query: Query) -> list[str]:
        """Write the tokens of a query's terms."""
        return [_token(str(query.org), term) for term in query.terms]

    def narrowing(self, query: Query) -> list[str]:
        """Write the tokens of the fields that a query is narrowed by."""
        values = {name: query.equal.get(name, "") for name in self._leaders}
        return [_narrowing(str(query.org), *one) for one in values.items() if one[1]]

    def count(self, db: sqlite3.Connection, tokens: Sequence[str], most: int) -> int:
        """Count the documents that have all of some tokens, as far as `most`."""
        return len(db.execute(self._counted, (matching(tokens), most)).fetchall())

    def has(self, db: sqlite3.Connection, place: int, terms: Sequence[str]) -> bool:
        """Tell whether the document at a place has all of some terms, given as tokens.

        FTS5 would go along their lists to find that out.
        """
        stored = db.execute(self._select, (place,)).fetchone()
        return stored is not None and all(f" {one} " in f" {stored[0]} " for one in terms)


def matching(tokens: Iterable[str]) -> str:
    """Ask for what has all of some tokens, in the language of FTS5."""
    return " AND ".join(f'"{token}"' for token in tokens)


def columns_of(db: sqlite3.Connection, table: str) -> tuple[str, ...]:
    """Name the columns of a table; none of one that is not there."""
    return tuple(row[1] for row in db.execute(f"PRAGMA table_info({table})"))


def _narrowing(org: str, field: str, value: str) -> str:
    return _token(org, field, value) if value else ""


def _token(*parts: str) -> str:
    """Write what a tokenizer does not part, differently for all that is different."""
    return _APART.join(_ESCAPED.sub(lambda one: f"_{ord(one[0]):02x}", part) for part in parts)
