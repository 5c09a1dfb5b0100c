"""The conversations there are: seen, deleted, taken back."""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum
from typing import Annotated

import typer

from conductor.conversations.v1.conversation_pb2 import Conversation
from conductor.conversations.v1.conversation_service_pb2 import ListConversationsRequest
from conductor_ai.cli import deleting, facts, listing, rows
from conductor_ai.cli.connection import Address, ApiKey, call, call_each
from conductor_ai.cli.conversations.options import Id, Ids
from conductor_ai.cli.conversations.shown import active_name, agent_name
from conductor_ai.cli.exits import Exit
from conductor_ai.cli.output import AsJson, harmless, json_line
from conductor_ai.cli.tables import Column
from conductor_ai.client import Client


class Order(StrEnum):
    """What a list of conversations is in the order of."""

    CHANGED = "changed"
    CREATED = "created"
    TITLE = "title"
    HAND = "hand"


_ORDERS = {
    Order.CHANGED: ListConversationsRequest.ORDER_UPDATE_TIME,
    Order.CREATED: ListConversationsRequest.ORDER_CREATE_TIME,
    Order.TITLE: ListConversationsRequest.ORDER_TITLE,
    Order.HAND: ListConversationsRequest.ORDER_DISPLAY,
}


def list_conversations(
    query: Annotated[
        str, typer.Option("--query", "-q", help="Only those whose title has words that begin so.")
    ] = "",
    screenplay: Annotated[str, typer.Option(help="Only those of this screenplay.")] = "",
    agent: Annotated[str, typer.Option(help="Only those this agent takes part in.")] = "",
    order: Annotated[
        Order, typer.Option(help="The order of the list.", case_sensitive=False)
    ] = Order.CHANGED,
    reverse: listing.Reverse = False,
    deleted: listing.Deleted = False,
    visitors: Annotated[
        bool, typer.Option("--visitors", help="Only those of visitors, instead of all others.")
    ] = False,
    limit: listing.Limit = 50,
    as_json: AsJson = False,
    address: Address = "",
    api_key: ApiKey = "",
) -> None:
    """List conversations, those that changed last first."""
    filters = ListConversationsRequest(
        page_size=listing.page_size(limit),
        query=query,
        screenplay_id=screenplay,
        agent_id=agent,
        order=_ORDERS[order],
        reverse=reverse,
        deleted=deleted,
        visitors=visitors,
    )
    filtered = query or screenplay or agent or deleted or visitors
    nothing = "no conversations are like that" if filtered else "no conversations yet"

    async def show(client: Client) -> Exit:
        found = client.conversations.list(filters)
        return await listing.show(found, limit, _LAYOUT, nothing=nothing, as_json=as_json)

    call(address, api_key, show)


def get(
    conversation_id: Id,
    deleted: deleting.AlsoDeleted = False,
    as_json: AsJson = False,
    address: Address = "",
    api_key: ApiKey = "",
) -> None:
    """Show what is known of a conversation, and its context; `messages` shows what was said."""

    async def show(client: Client) -> Exit:
        conversation = await client.conversations.get(conversation_id, include_deleted=deleted)
        if as_json:
            print(json_line(conversation))
        else:
            facts.show(_facts(conversation))
            facts.text("context", conversation.context)
        return Exit.SUCCEEDED

    call(address, api_key, show)


def delete(
    ids: Ids,
    purge: deleting.Purge = False,
    yes: deleting.Yes = False,
    as_json: AsJson = False,
    address: Address = "",
    api_key: ApiKey = "",
) -> None:
    """Delete conversations with their instances; `undelete` takes both back unless purged."""
    deleting.ask(
        ids, purge=purge, yes=yes, one="{}", many="conversations", parts="messages and instances"
    )

    async def one(client: Client, conversation_id: str) -> None:
        await client.conversations.delete(conversation_id, purge=purge)
        gone = f"{conversation_id} {deleting.told(purge)}"
        print(json_line(Conversation(id=conversation_id)) if as_json else gone)

    call_each(ids, one, address, api_key)


def undelete(
    ids: Ids, as_json: AsJson = False, address: Address = "", api_key: ApiKey = ""
) -> None:
    """Take deleted conversations back, with what was deleted with them."""

    async def one(client: Client, conversation_id: str) -> None:
        back = await client.conversations.undelete(conversation_id)
        told = harmless(f"{conversation_id} ({back.title}) is back")
        print(json_line(back) if as_json else told)

    call_each(ids, one, address, api_key)


def _facts(conversation: Conversation) -> list[tuple[str, str]]:
    how_far = f"up to {conversation.max_chain_depth} agents"
    return [
        ("id", conversation.id),
        ("title", conversation.title),
        ("messages", f"{conversation.message_count:,}"),
        ("answers", active_name(conversation)),
        ("took part", ", ".join(map(agent_name, conversation.participants))),
        ("may take part", ", ".join(conversation.allowed_agents)),
        ("delegation", how_far if conversation.auto_delegate else "off"),
        ("runs", ", ".join(conversation.pending_executions)),
        ("screenplay", conversation.screenplay_id),
        ("cloned from", conversation.cloned_from),
        ("visitor", "yes" if conversation.visitor else ""),
        ("created", facts.when(conversation.create_time)),
        ("changed", facts.when(conversation.update_time)),
        ("deleted", facts.when(conversation.delete_time)),
        ("gone for good", rows.moment(conversation.purge_time)),
        ("etag", conversation.etag),
    ]


def _columns(when: Column) -> tuple[Column, ...]:
    return (
        Column("id", 41),
        Column("messages", 8, right=True),
        replace(when, title="changed"),
        Column("agent", 12, below=True),
        Column("title", 30),
        Column("newest", below=True, long=True),
    )


def _cells(conversation: Conversation, when: str) -> tuple[str, ...]:
    return (
        conversation.id,
        f"{conversation.message_count:,}",
        when,
        active_name(conversation),
        conversation.title,
        conversation.last_message_preview,
    )


_LAYOUT = listing.Layout(_columns, _cells, lambda conversation: conversation.update_time)
