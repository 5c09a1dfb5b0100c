"""The agents there are: seen, deleted, taken back."""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum
from typing import Annotated

import typer

from conductor.content.v1.agent_pb2 import Agent
from conductor.content.v1.agent_service_pb2 import ListAgentsRequest
from conductor.content.v1.persona_pb2 import Persona
from conductor_ai.cli import deleting, facts, listing, rows
from conductor_ai.cli.agents.options import Id, Ids
from conductor_ai.cli.connection import Address, ApiKey, call, call_each
from conductor_ai.cli.exits import Exit
from conductor_ai.cli.output import AsJson, json_line
from conductor_ai.cli.tables import Column
from conductor_ai.client import Client, ConductorError

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
    reverse: listing.Reverse = False,
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


def get(
    agent_id: Id,
    deleted: deleting.AlsoDeleted = False,
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


def delete(
    ids: Ids,
    purge: deleting.Purge = False,
    yes: deleting.Yes = False,
    as_json: AsJson = False,
    address: Address = "",
    api_key: ApiKey = "",
) -> None:
    """Delete agents with their personas; `undelete` takes them back unless they are purged."""
    deleting.ask(ids, purge=purge, yes=yes, one="{}", many="agents")

    async def one(client: Client, agent_id: str) -> None:
        await client.agents.delete(agent_id, purge=purge)
        gone = deleting.told(purge)
        print(json_line(Agent(id=agent_id)) if as_json else f"{agent_id} {gone}")

    call_each(ids, one, address, api_key)


def undelete(
    ids: Ids, as_json: AsJson = False, address: Address = "", api_key: ApiKey = ""
) -> None:
    """Take deleted agents back, with what was deleted with them."""

    async def one(client: Client, agent_id: str) -> None:
        agent = await client.agents.undelete(agent_id)
        print(json_line(agent) if as_json else f"{agent_id} is back")

    call_each(ids, one, address, api_key)


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
