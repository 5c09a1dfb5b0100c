"""The texts that are kept of screenplays: seen, compared, restored."""

from __future__ import annotations

from typing import Annotated

import typer

from conductor.content.v1.screenplay_pb2 import ScreenplayVersion
from conductor_ai.cli import comparing, facts, listing
from conductor_ai.cli.connection import Address, ApiKey, call
from conductor_ai.cli.exits import Exit
from conductor_ai.cli.output import AsJson, json_line
from conductor_ai.cli.screenplays.options import Etag, Id, Version
from conductor_ai.cli.screenplays.shown import report
from conductor_ai.cli.tables import Column
from conductor_ai.client import Client

_ALL = 0
NEWEST = 0


def versions(
    screenplay_id: Id,
    limit: listing.Limit = _ALL,
    as_json: AsJson = False,
    address: Address = "",
    api_key: ApiKey = "",
) -> None:
    """List the texts of a screenplay that are kept, newest first."""

    async def list_them(client: Client) -> Exit:
        found = client.screenplays.versions(screenplay_id)
        nothing = "no versions yet"
        return await listing.show(found, limit, _VERSIONS, nothing=nothing, as_json=as_json)

    call(address, api_key, list_them)


def show(
    screenplay_id: Id,
    version: Version,
    as_json: AsJson = False,
    address: Address = "",
    api_key: ApiKey = "",
) -> None:
    """Show a version with its text; `export --version N` prints the text alone."""

    async def tell_all(client: Client) -> Exit:
        one = await client.screenplays.version(screenplay_id, version)
        if as_json:
            print(json_line(one))
        else:
            facts.show(_version_facts(one))
            facts.text("text", one.content)
        return Exit.SUCCEEDED

    call(address, api_key, tell_all)


def compare(
    screenplay_id: Id,
    from_version: Annotated[
        int, typer.Argument(help="The version to begin with.", metavar="FROM", min=1)
    ],
    to_version: Annotated[
        int,
        typer.Argument(
            help="The version it became.", metavar="[TO]", min=0, show_default="the newest"
        ),
    ] = NEWEST,
    as_json: AsJson = False,
    address: Address = "",
    api_key: ApiKey = "",
) -> None:
    """Show how one version became another: a diff, which `patch` takes behind a pipe."""

    async def show_both(client: Client) -> Exit:
        found = await client.screenplays.compare(screenplay_id, from_version, to_version)
        if as_json:
            print(json_line(found))
        else:
            comparing.show(found.comparison)
        return Exit.SUCCEEDED

    call(address, api_key, show_both)


def restore(
    screenplay_id: Id,
    version: Version,
    etag: Etag = "",
    as_json: AsJson = False,
    address: Address = "",
    api_key: ApiKey = "",
) -> None:
    """Make a text that is kept the text of a screenplay again, as a new version."""

    async def take(client: Client) -> Exit:
        restored = await client.screenplays.restore(screenplay_id, version, etag=etag)
        report(restored, "saved", as_json=as_json)
        return Exit.SUCCEEDED

    call(address, api_key, take)


def _version_facts(version: ScreenplayVersion) -> list[tuple[str, str]]:
    return [
        ("screenplay", version.screenplay_id),
        ("version", str(version.version)),
        ("author", version.author),
        ("bytes", f"{version.content_bytes:,}"),
        ("sha-256", version.content_hash),
        ("created", facts.when(version.create_time)),
    ]


def _version_columns(when: Column) -> tuple[Column, ...]:
    return (
        Column("version", 7, right=True),
        when,
        Column("bytes", 9, right=True),
        Column("author"),
    )


def _version_cells(version: ScreenplayVersion, when: str) -> tuple[str, ...]:
    return str(version.version), when, f"{version.content_bytes:,}", version.author


_VERSIONS = listing.Layout(_version_columns, _version_cells)
