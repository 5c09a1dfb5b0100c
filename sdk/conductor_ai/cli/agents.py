"""`conductor agents`: the catalogue of agents, and the templates that fill it."""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum
from typing import Annotated, TypeAlias

import typer

from conductor.content.v1.agent_pb2 import Agent, AgentModel
from conductor.content.v1.agent_service_pb2 import ListAgentsRequest
from conductor.content.v1.persona_pb2 import Persona
from conductor.content.v1.template_service_pb2 import InstallTemplatesResponse, TemplateCategory
from conductor_ai.cli import definitions, editing, facts, files, listing, rows
from conductor_ai.cli.asking import confirm
from conductor_ai.cli.connection import Address, ApiKey, call, call_each
from conductor_ai.cli.exits import Exit, explain, refuse
from conductor_ai.cli.output import AsJson, json_line, tell
from conductor_ai.cli.tables import Column
from conductor_ai.client import Client, ConductorError

group = typer.Typer(name="agents", no_args_is_help=True, help="See and change what agents are.")

Id = Annotated[str, typer.Argument(help="The id of the agent.", metavar="ID")]
Ids = Annotated[list[str], typer.Argument(help="The ids of the agents.", metavar="ID...")]

_NO_PERSONA = "PERSONA_NOT_FOUND"


class Order(StrEnum):
    """What a list of agents is in the order of."""

    NAME = "name"
    CREATED = "created"
    CHANGED = "changed"


_ORDERS = {
    Order.NAME: ListAgentsRequest.ORDER_NAME,
    Order.CREATED: ListAgentsRequest.ORDER_CREATE_TIME,
    Order.CHANGED: ListAgentsRequest.ORDER_UPDATE_TIME,
}

Text: TypeAlias = str | None
Texts: TypeAlias = list[str] | None

Description = Annotated[Text, typer.Option(help="What it is for.")]
Instructions = Annotated[Text, typer.Option(help="Its operating procedure.")]
Group = Annotated[Text, typer.Option(help="The group it is shown in.")]
Emoji = Annotated[Text, typer.Option(help="An emoji it is shown with.")]
Color = Annotated[Text, typer.Option(help="A colour it is shown in, as #rrggbb.")]
Author = Annotated[Text, typer.Option(help="Who wrote it.")]
Version = Annotated[
    Text, typer.Option("--definition-version", help="The version its author gives it.")
]
Tags = Annotated[Texts, typer.Option("--tag", help="A label; may be given several times.")]
Capabilities = Annotated[
    Texts, typer.Option("--capability", help="What it can do; may be given several times.")
]
Tools = Annotated[
    Texts, typer.Option("--tool", help="A tool it may use; may be given several times.")
]
McpServers = Annotated[
    Texts, typer.Option("--mcp-server", help="An MCP server it may use; several times.")
]
Provider = Annotated[Text, typer.Option("--provider", help="The provider of its model.")]
Model = Annotated[Text, typer.Option(help="Its model; empty leaves it to the settings.")]
Fallbacks = Annotated[
    list[str] | None,
    typer.Option(
        "--fallback",
        metavar="[PROVIDER/]MODEL",
        help="A model to ask when the one before fails; may be given several times.",
    ),
]
DefinitionFile = Annotated[
    str, typer.Option("--file", help="A definition in YAML, as `edit` shows it; - is stdin.")
]


@group.command("list")
def list_agents(
    query: Annotated[
        str, typer.Option("--query", "-q", help="Only agents whose words begin with these.")
    ] = "",
    in_group: Annotated[str, typer.Option("--group", help="Only agents of this group.")] = "",
    tag: Annotated[
        list[str] | None,
        typer.Option(help="Only agents with this label; may be given several times."),
    ] = None,
    order: Annotated[
        Order, typer.Option(help="The order of the list.", case_sensitive=False)
    ] = Order.NAME,
    reverse: Annotated[bool, typer.Option("--reverse", help="Turn the order around.")] = False,
    deleted: Annotated[bool, typer.Option("--deleted", help="Only deleted agents.")] = False,
    limit: listing.Limit = 50,
    as_json: AsJson = False,
    address: Address = "",
    api_key: ApiKey = "",
) -> None:
    """List agents, or find them by words of their id, name, description, tags and capabilities."""
    filters = ListAgentsRequest(
        page_size=listing.page_size(limit),
        query=query,
        group=in_group,
        tags=tag or [],
        order=_ORDERS[order],
        reverse=reverse,
        deleted=deleted,
    )
    nothing = "no agents are like that" if query or in_group or tag or deleted else "no agents yet"

    async def show(client: Client) -> Exit:
        found = client.agents.list(filters)
        return await listing.show(found, limit, _LAYOUT, nothing=nothing, as_json=as_json)

    call(address, api_key, show)


@group.command()
def get(
    agent_id: Id,
    deleted: Annotated[bool, typer.Option("--deleted", help="Also when it is deleted.")] = False,
    as_json: AsJson = False,
    address: Address = "",
    api_key: ApiKey = "",
) -> None:
    """Show what an agent is, which versions its persona has, and which of them runs use."""

    async def show(client: Client) -> Exit:
        agent = await client.agents.get(agent_id, include_deleted=deleted)
        if as_json:
            print(json_line(agent))
            return Exit.SUCCEEDED
        persona = None if agent.HasField("delete_time") else await _persona(client, agent_id)
        facts.show(_facts(agent, persona))
        facts.text("instructions", agent.instructions)
        return Exit.SUCCEEDED

    call(address, api_key, show)


@group.command()
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
    agent = _defined(file) if file else Agent()
    said = _said(
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


@group.command()
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
    said = _said(
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
    agent = _defined(file) if file else Agent()
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


@group.command()
def edit(
    agent_id: Id,
    force: Annotated[
        bool, typer.Option("--force", help="Save over what others saved in the meantime.")
    ] = False,
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
                raise editing.Unreadable(str(error)) from None
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


@group.command()
def delete(
    ids: Ids,
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
    """Delete agents with their personas; `undelete` takes them back unless they are purged."""
    if purge and not yes:
        what = ids[0] if len(ids) == 1 else f"{len(ids)} agents"
        confirm(
            f"Delete {what} with all versions for good?",
            unasked="--purge is for good",
            declined="nothing was deleted",
        )

    async def one(client: Client, agent_id: str) -> None:
        await client.agents.delete(agent_id, purge=purge)
        gone = "deleted for good" if purge else "deleted"
        print(json_line(Agent(id=agent_id)) if as_json else f"{agent_id} {gone}")

    call_each(ids, one, address, api_key)


@group.command()
def undelete(
    ids: Ids, as_json: AsJson = False, address: Address = "", api_key: ApiKey = ""
) -> None:
    """Take deleted agents back, with what was deleted with them."""

    async def one(client: Client, agent_id: str) -> None:
        agent = await client.agents.undelete(agent_id)
        print(json_line(agent) if as_json else f"{agent_id} is back")

    call_each(ids, one, address, api_key)


@group.command()
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
        elif not any(one.templates for one in found):
            tell(f"no templates of category {category}" if category else "no templates")
        else:
            rows.show(_TEMPLATE_COLUMNS, [cells for one in found for cells in _templates(one)])
        return Exit.SUCCEEDED

    call(address, api_key, show)


@group.command()
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


class _Said:
    """What options say of an agent."""

    def __init__(self) -> None:
        self.agent = Agent()
        self.fields: list[str] = []


def _said(*, fallbacks: Texts, **options: Text | Texts) -> _Said:
    said = _Said()
    for field, value in options.items():
        if value is None:
            continue
        said.fields.append(field)
        if isinstance(value, str):
            setattr(said.agent, field, value)
        else:
            getattr(said.agent, field).extend(one for one in value if one.strip())
    if fallbacks is not None:
        said.fields.append("fallbacks")
        said.agent.fallbacks.extend(_fallback(one) for one in fallbacks if one.strip())
    return said


def _fallback(text: str) -> AgentModel:
    """Read a model as `conductor run --fallback` does."""
    provider, slash, model = text.partition("/")
    return AgentModel(ai_provider=provider, model=model) if slash else AgentModel(model=text)


def _defined(file: str) -> Agent:
    try:
        return definitions.read(files.read_text(file))
    except definitions.DefinitionError as error:
        refuse(f"{file}: {error}")


async def _persona(client: Client, agent_id: str) -> Persona | None:
    try:
        return await client.personas.get(agent_id)
    except ConductorError as error:
        if error.reason == _NO_PERSONA:
            return None
        raise


def _facts(agent: Agent, persona: Persona | None) -> list[tuple[str, str]]:
    model = f"{agent.ai_provider}/{agent.model}" if agent.ai_provider else agent.model
    return [
        ("id", agent.id),
        ("name", f"{agent.emoji} {agent.name}".strip()),
        ("description", agent.description),
        ("group", agent.group),
        ("version", agent.definition_version),
        ("author", agent.author),
        ("color", agent.color),
        ("tags", ", ".join(agent.tags)),
        ("capabilities", ", ".join(agent.capabilities)),
        ("tools", ", ".join(agent.tools)),
        ("mcp servers", ", ".join(agent.mcp_servers)),
        ("model", model),
        *(("fallback", f"{one.ai_provider}/{one.model}") for one in agent.fallbacks),
        ("persona", _persona_fact(persona)),
        ("built in", "yes" if agent.built_in else ""),
        ("template", agent.template_id),
        ("created", facts.when(agent.create_time)),
        ("changed", facts.when(agent.update_time)),
        ("deleted", facts.when(agent.delete_time)),
        ("gone for good", rows.moment(agent.purge_time)),
        ("etag", agent.etag),
    ]


def _persona_fact(persona: Persona | None) -> str:
    if persona is None:
        return "none"
    told = [f"version {persona.version}", f"runs use {persona.active_version}"]
    told += [f"{alias.name} is {alias.version}" for alias in persona.aliases]
    return ", ".join(told)


def _columns(when: Column) -> tuple[Column, ...]:
    return (
        Column("id", 22),
        Column("name", 22),
        Column("group", 12, below=True),
        Column("model", 12, below=True),
        Column("tags", 20, below=True),
        replace(when, title="changed", below=True),
        Column("description", below=True, long=True),
    )


def _cells(agent: Agent, when: str) -> tuple[str, ...]:
    return (
        agent.id,
        f"{agent.emoji} {agent.name}".strip(),
        agent.group,
        agent.model or agent.ai_provider,
        ",".join(agent.tags),
        when if agent.update_time.seconds else "",
        agent.description,
    )


_LAYOUT = listing.Layout(_columns, _cells, lambda agent: agent.update_time)

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
