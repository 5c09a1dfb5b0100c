"""The texts of personas: seen, set, edited, deleted."""

from __future__ import annotations

from typing import Annotated

import typer

from conductor.content.v1.persona_pb2 import Persona, PersonaVersion
from conductor_ai.cli import deleting, editing, facts, files, listing
from conductor_ai.cli.connection import Address, ApiKey, call, call_each
from conductor_ai.cli.exits import Exit, refuse
from conductor_ai.cli.output import AsJson, json_line, tell, write_text
from conductor_ai.cli.personas.options import LATEST, AgentId, AgentIds, Etag, Metadata, Reason
from conductor_ai.cli.personas.shown import PERSONAS, persona_facts, report, saved, version_facts
from conductor_ai.client import Client, ConductorError

_MISSING = "PERSONA_NOT_FOUND"
_TAKEN = "PERSONA_ALREADY_EXISTS"


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
        return await listing.show(found, limit, PERSONAS, nothing=nothing, as_json=as_json)

    call(address, api_key, show)


def get(
    agent_id: AgentId,
    version: Annotated[
        str, typer.Option(help="A number, latest, first or the name of an alias.")
    ] = LATEST,
    as_json: AsJson = False,
    address: Address = "",
    api_key: ApiKey = "",
) -> None:
    """Print the text of a persona as it is, and nothing else."""

    async def show(client: Client) -> Exit:
        found: Persona | PersonaVersion
        if version == LATEST:
            found = await client.personas.get(agent_id)
        else:
            found = await client.personas.version(agent_id, version)
        if as_json:
            print(json_line(found))
        else:
            write_text(found.content)
        return Exit.SUCCEEDED

    call(address, api_key, show)


def show(
    agent_id: AgentId,
    version: Annotated[
        str,
        typer.Argument(
            help="A version, to be shown with its text: a number, latest, first or an alias.",
            metavar="[VERSION]",
        ),
    ] = "",
    deleted: deleting.AlsoDeleted = False,
    as_json: AsJson = False,
    address: Address = "",
    api_key: ApiKey = "",
) -> None:
    """Show what is known of a persona, or of one of its versions."""
    if version and deleted:
        refuse("a deleted persona shows no version; `undelete` it first")

    async def tell_all(client: Client) -> Exit:
        if version:
            one = await client.personas.version(agent_id, version)
            if as_json:
                print(json_line(one))
            else:
                facts.show(version_facts(one))
                facts.text("text", one.content)
            return Exit.SUCCEEDED
        persona = await client.personas.get(agent_id, include_deleted=deleted)
        if as_json:
            print(json_line(persona))
        else:
            facts.show(persona_facts(persona))
        return Exit.SUCCEEDED

    call(address, api_key, tell_all)


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
        report(persona, as_json=as_json)
        return Exit.SUCCEEDED

    call(address, api_key, store)


def edit(
    agent_id: AgentId,
    reason: Reason = "",
    force: editing.Force = False,
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

        async def first(text: str) -> Persona:
            try:
                return await client.personas.create(agent_id, text, reason=reason)
            except ConductorError as error:
                if error.reason != _TAKEN:
                    raise
                raise editing.OutdatedError from None

        async def save(text: str, etag: str, over: bool) -> None:
            if etag:
                persona = await client.personas.update(
                    agent_id, text, etag=etag, force=over, reason=reason
                )
            else:
                persona = await first(text)
            tell(saved(persona))

        subject = editing.Subject(
            name=f"the persona of {agent_id}",
            file_name=files.file_name(agent_id, ".md"),
            fetch=fetch,
            save=save,
            rescue=f"conductor personas set {agent_id}",
        )
        return await editing.edit(subject, force=force)

    call(address, api_key, change)


def delete(
    ids: AgentIds,
    purge: deleting.Purge = False,
    yes: deleting.Yes = False,
    as_json: AsJson = False,
    address: Address = "",
    api_key: ApiKey = "",
) -> None:
    """Delete personas, not their agents; `undelete` takes them back unless they are purged."""
    deleting.ask(ids, purge=purge, yes=yes, one="the persona of {}", many="personas")

    async def one(client: Client, agent_id: str) -> None:
        await client.personas.delete(agent_id, purge=purge)
        told = f"the persona of {agent_id} {deleting.told(purge)}"
        print(json_line(Persona(agent_id=agent_id)) if as_json else told)

    call_each(ids, one, address, api_key)


def undelete(
    ids: AgentIds, as_json: AsJson = False, address: Address = "", api_key: ApiKey = ""
) -> None:
    """Take deleted personas back."""

    async def one(client: Client, agent_id: str) -> None:
        persona = await client.personas.undelete(agent_id)
        print(json_line(persona) if as_json else f"the persona of {agent_id} is back")

    call_each(ids, one, address, api_key)
