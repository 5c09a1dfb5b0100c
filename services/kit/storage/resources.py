"""What people make as documents: whether it is deleted, and what stores refuse of it."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any

from services.kit.resources.deletions import Cascade, Life
from services.kit.resources.ports import FencedError, Place, TakenError
from services.kit.storage.ports import (
    Collection,
    ConflictError,
    Document,
    DuplicateError,
    Query,
    Store,
    Write,
)

LIFE_FIELDS = ("life", "cascade", "delete_key")
"""Join the fields of a collection of deletable things."""
LIFE_SWEPT = ("life", "cascade")
"""Join its swept ones."""

LIVE, DELETED, PURGING = "live", "deleted", "purging"
"""The values of the field `life`."""


def life_state(life: Life) -> str:
    """Print whether a thing is deleted: one of the values of the field `life`."""
    return LIVE if life.live else PURGING if life.purging else DELETED


def life_fields(life: Life) -> dict[str, str]:
    """Print what queries find a thing by: the values of LIFE_FIELDS.

    `delete_key` is when it was deleted; empty for what went with another, which is purged with that.
    """
    is_own = life.delete_time is not None and not life.inherited
    return {
        "life": life_state(life),
        "cascade": life.cascade.value,
        "delete_key": time_key(life.delete_time or 0) if is_own else "",
    }


def life_body(life: Life) -> dict[str, Any]:
    """Print the rest of a life, for a key `life` of a body; empty for one never deleted."""
    body = {
        "deletion": life.deletion,
        "delete_time": life.delete_time,
        "last_deletion": life.last_deletion,
        "inherited": life.inherited,
    }
    return {name: value for name, value in body.items() if value}


def read_life(fields: Mapping[str, str], body: Mapping[str, Any]) -> Life:
    """Read a life back.

    Args:
        fields: of the document.
        body: what `life_body` printed.
    """
    return Life(cascade=Cascade(fields["cascade"]), **body)


def time_key(time: int) -> str:
    """Print a time so that text has the order of time."""
    return f"{time:016d}"


async def pending(
    store: Store,
    collection: Collection,
    cascade: Cascade,
    org: str | None,
    after: Place | None,
    limit: int,
) -> Sequence[Place]:
    """Read a page of the things whose cascade is to be done, as `Roots.pending` says."""
    return await _places(store, collection, org, {"cascade": cascade.value}, after, limit)


async def deleted(
    store: Store, collection: Collection, after: Place | None, limit: int
) -> Sequence[Place]:
    """Read a page of what is deleted, as `Roots.deleted` says."""
    return await _places(store, collection, None, {"life": DELETED}, after, limit)


async def _places(
    store: Store,
    collection: Collection,
    org: str | None,
    equal: Mapping[str, str],
    after: Place | None,
    limit: int,
) -> Sequence[Place]:
    place = None if after is None else (after.create_time, after.id)
    query = Query(collection, org, equal, after=place, limit=limit, keys_only=True)
    return [_place(document) for document in await store.query(query)]


def _place(document: Document) -> Place:
    key = document.fields["delete_key"]
    time = int(key) if key else None
    return Place(document.org, document.id, document.create_time, time, document.version)


async def write(store: Store, *writes: Write) -> None:
    """Write documents.

    Raises:
        FencedError: one of them has another version by now, or is gone.
        TakenError: another one has the id or a unique key.
    """
    try:
        await store.write(*writes)
    except ConflictError:
        raise FencedError from None
    except DuplicateError as error:
        raise TakenError(error.field) from None


def number_key(number: int) -> str:
    """Print a number so that text has the order of numbers."""
    return f"{number:010d}"


def number_order(number: float) -> str:
    """Print any number so that text has the order of numbers, those below zero among them."""
    (bits,) = struct.unpack(">Q", struct.pack(">d", number))
    turned = bits ^ (2**64 - 1 if bits >> 63 else 2**63)
    return f"{turned:016x}"
