"""Conversations as documents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from services.conversations.domain.conversations import (
    Conversation,
    Order,
    Wanted,
    title_key,
)
from services.conversations.domain.messages import Change, Message, Reference
from services.conversations.domain.turns import Policy, Turn
from services.conversations.stores import messages
from services.conversations.stores.messages import reference_from_body, reference_to_body
from services.kit.resources.deletions import Cascade
from services.kit.resources.ports import Place
from services.kit.resources.words import query_terms, terms
from services.kit.storage.ports import Collection, Delete, Document, Insert, Query, Replace, Store
from services.kit.storage.resources import (
    DELETED,
    LIFE_FIELDS,
    LIFE_SWEPT,
    LIVE,
    deleted,
    life_body,
    life_fields,
    number_order,
    pending,
    read_life,
    time_key,
    write,
)

_KEYS = ("update_key", "title_key", "display_key")
CONVERSATIONS = Collection(
    "conversations",
    fields=(*LIFE_FIELDS, "screenplay_id", "home", "visitor", *_KEYS),
    swept=(*LIFE_SWEPT, "visitor"),
    unique=("request_key",),
    orders=(
        *(("life", key) for key in _KEYS),
        *(("home", key) for key in _KEYS),
    ),
    searched=True,
)
_ORDERS = {
    Order.UPDATE_TIME: "update_key",
    Order.CREATE_TIME: "",
    Order.TITLE: "title_key",
    Order.DISPLAY: "display_key",
}
_PLAIN = (
    "title",
    "update_time",
    "max_chain_depth",
    "allowed_agents",
    "display_order",
    "revision",
    "head",
    "message_count",
    "told_count",
    "preview",
    "preview_position",
    "cloned_from",
    "instance_ids",
    "screenplay_deletion",
    "request_id",
    "request_rpc",
    "digest",
)
_VISITING = "visiting"
"""The `life` of the talks of visitors that are not deleted: of these there may be any number, and no list of
the others passes over them."""
_EMPTY: tuple[object, ...] = ("", 0, (), [], {}, None)


class StoredConversations:
    """Conversations over the storage ports."""

    kind = "conversation"

    def __init__(self, store: Store) -> None:
        self._store = store

    async def add(self, conversation: Conversation) -> Conversation:
        """Store a new conversation."""
        await write(self._store, Insert(CONVERSATIONS, to_document(conversation)))
        return conversation

    async def get(self, org: str, id_: str) -> Conversation | None:
        """Read a conversation, deleted or not."""
        document = await self._store.get(CONVERSATIONS, org, id_)
        return None if document is None else from_document(document)

    async def save(self, thing: Conversation) -> Conversation:
        """Store a changed conversation."""
        await write(self._store, Replace(CONVERSATIONS, to_document(thing)))
        return replace(thing, version=thing.version + 1)

    async def save_all(self, conversations: Sequence[Conversation]) -> None:
        """Store changed conversations."""
        changes = (Replace(CONVERSATIONS, to_document(one)) for one in conversations)
        await write(self._store, *changes)

    async def append(self, conversation: Conversation, message: Message) -> Conversation:
        """Store a message and the conversation that follows it."""
        added = Insert(messages.MESSAGES, messages.to_document(message))
        await write(self._store, added, Replace(CONVERSATIONS, to_document(conversation)))
        return replace(conversation, version=conversation.version + 1)

    async def settle(self, conversation: Conversation, message: Message) -> Conversation:
        """Store a changed message and the conversation that notes it."""
        changed = Replace(messages.MESSAGES, messages.to_document(message))
        await write(self._store, changed, Replace(CONVERSATIONS, to_document(conversation)))
        return replace(conversation, version=conversation.version + 1)

    async def remove(self, thing: Conversation) -> None:
        """Remove a conversation for good."""
        await write(self._store, Delete(CONVERSATIONS, thing.org, thing.id, thing.version))

    async def by_request_id(self, org: str, rpc: str, request_id: str) -> Conversation | None:
        """Read the conversation a request_id made."""
        key = _request_key(org, rpc, request_id)
        document = await self._store.find(CONVERSATIONS, org, "request_key", key)
        return None if document is None else from_document(document)

    async def list(
        self, org: str, wanted: Wanted, after: tuple[int | str, str] | None, limit: int
    ) -> Sequence[Conversation]:
        """Read a page of conversations."""
        life = DELETED if wanted.deleted else _VISITING if wanted.visitors else LIVE
        equal = {"life": life}
        if wanted.screenplay_id:
            equal = {"home": _home(life, wanted.screenplay_id)}
        if wanted.deleted:
            equal["visitor"] = _visitor(wanted.visitors)
        takes_part = (_part_term(wanted.agent_id),) if wanted.agent_id else ()
        query = Query(
            CONVERSATIONS,
            org,
            equal,
            after=after,
            limit=limit,
            newest_first=wanted.newest_first,
            order=_ORDERS[wanted.order],
            terms=(*query_terms(wanted.query, ()), *takes_part),
        )
        return [from_document(document) for document in await self._store.query(query)]

    async def of_screenplay(
        self, org: str, screenplay_id: str, after: tuple[int, str] | None, limit: int
    ) -> Sequence[Conversation]:
        """Read conversations of a screenplay, oldest first."""
        query = Query(
            CONVERSATIONS, org, {"screenplay_id": screenplay_id}, after=after, limit=limit
        )
        return [from_document(document) for document in await self._store.query(query)]

    async def of_visitors(
        self, before: int, after: tuple[int, str] | None, limit: int
    ) -> Sequence[Conversation]:
        """Read talks of visitors of all organisations, oldest first."""
        query = Query(
            CONVERSATIONS,
            None,
            {"visitor": _visitor(True)},
            before_time=before,
            after=after,
            limit=limit,
        )
        return [from_document(document) for document in await self._store.query(query)]

    def place(self, conversation: Conversation, wanted: Wanted) -> tuple[int | str, str]:
        """Tell the place of a conversation in a list."""
        order = _ORDERS[wanted.order]
        value = _orders(conversation)[order] if order else conversation.create_time
        return value, conversation.id

    async def pending(
        self, cascade: Cascade, org: str | None, after: Place | None, limit: int
    ) -> Sequence[Place]:
        """Read a page of the conversations whose cascade is to be done."""
        return await pending(self._store, CONVERSATIONS, cascade, org, after, limit)

    async def deleted(self, after: Place | None, limit: int) -> Sequence[Place]:
        """Read a page of the conversations that are deleted."""
        return await deleted(self._store, CONVERSATIONS, after, limit)


def to_document(conversation: Conversation) -> Document:
    """Print a conversation; its context is the part that lists leave out."""
    body: dict[str, Any] = {name: getattr(conversation, name) for name in _PLAIN}
    body["active_agent"] = reference_to_body(conversation.active_agent)
    body["participants"] = [reference_to_body(one) for one in conversation.participants]
    body["turns"] = [asdict(turn) for turn in conversation.turns]
    body["changes"] = [asdict(change) for change in conversation.changes]
    body["life"] = life_body(conversation.life)
    body = {name: value for name, value in body.items() if value not in _EMPTY}
    body["auto_delegate"] = conversation.auto_delegate
    org, life = conversation.org, life_fields(conversation.life)
    if conversation.visitor and conversation.life.live:
        life["life"] = _VISITING
    taking_part = {_part_term(one.agent_id) for one in conversation.participants}
    return Document(
        org=org,
        id=conversation.id,
        create_time=conversation.create_time,
        version=conversation.version,
        fields={
            **life,
            **_orders(conversation),
            "screenplay_id": conversation.screenplay_id,
            "home": _home(life["life"], conversation.screenplay_id),
            "visitor": _visitor(conversation.visitor),
            "request_key": _request_key(org, conversation.request_rpc, conversation.request_id)
            if conversation.request_id
            else f"{org}/{conversation.id}",
        },
        body=body,
        content={"context": conversation.context} if conversation.context else {},
        terms=terms((conversation.title,), ()) | taking_part,
    )


def from_document(document: Document) -> Conversation:
    """Read a conversation; from a query it has no context."""
    body = dict(document.body)
    return Conversation(
        org=document.org,
        id=document.id,
        create_time=document.create_time,
        version=document.version,
        context=document.content.get("context", ""),
        screenplay_id=document.fields["screenplay_id"],
        visitor=document.fields["visitor"] == _visitor(True),
        allowed_agents=tuple(body.pop("allowed_agents", ())),
        active_agent=reference_from_body(body.pop("active_agent", None)),
        participants=tuple(Reference(**one) for one in body.pop("participants", ())),
        turns=tuple(
            Turn(one["execution_id"], Policy(one["policy"])) for one in body.pop("turns", ())
        ),
        changes=tuple(Change(**one) for one in body.pop("changes", ())),
        life=read_life(document.fields, body.pop("life", {})),
        **body,
    )


def _orders(conversation: Conversation) -> dict[str, str]:
    return {
        "update_key": time_key(conversation.update_time),
        "title_key": title_key(conversation.title),
        "display_key": number_order(conversation.display_order),
    }


def _home(life: str, screenplay_id: str) -> str:
    """Make what those of one screenplay have in common, which are deleted or not."""
    return f"{life}/{screenplay_id}"


def _visitor(is_one: bool) -> str:
    return "yes" if is_one else ""


def _part_term(agent_id: str) -> str:
    # No word holds a colon, so none looks like this.
    return f"part:{agent_id}"


def _request_key(org: str, rpc: str, request_id: str) -> str:
    return f"{org}/{rpc}/{request_id}"
