"""Instances made and changed."""

from __future__ import annotations

from typing import Annotated

import typer

from conductor_ai.cli.connection import Address, ApiKey, call
from conductor_ai.cli.exits import Exit, refuse
from conductor_ai.cli.instances.options import (
    Config,
    Cwd,
    Emoji,
    Hidden,
    Id,
    Mcp,
    OfStatus,
    Order,
    Place,
    said,
)
from conductor_ai.cli.output import AsJson, harmless, json_line
from conductor_ai.client import Client


def create(
    agent: Annotated[str, typer.Argument(help="The agent that is placed.", metavar="AGENT")],
    instance_id: Annotated[
        str, typer.Option("--id", help="The id it gets.", show_default="one of its own")
    ] = "",
    conversation: Annotated[str, typer.Option(help="The conversation it is placed in.")] = "",
    screenplay: Annotated[
        str,
        typer.Option(help="The screenplay it is placed in.", show_default="the conversation's"),
    ] = "",
    cwd: Cwd = None,
    emoji: Emoji = None,
    position: Place = None,
    order: Order = None,
    mcp: Mcp = None,
    config: Config = "",
    status: OfStatus = None,
    hidden: Hidden = None,
    as_json: AsJson = False,
    address: Address = "",
    api_key: ApiKey = "",
) -> None:
    """Place an agent in a screenplay, a conversation, or by itself."""
    wanted = said(
        status=status,
        cwd=cwd,
        emoji=emoji,
        position=position,
        order=order,
        mcp=mcp,
        config=config,
        hidden=hidden,
    )
    wanted.instance_id, wanted.agent_id = instance_id, agent
    wanted.conversation_id, wanted.screenplay_id = conversation, screenplay

    async def make(client: Client) -> Exit:
        made = await client.instances.create(wanted)
        print(json_line(made) if as_json else f"{made.instance_id} created")
        return Exit.SUCCEEDED

    call(address, api_key, make)


def update(
    instance_id: Id,
    status: OfStatus = None,
    cwd: Cwd = None,
    emoji: Emoji = None,
    position: Place = None,
    order: Order = None,
    mcp: Mcp = None,
    config: Config = "",
    hidden: Hidden = None,
    etag: Annotated[
        str, typer.Option(help="Only while `show` tells this etag.", show_default="any")
    ] = "",
    as_json: AsJson = False,
    address: Address = "",
    api_key: ApiKey = "",
) -> None:
    """Change what options name. An empty one clears: `--mcp ''` takes all servers away.

    The keys of --config replace those there are, and null takes one away.
    """
    wanted = said(
        status=status,
        cwd=cwd,
        emoji=emoji,
        position=position,
        order=order,
        mcp=mcp,
        config=config,
        hidden=hidden,
    )
    fields = [field.name for field, _ in wanted.ListFields()]
    if mcp is not None and "mcp_configs" not in fields:
        fields.append("mcp_configs")
    if not fields:
        refuse("nothing is to change: name options")
    wanted.instance_id, wanted.etag = instance_id, etag

    async def change(client: Client) -> Exit:
        changed = await client.instances.update(wanted, fields=fields)
        print(json_line(changed) if as_json else f"{instance_id} saved")
        return Exit.SUCCEEDED

    call(address, api_key, change)


def cwd(
    instance_id: Id,
    directory: Annotated[
        str,
        typer.Argument(
            help="An absolute path; '' for that of its screenplay.", metavar="DIRECTORY"
        ),
    ],
    as_json: AsJson = False,
    address: Address = "",
    api_key: ApiKey = "",
) -> None:
    """Set where the runs of an instance work."""

    async def change(client: Client) -> Exit:
        changed = await client.instances.set_cwd(instance_id, directory)
        told = harmless(f"runs of {instance_id} work in {changed.cwd}")
        if not changed.cwd:
            told = f"runs of {instance_id} work where those of its screenplay do"
        print(json_line(changed) if as_json else told)
        return Exit.SUCCEEDED

    call(address, api_key, change)
