"""Instances, and what was heard of what they belong to, as documents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import orjson

from services.conversations.domain.instances import (
    AGENT,
    CONVERSATION,
    SCREENPLAY,
    Instance,
    Order,
    Position,
    Status,
    Wanted,
    config_text,
)
from services.conversations.domain.parents import Kind, Parent
from services.kit.resources.deletions import Cascade, Life
from services.kit.resources.ports import Place
from services.kit.storage.ports import Collection, Delete, Document, Insert, Query, Replace, Store
from services.kit.storage.resources import (
    DELETED,
    LIFE_FIELDS,
    LIFE_SWEPT,
    LIVE,
    deleted,
    life_body,
    life_fields,
    life_state,
    number_order,
    pending,
    read_life,
    write,
)

_KIN = {AGENT: "agent_id", SCREENPLAY: "screenplay_id", CONVERSATION: "conversation_id"}
INSTANCES = Collection(
    "instances",
    fields=(*LIFE_FIELDS, "shown", "home", "status", *_KIN.values(), "display_key"),
    swept=LIFE_SWEPT,
    unique=("request_key",),
    orders=(("home", "display_key"), ("shown", "display_key")),
)
PARENTS = Collection("parents")
_PLAIN = (
    "update_time",
    "cwd",
    "emoji",
    "display_order",
    "mcp_configs",
    "is_system_default",
    "is_hidden",
    "revision",
    "request_id",
    "digest",
)
_EMPTY: tuple[object, ...] = ("", (), {}, None, False)


class StoredInstances:
    """Instances over the storage ports."""

    kind = "instance"

    def __init__(self, store: Store) -> None:
        self._store = store

    async def add(self, instance: Instance) -> Instance:
        """Store a new instance."""
        await write(self._store, Insert(INSTANCES, to_document(instance)))
        return instance

    async def get(self, org: str, id_: str) -> Instance | None:
        """Read an instance, deleted or not."""
        document = await self._store.get(INSTANCES, org, id_)
        return None if document is None else from_document(document)

    async def save(self, thing: Instance) -> Instance:
        """Store a changed instance."""
        await write(self._store, Replace(INSTANCES, to_document(thing)))
        return replace(thing, version=thing.version + 1)

    async def save_all(self, instances: Sequence[Instance]) -> None:
        """Store changed instances."""
        changes = (Replace(INSTANCES, to_document(one)) for one in instances)
        await write(self._store, *changes)

    async def remove(self, thing: Instance) -> None:
        """Remove an instance for good."""
        await write(self._store, Delete(INSTANCES, thing.org, thing.id, thing.version))

    async def by_request_id(self, org: str, request_id: str) -> Instance | None:
        """Read the instance a request_id made."""
        key = _request_key(org, request_id)
        document = await self._store.find(INSTANCES, org, "request_key", key)
        return None if document is None else from_document(document)

    async def list(
        self, org: str, wanted: Wanted, after: tuple[int | str, str] | None, limit: int
    ) -> Sequence[Instance]:
        """Read a page of instances."""
        shown = DELETED if wanted.deleted else LIVE
        equal = (
            {"home": _home(shown, wanted.conversation_id)}
            if wanted.conversation_id
            else {"shown": shown}
        )
        narrower = {
            "agent_id": wanted.agent_id,
            "screenplay_id": wanted.screenplay_id,
            "status": wanted.status or "",
        }
        query = Query(
            INSTANCES,
            org,
            equal | {name: value for name, value in narrower.items() if value},
            after=after,
            limit=limit,
            newest_first=wanted.newest_first,
            order="display_key" if wanted.order is Order.DISPLAY else "",
        )
        return [from_document(document) for document in await self._store.query(query)]

    def place(self, instance: Instance, wanted: Wanted) -> tuple[int | str, str]:
        """Tell the place of an instance in a list."""
        if wanted.order is Order.DISPLAY:
            return number_order(instance.display_order), instance.id
        return instance.create_time, instance.id

    async def ids(
        self, org: str, kind: str, of: str, after: tuple[int, str] | None, limit: int
    ) -> Sequence[tuple[int, str]]:
        """Read create times and ids of instances, oldest first."""
        query = Query(INSTANCES, org, {_KIN[kind]: of}, after=after, limit=limit, keys_only=True)
        return [(found.create_time, found.id) for found in await self._store.query(query)]

    async def pending(
        self, cascade: Cascade, org: str | None, after: Place | None, limit: int
    ) -> Sequence[Place]:
        """Read a page of the instances whose cascade is to be done."""
        return await pending(self._store, INSTANCES, cascade, org, after, limit)

    async def deleted(self, after: Place | None, limit: int) -> Sequence[Place]:
        """Read a page of the instances that are deleted."""
        return await deleted(self._store, INSTANCES, after, limit)


class StoredParents:
    """What was heard of the deletions of things, over the storage ports."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def get(self, org: str, kind: Kind, id_: str) -> Parent | None:
        """Read what was heard of a thing."""
        document = await self._store.get(PARENTS, org, _parent_id(kind, id_))
        if document is None:
            return None
        return Parent(
            org, kind, id_, document.create_time, version=document.version, **document.body
        )

    async def add(self, parent: Parent) -> Parent:
        """Store what was heard first."""
        await write(self._store, Insert(PARENTS, _parent_document(parent)))
        return parent

    async def save(self, parent: Parent) -> Parent:
        """Store what is newer."""
        await write(self._store, Replace(PARENTS, _parent_document(parent)))
        return replace(parent, version=parent.version + 1)


def to_document(instance: Instance) -> Document:
    """Print an instance; its config is the part that lists leave out."""
    body: dict[str, Any] = {name: getattr(instance, name) for name in _PLAIN}
    body["position"] = None if instance.position is None else asdict(instance.position)
    body["life"] = life_body(instance.life)
    body["ties"] = {to: life_body(life) for to, life in instance.ties.items()}
    org, shown = instance.org, life_state(instance.fate)
    return Document(
        org=org,
        id=instance.id,
        create_time=instance.create_time,
        version=instance.version,
        fields={
            **life_fields(instance.life),
            "shown": shown,
            "home": _home(shown, instance.conversation_id),
            "status": instance.status.value,
            **{name: getattr(instance, name) for name in _KIN.values()},
            "display_key": number_order(instance.display_order),
            "request_key": _request_key(org, instance.request_id)
            if instance.request_id
            else f"{org}/{instance.id}",
        },
        body={name: value for name, value in body.items() if value not in _EMPTY},
        # As text: stores have opinions on the keys of objects, and here any text is one.
        content={"config": config_text(instance.config).decode()} if instance.config else {},
    )


def from_document(document: Document) -> Instance:
    """Read an instance; from a query it has no config."""
    body, fields = dict(document.body), document.fields
    position = body.pop("position", None)
    return Instance(
        org=document.org,
        id=document.id,
        create_time=document.create_time,
        version=document.version,
        status=Status(fields["status"]),
        agent_id=fields["agent_id"],
        screenplay_id=fields["screenplay_id"],
        conversation_id=fields["conversation_id"],
        position=None if position is None else Position(**position),
        config=_config(document.content),
        mcp_configs=tuple(body.pop("mcp_configs", ())),
        life=read_life(fields, body.pop("life", {})),
        ties={to: Life(**life) for to, life in body.pop("ties", {}).items()},
        **body,
    )


def _config(content: Mapping[str, Any]) -> Mapping[str, Any]:
    config: dict[str, Any] = orjson.loads(content["config"]) if "config" in content else {}
    return config


def _parent_document(parent: Parent) -> Document:
    body = {
        "deletion": parent.deletion,
        "delete_time": parent.delete_time,
        "gone": parent.gone,
    }
    id_ = _parent_id(parent.kind, parent.id)
    return Document(parent.org, id_, parent.create_time, {}, body, parent.version)


def _parent_id(kind: Kind, id_: str) -> str:
    return f"{kind.value}/{id_}"


def _home(shown: str, conversation_id: str) -> str:
    """Make what those of one conversation have in common, which are deleted or not."""
    return f"{shown}/{conversation_id}"


def _request_key(org: str, request_id: str) -> str:
    return f"{org}/CreateInstance/{request_id}"
