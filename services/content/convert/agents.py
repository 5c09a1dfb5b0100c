"""Agents as messages."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from conductor.content.v1 import agent_pb2, agent_service_pb2
from services.content.domain.agents import (
    Agent,
    AgentModel,
    Asked,
    Definition,
    Order,
    Resolved,
    Wanted,
)
from services.kit.messages import life_to_proto, timestamp

_TEXTS = (
    "name",
    "description",
    "instructions",
    "group",
    "emoji",
    "color",
    "author",
    "definition_version",
    "ai_provider",
    "model",
)
_LISTS = ("tags", "capabilities", "tools", "mcp_servers")
UPDATABLE = frozenset({*_TEXTS, *_LISTS, "fallbacks"})
"""The fields that an update may change."""
_ORDER = "ORDER_"


def asked_of_create(request: agent_service_pb2.CreateAgentRequest) -> Asked:
    """Read what a caller asks to be made."""
    return Asked(definition_of(request.agent), request.agent.id, request.request_id)


def definition_of(message: agent_pb2.Agent) -> Definition:
    """Read the definition of an agent."""
    return Definition(**_values(message, UPDATABLE))


def changes_of(message: agent_pb2.Agent, fields: Collection[str]) -> dict[str, Any]:
    """Read the fields of an agent's definition that change."""
    return _values(message, fields)


def _values(message: agent_pb2.Agent, fields: Collection[str]) -> dict[str, Any]:
    values: dict[str, Any] = {name: getattr(message, name) for name in _TEXTS if name in fields}
    values |= {name: tuple(getattr(message, name)) for name in _LISTS if name in fields}
    if "fallbacks" in fields:
        values["fallbacks"] = tuple(
            AgentModel(one.ai_provider, one.model) for one in message.fallbacks
        )
    return values


def agent_to_proto(agent: Agent, keep_days: float) -> agent_pb2.Agent:
    """Print an agent.

    Args:
        keep_days: how long what is deleted is kept; 0 for ever.
    """
    message = summary_to_proto(agent, keep_days)
    message.instructions = agent.definition.instructions
    return message


def summary_to_proto(agent: Agent, keep_days: float) -> agent_pb2.Agent:
    """Print an agent without its instructions, as in lists."""
    message = definition_to_proto(agent.definition)
    message.ClearField("instructions")
    message.id = agent.id
    message.built_in = agent.built_in
    message.template_id = agent.template_id
    message.etag = agent.etag
    if agent.create_time:
        message.create_time.CopyFrom(timestamp(agent.create_time))
    if agent.update_time:
        message.update_time.CopyFrom(timestamp(agent.update_time))
    life_to_proto(agent.life, message, keep_days)
    return message


def definition_to_proto(definition: Definition) -> agent_pb2.Agent:
    """Print a definition alone, as templates have it."""
    return agent_pb2.Agent(
        **{name: getattr(definition, name) for name in (*_TEXTS, *_LISTS)},
        fallbacks=[
            agent_pb2.AgentModel(ai_provider=one.ai_provider, model=one.model)
            for one in definition.fallbacks
        ],
    )


def wanted_of(request: agent_service_pb2.ListAgentsRequest) -> Wanted:
    """Read which agents to list."""
    name = agent_service_pb2.ListAgentsRequest.Order.Name(request.order).removeprefix(_ORDER)
    return Wanted(
        query=request.query,
        group=request.group,
        tags=tuple(tag for tag in request.tags if tag.strip()),
        order=Order[name] if request.order else Order.NAME,
        reverse=request.reverse,
        deleted=request.deleted,
    )


def resolved_to_proto(resolved: Resolved) -> agent_service_pb2.ResolveAgentResponse:
    """Print what a run needs."""
    response = agent_service_pb2.ResolveAgentResponse(agent=agent_to_proto(resolved.agent, 0))
    if resolved.version is not None:
        response.persona_version = resolved.version.number
        response.persona_content = resolved.version.content
        response.persona_alias = resolved.alias
    return response
