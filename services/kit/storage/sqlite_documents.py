"""Documents in SQLite: the statements of one collection, and how its queries are led.

Names come from code, values are always bound.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from services.kit.storage.ports import (
    Collection,
    ConflictError,
    Document,
    DuplicateError,
    Query,
)

_FEW = 500
"""Fewer documents than these are read and sorted rather than sought in a list that is in order.

It is also as far as anything is counted for that.
"""


@dataclass(frozen=True, slots=True)
class _Lead:
    """What a query walks along: a term's documents, an index, or what the planner thinks best."""

    term: str | None = None
    index: str = ""

    @property
    def head(self) -> str:
        """What its table is called in statements: `t` for the terms, `d` for the documents."""
        return "d" if self.term is None else "t"


class DocumentsSql:
    """One collection.

    The terms of its documents are rows of a table beside it, in the order of time within a term. A
    query is led by whatever leaves the fewest documents; when all leave many, it walks along the order
    it was asked for, if those that match are met soon there.
    """

    def __init__(self, collection: Collection) -> None:
        self.collection = collection
        table = collection.name
        self._terms = f"{table}_terms"
        self._columns = (*collection.fields, *collection.unique)
        self._leaders = {leader for leader, _ in collection.orders}
        text_columns = "".join(f", {column} TEXT NOT NULL" for column in self._columns)
        self.create = [
            (
                f"CREATE TABLE IF NOT EXISTS {table} (org TEXT NOT NULL, id TEXT NOT NULL, "
                f"version INTEGER NOT NULL, create_time INTEGER NOT NULL{text_columns}, "
                "body TEXT NOT NULL, content TEXT NOT NULL)"
            ),
            f"CREATE UNIQUE INDEX IF NOT EXISTS {table}_key ON {table} (org, id)",
            f"CREATE INDEX IF NOT EXISTS {table}_time ON {table} (org, create_time, id)",
            *(
                f"CREATE INDEX IF NOT EXISTS {table}_{field} ON {table} ({field}, create_time, id)"
                for field in collection.fields
                if field not in self._leaders or field in collection.swept
            ),
            *(
                f"CREATE INDEX IF NOT EXISTS {self._by(leader)} "
                f"ON {table} (org, {leader}, create_time, id)"
                for leader in sorted(self._leaders)
            ),
            *(
                f"CREATE INDEX IF NOT EXISTS {self._by(leader, then)} "
                f"ON {table} (org, {leader}, {then}, id)"
                for leader, then in collection.orders
            ),
            *(
                f"CREATE UNIQUE INDEX IF NOT EXISTS {table}_{field} ON {table} ({field})"
                for field in collection.unique
            ),
            *self._create_terms(),
        ]
        names = ", ".join(("org", "id", "version", "create_time", *self._columns))
        marks = ", ".join("?" * (6 + len(self._columns)))
        self._insert = f"INSERT INTO {table} ({names}, body, content) VALUES ({marks})"
        sets = "".join(f", {column}=?" for column in self._columns)
        self._replace = f"UPDATE {table} SET version=version+1, body=?, content=?{sets} WHERE org=? AND id=? AND version=?"
        self._delete = f"DELETE FROM {table} WHERE org=? AND id=? AND version=?"
        found = ", ".join(f"d.{name}" for name in names.split(", "))
        self._select = f"SELECT {found}, d.body, '{{}}' FROM"
        self._select_keys = f"SELECT {found}, '{{}}', '{{}}' FROM"
        whole = f"SELECT {names}, body, content FROM {table}"
        self.select_one = f"{whole} WHERE org=? AND id=?"
        self.select_unique = {
            field: f"{whole} WHERE {field}=? AND org=?" for field in collection.unique
        }
        self.select_version = f"SELECT version FROM {table} WHERE org=? AND id=?"
        self._select_terms = f"SELECT term FROM {self._terms} WHERE org=? AND id=?"
        self._insert_term = (
            f"INSERT INTO {self._terms} (org, term, create_time, id) "
            f"SELECT org, ?, create_time, id FROM {table} WHERE org=? AND id=?"
        )
        self._delete_term = f"DELETE FROM {self._terms} WHERE term=? AND org=? AND id=?"
        self._delete_terms = f"DELETE FROM {self._terms} WHERE org=? AND id=?"

    def _create_terms(self) -> list[str]:
        if not self.collection.searched:
            return []
        return [
            (
                f"CREATE TABLE IF NOT EXISTS {self._terms} (org TEXT NOT NULL, "
                "term TEXT NOT NULL, create_time INTEGER NOT NULL, id TEXT NOT NULL, "
                "PRIMARY KEY (org, term, create_time, id)) WITHOUT ROWID"
            ),
            f"CREATE INDEX IF NOT EXISTS {self._terms}_document ON {self._terms} (org, id)",
        ]

    def _by(self, leader: str, then: str = "") -> str:
        """Name the index of an organisation's documents of one value, by time or another field."""
        name = f"{self.collection.name}_by_{leader}"
        return f"{name}_then_{then}" if then else name

    def add_missing_columns(self, db: sqlite3.Connection) -> None:
        """Bring the table of an earlier release forward.

        A new field is empty in what is stored already, and a new unique key is the document's id.
        """
        table = self.collection.name
        present = {row[1] for row in db.execute(f"PRAGMA table_info({table})")}
        for column in self._columns if present else ():
            if column not in present:
                db.execute(f"ALTER TABLE {table} ADD COLUMN {column} TEXT NOT NULL DEFAULT ''")
                if column in self.collection.unique:
                    db.execute(f"UPDATE {table} SET {column}=id")

    # Writing: what is refused is refused before anything is done.

    def insert(self, db: sqlite3.Connection, document: Document) -> None:
        """Insert a document."""
        self._check_searched(document)
        fields = [document.fields[column] for column in self._columns]
        body = orjson.dumps(document.body).decode()
        content = orjson.dumps(document.content).decode()
        key = (document.org, document.id, document.version, document.create_time)
        row = (*key, *fields, body, content)
        try:
            db.execute(self._insert, row)
        except sqlite3.IntegrityError as error:
            raise self._duplicate(error) from None
        self._add_terms(db, document, document.terms)

    def replace(self, db: sqlite3.Connection, document: Document) -> None:
        """Replace a document of the version it names."""
        self._check_searched(document)
        fields = [document.fields[column] for column in self._columns]
        body = orjson.dumps(document.body).decode()
        content = orjson.dumps(document.content).decode()
        key = (document.org, document.id, document.version)
        try:
            cursor = db.execute(self._replace, (body, content, *fields, *key))
        except sqlite3.IntegrityError as error:
            raise self._duplicate(error) from None
        if cursor.rowcount == 0:
            raise ConflictError
        if self.collection.searched:
            found = db.execute(self._select_terms, (document.org, document.id))
            stored = {term for (term,) in found}
            for term in sorted(stored - document.terms):
                db.execute(self._delete_term, (term, document.org, document.id))
            self._add_terms(db, document, document.terms - stored)

    def delete(self, db: sqlite3.Connection, org: str, id_: str, version: int) -> None:
        """Delete a document of that version."""
        if db.execute(self._delete, (org, id_, version)).rowcount == 0:
            raise ConflictError
        if self.collection.searched:
            db.execute(self._delete_terms, (org, id_))

    def _add_terms(self, db: sqlite3.Connection, document: Document, terms: frozenset[str]) -> None:
        # The create_time comes from the table: a replacement need not know it.
        for term in sorted(terms):
            db.execute(self._insert_term, (term, document.org, document.id))

    def _check_searched(self, document: Document) -> None:
        if document.terms and not self.collection.searched:
            raise ValueError(f"{self.collection.name} is not searched")

    def _duplicate(self, error: sqlite3.IntegrityError) -> Exception:
        if error.sqlite_errorcode != sqlite3.SQLITE_CONSTRAINT_UNIQUE:
            return error
        broken = str(error).rpartition(".")[2]
        return DuplicateError(broken if broken in self.collection.unique else "id")

    # Reading

    def select_many(self, db: sqlite3.Connection, query: Query) -> tuple[str, list[Any]]:
        """Say how to read a page.

        Args:
            db: where a few may be counted for that.
        """
        lead = self._lead(db, query)
        source, conditions, values = self._walked(query, lead)
        having, had = self._having(query, lead)
        conditions += having
        where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
        select = self._select_keys if query.keys_only else self._select
        order = f" ORDER BY {_in_order(query, lead)} LIMIT ?"
        return f"{select} {source}{where}{order}", [*values, *had, query.limit]

    def _walked(self, query: Query, lead: _Lead) -> tuple[str, list[str], list[Any]]:
        """Say what is walked along: a source, the conditions but for other terms, and their values."""
        beyond = "<" if query.newest_first else ">"
        conditions, values = self._matching(query.equal, "d.")
        head, source = lead.head, f"{self.collection.name} AS d"
        if lead.index:
            source += f" INDEXED BY {lead.index}"
        if lead.term is not None:
            # The left side of a CROSS JOIN is the outer loop, and a document is read by its key: the
            # planner would rather walk along an order, however few have the term.
            key = f"INDEXED BY {self.collection.name}_key"
            same = "d.org=t.org AND d.create_time=t.create_time AND d.id=t.id"
            source = f"{self._terms} AS t CROSS JOIN {source} {key} ON {same}"
            conditions.append("t.term=?")
            values.append(lead.term)
        if query.org is not None:
            conditions.append(f"{head}.org=?")
            values.append(query.org)
        if query.from_time is not None:
            conditions.append(f"{head}.create_time>=?")
            values.append(query.from_time)
        if query.before_time is not None:
            conditions.append(f"{head}.create_time<?")
            values.append(query.before_time)
        if query.after is not None:
            conditions.append(f"({_value(query, lead)}, {head}.id){beyond}(?,?)")
            values.extend(query.after)
        return source, conditions, values

    def _having(self, query: Query, lead: _Lead) -> tuple[list[str], list[Any]]:
        """Say that what is walked along has the other terms: the conditions and their values."""
        # Nothing but the index is read of a document that is passed over.
        has = f"o.term=? AND o.org={lead.head}.org AND o.id={lead.head}.id"
        if lead.term is not None:
            # Both terms are in the order of time, so that each is sought where the one before was. For
            # an id that is only equal the planner would seek among all terms of the document.
            near = "o.create_time=t.create_time AND o.id BETWEEN t.id AND t.id"
            has = f"o.term=? AND o.org=t.org AND {near}"
        others = [term for term in query.terms if term != lead.term]
        return [f"EXISTS (SELECT 1 FROM {self._terms} AS o WHERE {has})" for _ in others], others

    def _lead(self, db: sqlite3.Connection, query: Query) -> _Lead:
        """Choose what a query walks along."""
        if query.org is None:
            return _Lead()
        along, leads = _Lead(), []
        for term in query.terms:
            along = _Lead(term)
            leads.append((along, f"{self._terms} WHERE org=? AND term=?", [query.org, term]))
        if (leader := query.leader()) is not None:
            along = _Lead(index=self._by(leader, query.order))
        for name, value in query.equal.items():
            index = f"{self.collection.name}_{name}"
            if name in self.collection.unique:
                return _Lead(index=index)
            if name in self._leaders:
                index = self._by(name)
                matching, values = f"org=? AND {name}=?", [query.org, value]
            else:
                matching, values = f"{name}=?", [value]
            found = f"{self.collection.name} INDEXED BY {index} WHERE {matching}"
            leads.append((_Lead(index=index), found, values))
        if len(leads) < 2:
            return along
        counts = [self._count(db, found, values, _FEW) for _, found, values in leads]
        fewest = min(counts)
        if fewest < _FEW:
            return leads[counts.index(fewest)][0]
        if along.term is None and query.terms:
            return self._lead_of_common(db, query, along)
        return along

    def _lead_of_common(self, db: sqlite3.Connection, query: Query, along: _Lead) -> _Lead:
        """Choose when many match every condition: the order, or the term that fewest have.

        Those that match may all be at the far end of the order, as with a word that only what is old
        has, or may be few, as with words that are seldom together. So the order is walked along for a
        bit, which tells how far it would have to be.
        """
        source, conditions, values = self._walked(query, along)
        having, had = self._having(query, along)
        order = f"ORDER BY {_in_order(query, along)} LIMIT {_FEW}"
        first = f"SELECT d.org, d.id FROM {source} WHERE {' AND '.join(conditions)} {order}"
        met = f"SELECT 1 FROM ({first}) AS d WHERE {' AND '.join(having)} LIMIT ?"
        (found,) = db.execute(
            f"SELECT count(*) FROM ({met})", [*values, *had, query.limit]
        ).fetchone()
        if found == query.limit:
            return along
        most = _FEW
        while most * found < _FEW * query.limit:
            # It is counted no further than what fewest have makes needful.
            most *= 4
            counts = [
                self._count(db, f"{self._terms} WHERE org=? AND term=?", [query.org, term], most)
                for term in query.terms
            ]
            fewest = min(counts)
            if fewest < most:
                is_far = fewest * found < _FEW * query.limit
                return _Lead(query.terms[counts.index(fewest)]) if is_far else along
        return along

    def _count(self, db: sqlite3.Connection, found: str, values: Sequence[Any], most: int) -> int:
        counting = f"SELECT count(*) FROM (SELECT 1 FROM {found} LIMIT {most})"
        (count,) = db.execute(counting, values).fetchone()
        return int(count)

    def count(self, equal: Mapping[str, str], limit: int) -> tuple[str, list[Any]]:
        """Count the documents that match, as far as the limit."""
        conditions, values = self._matching(equal)
        where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
        table = self.collection.name
        values.append(limit)
        return f"SELECT count(*) FROM (SELECT 1 FROM {table}{where} LIMIT ?)", values

    def _matching(self, equal: Mapping[str, str], table: str = "") -> tuple[list[str], list[Any]]:
        if unknown := equal.keys() - set(self._columns):
            raise KeyError(f"{self.collection.name} has no field {', '.join(unknown)}")
        return [f"{table}{field}=?" for field in equal], list(equal.values())

    def document(self, row: Sequence[Any]) -> Document:
        """Make a document of a row."""
        org, id_, version, create_time, *fields, body, content = row
        return Document(
            org=org,
            id=id_,
            version=version,
            create_time=create_time,
            fields=dict(zip(self._columns, fields, strict=True)),
            body=orjson.loads(body),
            content=orjson.loads(content),
        )


def _value(query: Query, lead: _Lead) -> str:
    """Name what a page is in the order of, before ids."""
    return f"d.{query.order}" if query.order else f"{lead.head}.create_time"


def _in_order(query: Query, lead: _Lead) -> str:
    direction = "DESC" if query.newest_first else "ASC"
    return f"{_value(query, lead)} {direction}, {lead.head}.id {direction}"
