"""The screenplays there are: seen, renamed, moved, deleted, taken back."""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum
from typing import Annotated

import typer

from conductor.content.v1.screenplay_pb2 import Screenplay
from conductor.content.v1.screenplay_service_pb2 import ListScreenplaysRequest
from conductor_ai.cli import deleting, facts, listing, rows
from conductor_ai.cli.connection import Address, ApiKey, call, call_each
from conductor_ai.cli.exits import Exit
from conductor_ai.cli.output import AsJson, harmless, json_line
from conductor_ai.cli.screenplays.options import Etag, Id, Ids
from conductor_ai.cli.tables import Column
from conductor_ai.client import Client


class Order(StrEnum):
    """What a list of screenplays is in the order of."""

    USED = "used"
    NAME = "name"
    CREATED = "created"
    CHANGED = "changed"


_ORDERS = {
    Order.USED: ListScreenplaysRequest.ORDER_LAST_USE_TIME,
    Order.NAME: ListScreenplaysRequest.ORDER_NAME,
    Order.CREATED: ListScreenplaysRequest.ORDER_CREATE_TIME,
    Order.CHANGED: ListScreenplaysRequest.ORDER_UPDATE_TIME,
}


def list_screenplays(
    query: Annotated[
        str, typer.Option("--query", "-q", help="Only those whose words begin with these.")
    ] = "",
    tag: Annotated[
        list[str] | None,
        typer.Option(help="Only those with this label; may be given several times."),
    ] = None,
    order: Annotated[
        Order, typer.Option(help="The order of the list.", case_sensitive=False)
    ] = Order.USED,
    reverse: listing.Reverse = False,
    deleted: listing.Deleted = False,
    limit: listing.Limit = 50,
    as_json: AsJson = False,
    address: Address = "",
    api_key: ApiKey = "",
) -> None:
    """List screenplays without their texts, or find them by words of name, description and tags."""
    filters = ListScreenplaysRequest(
        page_size=listing.page_size(limit),
        query=query,
        tags=tag or [],
        order=_ORDERS[order],
        reverse=reverse,
        deleted=deleted,
    )
    filtered = query or tag or deleted
    nothing = "no screenplays are like that" if filtered else "no screenplays yet"

    async def show(client: Client) -> Exit:
        found = client.screenplays.list(filters)
        return await listing.show(found, limit, _LAYOUT, nothing=nothing, as_json=as_json)

    call(address, api_key, show)


def get(
    screenplay_id: Id,
    deleted: deleting.AlsoDeleted = False,
    as_json: AsJson = False,
    address: Address = "",
    api_key: ApiKey = "",
) -> None:
    """Show what is known of a screenplay; `export` prints its text."""

    async def show(client: Client) -> Exit:
        screenplay = await client.screenplays.get(screenplay_id, include_deleted=deleted)
        if as_json:
            print(json_line(screenplay))
        else:
            facts.show(_facts(screenplay))
        return Exit.SUCCEEDED

    call(address, api_key, show)


def rename(
    screenplay_id: Id,
    name: Annotated[str, typer.Argument(help="The new name.", metavar="NAME")],
    keep_paths: Annotated[
        bool, typer.Option("--keep-paths", help="Leave the names of its files as they are.")
    ] = False,
    etag: Etag = "",
    as_json: AsJson = False,
    address: Address = "",
    api_key: ApiKey = "",
) -> None:
    """Rename a screenplay, and the files it is kept in and exported to."""

    async def change(client: Client) -> Exit:
        renamed = await client.screenplays.rename(
            screenplay_id, name, update_file_paths=not keep_paths, etag=etag
        )
        if as_json:
            print(json_line(renamed))
        else:
            kept = f", kept in {renamed.file_path}" if renamed.file_path else ""
            print(harmless(f"{screenplay_id} is called {renamed.name}{kept}"))
        return Exit.SUCCEEDED

    call(address, api_key, change)


def set_directory(
    screenplay_id: Id,
    directory: Annotated[
        str, typer.Argument(help="An absolute path; '' for none.", metavar="DIRECTORY")
    ],
    as_json: AsJson = False,
    address: Address = "",
    api_key: ApiKey = "",
) -> None:
    """Set where runs that work on a screenplay work; who edits it meets no conflict for that."""

    async def change(client: Client) -> Exit:
        changed = await client.screenplays.set_working_directory(screenplay_id, directory)
        where = changed.working_directory or "nowhere in particular"
        told = harmless(f"runs work in {where} on {screenplay_id}")
        print(json_line(changed) if as_json else told)
        return Exit.SUCCEEDED

    call(address, api_key, change)


def delete(
    ids: Ids,
    purge: deleting.Purge = False,
    yes: deleting.Yes = False,
    as_json: AsJson = False,
    address: Address = "",
    api_key: ApiKey = "",
) -> None:
    """Delete screenplays; `undelete` takes them back unless they are purged."""
    deleting.ask(ids, purge=purge, yes=yes, one="{}", many="screenplays", parts="texts")

    async def one(client: Client, screenplay_id: str) -> None:
        await client.screenplays.delete(screenplay_id, purge=purge)
        gone = deleting.told(purge)
        print(json_line(Screenplay(id=screenplay_id)) if as_json else f"{screenplay_id} {gone}")

    call_each(ids, one, address, api_key)


def undelete(
    ids: Ids,
    drop_taken_paths: Annotated[
        bool, typer.Option("--drop-taken-paths", help="Without the paths that others have now.")
    ] = False,
    as_json: AsJson = False,
    address: Address = "",
    api_key: ApiKey = "",
) -> None:
    """Take deleted screenplays back."""

    async def one(client: Client, screenplay_id: str) -> None:
        back = await client.screenplays.undelete(screenplay_id, drop_taken_paths=drop_taken_paths)
        kept = f", kept in {back.file_path}" if back.file_path else ""
        print(json_line(back) if as_json else harmless(f"{screenplay_id} is back{kept}"))

    call_each(ids, one, address, api_key)


def _facts(screenplay: Screenplay) -> list[tuple[str, str]]:
    return [
        ("id", screenplay.id),
        ("name", screenplay.name),
        ("description", screenplay.description),
        ("tags", ", ".join(screenplay.tags)),
        ("version", str(screenplay.version)),
        ("bytes", f"{screenplay.content_bytes:,}"),
        ("sha-256", screenplay.content_hash),
        ("works in", screenplay.working_directory),
        ("kept in", screenplay.file_path),
        ("imported from", screenplay.import_path),
        ("exported to", screenplay.export_path),
        ("created", facts.when(screenplay.create_time)),
        ("changed", facts.when(screenplay.update_time)),
        ("used", facts.when(screenplay.last_use_time)),
        ("deleted", facts.when(screenplay.delete_time)),
        ("gone for good", rows.moment(screenplay.purge_time)),
        ("etag", screenplay.etag),
    ]


def _columns(when: Column) -> tuple[Column, ...]:
    return (
        Column("id", 41),
        Column("version", 7, right=True, below=True),
        Column("bytes", 9, right=True, below=True),
        replace(when, title="changed"),
        Column("file", 20, below=True),
        Column("tags", 16, below=True),
        Column("name", long=True),
    )


def _cells(screenplay: Screenplay, when: str) -> tuple[str, ...]:
    return (
        screenplay.id,
        str(screenplay.version),
        f"{screenplay.content_bytes:,}",
        when,
        screenplay.file_path or screenplay.import_path,
        ",".join(screenplay.tags),
        screenplay.name,
    )


_LAYOUT = listing.Layout(_columns, _cells, lambda screenplay: screenplay.update_time)
