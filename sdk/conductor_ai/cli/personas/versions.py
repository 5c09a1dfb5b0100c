"""The versions of personas: compared, restored, named, cleaned up."""

from __future__ import annotations

from typing import Annotated

import typer

from conductor.content.v1.persona_service_pb2 import ListPersonaVersionsRequest
from conductor_ai.cli import comparing, facts, listing
from conductor_ai.cli.asking import agreed, can_ask
from conductor_ai.cli.connection import Address, ApiKey, call
from conductor_ai.cli.exits import Exit, refuse
from conductor_ai.cli.output import AsJson, json_line, tell
from conductor_ai.cli.personas.options import LATEST, AgentId, Etag, Reason, Version
from conductor_ai.cli.personas.shown import VERSIONS, report, statistics_facts
from conductor_ai.client import Client

_LAST = 999_999_999


def versions(
    agent_id: AgentId,
    first: Annotated[
        int, typer.Option("--from", help="The first number to list.", min=0, max=_LAST)
    ] = 0,
    last: Annotated[
        int, typer.Option("--to", help="The last number to list; 0 is the newest.", max=_LAST)
    ] = 0,
    reverse: Annotated[bool, typer.Option("--reverse", help="Begin with the oldest.")] = False,
    limit: listing.Limit = 50,
    as_json: AsJson = False,
    address: Address = "",
    api_key: ApiKey = "",
) -> None:
    """List the versions of a persona, newest first."""
    filters = ListPersonaVersionsRequest(
        agent_id=agent_id,
        page_size=listing.page_size(limit),
        from_version=first,
        to_version=last,
        reverse=reverse,
    )

    async def list_them(client: Client) -> Exit:
        found = client.personas.versions(filters)
        nothing = "no versions are like that"
        return await listing.show(found, limit, VERSIONS, nothing=nothing, as_json=as_json)

    call(address, api_key, list_them)


def compare(
    agent_id: AgentId,
    from_version: Annotated[str, typer.Argument(help="The version to begin with.", metavar="FROM")],
    to_version: Annotated[
        str, typer.Argument(help="The version it became.", metavar="[TO]")
    ] = LATEST,
    as_json: AsJson = False,
    address: Address = "",
    api_key: ApiKey = "",
) -> None:
    """Show how one version became another: a diff, which `patch` takes behind a pipe."""

    async def show_both(client: Client) -> Exit:
        found = await client.personas.compare(agent_id, from_version, to_version)
        if as_json:
            print(json_line(found))
        else:
            comparing.show(found.comparison)
        return Exit.SUCCEEDED

    call(address, api_key, show_both)


def restore(
    agent_id: AgentId,
    version: Version,
    reason: Reason = "",
    etag: Etag = "",
    as_json: AsJson = False,
    address: Address = "",
    api_key: ApiKey = "",
) -> None:
    """Make a new version with the text and metadata of an earlier one."""

    async def take(client: Client) -> Exit:
        persona = await client.personas.restore(agent_id, version, etag=etag, reason=reason)
        report(persona, as_json=as_json)
        return Exit.SUCCEEDED

    call(address, api_key, take)


def alias(
    agent_id: AgentId,
    name: Annotated[str, typer.Argument(help="The alias, for example production.", metavar="NAME")],
    version: Version,
    as_json: AsJson = False,
    address: Address = "",
    api_key: ApiKey = "",
) -> None:
    """Let a name stand for a version. Runs that name no version use `production`."""

    async def move(client: Client) -> Exit:
        persona = await client.personas.set_alias(agent_id, name, version)
        if as_json:
            print(json_line(persona))
        else:
            (number,) = [one.version for one in persona.aliases if one.name == name]
            print(f"{name} of {agent_id} is version {number}")
        return Exit.SUCCEEDED

    call(address, api_key, move)


def unalias(
    agent_id: AgentId,
    name: Annotated[str, typer.Argument(help="The alias.", metavar="NAME")],
    as_json: AsJson = False,
    address: Address = "",
    api_key: ApiKey = "",
) -> None:
    """Take a name away; its version stays. Without `production` runs use the newest."""

    async def take(client: Client) -> Exit:
        persona = await client.personas.delete_alias(agent_id, name)
        print(json_line(persona) if as_json else f"{name} of {agent_id} stands for nothing now")
        return Exit.SUCCEEDED

    call(address, api_key, take)


def statistics(
    agent_id: AgentId, as_json: AsJson = False, address: Address = "", api_key: ApiKey = ""
) -> None:
    """Show how a persona grew, and what its newest text is made of."""

    async def show_them(client: Client) -> Exit:
        found = await client.personas.statistics(agent_id)
        if as_json:
            print(json_line(found))
        else:
            facts.show(statistics_facts(found))
        return Exit.SUCCEEDED

    call(address, api_key, show_them)


def clean_up(
    agent_id: AgentId,
    keep: Annotated[int, typer.Option(help="How many of the newest stay.", min=1, max=1000)] = 50,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be deleted.")
    ] = False,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Do not ask; needed where nobody can be asked.")
    ] = False,
    as_json: AsJson = False,
    address: Address = "",
    api_key: ApiKey = "",
) -> None:
    """Delete old versions for good: all but the newest, those with an alias and those runs used."""
    if not (yes or dry_run or can_ask()):
        refuse("deleting is for good, and nobody can be asked at stdin: say --yes, or --dry-run")

    async def clean(client: Client) -> Exit:
        if not (yes or dry_run):
            would = await client.personas.clean_up(agent_id, keep=keep, dry_run=True)
            question = f"Delete {facts.count(would.deleted, 'version')} for good?"
            if would.deleted and not agreed(question):
                tell("nothing was deleted")
                return Exit.FAILED
        done = await client.personas.clean_up(agent_id, keep=keep, dry_run=dry_run)
        if as_json:
            print(json_line(done))
        else:
            deleted = facts.count(done.deleted, "version")
            kept = f"{done.kept:,} kept, {done.kept_in_use:,} of them for an alias or a run alone"
            print(f"{deleted} {'would be ' if dry_run else ''}deleted, {kept}")
        return Exit.SUCCEEDED

    call(address, api_key, clean)
