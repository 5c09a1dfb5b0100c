"""What is said in a conversation: seen, found, added, hidden, deleted."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from typing import Annotated, NoReturn

import typer

from conductor.conversations.v1.conversation_pb2 import AgentReference, Message
from conductor.conversations.v1.message_service_pb2 import ListMessagesRequest
from conductor_ai.cli import files, listing
from conductor_ai.cli.connection import Address, ApiKey, call, call_each
from conductor_ai.cli.conversations import shown
from conductor_ai.cli.conversations.options import Id, MessageIds
from conductor_ai.cli.exits import Exit
from conductor_ai.cli.output import AsJson, harmless, json_line, tell
from conductor_ai.cli.tables import Column
from conductor_ai.client import Client

_LAST_POSITION = 2**32 - 1
_SHOWN = 200
"""Characters of a text in a row; a message may have a million."""


def messages(
    conversation_id: Id,
    text: Annotated[
        bool, typer.Option("--text", help="Show texts whole, one below the other.")
    ] = False,
    after: Annotated[
        int,
        typer.Option(
            help="Only those behind this number, from there on.",
            min=0,
            max=_LAST_POSITION,
            metavar="N",
        ),
    ] = 0,
    before: Annotated[
        int,
        typer.Option(
            help="Only those in front of this number.", min=0, max=_LAST_POSITION, metavar="N"
        ),
    ] = 0,
    reply_to: Annotated[
        str, typer.Option(help="Only replies to this message.", metavar="MESSAGE")
    ] = "",
    visible: Annotated[bool, typer.Option("--visible", help="Without hidden ones.")] = False,
    deleted: Annotated[bool, typer.Option("--deleted", help="Also deleted ones.")] = False,
    limit: listing.Limit = 50,
    as_json: AsJson = False,
    address: Address = "",
    api_key: ApiKey = "",
) -> None:
    """Show the newest messages of a conversation, in the order they came in."""
    filters = ListMessagesRequest(
        conversation_id=conversation_id,
        page_size=listing.page_size(limit),
        after_position=after,
        before_position=before,
        exclude_hidden=visible,
        include_deleted=deleted,
    )
    filtered = after or before or reply_to or visible
    nothing = "no messages are like that" if filtered else "no messages yet"

    async def show(client: Client) -> Exit:
        if reply_to:
            filters.reply_to = await shown.message_id(client, conversation_id, reply_to)
        found, more = client.conversations.messages.list(filters), False
        if limit and not after:
            await found.aclose()
            newest, more = await shown.newest(client, filters, limit)
            found = _each(newest)
        if text and not as_json:
            status = await _show_texts(found, limit, nothing)
        else:
            status = await listing.show(found, limit, _LAYOUT, nothing=nothing, as_json=as_json)
        if more:
            listing.tell_more(limit)
        return status

    call(address, api_key, show)


def search(
    query: Annotated[str, typer.Argument(help="Words that all begin a word of it.")],
    conversation: Annotated[
        str, typer.Option(help="Only messages of this one.", metavar="ID")
    ] = "",
    limit: listing.Limit = 50,
    as_json: AsJson = False,
    address: Address = "",
    api_key: ApiKey = "",
) -> None:
    """Find messages by words, newest first."""

    async def show(client: Client) -> Exit:
        found = client.conversations.messages.search(
            query, conversation_id=conversation, page_size=listing.page_size(limit)
        )
        return await listing.show(
            found, limit, _FOUND, nothing="no messages are like that", as_json=as_json
        )

    call(address, api_key, show)


def say(
    conversation_id: Id,
    text: Annotated[str, typer.Argument(help="What is said; - reads it from stdin.")],
    agent: Annotated[str, typer.Option(help="The agent that says it.", show_default="you")] = "",
    reply_to: Annotated[
        str, typer.Option(help="The message it replies to.", metavar="MESSAGE")
    ] = "",
    as_json: AsJson = False,
    address: Address = "",
    api_key: ApiKey = "",
) -> None:
    """Add a message that nobody answers; `conductor chat` has it answered."""
    said = Message(content=files.read_text(text) if text == files.STANDARD else text)
    if agent:
        said.type = Message.TYPE_AGENT
        said.agent.CopyFrom(AgentReference(agent_id=agent))

    async def add(client: Client) -> Exit:
        if reply_to:
            said.reply_to = await shown.message_id(client, conversation_id, reply_to)
        added = await client.conversations.messages.append(conversation_id, said)
        told = f"{added.id} is message {added.position}"
        print(json_line(added) if as_json else told)
        return Exit.SUCCEEDED

    call(address, api_key, add)


def hide(
    conversation_id: Id,
    message_ids: MessageIds,
    undo: Annotated[bool, typer.Option("--undo", help="Tell later runs of them again.")] = False,
    as_json: AsJson = False,
    address: Address = "",
    api_key: ApiKey = "",
) -> None:
    """Leave messages out of what later runs are told. They stay in lists."""
    _each_message(
        conversation_id,
        message_ids,
        lambda client, id_: client.conversations.messages.hide(
            conversation_id, id_, hidden=not undo
        ),
        "no longer hidden" if undo else "hidden",
        as_json,
        address,
        api_key,
    )


def delete_message(
    conversation_id: Id,
    message_ids: MessageIds,
    as_json: AsJson = False,
    address: Address = "",
    api_key: ApiKey = "",
) -> None:
    """Delete messages; their runs are left out of histories, too."""
    _each_message(
        conversation_id,
        message_ids,
        lambda client, id_: client.conversations.messages.delete(conversation_id, id_),
        "deleted",
        as_json,
        address,
        api_key,
    )


def undelete_message(
    conversation_id: Id,
    message_ids: MessageIds,
    as_json: AsJson = False,
    address: Address = "",
    api_key: ApiKey = "",
) -> None:
    """Take deleted messages back."""
    _each_message(
        conversation_id,
        message_ids,
        lambda client, id_: client.conversations.messages.undelete(conversation_id, id_),
        "back",
        as_json,
        address,
        api_key,
    )


def _each_message(
    conversation_id: str,
    references: list[str],
    change: Callable[[Client, str], Awaitable[Message]],
    now: str,
    as_json: bool,
    address: str,
    api_key: str,
) -> NoReturn:
    async def one(client: Client, reference: str) -> None:
        id_ = await shown.message_id(client, conversation_id, reference)
        changed = await change(client, id_)
        told = harmless(f"message {changed.position} is {now}")
        print(json_line(changed) if as_json else told)

    call_each(references, one, address, api_key)


async def _each(things: Iterable[Message]) -> AsyncGenerator[Message, None]:
    for thing in things:
        yield thing


async def _show_texts(found: AsyncGenerator[Message, None], limit: int, nothing: str) -> Exit:
    count = 0
    async for message in found:
        if limit and count == limit:
            listing.tell_more(count)
            break
        count += 1
        shown.transcript(message)
    await found.aclose()
    if not count:
        tell(nothing)
    return Exit.SUCCEEDED


def _columns(when: Column) -> tuple[Column, ...]:
    return (
        Column("#", 5, right=True),
        Column("id", 40, below=True),
        Column("who", 12),
        Column("status", 9, state=True, below=True),
        when,
        Column("text", long=True),
    )


def _cells(message: Message, when: str) -> tuple[str, ...]:
    return (
        str(message.position),
        message.id,
        shown.speaker(message),
        shown.state(message),
        when,
        _beginning(shown.text(message)),
    )


def _beginning(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _found_columns(when: Column) -> tuple[Column, ...]:
    return (Column("conversation", 41), *_columns(when))


def _found_cells(message: Message, when: str) -> tuple[str, ...]:
    return (message.conversation_id, *_cells(message, when))


_LAYOUT = listing.Layout(_columns, _cells)
_FOUND = listing.Layout(_found_columns, _found_cells)
