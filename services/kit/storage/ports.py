"""What a store, a queue and wake-ups promise, whichever adapter stands behind them.

The contract suites in `tests/contract` hold every adapter to these docstrings.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

from conductor.errors.v1.reason_pb2 import Reason
from services.kit.errors import DomainError


class ConflictError(Exception):
    """A document or log is not at the version the write expected; nothing of that write happened."""


class DuplicateError(Exception):
    """Another document has the same unique key.

    Attributes:
        field: the unique field, or `id`.
    """

    def __init__(self, field: str) -> None:
        super().__init__(f"duplicate {field}")
        self.field = field


class LimitError(Exception):
    """There are as many documents as there may be; nothing was written."""


class UnreadableStoreError(Exception):
    """A newer release wrote the store, or it is damaged; the message says what to do."""


def store_unavailable() -> DomainError:
    """Make the error for a store that does not answer."""
    return DomainError(
        Reason.REASON_STORE_UNAVAILABLE, "The store does not answer; try again.", retry_after=1.0
    )


def store_full() -> DomainError:
    """Make the error for a store whose disk is full."""
    return DomainError(
        Reason.REASON_STORE_FULL,
        "The store's disk is full; nothing was written. Free some space and try again.",
        retry_after=10.0,
    )


@dataclass(frozen=True, slots=True)
class Collection:
    """A kind of document.

    A field that joins it later is empty in what is stored already; a unique key that does is the id.
    An order that joins it later holds for what is stored already; terms are there from a document's
    next replace on.

    Raises:
        ValueError: a pair of `orders` names what is no field.
    """

    name: str
    fields: tuple[str, ...] = ()
    """Text fields that queries filter by; each has an index."""
    swept: tuple[str, ...] = ()
    """Those of the fields that queries over every organisation filter by."""
    unique: tuple[str, ...] = ()
    """Text fields no two documents share. Those of different organisations have to differ by
    themselves: a store that is parted by organisation holds no key over its parts."""
    orders: tuple[tuple[str, str], ...] = ()
    """Pairs of fields: an organisation's documents of one value of the first can be read in the order
    of the second, as fast as in the order of time. Text has the order of its code points."""
    searched: bool = False
    """Whether its documents can be found by terms."""
    schema_version: int = 1
    """The version of the bodies this release writes; a store with newer ones is refused."""

    def __post_init__(self) -> None:
        """Refuse orders nothing can keep."""
        for pair in self.orders:
            if not set(pair) <= set(self.fields):
                raise ValueError(f"{self.name} cannot be in the order of {pair}: no such fields")


@dataclass(frozen=True, slots=True)
class Document:
    """A stored thing.

    The key is `org` and `id`. `fields` holds every declared field and unique key; `body` is a JSON
    object. A body is empty when a query asked for keys only.
    """

    org: str
    id: str
    create_time: int
    """Microseconds since the epoch."""
    fields: Mapping[str, str]
    body: Mapping[str, Any] = field(default_factory=dict)
    version: int = 1
    """1 when inserted, one more with each replace."""
    content: Mapping[str, Any] = field(default_factory=dict)
    """The part of the body that may be large. Queries leave it out."""
    terms: frozenset[str] = frozenset()
    """What queries with terms find it by, in a collection that is searched. They are written whole with
    each insert and replace, and not read back: what is read has none."""


Entry: TypeAlias = tuple[int, bytes, str]
"""One entry of a log: sequence, data, and who appended it.

Sequences are 1, 2, 3, … within a stream, without gaps. Entries are rows as they are read: a class of
our own would cost more than reading them.
"""


@dataclass(frozen=True, slots=True)
class Insert:
    """Stores a new document. DuplicateError when its id or a unique key is taken."""

    collection: Collection
    document: Document


@dataclass(frozen=True, slots=True)
class Replace:
    """Replaces a document whose version is `document.version`; it becomes one more.

    ConflictError when it has another version or is gone; DuplicateError for a taken unique key.
    """

    collection: Collection
    document: Document


@dataclass(frozen=True, slots=True)
class Delete:
    """Deletes a document of that version. ConflictError when it has another version or is gone."""

    collection: Collection
    org: str
    id: str
    version: int


@dataclass(frozen=True, slots=True)
class Append:
    """Appends to a log after the entry with sequence `after` (0: to an empty log).

    The entries are numbered `after + 1` and on. ConflictError when the log does not end at `after`.
    """

    log: str
    org: str
    stream: str
    after: int
    entries: Sequence[Entry]


@dataclass(frozen=True, slots=True)
class Erase:
    """Deletes a whole stream of a log; nothing happens when there is none."""

    log: str
    org: str
    stream: str


@dataclass(frozen=True, slots=True)
class AtMost:
    """Lets the writes after it happen only while fewer than `limit` documents match.

    LimitError otherwise. An adapter that cannot count and write in one step may let as many more
    through as others write at the same moment.
    """

    collection: Collection
    equal: Mapping[str, str]
    """Values of declared fields, one of them best a swept one: every organisation's documents count."""
    limit: int


Write = Insert | Replace | Delete | Append | Erase | AtMost


@dataclass(frozen=True, slots=True)
class Query:
    """Which documents: all that match every given condition, in order and then by id.

    `org` None means every organisation and is for the mesh's own sweeps only.

    Raises:
        KeyError: the collection does not have the order, or not for these conditions.
        ValueError: terms for a collection that is not searched, or of every organisation.
        TypeError: a place in another order.
    """

    collection: Collection
    org: str | None
    equal: Mapping[str, str] = field(default_factory=dict)
    """Values of declared fields or unique keys."""
    from_time: int | None = None
    """Created at this time or later."""
    before_time: int | None = None
    """Created before this time."""
    after: tuple[int | str, str] | None = None
    """Keyset: only documents beyond this place in the direction asked for; a place is the create time,
    or the value of the field that orders, and the id."""
    limit: int = 50
    newest_first: bool = False
    """The other way round, whatever orders."""
    keys_only: bool = False
    """Leave the bodies out."""
    order: str = ""
    """The field that orders: the second of one of the collection's `orders` whose first is in `equal`.
    Empty: the create time."""
    terms: tuple[str, ...] = ()
    """Only documents that have all of these."""

    def __post_init__(self) -> None:
        """Refuse what no caller may ask."""
        name = self.collection.name
        if self.order and self.leader() is None:
            raise KeyError(f"{name} is not kept in the order of {self.order} for {set(self.equal)}")
        if self.terms and not self.collection.searched:
            raise ValueError(f"{name} is not searched")
        if self.terms and self.org is None:
            raise ValueError(f"{name} is searched by one organisation at a time")
        if self.after is not None and isinstance(self.after[0], str) != bool(self.order):
            raise TypeError(f"{self.after} is no place in the order of {self.order or 'time'}")

    def leader(self) -> str | None:
        """Name the field of `equal` within whose value documents are kept in the order asked for."""
        pairs = self.collection.orders
        return next((a for a, b in pairs if b == self.order and a in self.equal), None)


class Store(Protocol):
    """Documents and logs.

    Every method raises DomainError STORE_UNAVAILABLE when the store does not answer and STORE_FULL
    when its disk is full. Reads see every write that was answered before.
    """

    async def write(self, *writes: Write) -> None:
        """Do the writes in order; durable when this returns.

        Each write is atomic. A write that fails stops those after it; whether those before it stay
        is the adapter's (SQLite undoes them, MongoDB keeps them), so callers order their writes such
        that each prefix is a good state.
        """
        ...

    async def get(self, collection: Collection, org: str, id_: str) -> Document | None:
        """Read a document by key."""
        ...

    async def version(self, collection: Collection, org: str, id_: str) -> int | None:
        """Read only the version of a document."""
        ...

    async def find(
        self, collection: Collection, org: str, unique: str, value: str
    ) -> Document | None:
        """Read a document of an organisation by one of its unique keys."""
        ...

    async def query(self, query: Query) -> list[Document]:
        """Read a page of documents, without their content."""
        ...

    async def read(
        self, log: str, org: str, stream: str, after: int, *, limit: int, max_bytes: int
    ) -> list[Entry]:
        """Read entries after a sequence.

        Stops at `limit` entries or once their data reaches `max_bytes`; never answers an empty page
        while there are entries left.
        """
        ...

    async def last(self, log: str, org: str, stream: str) -> Entry | None:
        """Read the newest entry of a stream."""
        ...

    async def close(self) -> None:
        """Finish the writes under way and let go of the store."""
        ...


class Wakeups(Protocol):
    """Tells others that something changed. A hint: it may be lost, late, doubled or for nothing."""

    async def publish(self, channel: str) -> None:
        """Wake everyone subscribed to a channel. Never raises for an unreachable broker."""
        ...

    def subscribe(self, channel: str, wake: Callable[[], None]) -> Callable[[], None]:
        """Call `wake` on the event loop for each wake-up of a channel; returns the way to stop."""
        ...


class WorkQueue(Protocol):
    """Hands items to whoever takes them first. A hint: the store says what is due."""

    async def put(self, item: str) -> None:
        """Add an item; one that waits already is not added again.

        Never raises for an unreachable broker.
        """
        ...

    async def take(self) -> str:
        """Wait for the oldest item and take it.

        Whoever takes it calls `done`; an item whose taker dies before that may be taken again.
        """
        ...

    async def done(self, item: str) -> None:
        """Say that a taken item is in good hands. Never raises for an unreachable broker."""
        ...
