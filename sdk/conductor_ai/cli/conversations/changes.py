"""Conversations made, changed and copied."""

from __future__ import annotations

from typing import Annotated

import typer

from conductor.conversations.v1.conversation_pb2 import AgentReference, Conversation
from conductor_ai.cli import editing, files
from conductor_ai.cli.connection import Address, ApiKey, call
from conductor_ai.cli.conversations.options import Allow, AutoDelegate, Id, MaxChainDepth
from conductor_ai.cli.conversations.shown import active_name
from conductor_ai.cli.exits import Exit, refuse
from conductor_ai.cli.output import AsJson, harmless, json_line, tell
from conductor_ai.client import Client


def create(
    title: Annotated[
        str, typer.Argument(help="Its title.", metavar="[TITLE]", show_default="one with the time")
    ] = "",
    context: Annotated[
        str,
        typer.Option(
            help="What every run in it is told, a Markdown file; - is stdin.", metavar="FILE"
        ),
    ] = "",
    screenplay: Annotated[str, typer.Option(help="The screenplay it belongs to.")] = "",
    agent: Annotated[str, typer.Option(help="Who answers messages that name no agent.")] = "",
    instance: Annotated[str, typer.Option(help="The same, as an instance of an agent.")] = "",
    allow: Allow = None,
    auto_delegate: AutoDelegate = None,
    max_chain_depth: MaxChainDepth = None,
    as_json: AsJson = False,
    address: Address = "",
    api_key: ApiKey = "",
) -> None:
    """Make a conversation; `conductor chat --conversation` talks in it."""
    wanted = Conversation(
        title=title or None,
        context=files.read_text(context) if context else None,
        screenplay_id=screenplay,
        allowed_agents=allow or [],
        auto_delegate=auto_delegate,
        max_chain_depth=max_chain_depth,
    )
    if agent or instance:
        wanted.active_agent.CopyFrom(AgentReference(agent_id=agent, instance_id=instance))

    async def make(client: Client) -> Exit:
        made = await client.conversations.create(wanted)
        print(json_line(made) if as_json else harmless(f"{made.id} created: {made.title}"))
        return Exit.SUCCEEDED

    call(address, api_key, make)


def title(
    conversation_id: Id,
    text: Annotated[str, typer.Argument(help="The new title.", metavar="TITLE")],
    as_json: AsJson = False,
    address: Address = "",
    api_key: ApiKey = "",
) -> None:
    """Give a conversation another title."""

    async def change(client: Client) -> Exit:
        changed = await client.conversations.set_title(conversation_id, text)
        told = harmless(f"{conversation_id} is called {changed.title}")
        print(json_line(changed) if as_json else told)
        return Exit.SUCCEEDED

    call(address, api_key, change)


def context(
    conversation_id: Id,
    file: Annotated[
        str, typer.Argument(help="What it is from now on; - is stdin.", metavar="[FILE]")
    ] = "",
    clear: Annotated[bool, typer.Option("--clear", help="Take it away.")] = False,
    force: editing.Force = False,
    as_json: AsJson = False,
    address: Address = "",
    api_key: ApiKey = "",
) -> None:
    """Change what every run in a conversation is told: in $VISUAL or $EDITOR, or from a file.

    What others save while you edit is merged. Whatever keeps it from being saved, your text is kept.
    """
    if clear and file:
        refuse("--clear takes no file")
    if not (file or clear):
        if as_json:
            refuse("--json needs a file: nothing is printed while you edit")
        call(address, api_key, lambda client: edit_context(client, conversation_id, force=force))
    text = "" if clear else files.read_text(file)

    async def change(client: Client) -> Exit:
        changed = await client.conversations.set_context(conversation_id, text)
        told = f"{conversation_id} has a context of {len(text):,} characters"
        print(json_line(changed) if as_json else told)
        return Exit.SUCCEEDED

    call(address, api_key, change)


def settings(
    conversation_id: Id,
    allow: Allow = None,
    auto_delegate: AutoDelegate = None,
    max_chain_depth: MaxChainDepth = None,
    as_json: AsJson = False,
    address: Address = "",
    api_key: ApiKey = "",
) -> None:
    """Set which agents may take part, and whether and how far they hand work on.

    An empty one lets all take part: `--allow ''`.
    """
    wanted = Conversation(
        id=conversation_id,
        allowed_agents=[one for one in allow or [] if one.strip()],
        auto_delegate=auto_delegate,
        max_chain_depth=max_chain_depth,
    )
    given = {
        "allowed_agents": allow,
        "auto_delegate": auto_delegate,
        "max_chain_depth": max_chain_depth,
    }
    fields = [name for name, value in given.items() if value is not None]
    if not fields:
        refuse("nothing is to change: name options")

    async def change(client: Client) -> Exit:
        changed = await client.conversations.update(wanted, fields=fields, force=True)
        how_far = f"hand on up to {changed.max_chain_depth} times"
        may = f"agents {how_far if changed.auto_delegate else 'hand nothing on'}"
        who = ", ".join(changed.allowed_agents) or "all"
        told = harmless(f"{conversation_id}: {may}; {who} may take part")
        print(json_line(changed) if as_json else told)
        return Exit.SUCCEEDED

    call(address, api_key, change)


def agent(
    conversation_id: Id,
    agent_id: Annotated[
        str, typer.Argument(help="The agent.", metavar="[AGENT]", show_default="default")
    ] = "",
    instance: Annotated[str, typer.Option(help="An instance of an agent, instead.")] = "",
    as_json: AsJson = False,
    address: Address = "",
    api_key: ApiKey = "",
) -> None:
    """Set who answers messages that name no agent."""

    async def change(client: Client) -> Exit:
        changed = await client.conversations.set_active_agent(
            conversation_id, agent_id, instance_id=instance
        )
        told = harmless(f"{active_name(changed)} answers in {conversation_id}")
        print(json_line(changed) if as_json else told)
        return Exit.SUCCEEDED

    call(address, api_key, change)


def clone(
    conversation_id: Id,
    title: Annotated[
        str, typer.Option(help="The title of the copy.", show_default="with (copy)")
    ] = "",
    as_json: AsJson = False,
    address: Address = "",
    api_key: ApiKey = "",
) -> None:
    """Copy a conversation with its messages and instances, all with new ids."""

    async def copy(client: Client) -> Exit:
        made = await client.conversations.clone(conversation_id, title=title)
        if as_json:
            print(json_line(made))
            return Exit.SUCCEEDED
        print(harmless(f"{made.conversation.id} created: {made.conversation.title}"))
        for old in sorted(made.instance_id_map):
            print(harmless(f"{made.instance_id_map[old]} is the copy of {old}"))
        return Exit.SUCCEEDED

    call(address, api_key, copy)


async def edit_context(client: Client, conversation_id: str, *, force: bool = False) -> Exit:
    """Edit a context until it is saved or given up, as `editing.edit` does."""
    name = f"the context of {conversation_id}"

    async def fetch() -> editing.Draft:
        conversation = await client.conversations.get(conversation_id)
        return editing.Draft(conversation.context, conversation.etag)

    async def save(text: str, etag: str, over: bool) -> None:
        wanted = Conversation(id=conversation_id, context=text, etag=etag)
        await client.conversations.update(wanted, fields=["context"], force=over)
        tell(f"{name} is saved")

    subject = editing.Subject(
        name=name,
        file_name="context.md",
        fetch=fetch,
        save=save,
        rescue=f"conductor conversations context {conversation_id}",
    )
    return await editing.edit(subject, force=force)
