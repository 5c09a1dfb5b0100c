"""Paging: page sizes, and opaque page tokens that are bound to the filters they were made for."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar, overload

import orjson

from conductor.errors.v1.reason_pb2 import Reason
from services.kit.errors import DomainError, Violation

DEFAULT_PAGE_SIZE = 50
MAX_PAGE_SIZE = 200

Position = tuple[int | str, str]
"""The value that orders a list, and the id, of the last row of a page.

The value is the create time in microseconds, or text in lists that are in another order.
"""


class Listing(Protocol):
    """A request for a page, as every List rpc has it."""

    page_size: int
    page_token: str


class Row(Protocol):
    """What a row of a list has, and lists are in the order of unless they say otherwise."""

    @property
    def create_time(self) -> int:
        """Microseconds since the epoch."""
        ...

    @property
    def id(self) -> str:
        """What orders rows of one time."""
        ...


Value = TypeVar("Value", bound=int | str)
Found = TypeVar("Found", bound=Row)


@dataclass(frozen=True, slots=True)
class Page(Generic[Value]):
    """A page that is asked for; rows are read one more than its size, to know whether more follow."""

    size: int
    after: tuple[Value, str] | None
    filters: Any

    def next_token(
        self,
        found: Sequence[Found],
        shown: int,
        place: Callable[[Found], Position] | None = None,
    ) -> str:
        """Make the token of the page after this one; empty when this is the last.

        Args:
            found: the rows that were read.
            shown: how many of them the page holds.
            place: tells a row's place in the list; None is its create time and id.
        """
        if len(found) <= shown:
            return ""
        last = found[shown - 1]
        position = (last.create_time, last.id) if place is None else place(last)
        return encode_token(position, self.filters)


@overload
def page(request: Listing, filters: Any) -> Page[int]: ...
@overload
def page(request: Listing, filters: Any, kind: type[int | str]) -> Page[int | str]: ...
def page(request: Listing, filters: Any, kind: type[int | str] = int) -> Page[Any]:
    """Read which page a request asks for.

    Args:
        filters: what the list is filtered by, and its order when there are several, as JSON-able
            values.
        kind: of the value that orders the list: `int` for a time, `str` for text.

    Raises:
        DomainError: PAGE_TOKEN_INVALID, when its token was not made for these filters.
    """
    after = decode_token(request.page_token, filters, kind)
    return Page(page_size(request.page_size), after, filters)


def page_size(requested: int) -> int:
    """Coerce a page size: 0 is the default, more than the most is the most."""
    return min(requested or DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE)


def encode_token(position: Position, filters: Any) -> str:
    """Make the token of the page after a position.

    Args:
        filters: as `page` has them.
    """
    raw = orjson.dumps([position[0], position[1], _digest(filters)])
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def decode_token(token: str, filters: Any, kind: type[int | str] = int) -> Position | None:
    """Read a token back; an empty one is the first page.

    Args:
        kind: of the value that orders the list.

    Raises:
        DomainError: PAGE_TOKEN_INVALID, when it was not made for these filters.
    """
    if not token:
        return None
    try:
        raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        match orjson.loads(raw):
            case [int() | str() as value, str() as id_, str() as digest]:
                # Whoever makes up a token can make up its digest, too.
                is_sound = isinstance(value, str) or 0 <= value < 2**63
                if type(value) is kind and is_sound and digest == _digest(filters):
                    return value, id_
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
