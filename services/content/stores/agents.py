"""Agents as documents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from services.content.domain.agents import Agent, AgentModel, Definition, Order, Wanted, name_key
from services.kit.resources.deletions import Cascade
from services.kit.resources.ports import Place
from services.kit.resources.words import query_terms, terms
from services.kit.storage.ports import (
    Collection,
    Delete,
    Document,
    Insert,
    Query,
    Replace,
    Store,
)
from services.kit.storage.resources import (
    DELETED,
    LIFE_FIELDS,
    LIFE_SWEPT,
    LIVE,
    deleted,
    life_body,
    life_fields,
    pending,
    read_life,
    time_key,
    write,
)

AGENTS = Collection(
    "agents",
    fields=(*LIFE_FIELDS, "group_name", "name_key", "update_key"),
    swept=LIFE_SWEPT,
    unique=("request_key",),
    orders=(("life", "name_key"), ("life", "update_key")),
    searched=True,
)
_ORDERS = {Order.NAME: "name_key", Order.UPDATE_TIME: "update_key", Order.CREATE_TIME: ""}


class StoredAgents:
    """Agents over the storage ports."""

    kind = "agent"

    def __init__(self, store: Store) -> None:
        self._store = store

    async def add(self, agent: Agent) -> Agent:
        """Store a new agent."""
        await write(self._store, Insert(AGENTS, to_document(agent)))
        return agent

    async def get(self, org: str, id_: str) -> Agent | None:
        """Read an agent, deleted or not."""
        document = await self._store.get(AGENTS, org, id_)
        return None if document is None else from_document(document)

    async def save(self, thing: Agent) -> Agent:
        """Store a changed agent."""
        await write(self._store, Replace(AGENTS, to_document(thing)))
        return replace(thing, version=thing.version + 1)

    async def remove(self, thing: Agent) -> None:
        """Remove an agent for good."""
        await write(self._store, Delete(AGENTS, thing.org, thing.id, thing.version))

    async def by_request_id(self, org: str, request_id: str) -> Agent | None:
        """Read the agent a request_id made."""
        key = _request_key(org, request_id)
        document = await self._store.find(AGENTS, org, "request_key", key)
        return None if document is None else from_document(document)

    async def list(
        self, org: str, wanted: Wanted, after: tuple[int | str, str] | None, limit: int
    ) -> Sequence[Agent]:
        """Read a page of agents."""
        equal = {"life": DELETED if wanted.deleted else LIVE}
        if wanted.group:
            equal["group_name"] = wanted.group
        query = Query(
            AGENTS,
            org,
            equal,
            after=after,
            limit=limit,
            newest_first=(wanted.order is not Order.NAME) != wanted.reverse,
            order=_ORDERS[wanted.order],
            terms=query_terms(wanted.query, wanted.tags),
        )
        return [from_document(document) for document in await self._store.query(query)]

    def place(self, agent: Agent, wanted: Wanted) -> tuple[int | str, str]:
        """Tell the place of an agent in a list."""
        order = _ORDERS[wanted.order]
        return (_keys(agent)[order] if order else agent.create_time), agent.id

    async def known(self, org: str, limit: int) -> Sequence[tuple[str, str]]:
        """Read ids and name keys."""
        equal = {"life": LIVE}
        query = Query(AGENTS, org, equal, limit=limit, order="name_key", keys_only=True)
        return [(found.id, found.fields["name_key"]) for found in await self._store.query(query)]

    async def pending(
        self, cascade: Cascade, org: str | None, after: Place | None, limit: int
    ) -> Sequence[Place]:
        """Read a page of the agents whose cascade is to be done."""
        return await pending(self._store, AGENTS, cascade, org, after, limit)

    async def deleted(self, after: Place | None, limit: int) -> Sequence[Place]:
        """Read a page of the agents that are deleted."""
        return await deleted(self._store, AGENTS, after, limit)


def to_document(agent: Agent) -> Document:
    """Print an agent; its instructions are the part that lists leave out."""
    definition = agent.definition
    printed: dict[str, Any] = {name: value for name, value in asdict(definition).items() if value}
    instructions = printed.pop("instructions", "")
    body: dict[str, Any] = {
        "definition": printed,
        "update_time": agent.update_time,
        "revision": agent.revision,
        "template_id": agent.template_id,
        "request_id": agent.request_id,
        "digest": agent.digest,
        "life": life_body(agent.life),
    }
    texts = (agent.id, definition.name, *definition.capabilities, definition.description)
    return Document(
        org=agent.org,
        id=agent.id,
        create_time=agent.create_time,
        version=agent.version,
        fields={
            **life_fields(agent.life),
            **_keys(agent),
            "group_name": definition.group,
            # Without a request_id the key is the id, which no key of a request looks like.
            "request_key": _request_key(agent.org, agent.request_id)
            if agent.request_id
            else f"{agent.org}/{agent.id}",
        },
        body={name: value for name, value in body.items() if value},
        content={"instructions": instructions} if instructions else {},
        terms=terms((*definition.tags, *texts), definition.tags),
    )


def from_document(document: Document) -> Agent:
    """Read an agent; from a query it has no instructions."""
    body = document.body
    printed = dict(body["definition"])
    for name in ("tags", "capabilities", "tools", "mcp_servers"):
        printed[name] = tuple(printed.get(name, ()))
    printed["fallbacks"] = tuple(AgentModel(**row) for row in printed.get("fallbacks", ()))
    instructions = document.content.get("instructions", "")
    return Agent(
        org=document.org,
        id=document.id,
        definition=Definition(**printed, instructions=instructions),
        create_time=document.create_time,
        update_time=body.get("update_time", 0),
        revision=body["revision"],
        template_id=body.get("template_id", ""),
        request_id=body.get("request_id", ""),
        digest=body.get("digest", ""),
        life=read_life(document.fields, body.get("life", {})),
        version=document.version,
    )


def _keys(agent: Agent) -> dict[str, str]:
    return {
        "name_key": name_key(agent.definition.name),
        "update_key": time_key(agent.update_time),
    }


def _request_key(org: str, request_id: str) -> str:
    return f"{org}/CreateAgent/{request_id}"
