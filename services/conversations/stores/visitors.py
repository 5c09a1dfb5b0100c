"""Those who came lately, as documents."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from services.conversations.domain.visits import Visitor
from services.kit.resources.ports import FencedError, TakenError
from services.kit.storage.ports import Collection, Delete, Document, Insert, Query, Replace, Store
from services.kit.storage.resources import write

_KEPT = "yes"

VISITORS = Collection("visitors", fields=("kept",), swept=("kept",))
"""All of them have the same `kept`, so that its index is that of time over all organisations."""


class StoredVisitors:
    """Visitors over the storage ports."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def get(self, org: str, id_: str) -> Visitor | None:
        """Read when somebody came."""
        document = await self._store.get(VISITORS, org, id_)
        return None if document is None else _from_document(document)

    async def save(self, visitor: Visitor) -> None:
        """Store when somebody came."""
        document = Document(
            org=visitor.org,
            id=visitor.id,
            create_time=visitor.first_time,
            version=visitor.version or 1,
            fields={"kept": _KEPT},
            body={"times": list(visitor.times)},
        )
        try:
            await write(
                self._store,
                Replace(VISITORS, document) if visitor.version else Insert(VISITORS, document),
            )
        except TakenError:
            raise FencedError from None

    async def page(self, after: Visitor | None, limit: int) -> Sequence[Visitor]:
        """Read a page of those of all organisations."""
        place = None if after is None else (after.first_time, after.id)
        query = Query(VISITORS, None, {"kept": _KEPT}, after=place, limit=limit)
        return [_from_document(document) for document in await self._store.query(query)]

    async def remove(self, visitor: Visitor) -> None:
        """Forget somebody."""
        with suppress(FencedError):
            await write(self._store, Delete(VISITORS, visitor.org, visitor.id, visitor.version))


def _from_document(document: Document) -> Visitor:
    return Visitor(
        document.org,
        document.id,
        document.create_time,
        tuple(document.body["times"]),
        version=document.version,
    )
