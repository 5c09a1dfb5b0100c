"""Documents in SQLite: the statements of one collection, and how its queries are led.

Names come from code, values are always bound.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Any

import orjson

from services.kit.storage.ports import (
    Collection,
    ConflictError,
    Document,
    DuplicateError,
    Query,
)
from services.kit.storage.sqlite_terms import (
    TermsSql,
    columns_of,
    first_place,
    last_place,
    matching,
    tick_of,
)

_FEW = 500
"""Fewer documents than these are read and sorted rather than sought in a list that is in order.

It is also as far as anything is counted for that, and as far as what FTS5 finds is passed over.
"""
_SOME = 2000
"""A value that fewer documents have than these is sought by FTS5 from the start."""
_TRIED = 100
"""How far an order is walked along to see how many of its documents have what is sought."""
_LAST_PLACE = (1 << 63) - 1
_ID, _CREATE_TIME = 1, 3
"""Columns of a document as it is read."""


class DocumentsSql:
    """One collection.

    A query without terms is led by whatever leaves the fewest documents; when all leave many, it walks
    along the order it was asked for. One with terms goes along what FTS5 finds, which is in the order of
    time (`sqlite_terms`). Where another order is asked for, few are found and sorted; of many, some are
    soon met along that order.
    """

    def __init__(self, collection: Collection) -> None:
        self.collection = collection
        table = collection.name
        self._terms = TermsSql(collection) if collection.searched else None
        self._columns = (*collection.fields, *collection.unique)
        self._leaders = {leader for leader, _ in collection.orders}
        place = "place INTEGER PRIMARY KEY, " if collection.searched else ""
        text_columns = "".join(f", {column} TEXT NOT NULL DEFAULT ''" for column in self._columns)
        self.create = [
            (
                f"CREATE TABLE IF NOT EXISTS {table} ({place}org TEXT NOT NULL, id TEXT NOT NULL, "
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
            *([] if self._terms is None else [self._terms.create]),
        ]
        names = ", ".join(("org", "id", "version", "create_time", *self._columns))
        marks = ", ".join("?" * (6 + len(self._columns)))
        self._names = names
        self._insert = f"INSERT INTO {table} ({names}, body, content) VALUES ({marks})"
        next_place = f"SELECT coalesce(max(place)+1, ?) FROM {table} WHERE place BETWEEN ? AND ?"
        self._insert_at = (
            f"INSERT INTO {table} (place, {names}, body, content) VALUES (({next_place}), {marks})"
        )
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
        self._select_place = f"SELECT place FROM {table} WHERE org=? AND id=? AND version=?"

    def _by(self, leader: str, then: str = "") -> str:
        """Name the index of an organisation's documents of one value, by time or another field."""
        name = f"{self.collection.name}_by_{leader}"
        return f"{name}_then_{then}" if then else name

    @property
    def schema_version(self) -> int:
        """The version of the tables: that of the bodies, and one more since there are places."""
        return self.collection.schema_version + (self._terms is not None)

    def bring_forward(self, db: sqlite3.Connection) -> None:
        """Bring the tables of an earlier release forward.

        A new field is empty in what is stored already, and a new unique key is the document's id.
        """
        table = self.collection.name
        present = columns_of(db, table)
        for column in self._columns if present else ():
            if column not in present:
                db.execute(f"ALTER TABLE {table} ADD COLUMN {column} TEXT NOT NULL DEFAULT ''")
                if column in self.collection.unique:
                    db.execute(f"UPDATE {table} SET {column}=id")
        if present and self._terms is not None:
            if "place" not in present:
                self._add_places(db)
            self._terms.bring_forward(db)

    def _add_places(self, db: sqlite3.Connection) -> None:
        """Make the table anew with places; its indexes go with it and are made later."""
        table, before = self.collection.name, f"{self.collection.name}_before"
        db.create_function("first_place", 1, first_place, deterministic=True)
        number = (
            "row_number() OVER (PARTITION BY first_place(create_time) ORDER BY create_time, id)"
        )
        columns = f"{self._names}, body, content"
        db.execute(f"ALTER TABLE {table} RENAME TO {before}")
        db.execute(self.create[0])
        db.execute(
            f"INSERT INTO {table} (place, {columns}) "
            f"SELECT first_place(create_time) + {number} - 1, {columns} FROM {before}"
        )
        db.execute(f"DROP TABLE {before}")

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
            if self._terms is None:
                db.execute(self._insert, row)
                return
            first, last = first_place(document.create_time), last_place(document.create_time)
            place = db.execute(self._insert_at, (first, first, last, *row)).lastrowid
        except sqlite3.IntegrityError as error:
            raise self._duplicate(error) from None
        self._terms.keep(db, place or 0, document.org, document.terms, document.fields)

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
        if self._terms is not None:
            place = self._place(db, document.org, document.id, document.version + 1)
            self._terms.keep(db, place, document.org, document.terms, document.fields)

    def delete(self, db: sqlite3.Connection, org: str, id_: str, version: int) -> None:
        """Delete a document of that version."""
        if self._terms is not None:
            self._terms.drop(db, self._place(db, org, id_, version))
        if db.execute(self._delete, (org, id_, version)).rowcount == 0:
            raise ConflictError

    def _place(self, db: sqlite3.Connection, org: str, id_: str, version: int) -> int:
        found = db.execute(self._select_place, (org, id_, version)).fetchone()
        if found is None:
            raise ConflictError
        return int(found[0])

    def _check_searched(self, document: Document) -> None:
        if document.terms and not self.collection.searched:
            raise ValueError(f"{self.collection.name} is not searched")

    def _duplicate(self, error: sqlite3.IntegrityError) -> Exception:
        if error.sqlite_errorcode != sqlite3.SQLITE_CONSTRAINT_UNIQUE:
            return error
        broken = str(error).rpartition(".")[2]
        return DuplicateError(broken if broken in self.collection.unique else "id")

    # Reading

    def query(self, db: sqlite3.Connection, query: Query) -> list[Document]:
        """Read a page."""
        # What is read in several steps is read of one moment.
        db.execute("BEGIN")
        try:
            if not query.terms:
                rows = self._listed(db, query)
            elif query.order:
                rows = self._found_in_order(db, query)
            else:
                rows = self._found_by_time(db, query)
        finally:
            db.execute("COMMIT")
        return [self.document(row) for row in rows]

    def _listed(self, db: sqlite3.Connection, query: Query) -> list[Any]:
        """Read a page of a query without terms."""
        lead = self._lead(db, query)
        along = f" INDEXED BY {lead}" if lead else ""
        conditions, values = self._conditions(query)
        where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
        statement = f"{self._selected(query)}{along}{where} {_ordered(query)} LIMIT ?"
        return db.execute(statement, (*values, query.limit)).fetchall()

    def _found_by_time(self, db: sqlite3.Connection, query: Query) -> list[Any]:
        """Read a page of what has terms, in the order of time."""
        terms = self._searched()
        sought, narrowing = terms.sought(query), terms.narrowing(query)
        if narrowing and not self._is_narrow(db, query):
            # Of a value that many have, going along its list takes longer than passing over others.
            rows = self._met(db, query, sought, _FEW)
            if rows is not None:
                return rows
        return self._met(db, query, [*sought, *narrowing], None) or []

    def _met(
        self, db: sqlite3.Connection, query: Query, tokens: Sequence[str], most: int | None
    ) -> list[Any] | None:
        """Go along what has some tokens until a page is full; None when it is not after `most`."""
        conditions, values = self._conditions(query)
        read = f"{self._selected(query)} WHERE d.place=? AND {' AND '.join(conditions)}"
        table, direction = self._searched().table, _direction(query)
        along = (
            f"SELECT rowid FROM {table} WHERE {table} MATCH ? AND rowid BETWEEN ? AND ? "
            f"ORDER BY rowid {direction} LIMIT ?"
        )
        asked = (matching(tokens), *_places(query), -1 if most is None else most)
        found: list[Any] = []
        passed, full_at = 0, -1
        with closing(db.execute(along, asked)) as places:
            for (place,) in places:
                # Those of a tick are in no order.
                if len(found) >= query.limit and tick_of(place) != full_at:
                    break
                passed += 1
                row = db.execute(read, (place, *values)).fetchone()
                if row is not None:
                    found.append(row)
                    full_at = tick_of(place)
            else:
                if passed == most:
                    return None
        found.sort(key=lambda row: (row[_CREATE_TIME], row[_ID]), reverse=query.newest_first)
        return found[: query.limit]

    def _found_in_order(self, db: sqlite3.Connection, query: Query) -> list[Any]:
        """Read a page of what has terms, in another order than that of time."""
        terms = self._searched()
        tokens = [*terms.sought(query), *terms.narrowing(query)]
        is_common = terms.count(db, tokens, _FEW) == _FEW
        places = self._met_soon(db, query, tokens) if is_common else []
        if len(places) < query.limit:
            conditions, values = self._conditions(query)
            # The left side of a CROSS JOIN is the outer loop.
            source = f"{terms.table} AS t CROSS JOIN {self.collection.name} AS d ON d.place=t.rowid"
            where = " AND ".join((f"t.{terms.table} MATCH ?", *conditions))
            found = db.execute(
                f"SELECT d.place FROM {source} WHERE {where} {_ordered(query)} LIMIT ?",
                (matching(tokens), *values, query.limit),
            )
            places = [place for (place,) in found]
        read = f"{self._selected(query)} WHERE d.place=?"
        return [db.execute(read, (place,)).fetchone() for place in places]

    def _met_soon(self, db: sqlite3.Connection, query: Query, tokens: Sequence[str]) -> list[int]:
        """Walk along the order that is asked for; answers fewer places than a page has to give up.

        Those that match may all be at the far end of the order, as with a word that only what is old
        has. So it is walked along for a bit, which tells how far it would have to be.
        """
        terms = self._searched()
        sought = terms.sought(query)
        conditions, values = self._conditions(query)
        index = self._by(query.leader() or "", query.order)
        along = f"{self.collection.name} AS d INDEXED BY {index} WHERE {' AND '.join(conditions)}"
        met: list[int] = []
        end = _TRIED
        with closing(
            db.execute(f"SELECT d.place FROM {along} {_ordered(query)}", values)
        ) as places:
            for passed, (place,) in enumerate(places, 1):
                if terms.has(db, place, sought):
                    met.append(place)
                if len(met) == query.limit:
                    break
                if passed == end:
                    far = end * query.limit // max(len(met), 1)
                    if end > _TRIED or terms.count(db, tokens, far) < far:
                        break
                    end = 2 * far
        return met

    def _searched(self) -> TermsSql:
        assert self._terms is not None, "a query with terms is of a collection that is searched"
        return self._terms

    def _selected(self, query: Query) -> str:
        select = self._select_keys if query.keys_only else self._select
        return f"{select} {self.collection.name} AS d"

    def _conditions(self, query: Query) -> tuple[list[str], list[Any]]:
        """Say what a document has to be besides its terms: conditions and their values."""
        beyond = "<" if query.newest_first else ">"
        conditions, values = self._matching(query.equal, "d.")
        if query.org is not None:
            conditions.append("d.org=?")
            values.append(query.org)
        if query.from_time is not None:
            conditions.append("d.create_time>=?")
            values.append(query.from_time)
        if query.before_time is not None:
            conditions.append("d.create_time<?")
            values.append(query.before_time)
        if query.after is not None:
            conditions.append(f"(d.{query.order or 'create_time'}, d.id){beyond}(?,?)")
            values.extend(query.after)
        return conditions, values

    def _lead(self, db: sqlite3.Connection, query: Query) -> str:
        """Choose the index that a query without terms walks along; empty leaves it to the planner."""
        if query.org is None:
            return ""
        along = "" if query.leader() is None else self._by(query.leader() or "", query.order)
        leads: list[tuple[str, str, list[str]]] = []
        for name, value in query.equal.items():
            if name in self.collection.unique:
                return f"{self.collection.name}_{name}"
            if name in self._leaders:
                leads.append((self._by(name), f"org=? AND {name}=?", [query.org, value]))
            else:
                leads.append((f"{self.collection.name}_{name}", f"{name}=?", [value]))
        if len(leads) < 2:
            return along
        counts = [self._count(db, *lead, _FEW) for lead in leads]
        fewest = min(counts)
        return leads[counts.index(fewest)][0] if fewest < _FEW else along

    def _is_narrow(self, db: sqlite3.Connection, query: Query) -> bool:
        """Tell whether few have a value that the query is narrowed by."""
        return any(
            self._count(db, self._by(name), f"org=? AND {name}=?", [query.org, value], _SOME)
            < _SOME
            for name, value in query.equal.items()
            if name in self._leaders
        )

    def _count(
        self, db: sqlite3.Connection, index: str, condition: str, values: Sequence[Any], most: int
    ) -> int:
        found = f"SELECT 1 FROM {self.collection.name} INDEXED BY {index} WHERE {condition} LIMIT ?"
        (count,) = db.execute(f"SELECT count(*) FROM ({found})", (*values, most)).fetchone()
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


def _ordered(query: Query) -> str:
    direction = _direction(query)
    return f"ORDER BY d.{query.order or 'create_time'} {direction}, d.id {direction}"


def _direction(query: Query) -> str:
    return "DESC" if query.newest_first else "ASC"


def _places(query: Query) -> tuple[int, int]:
    """Tell from which place to which one there may be documents of a query by time."""
    first, last = 0, _LAST_PLACE
    if query.from_time is not None:
        first = first_place(query.from_time)
    if query.before_time is not None:
        last = last_place(query.before_time)
    if query.after is not None:
        at = int(query.after[0])
        if query.newest_first:
            last = min(last, last_place(at))
        else:
            first = max(first, first_place(at))
    return first, last
