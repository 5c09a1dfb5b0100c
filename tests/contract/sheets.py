"""Documents to order and to find, and which of them a query has to find."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

from services.kit.storage.ports import Collection, Document, Query, Store

SHEETS = Collection(
    "sheets",
    fields=("shelf", "name", "touched"),
    unique=("path",),
    orders=(("shelf", "name"), ("shelf", "touched")),
    searched=True,
)

NAMES = (
    "",
    "A",
    "Z",
    "a",
    "a ",
    "aa",
    "ab",
    "e\u0301",
    "z",
    "é",
    "ﬀ",
    "\uff5e",
    "\U0001d11e",
    "'; --",
)
"""Names in no order of any language; U+1D11E comes after U+FF5E, but before it in UTF-16."""


def sheet(id_: str, org: str = "acme", **changes: Any) -> Document:
    """Make a document of the collection."""
    fields = {"shelf": "live", "name": id_, "touched": "", "path": f"{org}/{id_}"}
    fields |= changes.pop("fields", {})
    return Document(org, id_, changes.pop("create_time", 1000), fields, **changes)


def shelves(org: str = "acme") -> list[Document]:
    """Make documents with every tie there may be, in no order."""
    made = []
    for number in range(28):
        terms = {"all"}
        terms |= {"even"} if number % 2 == 0 else set()
        terms |= {"third"} if number % 3 == 0 else set()
        terms |= {"rare"} if number in {4, 12, 20} else set()
        fields = {
            "shelf": "trash" if number % 7 == 6 else "live",
            "name": NAMES[number * 5 % len(NAMES)],
            "touched": f"{number % 4:03}",
        }
        made.append(
            sheet(
                f"{org[0]}{number:02}",
                org,
                create_time=100 + number // 3,
                fields=fields,
                terms=frozenset(terms),
            )
        )
    return sorted(made, key=lambda one: (int(one.id[1:]) * 11) % 28)


def queries() -> list[Query]:
    """Ask for every combination of what can be asked."""
    orders = ("", "name", "touched")
    terms: tuple[tuple[str, ...], ...] = (
        (),
        ("all",),
        ("rare",),
        ("even", "third"),
        ("all", "rare", "even"),
        ("all", "nowhere"),
    )
    made = [
        Query(SHEETS, "acme", {"shelf": "live"}, limit=4, order=order, newest_first=back, terms=has)
        for order, back, has in itertools.product(orders, (False, True), terms)
    ]
    made += [replace(query, equal={}) for query in made if query.terms and not query.order]
    made += [
        replace(query, equal={"shelf": "live", "touched": "000"}, from_time=102, before_time=107)
        for query in made
        if query.equal and query.newest_first
    ]
    made += [
        replace(query, equal={"shelf": "trash"})
        for query in made
        if query.equal and query.terms in {(), ("all",)} and query.from_time is None
    ]
    made += [
        replace(query, org=None) for query in made if not query.terms and query.from_time is None
    ]
    return made


def expected(documents: list[Document], query: Query) -> list[str]:
    """Name the documents that match, in their order."""
    matching = [
        one
        for one in documents
        if query.org in {None, one.org}
        and query.equal.items() <= one.fields.items()
        and (query.from_time is None or one.create_time >= query.from_time)
        and (query.before_time is None or one.create_time < query.before_time)
        and set(query.terms) <= one.terms
    ]
    return [
        one.id
        for one in sorted(
            matching, key=lambda one: place(one, query.order), reverse=query.newest_first
        )
    ]


def place(document: Document, order: str) -> tuple[Any, str]:
    """Where a document stands."""
    # Python, too, orders text by code point.
    return document.fields[order] if order else document.create_time, document.id


async def read(store: Store, query: Query) -> list[str]:
    """Read all pages."""
    seen: list[str] = []
    while found := await store.query(query):
        seen += [one.id for one in found]
        query = replace(query, after=place(found[-1], query.order))
    return seen
