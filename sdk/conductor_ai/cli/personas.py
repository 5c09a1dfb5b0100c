"""`conductor personas`: who agents are, in all versions."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from conductor.content.v1.persona_pb2 import Persona, PersonaStatistics, PersonaVersion
from conductor.content.v1.persona_service_pb2 import ListPersonaVersionsRequest
from conductor_ai.cli import comparing, editing, facts, files, listing
from conductor_ai.cli.asking import agreed, can_ask, confirm
from conductor_ai.cli.connection import Address, ApiKey, call, call_each
from conductor_ai.cli.exits import Exit, refuse
from conductor_ai.cli.output import AsJson, json_line, tell, write_text
from conductor_ai.cli.tables import Column
from conductor_ai.client import Client, ConductorError

group = typer.Typer(name="personas", no_args_is_help=True, help="See and change who agents are.")

_LATEST = "latest"
_MISSING = "PERSONA_NOT_FOUND"
_LAST = 999_999_999
_ALL = 0

AgentId = Annotated[str, typer.Argument(help="The id of the agent.", metavar="AGENT")]
AgentIds = Annotated[list[str], typer.Argument(help="The ids of the agents.", metavar="AGENT...")]
Version = Annotated[
    str,
    typer.Argument(
        help="The version: a number, latest, first or the name of an alias.", metavar="VERSION"
    ),
]
Reason = Annotated[str, typer.Option(help="Why; kept with the version.")]
Etag = Annotated[str, typer.Option(help="Only while `show` shows this etag.", show_default="any")]


def _metadata(text: str) -> dict[str, Any]:
    try:
        read = json.loads(text)
    except ValueError as error:
        raise typer.BadParameter(f"this is no JSON: {error}") from None
    if not isinstance(read, dict):
        raise typer.BadParameter('it has to be an object, such as {"ticket": 7}')
    return read


Metadata = Annotated[
    dict[str, Any] | None,
    typer.Option(parser=_metadata, metavar="JSON", help="An object that is noted with it."),
]


@group.command("list")
def list_personas(
    deleted: Annotated[bool, typer.Option("--deleted", help="Only deleted personas.")] = False,
    limit: listing.Limit = 50,
    as_json: AsJson = False,
    address: Address = "",
    api_key: ApiKey = "",
) -> None:
    """List personas without their texts, newest first."""
    nothing = "no deleted personas" if deleted else "no personas yet"

    async def show(client: Client) -> Exit:
        found = client.personas.list(deleted=deleted)
        return await listing.show(found, limit, _PERSONAS, nothing=nothing, as_json=as_json)

    call(address, api_key, show)


@group.command()
def get(
    agent_id: AgentId,
    version: Annotated[
        str, typer.Option(help="A number, latest, first or the name of an alias.")
    ] = _LATEST,
    as_json: AsJson = False,
    address: Address = "",
    api_key: ApiKey = "",
) -> None:
    """Print the text of a persona as it is, and nothing else."""

    async def show(client: Client) -> Exit:
        found: Persona | PersonaVersion
        if version == _LATEST:
            found = await client.personas.get(agent_id)
        else:
            found = await client.personas.version(agent_id, version)
        if as_json:
            print(json_line(found))
        else:
            write_text(found.content)
        return Exit.SUCCEEDED

    call(address, api_key, show)


@group.command()
def show(
    agent_id: AgentId,
    version: Annotated[
        str,
        typer.Argument(
            help="A version, to be shown with its text: a number, latest, first or an alias.",
            metavar="[VERSION]",
        ),
    ] = "",
    as_json: AsJson = False,
    address: Address = "",
    api_key: ApiKey = "",
) -> None:
    """Show what is known of a persona, or of one of its versions."""

    async def tell_all(client: Client) -> Exit:
        if version:
            one = await client.personas.version(agent_id, version)
            if as_json:
                print(json_line(one))
            else:
                facts.show(_version_facts(one))
                facts.text("text", one.content)
            return Exit.SUCCEEDED
        persona = await client.personas.get(agent_id)
        if as_json:
            print(json_line(persona))
        else:
            facts.show(_persona_facts(persona))
        return Exit.SUCCEEDED

    call(address, api_key, tell_all)


@group.command("set")
def set_persona(
    agent_id: AgentId,
    file: files.File,
    reason: Reason = "",
    metadata: Metadata = None,
    etag: Etag = "",
    as_json: AsJson = False,
    address: Address = "",
    api_key: ApiKey = "",
) -> None:
    """Make a text the newest version of a persona, or the first one. Earlier ones stay."""
    content = files.read_text(file)

    async def store(client: Client) -> Exit:
        try:
            persona = await client.personas.update(
                agent_id, content, metadata=metadata, etag=etag, force=not etag, reason=reason
            )
        except ConductorError as error:
            if error.reason != _MISSING or etag:
                raise
            persona = await client.personas.create(
                agent_id, content, metadata=metadata, reason=reason
            )
        _print(persona, as_json=as_json)
        return Exit.SUCCEEDED

    call(address, api_key, store)


@group.command()
def edit(
    agent_id: AgentId,
    reason: Reason = "",
    force: Annotated[
        bool, typer.Option("--force", help="Save over what others saved in the meantime.")
    ] = False,
    address: Address = "",
    api_key: ApiKey = "",
) -> None:
    """Edit the text of a persona in $VISUAL or $EDITOR, and save it as a new version.

    What others save in the meantime is merged. Whatever keeps it from being saved, your text is kept.
    """

    async def change(client: Client) -> Exit:
        async def fetch() -> editing.Draft:
            try:
                persona = await client.personas.get(agent_id)
            except ConductorError as error:
                if error.reason != _MISSING:
                    raise
                return editing.Draft("", "")
            return editing.Draft(persona.content, persona.etag)

        async def save(text: str, etag: str, over: bool) -> None:
            if etag:
                persona = await client.personas.update(
                    agent_id, text, etag=etag, force=over, reason=reason
                )
            else:
                persona = await client.personas.create(agent_id, text, reason=reason)
            tell(_saved(persona))

        subject = editing.Subject(
            name=f"the persona of {agent_id}",
            file_name=files.file_name(agent_id, ".md"),
            fetch=fetch,
            save=save,
            rescue=f"conductor personas set {agent_id}",
        )
        return await editing.edit(subject, force=force)

    call(address, api_key, change)


@group.command()
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
        return await listing.show(found, limit, _VERSIONS, nothing=nothing, as_json=as_json)

    call(address, api_key, list_them)


@group.command()
def compare(
    agent_id: AgentId,
    from_version: Annotated[str, typer.Argument(help="The version to begin with.", metavar="FROM")],
    to_version: Annotated[
        str, typer.Argument(help="The version it became.", metavar="[TO]")
    ] = _LATEST,
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


@group.command()
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
        _print(persona, as_json=as_json)
        return Exit.SUCCEEDED

    call(address, api_key, take)


@group.command()
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


@group.command()
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


@group.command()
def statistics(
    agent_id: AgentId, as_json: AsJson = False, address: Address = "", api_key: ApiKey = ""
) -> None:
    """Show how a persona grew, and what its newest text is made of."""

    async def show_them(client: Client) -> Exit:
        found = await client.personas.statistics(agent_id)
        if as_json:
            print(json_line(found))
        else:
            facts.show(_statistics(found))
        return Exit.SUCCEEDED

    call(address, api_key, show_them)


@group.command("clean-up")
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


@group.command()
def delete(
    ids: AgentIds,
    purge: Annotated[
        bool, typer.Option("--purge", help="For good, deleted before or not.")
    ] = False,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Do not ask before it is for good.")
    ] = False,
    as_json: AsJson = False,
    address: Address = "",
    api_key: ApiKey = "",
) -> None:
    """Delete personas, not their agents; `undelete` takes them back unless they are purged."""
    if purge and not yes:
        what = f"the persona of {ids[0]}" if len(ids) == 1 else f"{len(ids)} personas"
        confirm(
            f"Delete {what} with all versions for good?",
            unasked="--purge is for good",
            declined="nothing was deleted",
        )

    async def one(client: Client, agent_id: str) -> None:
        await client.personas.delete(agent_id, purge=purge)
        gone = "deleted for good" if purge else "deleted"
        told = f"the persona of {agent_id} {gone}"
        print(json_line(Persona(agent_id=agent_id)) if as_json else told)

    call_each(ids, one, address, api_key)


@group.command()
def undelete(
    ids: AgentIds, as_json: AsJson = False, address: Address = "", api_key: ApiKey = ""
) -> None:
    """Take deleted personas back."""

    async def one(client: Client, agent_id: str) -> None:
        persona = await client.personas.undelete(agent_id)
        print(json_line(persona) if as_json else f"the persona of {agent_id} is back")

    call_each(ids, one, address, api_key)


def _print(persona: Persona, *, as_json: bool) -> None:
    print(json_line(persona) if as_json else _saved(persona))


def _saved(persona: Persona) -> str:
    told = f"the persona of {persona.agent_id} is version {persona.version}"
    if persona.active_version != persona.version:
        # Whoever saves a text expects runs to use it.
        told += f"; runs use {persona.active_version}, which `production` stands for"
    return told


def _persona_facts(persona: Persona) -> list[tuple[str, str]]:
    return [
        ("agent", persona.agent_id),
        ("version", str(persona.version)),
        ("runs use", str(persona.active_version)),
        *(("alias", f"{one.name} is {one.version}") for one in persona.aliases),
        ("characters", f"{len(persona.content):,}"),
        ("metadata", json_line(persona.metadata) if persona.metadata.fields else ""),
        ("created", facts.when(persona.create_time)),
        ("changed", facts.when(persona.update_time)),
        ("etag", persona.etag),
    ]


def _version_facts(version: PersonaVersion) -> list[tuple[str, str]]:
    return [
        ("agent", version.agent_id),
        ("version", str(version.version)),
        ("aliases", ", ".join(version.aliases)),
        ("author", version.author),
        ("reason", version.reason),
        ("restored from", str(version.restored_from or "")),
        ("used by runs", "yes" if version.used else "no"),
        ("characters", f"{version.characters:,}"),
        ("sha-256", version.content_hash),
        ("metadata", json_line(version.metadata) if version.metadata.fields else ""),
        ("created", facts.when(version.create_time)),
    ]


def _statistics(found: PersonaStatistics) -> list[tuple[str, str]]:
    text = found.content
    return [
        ("versions", f"{found.versions:,} kept, the newest is {found.latest_version}"),
        ("first", facts.when(found.first_version_time)),
        ("last", facts.when(found.last_version_time)),
        ("versions a day", f"{found.versions_per_day:.2f}"),
        ("bytes", f"{found.content_bytes:,} in all texts"),
        ("lines", f"{text.lines:,}"),
        ("words", f"{text.words:,}"),
        ("characters", f"{text.characters:,}"),
        ("headings", f"{text.headings:,}"),
        ("bold", f"{text.bold:,}"),
        ("italic", f"{text.italic:,}"),
        ("code blocks", f"{text.code_blocks:,}"),
        ("links", f"{text.links:,}"),
        ("images", f"{text.images:,}"),
        ("list items", f"{text.list_items:,}"),
    ]


def _persona_columns(when: Column) -> tuple[Column, ...]:
    return (
        Column("agent", 22),
        Column("version", 7, right=True),
        Column("runs use", 8, right=True),
        when,
        Column("aliases", below=True),
    )


def _persona_cells(persona: Persona, when: str) -> tuple[str, ...]:
    return (
        persona.agent_id,
        str(persona.version),
        str(persona.active_version),
        when,
        ", ".join(f"{one.name}={one.version}" for one in persona.aliases),
    )


def _version_columns(when: Column) -> tuple[Column, ...]:
    return (
        Column("version", 7, right=True),
        when,
        Column("author", 16),
        Column("characters", 10, right=True, below=True),
        Column("used", 4, below=True),
        Column("aliases", 12),
        Column("reason", below=True, long=True),
    )


def _version_cells(version: PersonaVersion, when: str) -> tuple[str, ...]:
    return (
        str(version.version),
        when,
        version.author,
        f"{version.characters:,}",
        "yes" if version.used else "",
        ",".join(version.aliases),
        _reason(version),
    )


def _reason(version: PersonaVersion) -> str:
    restored = f"restored from {version.restored_from}" if version.restored_from else ""
    return ": ".join(part for part in (restored, version.reason) if part)


_PERSONAS = listing.Layout(_persona_columns, _persona_cells)
_VERSIONS = listing.Layout(_version_columns, _version_cells)
