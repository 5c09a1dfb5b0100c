"""Messages as documents."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from typing import Any

from services.conversations.domain.messages import (
    Message,
    Part,
    Reference,
    Showing,
    Span,
    Status,
    Type,
    document_id,
)
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
from services.kit.storage.resources import number_key, write

MESSAGES = Collection(
    "messages",
    fields=("conversation_id", "position_key", "kept", "open", "told", "reply_to"),
    unique=("message_key", "turn_key", "request_key"),
    orders=(("conversation_id", "position_key"),),
    searched=True,
)
SHORT = 4096
"""How many bytes a content may have that is read with lists."""
_SEARCHED = 32 * 1024
"""How many characters of a content it is found by."""
_AT_ONCE = 8
_REMOVED_AT_ONCE = 100
_COUNTED_AT_ONCE = 500
_YES, _NO = "1", ""
_FLAGS = {
    Showing.ALL: (),
    Showing.KEPT: ("kept",),
    Showing.OPEN: ("open",),
    Showing.SEEN: ("kept", "open"),
    Showing.TOLD: ("told",),
}
_PLAIN = (
    "content_bytes",
    "preview",
    "author",
    "execution_id",
    "error_reason",
    "error_message",
    "hidden",
    "delete_time",
    "complete_time",
    "change",
    "withdrawn",
    "request_id",
    "digest",
)
_LAST = 10**10 - 1


class StoredMessages:
    """Messages over the storage ports."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def at(self, org: str, conversation_id: str, position: int) -> Message | None:
        """Read the message at a position."""
        document = await self._store.get(MESSAGES, org, document_id(conversation_id, position))
        return None if document is None else from_document(document)

    async def is_at(self, org: str, conversation_id: str, position: int) -> bool:
        """Tell whether there is a message at a position."""
        id_ = document_id(conversation_id, position)
        return await self._store.version(MESSAGES, org, id_) is not None

    async def get(self, org: str, message_id: str) -> Message | None:
        """Read a message."""
        return await self._found(org, "message_key", _key(org, message_id))

    async def of_turn(self, org: str, execution_id: str, part: Part) -> Message | None:
        """Read the message of a turn."""
        return await self._found(org, "turn_key", _turn_key(org, execution_id, part))

    async def any_deleted(self, org: str, execution_id: str) -> bool:
        """Tell whether a message of a turn is deleted."""
        for part in (Part.USER, Part.ANSWER):
            found = await self.of_turn(org, execution_id, part)
            if found is not None and not found.is_kept:
                return True
        return False

    async def by_request_id(self, org: str, request_id: str) -> Message | None:
        """Read the message a request_id added."""
        return await self._found(org, "request_key", _request_key(org, request_id))

    async def list(self, org: str, span: Span, limit: int) -> Sequence[Message]:
        """Read messages."""
        found = await self._store.query(_query(org, span, limit))
        return [from_document(document) for document in _within(span, found)]

    async def count(self, org: str, span: Span, most: int) -> int:
        """Count messages."""
        counted = 0
        while counted < most:
            limit = min(_COUNTED_AT_ONCE, most - counted)
            found = await self._store.query(replace(_query(org, span, limit), keys_only=True))
            inside = _within(span, found)
            counted += len(inside)
            if len(inside) < limit:
                break
            last = int(inside[-1].fields["position_key"])
            span = span.beyond(last)
        return counted

    async def whole(self, messages: Sequence[Message]) -> Sequence[Message]:
        """Read the contents that were left out, a few at a time."""
        found: list[Message | None] = list(messages)
        left_out = [number for number, one in enumerate(messages) if not one.is_whole]
        for start in range(0, len(left_out), _AT_ONCE):
            some = left_out[start : start + _AT_ONCE]
            read = await asyncio.gather(*(self._whole(messages[number]) for number in some))
            for number, one in zip(some, read, strict=True):
                found[number] = one
        return [one for one in found if one is not None]

    async def search(
        self,
        org: str,
        query: str,
        conversation_id: str,
        after: tuple[int, str] | None,
        limit: int,
    ) -> Sequence[Message]:
        """Find messages by words, newest first."""
        equal = {"kept": _YES}
        if conversation_id:
            equal["conversation_id"] = conversation_id
        words = query_terms(query, ())
        if not words:
            return []
        found = await self._store.query(
            Query(MESSAGES, org, equal, after=after, limit=limit, newest_first=True, terms=words)
        )
        return [from_document(document) for document in found]

    def place(self, message: Message) -> tuple[int, str]:
        """Tell the place of a message among those that were found."""
        return message.create_time, document_id(message.conversation_id, message.position)

    async def save(self, message: Message) -> Message:
        """Store a changed message."""
        await write(self._store, Replace(MESSAGES, to_document(message)))
        return replace(message, version=message.version + 1)

    async def add(self, messages: Sequence[Message]) -> None:
        """Store messages."""
        await write(self._store, *(Insert(MESSAGES, to_document(one)) for one in messages))

    async def remove(self, messages: Sequence[Message]) -> None:
        """Remove messages for good, many at once as long as nobody changes one of them."""
        for start in range(0, len(messages), _REMOVED_AT_ONCE):
            some = messages[start : start + _REMOVED_AT_ONCE]
            try:
                await self._store.write(*map(_delete, some))
            except ConflictError:
                for one in some:
                    await self._remove(one)

    async def _remove(self, message: Message) -> None:
        id_ = document_id(message.conversation_id, message.position)
        while (version := await self._store.version(MESSAGES, message.org, id_)) is not None:
            with suppress(ConflictError):
                await self._store.write(Delete(MESSAGES, message.org, id_, version))

    async def _whole(self, message: Message) -> Message | None:
        return await self.at(message.org, message.conversation_id, message.position)

    async def _found(self, org: str, unique: str, value: str) -> Message | None:
        document = await self._store.find(MESSAGES, org, unique, value)
        return None if document is None else from_document(document)


def _query(org: str, span: Span, limit: int) -> Query:
    equal = {"conversation_id": span.conversation_id, **dict.fromkeys(_FLAGS[span.showing], _YES)}
    if span.reply_to:
        equal["reply_to"] = span.reply_to
    if span.newest_first:
        # No id comes before an empty one, so the position itself is left out.
        after = (number_key(span.before or _LAST), "")
    else:
        after = (number_key(span.after), document_id(span.conversation_id, span.after))
    return Query(
        MESSAGES,
        org,
        equal,
        after=after,
        limit=limit,
        newest_first=span.newest_first,
        order="position_key",
    )


def _within(span: Span, found: Sequence[Document]) -> Sequence[Document]:
    """Leave out what is beyond the far end of a span."""
    if span.newest_first:
        end = number_key(span.after)
        return [one for one in found if one.fields["position_key"] > end]
    end = number_key(span.before or _LAST)
    return [one for one in found if one.fields["position_key"] < end]


def to_document(message: Message) -> Document:
    """Print a message; a long content is the part that lists leave out.

    Raises:
        ValueError: its content was not read.
    """
    if not message.is_whole:
        raise ValueError(f"the content of {message.id} was not read")
    org, id_ = message.org, document_id(message.conversation_id, message.position)
    body: dict[str, Any] = {name: getattr(message, name) for name in _PLAIN}
    body["id"] = message.id
    body["type"] = message.type.value
    body["status"] = message.status.value
    body["part"] = message.part.value
    body["agent"] = reference_to_body(message.agent)
    body["target"] = reference_to_body(message.target)
    content = {"content": message.content} if message.content else {}
    is_short = message.content_bytes <= SHORT
    if is_short:
        body |= content
    # What was added by no turn or request has keys that none of these looks like, nor those of who is
    # too late for the position: what is told as taken is the id then.
    none = _key(org, message.id)
    return Document(
        org=org,
        id=id_,
        create_time=message.create_time,
        version=message.version,
        fields={
            "conversation_id": message.conversation_id,
            "position_key": number_key(message.position),
            "kept": _flag(message.is_kept),
            "open": _flag(not message.hidden),
            "told": _flag(message.is_told),
            "reply_to": message.reply_to,
            "message_key": _key(org, message.id),
            "turn_key": _turn_key(org, message.execution_id, message.part)
            if message.part
            else none,
            "request_key": _request_key(org, message.request_id) if message.request_id else none,
        },
        body={name: value for name, value in body.items() if value not in _EMPTY},
        content={} if is_short else content,
        terms=terms((message.content[:_SEARCHED],), ()),
    )


_EMPTY: tuple[object, ...] = ("", None, 0, False)


def from_document(document: Document) -> Message:
    """Read a message; from a query it has no long content."""
    body = dict(document.body)
    return Message(
        org=document.org,
        id=body.pop("id"),
        conversation_id=document.fields["conversation_id"],
        position=int(document.fields["position_key"]),
        create_time=document.create_time,
        type=Type(body.pop("type")),
        status=Status(body.pop("status")),
        part=Part(body.pop("part", "")),
        agent=reference_from_body(body.pop("agent", None)),
        target=reference_from_body(body.pop("target", None)),
        reply_to=document.fields["reply_to"],
        content=body.pop("content", "") or document.content.get("content", ""),
        author=body.pop("author", ""),
        version=document.version,
        **body,
    )


def reference_to_body(reference: Reference | None) -> Mapping[str, str] | None:
    """Print an agent."""
    if reference is None:
        return None
    return {name: value for name, value in asdict(reference).items() if value}


def reference_from_body(body: Mapping[str, str] | None) -> Reference | None:
    """Read an agent back."""
    return None if body is None else Reference(**body)


def _flag(value: bool) -> str:
    return _YES if value else _NO


def _key(org: str, message_id: str) -> str:
    return f"{org}/{message_id}"


def _turn_key(org: str, execution_id: str, part: Part) -> str:
    return f"{org}/{execution_id}/{part.value}"


def _request_key(org: str, request_id: str) -> str:
    return f"{org}/AppendMessage/{request_id}"


def _delete(message: Message) -> Delete:
    id_ = document_id(message.conversation_id, message.position)
    return Delete(MESSAGES, message.org, id_, message.version)
