"""A store in memory that passes the contract suite."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import orjson

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
    store_unavailable,
)

Documents = dict[tuple[str, str, str], Document]
Logs = dict[tuple[str, str, str], list[Entry]]


@dataclass
class Memory:
    """What a store keeps when it is closed."""

    documents: Documents = field(default_factory=dict)
    logs: Logs = field(default_factory=dict)
    versions: dict[str, int] = field(default_factory=dict)


class MemoryStore:
    """Documents and logs in memory."""

    def __init__(self, memory: Memory, collections: Iterable[Collection]) -> None:
        for collection in collections:
            if memory.versions.get(collection.name, 0) > collection.schema_version:
                raise UnreadableStoreError(f"{collection.name} was written by a newer release.")
            memory.versions[collection.name] = collection.schema_version
            _add_missing_fields(memory.documents, collection)
        self._memory = memory
        self._closed = False

    async def write(self, *writes: Write) -> None:
        self._check_open()
        documents, logs = dict(self._memory.documents), dict(self._memory.logs)
        for write in writes:
            _do(write, documents, logs)
        self._memory.documents, self._memory.logs = documents, logs

    async def get(self, collection: Collection, org: str, id_: str) -> Document | None:
        self._check_open()
        document = self._memory.documents.get((collection.name, org, id_))
        return None if document is None else _read(document)

    async def version(self, collection: Collection, org: str, id_: str) -> int | None:
        document = await self.get(collection, org, id_)
        return None if document is None else document.version

    async def find(
        self, collection: Collection, org: str, unique: str, value: str
    ) -> Document | None:
        self._check_open()
        for (name, owner, _), document in self._memory.documents.items():
            if (name, owner) == (collection.name, org) and document.fields[unique] == value:
                return _read(document)
        return None

    async def query(self, query: Query) -> list[Document]:
        self._check_open()
        names = {*query.collection.fields, *query.collection.unique}
        if unknown := query.equal.keys() - names:
            raise KeyError(unknown)
        found = sorted(
            (
                document
                for (name, org, _), document in self._memory.documents.items()
                if name == query.collection.name
                and query.org in {None, org}
                and query.equal.items() <= document.fields.items()
                and (query.from_time is None or document.create_time >= query.from_time)
                and (query.before_time is None or document.create_time < query.before_time)
                and document.terms.issuperset(query.terms)
                and _is_beyond(document, query)
            ),
            key=lambda document: _place(document, query.order),
            reverse=query.newest_first,
        )
        found = [replace(_read(document), content={}) for document in found[: query.limit]]
        return [replace(document, body={}) for document in found] if query.keys_only else found

    async def read(
        self, log: str, org: str, stream: str, after: int, *, limit: int, max_bytes: int
    ) -> list[Entry]:
        self._check_open()
        page: list[Entry] = []
        for entry in self._memory.logs.get((log, org, stream), [])[after : after + limit]:
            page.append(entry)
            if sum(len(one[1]) for one in page) >= max_bytes:
                break
        return page

    async def last(self, log: str, org: str, stream: str) -> Entry | None:
        self._check_open()
        entries = self._memory.logs.get((log, org, stream))
        return entries[-1] if entries else None

    async def close(self) -> None:
        self._closed = True

    def _check_open(self) -> None:
        if self._closed:
            raise store_unavailable()


def _do(write: Write, documents: Documents, logs: Logs) -> None:  # noqa: C901 one case a write
    match write:
        case Insert(collection, document):
            key = (collection.name, document.org, document.id)
            if key in documents:
                raise DuplicateError("id")
            documents[key] = _stored(collection, document, documents)
        case Replace(collection, document):
            key = (collection.name, document.org, document.id)
            earlier = documents.get(key)
            if earlier is None or earlier.version != document.version:
                raise ConflictError
            stored = _stored(collection, document, {k: v for k, v in documents.items() if k != key})
            create_time, version = earlier.create_time, earlier.version + 1
            documents[key] = replace(stored, create_time=create_time, version=version)
        case Delete(collection, org, id_, version):
            earlier = documents.get((collection.name, org, id_))
            if earlier is None or earlier.version != version:
                raise ConflictError
            del documents[collection.name, org, id_]
        case Append(log, org, stream, after, entries):
            kept = logs.get((log, org, stream), [])
            if len(kept) != after:
                raise ConflictError
            logs[log, org, stream] = [*kept, *entries]
        case Erase(log, org, stream):
            logs.pop((log, org, stream), None)
        case AtMost(collection, equal, limit):
            _check_limit(collection, equal, limit, documents)


def _check_limit(
    collection: Collection, equal: Mapping[str, str], limit: int, documents: Documents
) -> None:
    if unknown := equal.keys() - {*collection.fields, *collection.unique}:
        raise KeyError(unknown)
    matching = sum(
        name == collection.name and equal.items() <= document.fields.items()
        for (name, _, _), document in documents.items()
    )
    if matching >= limit:
        raise LimitError


def _stored(collection: Collection, document: Document, others: Documents) -> Document:
    if document.terms and not collection.searched:
        raise ValueError(collection.name)
    for (name, _, _), other in others.items():
        for column in collection.unique:
            if name == collection.name and other.fields[column] == document.fields[column]:
                raise DuplicateError(column)
    fields = {name: document.fields[name] for name in (*collection.fields, *collection.unique)}
    body: dict[str, Any] = orjson.loads(orjson.dumps(document.body))
    return replace(document, fields=fields, body=body)


def _add_missing_fields(documents: Documents, collection: Collection) -> None:
    for (name, org, id_), document in documents.items():
        if name == collection.name:
            joined = dict.fromkeys(collection.fields, "") | dict.fromkeys(collection.unique, id_)
            changed = replace(document, fields=joined | dict(document.fields))
            documents[name, org, id_] = changed


def _read(document: Document) -> Document:
    return replace(document, terms=frozenset())


def _is_beyond(document: Document, query: Query) -> bool:
    if query.after is None:
        return True
    place = _place(document, query.order)
    return place < query.after if query.newest_first else place > query.after


def _place(document: Document, order: str) -> tuple[Any, str]:
    return document.fields[order] if order else document.create_time, document.id
