"""Agents as conversations name them."""

from __future__ import annotations

from conductor.conversations.v1 import conversation_pb2
from services.conversations.domain.messages import Reference


def named(message: conversation_pb2.AgentReference) -> Reference | None:
    """Read whom a caller names, None for nobody; name and emoji are looked up."""
    if not message.agent_id and not message.instance_id:
        return None
    return Reference(message.agent_id, message.instance_id)


def reference_to_proto(reference: Reference) -> conversation_pb2.AgentReference:
    """Print an agent."""
    return conversation_pb2.AgentReference(
        agent_id=reference.agent_id,
        instance_id=reference.instance_id,
        name=reference.name,
        emoji=reference.emoji,
    )
