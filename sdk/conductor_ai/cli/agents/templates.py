"""Agents that come with the mesh."""

from __future__ import annotations

from typing import Annotated

import typer

from conductor.content.v1.template_service_pb2 import InstallTemplatesResponse, TemplateCategory
from conductor_ai.cli import rows
from conductor_ai.cli.connection import Address, ApiKey, call
from conductor_ai.cli.exits import Exit, refuse
from conductor_ai.cli.output import AsJson, json_line
from conductor_ai.cli.tables import Column
from conductor_ai.client import Client


def templates(
    category: Annotated[str, typer.Option(help="Only templates of this category.")] = "",
    as_json: AsJson = False,
    address: Address = "",
    api_key: ApiKey = "",
) -> None:
    """List the agents that come with the mesh; `install` makes agents of them."""

    async def show(client: Client) -> Exit:
        found = await client.templates.list(category)
        if as_json:
            for one in found:
                print(json_line(one))
        else:
            rows.show(_TEMPLATE_COLUMNS, [cells for one in found for cells in _templates(one)])
        return Exit.SUCCEEDED

    call(address, api_key, show)


def install(
    ids: Annotated[
        list[str] | None, typer.Argument(help="The templates.", metavar="[ID...]")
    ] = None,
    category: Annotated[str, typer.Option(help="All templates of this category.")] = "",
    everything: Annotated[bool, typer.Option("--all", help="All templates.")] = False,
    as_json: AsJson = False,
    address: Address = "",
    api_key: ApiKey = "",
) -> None:
    """Make agents of templates; an agent that exists, or was deleted, is left as it is."""
    if bool(ids) + bool(category) + everything != 1:
        refuse("name templates, or a --category, or --all")

    async def make(client: Client) -> Exit:
        done = await client.templates.install(ids or (), category=category, everything=everything)
        if as_json:
            print(json_line(done))
        else:
            _print_installed(done)
        return Exit.SUCCEEDED

    call(address, api_key, make)


_TEMPLATE_COLUMNS = (
    Column("category"),
    Column("id"),
    Column("name"),
    Column("installed", below=True),
    Column("description", below=True, long=True),
)


def _templates(category: TemplateCategory) -> list[tuple[str, ...]]:
    return [
        (
            category.id,
            one.id,
            f"{one.agent.emoji} {one.agent.name}".strip(),
            "installed" if one.installed else "",
            one.agent.description,
        )
        for one in category.templates
    ]


def _print_installed(done: InstallTemplatesResponse) -> None:
    for agent_id in done.installed_agent_ids:
        print(f"{agent_id} installed")
    for agent_id in done.kept_agent_ids:
        print(f"{agent_id} kept as it is")
