"""`conductor keys`: who may call a mesh."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated

import typer
from google.protobuf.timestamp_pb2 import Timestamp

from conductor.auth.v1 import access_pb2
from conductor.auth.v1.key_pb2 import Key
from conductor_ai.cli import listing, times
from conductor_ai.cli.connection import Address, ApiKey, call
from conductor_ai.cli.exits import Exit
from conductor_ai.cli.output import AsJson, enum_name, json_line, tell
from conductor_ai.cli.tables import Column
from conductor_ai.client import Client

group = typer.Typer(name="keys", no_args_is_help=True, help="Manage the keys callers show.")

_PREFIX = "SCOPE_"
_ALL = 0


class Scope(StrEnum):
    """What the holder of a key may do; each has in it what stands before it."""

    READ = "read"
    RUN = "run"
    ADMIN = "admin"
    OPERATOR = "operator"


@group.command()
def create(
    name: Annotated[str, typer.Argument(help="What the key is for.")],
    scope: Annotated[
        list[Scope],
        typer.Option(
            help="What its holder may do; may be given several times. Each has in it what stands "
            "before it.",
            case_sensitive=False,
        ),
    ],
    org: Annotated[
        str, typer.Option(help="The organisation its holder acts for; your own when left out.")
    ] = "",
    expires: Annotated[
        datetime | None,
        typer.Option(
            parser=times.parse_end,
            metavar="TIME",
            help="When it stops to work: 2027-05-31, 2027-05-31T18:00Z, or in how long: 12h, 90d.",
        ),
    ] = None,
    as_json: AsJson = False,
    address: Address = "",
    api_key: ApiKey = "",
) -> None:
    """Make a key and print it: this is the only time it is shown."""
    scopes = [access_pb2.Scope.Value(f"{_PREFIX}{one.name}") for one in dict.fromkeys(scope)]

    async def make(client: Client) -> Exit:
        key = await client.create_key(name, scopes, org_id=org, expires=expires)
        print(json_line(key) if as_json else key.secret)
        tell(f"this is the only time the key is shown; `conductor keys revoke {key.id}` ends it")
        return Exit.SUCCEEDED

    call(address, api_key, make)


@group.command("list")
def list_keys(
    org: Annotated[
        str,
        typer.Option(
            help="The organisation whose keys to list, - for all; your own when left out."
        ),
    ] = "",
    as_json: AsJson = False,
    address: Address = "",
    api_key: ApiKey = "",
) -> None:
    """List keys, newest first, revoked and expired ones too."""

    async def show(client: Client) -> Exit:
        found = client.list_keys(org)
        return await listing.show(found, _ALL, _LAYOUT, nothing="no keys yet", as_json=as_json)

    call(address, api_key, show)


@group.command()
def revoke(
    key_id: Annotated[str, typer.Argument(help="The id of the key.", metavar="ID")],
    as_json: AsJson = False,
    address: Address = "",
    api_key: ApiKey = "",
) -> None:
    """Revoke a key for good; within 5 s it is refused everywhere."""

    async def end(client: Client) -> Exit:
        key = await client.revoke_key(key_id)
        print(json_line(key) if as_json else f"{key.id} revoked")
        return Exit.SUCCEEDED

    call(address, api_key, end)


def _columns(when: Column) -> tuple[Column, ...]:
    return (
        Column("id", 32),
        Column("state", 7, state=True),
        Column("name", 12),
        Column("org", 12, below=True),
        Column("scopes", 8, below=True),
        replace(when, below=True),
        Column("expires", 20, below=True),
        Column("last used", below=True),
    )


def _cells(key: Key, when: str) -> tuple[str, ...]:
    return (
        key.id,
        _state(key, datetime.now(UTC)),
        key.name,
        key.org_id,
        ",".join(_scope(scope) for scope in key.scopes),
        when,
        _moment(key.expire_time),
        _moment(key.last_use_time),
    )


def _state(key: Key, now: datetime) -> str:
    if key.HasField("revoke_time"):
        return "revoked"
    if key.HasField("expire_time") and key.expire_time.ToDatetime(UTC) <= now:
        return "expired"
    return "active"


def _scope(scope: access_pb2.Scope.ValueType) -> str:
    return enum_name(access_pb2.Scope, scope, _PREFIX)


def _moment(stamp: Timestamp) -> str:
    return times.moment(stamp) if stamp.seconds else ""


_LAYOUT = listing.Layout(_columns, _cells)
