"""Agents made and changed, by options, by files, in an editor."""

from __future__ import annotations

from typing import Annotated

import typer

from conductor.content.v1.agent_pb2 import Agent
from conductor_ai.cli import definitions, editing, files
from conductor_ai.cli.agents.options import (
    Author,
    Capabilities,
    Color,
    DefinitionFile,
    Description,
    Emoji,
    Fallbacks,
    Group,
    Id,
    Instructions,
    McpServers,
    Model,
    Provider,
    Tags,
    Text,
    Tools,
    Version,
    defined,
    wished,
)
from conductor_ai.cli.connection import Address, ApiKey, call
from conductor_ai.cli.exits import Exit, explain, refuse
from conductor_ai.cli.output import AsJson, json_line, tell
from conductor_ai.client import Client, ConductorError


def create(
    name: Annotated[Text, typer.Option(help="Its name; needed unless the file has one.")] = None,
    agent_id: Annotated[
        str, typer.Option("--id", help="Its id.", show_default="made from its name")
    ] = "",
    description: Description = None,
    instructions: Instructions = None,
    in_group: Group = None,
    emoji: Emoji = None,
    color: Color = None,
    author: Author = None,
    definition_version: Version = None,
    tag: Tags = None,
    capability: Capabilities = None,
    tool: Tools = None,
    mcp_server: McpServers = None,
    provider: Provider = None,
    model: Model = None,
    fallback: Fallbacks = None,
    file: DefinitionFile = "",
    persona: Annotated[
        str, typer.Option(help="The text of its persona, a file; - is stdin.", metavar="FILE")
    ] = "",
    as_json: AsJson = False,
    address: Address = "",
    api_key: ApiKey = "",
) -> None:
    """Make an agent of options, or of a definition; options go before what a definition says."""
    if file == persona == files.STANDARD:
        refuse("--file and --persona cannot both be stdin")
    agent = defined(file) if file else Agent()
    said = wished(
        name=name,
        description=description,
        instructions=instructions,
        group=in_group,
        emoji=emoji,
        color=color,
        author=author,
        definition_version=definition_version,
        ai_provider=provider,
        model=model,
        tags=tag,
        capabilities=capability,
        tools=tool,
        mcp_servers=mcp_server,
        fallbacks=fallback,
    )
    definitions.copied(said.fields, said.agent, agent)
    agent.id = agent_id or agent.id
    if not agent.name:
        refuse("an agent needs a name: --name, or a name in its definition")
    content = files.read_text(persona) if persona else None

    async def make(client: Client) -> Exit:
        made = await client.agents.create(agent)
        print(json_line(made) if as_json else f"{made.id} created")
        if content is None:
            return Exit.SUCCEEDED
        try:
            await client.personas.create(made.id, content)
        except ConductorError as error:
            status = explain(error, address, f"the persona of {made.id}")
            tell(f"the agent was made; `conductor personas set {made.id} FILE` gives it a persona")
            return status
        return Exit.SUCCEEDED

    call(address, api_key, make)


def update(
    agent_id: Id,
    name: Annotated[Text, typer.Option(help="Its name.")] = None,
    description: Description = None,
    instructions: Instructions = None,
    in_group: Group = None,
    emoji: Emoji = None,
    color: Color = None,
    author: Author = None,
    definition_version: Version = None,
    tag: Tags = None,
    capability: Capabilities = None,
    tool: Tools = None,
    mcp_server: McpServers = None,
    provider: Provider = None,
    model: Model = None,
    fallback: Fallbacks = None,
    file: DefinitionFile = "",
    etag: Annotated[
        str, typer.Option(help="Change it only while `get` shows this etag.", show_default="any")
    ] = "",
    as_json: AsJson = False,
    address: Address = "",
    api_key: ApiKey = "",
) -> None:
    """Change what options name, or with --file all of its definition; runs use it within a second.

    An empty option clears: `--tag ''` takes all labels away.
    """
    said = wished(
        name=name,
        description=description,
        instructions=instructions,
        group=in_group,
        emoji=emoji,
        color=color,
        author=author,
        definition_version=definition_version,
        ai_provider=provider,
        model=model,
        tags=tag,
        capabilities=capability,
        tools=tool,
        mcp_servers=mcp_server,
        fallbacks=fallback,
    )
    agent = defined(file) if file else Agent()
    definitions.copied(said.fields, said.agent, agent)
    agent.id, agent.etag = agent_id, etag
    fields = definitions.FIELDS if file else said.fields
    if not fields:
        refuse("nothing is to change: name options, or a --file")

    async def change(client: Client) -> Exit:
        changed = await client.agents.update(agent, fields=fields, force=not etag)
        print(json_line(changed) if as_json else f"{changed.id} updated")
        return Exit.SUCCEEDED

    call(address, api_key, change)


def edit(
    agent_id: Id,
    force: editing.Force = False,
    address: Address = "",
    api_key: ApiKey = "",
) -> None:
    """Edit the definition of an agent in $VISUAL or $EDITOR, as YAML.

    What others save in the meantime is merged. Whatever keeps it from being saved, your text is kept.
    """

    async def change(client: Client) -> Exit:
        base = Agent()

        async def fetch() -> editing.Draft:
            base.CopyFrom(await client.agents.get(agent_id))
            return editing.Draft(definitions.write(base), base.etag)

        async def save(text: str, etag: str, over: bool) -> None:
            try:
                wanted = definitions.read(text)
            except definitions.DefinitionError as error:
                raise editing.UnreadableError(str(error)) from None
            fields = definitions.changed(base, wanted)
            if not fields:
                tell(f"{agent_id} is as it was")
                return
            wanted.id, wanted.etag = agent_id, etag
            changed = await client.agents.update(wanted, fields=fields, force=over)
            tell(f"{changed.id} updated: {', '.join(fields)}")

        subject = editing.Subject(
            name=agent_id,
            file_name=files.file_name(agent_id, ".yaml"),
            fetch=fetch,
            save=save,
            rescue=f"conductor agents update {agent_id} --file",
        )
        return await editing.edit(subject, force=force)

    call(address, api_key, change)
