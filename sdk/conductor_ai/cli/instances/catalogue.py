"""The instances there are: seen, deleted, taken back, and what their runs came to."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated

import typer

from conductor.conversations.v1.instance_pb2 import HistoryEntry, Instance, InstanceStatistics
from conductor.conversations.v1.instance_service_pb2 import (
    ClearHistoryResponse,
    InstanceContext,
    ListInstancesRequest,
)
from conductor_ai.cli import deleting, facts, listing, rows, times
from conductor_ai.cli.asking import confirm
from conductor_ai.cli.connection import Address, ApiKey, call, call_each
from conductor_ai.cli.exits import Exit
from conductor_ai.cli.instances.options import Id, Ids, OfStatus, status_value
from conductor_ai.cli.output import AsJson, enum_name, harmless, json_line, write_said
from conductor_ai.cli.tables import Column
from conductor_ai.client import Client


class Order(StrEnum):
    """What a list of instances is in the order of."""

    CREATED = "created"
    HAND = "hand"


_ORDERS = {
    Order.CREATED: ListInstancesRequest.ORDER_CREATE_TIME,
    Order.HAND: ListInstancesRequest.ORDER_DISPLAY,
}


def list_instances(
    agent: Annotated[str, typer.Option(help="Only those of this agent.")] = "",
    screenplay: Annotated[str, typer.Option(help="Only those in this screenplay.")] = "",
    conversation: Annotated[str, typer.Option(help="Only those in this conversation.")] = "",
    status: OfStatus = None,
    order: Annotated[
        Order, typer.Option(help="The order of the list.", case_sensitive=False)
    ] = Order.CREATED,
    reverse: listing.Reverse = False,
    deleted: listing.Deleted = False,
    limit: listing.Limit = 50,
    as_json: AsJson = False,
    address: Address = "",
    api_key: ApiKey = "",
) -> None:
    """List instances, newest first."""
    filters = ListInstancesRequest(
        page_size=listing.page_size(limit),
        agent_id=agent,
        screenplay_id=screenplay,
        conversation_id=conversation,
        status=status_value(status),
        order=_ORDERS[order],
        reverse=reverse,
        deleted=deleted,
    )
    filtered = agent or screenplay or conversation or status or deleted
    nothing = "no instances are like that" if filtered else "no instances yet"

    async def show(client: Client) -> Exit:
        found = client.instances.list(filters)
        return await listing.show(found, limit, _LAYOUT, nothing=nothing, as_json=as_json)

    call(address, api_key, show)


def get(
    instance_id: Id,
    deleted: deleting.AlsoDeleted = False,
    as_json: AsJson = False,
    address: Address = "",
    api_key: ApiKey = "",
) -> None:
    """Show what is known of an instance, and what its runs came to."""

    async def show(client: Client) -> Exit:
        instance = await client.instances.get(instance_id, include_deleted=deleted)
        if as_json:
            print(json_line(instance))
        else:
            facts.show(_facts(instance))
        return Exit.SUCCEEDED

    call(address, api_key, show)


def context(
    instance_id: Id, as_json: AsJson = False, address: Address = "", api_key: ApiKey = ""
) -> None:
    """Show what the runs of an instance start from; its newest runs last."""

    async def show(client: Client) -> Exit:
        found = await client.instances.context(instance_id)
        if as_json:
            print(json_line(found))
        else:
            _show_context(found)
        return Exit.SUCCEEDED

    call(address, api_key, show)


def history(
    instance_id: Id,
    of_agent: Annotated[
        bool, typer.Option("--agent", help="ID is that of an agent: runs of all its instances.")
    ] = False,
    clear: Annotated[
        bool, typer.Option("--clear", help="Clear it; statistics, runs and messages stay.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before --clear.")] = False,
    limit: listing.Limit = 50,
    as_json: AsJson = False,
    address: Address = "",
    api_key: ApiKey = "",
) -> None:
    """Show the runs of an instance, or of an agent, that ended, newest first."""
    whose = {"agent_id": instance_id} if of_agent else {"instance_id": instance_id}
    if clear and not yes:
        confirm(
            f"Clear the history of {instance_id} for good?",
            unasked="--clear is for good",
            declined="nothing was cleared",
        )

    async def show(client: Client) -> Exit:
        if clear:
            count = await client.instances.clear_history(**whose)
            answer = ClearHistoryResponse(cleared_count=count)
            told = harmless(f"{facts.count(count, 'run')} of {instance_id} cleared")
            print(json_line(answer) if as_json else told)
            return Exit.SUCCEEDED
        found = client.instances.history(**whose, page_size=listing.page_size(limit))
        return await listing.show(
            found, limit, _HISTORY, nothing="no runs in this history", as_json=as_json
        )

    call(address, api_key, show)


def delete(
    ids: Ids,
    purge: deleting.Purge = False,
    yes: deleting.Yes = False,
    as_json: AsJson = False,
    address: Address = "",
    api_key: ApiKey = "",
) -> None:
    """Delete instances; `undelete` takes them back unless they are purged. Messages stay."""
    deleting.ask(ids, purge=purge, yes=yes, one="{}", many="instances", parts="history")

    async def one(client: Client, instance_id: str) -> None:
        await client.instances.delete(instance_id, purge=purge)
        gone = f"{instance_id} {deleting.told(purge)}"
        print(json_line(Instance(instance_id=instance_id)) if as_json else gone)

    call_each(ids, one, address, api_key)


def undelete(
    ids: Ids, as_json: AsJson = False, address: Address = "", api_key: ApiKey = ""
) -> None:
    """Take deleted instances back."""

    async def one(client: Client, instance_id: str) -> None:
        back = await client.instances.undelete(instance_id)
        print(json_line(back) if as_json else f"{instance_id} is back")

    call_each(ids, one, address, api_key)


def _show_context(context: InstanceContext) -> None:
    version = f"version {context.persona_version}" if context.persona_version else "none"
    known = [
        ("works in", context.cwd),
        ("persona", version),
        ("history", facts.count(len(context.history), "run")),
    ]
    facts.show(known)
    facts.text("persona", context.persona)
    facts.text("procedure", context.operating_procedure)
    if context.history:
        print("\nhistory:")
    for entry in context.history:
        aside = f", in {entry.conversation_id}" if entry.conversation_id else ""
        age = times.age(entry.end_time, datetime.now(UTC))
        write_said(f"user, {age} ago{aside}", entry.user_input)
        answered = entry.ai_response or entry.error_reason
        standing = "" if entry.succeeded else f" ({_end(entry)})"
        write_said(f"{entry.agent_id}{standing}", answered)


def _facts(instance: Instance) -> Iterator[tuple[str, str]]:
    yield "id", instance.instance_id
    yield "agent", instance.agent_id
    yield "status", _status(instance)
    yield "emoji", instance.emoji
    yield "conversation", instance.conversation_id
    yield "screenplay", instance.screenplay_id
    yield "works in", instance.cwd
    yield "MCP servers", ", ".join(instance.mcp_configs)
    if instance.HasField("position"):
        yield "position", f"{instance.position.x:g}, {instance.position.y:g}"
    if instance.config.fields:
        yield "config", json_line(instance.config)
    yield "shown", "no" if instance.is_hidden else ""
    yield from _statistics(instance.statistics)
    yield "created", facts.when(instance.create_time)
    yield "changed", facts.when(instance.update_time)
    yield "deleted", facts.when(instance.delete_time)
    yield "gone for good", rows.moment(instance.purge_time)
    yield "etag", instance.etag


def _statistics(known: InstanceStatistics) -> Iterator[tuple[str, str]]:
    yield "runs", f"{known.task_count:,}"
    if not known.task_count:
        return
    yield "ended", _ends(known)
    if known.HasField("success_rate"):
        yield "success rate", f"{known.success_rate:.1f}%"
    if known.HasField("average_execution_time_ms"):
        yield "took on average", times.span(known.average_execution_time_ms / 1000)
    if known.HasField("last_task_duration_ms"):
        yield "newest took", times.span(known.last_task_duration_ms / 1000)
    yield "newest ended", facts.when(known.last_execution)


def _ends(known: InstanceStatistics) -> str:
    counts = {
        "succeeded": known.success_count,
        "failed": known.error_count,
        "cancelled": known.cancelled_count,
    }
    return ", ".join(f"{count:,} {how}" for how, count in counts.items() if count)


def _status(instance: Instance) -> str:
    return enum_name(Instance.Status, instance.status, "STATUS_")


def _columns(when: Column) -> tuple[Column, ...]:
    return (
        Column("id", 41),
        Column("agent", 12),
        Column("status", 9, state=True),
        when,
        Column("runs", 6, right=True, below=True),
        Column("conversation", 41, below=True),
        Column("works in", below=True, long=True),
    )


def _cells(instance: Instance, when: str) -> tuple[str, ...]:
    return (
        instance.instance_id,
        instance.agent_id,
        _status(instance),
        when,
        f"{instance.statistics.task_count:,}",
        instance.conversation_id,
        instance.cwd,
    )


def _history_columns(when: Column) -> tuple[Column, ...]:
    return (
        Column("run", 41),
        Column("agent", 12, below=True),
        Column("state", 9, state=True),
        when,
        Column("took", 7, right=True, below=True),
        Column("asked", 30, below=True),
        Column("answered", long=True),
    )


def _history_cells(entry: HistoryEntry, when: str) -> tuple[str, ...]:
    return (
        entry.execution_id,
        entry.agent_id,
        _end(entry),
        when,
        times.span(entry.duration_ms / 1000),
        entry.user_input,
        entry.ai_response if entry.succeeded else entry.error_reason,
    )


def _end(entry: HistoryEntry) -> str:
    if entry.succeeded:
        return "succeeded"
    return "cancelled" if entry.error_reason == "EXECUTION_CANCELLED" else "failed"


_LAYOUT = listing.Layout(_columns, _cells)
_HISTORY = listing.Layout(_history_columns, _history_cells, lambda entry: entry.end_time)
