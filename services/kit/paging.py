"""Paging: page sizes, and opaque page tokens that are bound to the filters they were made for."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import orjson

from conductor.errors.v1.reason_pb2 import Reason
from services.kit.errors import DomainError, Violation

DEFAULT_PAGE_SIZE = 50
MAX_PAGE_SIZE = 200

Position = tuple[int, str]
"""The create time in microseconds and the id of the last row of a page."""


class Listing(Protocol):
    """A request for a page, as every List rpc has it."""

    page_size: int
    page_token: str


class Row(Protocol):
    """What lists are in the order of."""

    @property
    def create_time(self) -> int:
        """Microseconds since the epoch."""
        ...

    @property
    def id(self) -> str:
        """What orders rows of one time."""
        ...


@dataclass(frozen=True, slots=True)
class Page:
    """A page that is asked for; rows are read one more than its size, to know whether more follow."""

    size: int
    after: Position | None
    filters: Any

    def next_token(self, found: Sequence[Row], shown: int) -> str:
        """Make the token of the page after this one; empty when this is the last.

        Args:
            found: the rows that were read.
            shown: how many of them the page holds.
        """
        if len(found) <= shown:
            return ""
        last = found[shown - 1]
        return encode_token((last.create_time, last.id), self.filters)


def page(request: Listing, filters: Any) -> Page:
    """Read which page a request asks for.

    Raises:
        DomainError: PAGE_TOKEN_INVALID, when its token was not made for these filters.
    """
    after = decode_token(request.page_token, filters)
    return Page(page_size(request.page_size), after, filters)


def page_size(requested: int) -> int:
    """Coerce a page size: 0 is the default, more than the most is the most."""
    return min(requested or DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE)


def encode_token(position: Position, filters: Any) -> str:
    """Make the token of the page after a position.

    Args:
        filters: what the list was filtered by, as JSON-able values.
    """
    raw = orjson.dumps([position[0], position[1], _digest(filters)])
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def decode_token(token: str, filters: Any) -> Position | None:
    """Read a token back; an empty one is the first page.

    Raises:
        DomainError: PAGE_TOKEN_INVALID, when it was not made for these filters.
    """
    if not token:
        return None
    try:
        raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        match orjson.loads(raw):
            case [int() as time, str() as id_, str() as digest]:
                # Whoever makes up a token can make up its digest, too.
                if type(time) is int and 0 <= time < 2**63 and digest == _digest(filters):
                    return time, id_
    except (binascii.Error, ValueError):
        pass
    description = "is not a token of this list with these filters; leave it empty to begin again"
    raise DomainError(
        Reason.REASON_PAGE_TOKEN_INVALID,
        f"page_token: {description}",
        violations=[Violation("page_token", description)],
    )


def _digest(filters: Any) -> str:
    return hashlib.sha256(orjson.dumps(filters, option=orjson.OPT_SORT_KEYS)).hexdigest()[:16]
