"""Screenplays and the texts they had, as documents."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from services.content.domain.screenplays import Order, Screenplay, Text, Wanted, name_key, text_id
from services.kit.resources.deletions import Cascade
from services.kit.resources.ports import Place, TakenError
from services.kit.resources.words import query_terms, terms
from services.kit.storage.ports import (
    Collection,
    ConflictError,
    Delete,
    Document,
    Insert,
    Query,
    Replace,
    Store,
)
from services.kit.storage.resources import (
    DELETED,
    LIFE_FIELDS,
    LIFE_SWEPT,
    LIVE,
    deleted,
    life_body,
    life_fields,
    number_key,
    pending,
    read_life,
    time_key,
    write,
)

SCREENPLAYS = Collection(
    "screenplays",
    fields=(*LIFE_FIELDS, "content_key", "name_key", "use_key", "update_key"),
    swept=LIFE_SWEPT,
    unique=("file_key", "import_key", "request_key"),
    orders=(("life", "name_key"), ("life", "use_key"), ("life", "update_key")),
    searched=True,
)
TEXTS = Collection(
    "screenplay_texts",
    fields=("screenplay_id", "revision_key"),
    orders=(("screenplay_id", "revision_key"),),
)
_ORDERS = {
    Order.LAST_USE_TIME: "use_key",
    Order.NAME: "name_key",
    Order.CREATE_TIME: "",
    Order.UPDATE_TIME: "update_key",
}
_EMPTY: tuple[object, ...] = ("", (), {})
_KEYS = {"file_path": "file_key", "import_path": "import_key"}


class StoredScreenplays:
    """Screenplays over the storage ports."""

    kind = "screenplay"

    def __init__(self, store: Store) -> None:
        self._store = store

    async def add(self, screenplay: Screenplay) -> Screenplay:
        """Store a new screenplay."""
        await write(self._store, Insert(SCREENPLAYS, to_document(screenplay)))
        return screenplay

    async def get(self, org: str, id_: str) -> Screenplay | None:
        """Read a screenplay, deleted or not."""
        document = await self._store.get(SCREENPLAYS, org, id_)
        return None if document is None else from_document(document)

    async def save(self, thing: Screenplay) -> Screenplay:
        """Store a changed screenplay."""
        await write(self._store, Replace(SCREENPLAYS, to_document(thing)))
        return replace(thing, version=thing.version + 1)

    async def save_text(self, screenplay: Screenplay, replaced: Text) -> Screenplay:
        """Store the text that goes, and then the screenplay with the one that comes."""
        change = Replace(SCREENPLAYS, to_document(screenplay))
        try:
            await write(self._store, Insert(TEXTS, text_to_document(replaced)), change)
        except TakenError as error:
            if error.field != "id":
                raise
            # Somebody came no further than that.
            await write(self._store, change)
        return replace(screenplay, version=screenplay.version + 1)

    async def remove(self, thing: Screenplay) -> None:
        """Remove a screenplay for good."""
        await write(self._store, Delete(SCREENPLAYS, thing.org, thing.id, thing.version))

    async def by_request_id(self, org: str, request_id: str) -> Screenplay | None:
        """Read the screenplay a request_id made."""
        return await self._found(org, "request_key", _request_key(org, request_id))

    async def by_path(self, org: str, field: str, path: str) -> Screenplay | None:
        """Read the screenplay that has a path."""
        return await self._found(org, _KEYS[field], path_key(org, path))

    async def by_content(self, org: str, content_hash: str, limit: int) -> Sequence[Screenplay]:
        """Read screenplays with an equal text."""
        query = Query(SCREENPLAYS, org, {"content_key": content_hash}, limit=limit)
        return [from_document(document) for document in await self._store.query(query)]

    async def list(
        self, org: str, wanted: Wanted, after: tuple[int | str, str] | None, limit: int
    ) -> Sequence[Screenplay]:
        """Read a page of screenplays."""
        query = Query(
            SCREENPLAYS,
            org,
            {"life": DELETED if wanted.deleted else LIVE},
            after=after,
            limit=limit,
            newest_first=(wanted.order is not Order.NAME) != wanted.reverse,
            order=_ORDERS[wanted.order],
            terms=query_terms(wanted.query, wanted.tags),
        )
        return [from_document(document) for document in await self._store.query(query)]

    def place(self, screenplay: Screenplay, wanted: Wanted) -> tuple[int | str, str]:
        """Tell the place of a screenplay in a list."""
        order = _ORDERS[wanted.order]
        return (_orders(screenplay)[order] if order else screenplay.create_time), screenplay.id

    async def pending(
        self, cascade: Cascade, org: str | None, after: Place | None, limit: int
    ) -> Sequence[Place]:
        """Read a page of the screenplays whose cascade is to be done."""
        return await pending(self._store, SCREENPLAYS, cascade, org, after, limit)

    async def deleted(self, after: Place | None, limit: int) -> Sequence[Place]:
        """Read a page of the screenplays that are deleted."""
        return await deleted(self._store, SCREENPLAYS, after, limit)

    async def _found(self, org: str, unique: str, value: str) -> Screenplay | None:
        document = await self._store.find(SCREENPLAYS, org, unique, value)
        return None if document is None else from_document(document)


class StoredTexts:
    """Texts over the storage ports."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def get(self, org: str, screenplay_id: str, revision: int) -> Text | None:
        """Read a text."""
        document = await self._store.get(TEXTS, org, text_id(screenplay_id, revision))
        return None if document is None else text_from_document(document)

    async def list(self, org: str, screenplay_id: str, below: int, limit: int) -> Sequence[Text]:
        """Read texts, newest first."""
        query = Query(
            TEXTS,
            org,
            {"screenplay_id": screenplay_id},
            # No id comes before an empty one, so the revision itself is left out.
            after=(number_key(below), ""),
            limit=limit,
            newest_first=True,
            order="revision_key",
        )
        return [text_from_document(document) for document in await self._store.query(query)]

    async def remove(self, *texts: Text) -> None:
        """Remove texts; when somebody else removes some of them meanwhile, others may stay."""
        with suppress(ConflictError):
            await self._store.write(
                *(Delete(TEXTS, text.org, text.id, text.version) for text in texts)
            )


def to_document(screenplay: Screenplay) -> Document:
    """Print a screenplay; its text is the part that lists leave out."""
    body: dict[str, Any] = {
        name: getattr(screenplay, name)
        for name in (
            "name",
            "description",
            "tags",
            "content_bytes",
            "content_hash",
            "working_directory",
            "file_path",
            "import_path",
            "export_path",
            "update_time",
            "last_use_time",
            "revision",
            "text_revision",
            "text_time",
            "text_author",
            "request_id",
            "digest",
        )
    }
    body["life"] = life_body(screenplay.life)
    texts = (screenplay.name, *screenplay.tags, screenplay.description)
    org, is_live = screenplay.org, screenplay.life.live
    # What has no path and what is deleted has a key that no path looks like.
    none = f"{org}/{screenplay.id}"
    return Document(
        org=org,
        id=screenplay.id,
        create_time=screenplay.create_time,
        version=screenplay.version,
        fields={
            **life_fields(screenplay.life),
            **_orders(screenplay),
            "content_key": screenplay.content_hash if is_live else "",
            "request_key": _request_key(org, screenplay.request_id)
            if screenplay.request_id
            else none,
            **{
                key: path_key(org, path) if is_live and (path := body[name]) else none
                for name, key in _KEYS.items()
            },
        },
        body={name: value for name, value in body.items() if value not in _EMPTY},
        content={"content": screenplay.content} if screenplay.content else {},
        terms=terms(texts, screenplay.tags),
    )


def from_document(document: Document) -> Screenplay:
    """Read a screenplay; from a query it has no text."""
    body = dict(document.body)
    life = read_life(document.fields, body.pop("life", {}))
    return Screenplay(
        org=document.org,
        id=document.id,
        create_time=document.create_time,
        version=document.version,
        life=life,
        tags=tuple(body.pop("tags", ())),
        content=document.content.get("content", ""),
        **body,
    )


def text_to_document(text: Text) -> Document:
    """Print a text."""
    body = {
        "content_bytes": text.content_bytes,
        "content_hash": text.content_hash,
        "author": text.author,
    }
    return Document(
        org=text.org,
        id=text.id,
        create_time=text.create_time,
        version=text.version,
        fields={
            "screenplay_id": text.screenplay_id,
            "revision_key": number_key(text.revision),
        },
        body=body,
        content={"content": text.content},
    )


def text_from_document(document: Document) -> Text:
    """Read a text; from a query it is without the text itself."""
    return Text(
        org=document.org,
        screenplay_id=document.fields["screenplay_id"],
        revision=int(document.fields["revision_key"]),
        create_time=document.create_time,
        version=document.version,
        content=document.content.get("content", ""),
        **document.body,
    )


def _orders(screenplay: Screenplay) -> dict[str, str]:
    return {
        "name_key": name_key(screenplay.name),
        "use_key": time_key(screenplay.last_use_time),
        "update_key": time_key(screenplay.update_time),
    }


def path_key(org: str, path: str) -> str:
    """Make the unique key of a path."""
    return f"{org}/{path}"


def _request_key(org: str, request_id: str) -> str:
    return f"{org}/CreateScreenplay/{request_id}"
