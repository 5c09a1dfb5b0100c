"""The agents and screenplays that conversations name, as the content service knows them."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any, Protocol

from conductor.content.v1.agent_pb2 import Agent
from conductor.content.v1.agent_service_pb2 import GetAgentRequest
from conductor.content.v1.screenplay_service_pb2 import GetScreenplayRequest
from services.conversations.domain.messages import Reference


class Agents(Protocol):
    """A part of the generated stub."""

    def GetAgent(self, request: GetAgentRequest) -> Awaitable[Agent]:  # noqa: N802 generated
        """Answer an agent that is not deleted."""
        ...


class Screenplays(Protocol):
    """A part of the generated stub."""

    def GetScreenplay(self, request: GetScreenplayRequest) -> Awaitable[Any]:  # noqa: N802 generated
        """Answer a screenplay that is not deleted."""
        ...


class ContentService:
    """Asks content, for the caller of the rpc that is being served."""

    def __init__(self, agents: Agents, screenplays: Screenplays) -> None:
        self._agents = agents
        self._screenplays = screenplays

    async def agent(self, agent_id: str) -> Reference:
        """Look an agent up."""
        found = await self._agents.GetAgent(GetAgentRequest(agent_id=agent_id))
        return Reference(found.id, name=found.name, emoji=found.emoji)

    async def check_screenplay(self, screenplay_id: str) -> None:
        """Check that a screenplay is there."""
        await self._screenplays.GetScreenplay(GetScreenplayRequest(screenplay_id=screenplay_id))
