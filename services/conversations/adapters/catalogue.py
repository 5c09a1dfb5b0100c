"""Agents and screenplays, as the content service knows them."""

from __future__ import annotations

from conductor.content.v1.agent_service_pb2 import GetAgentRequest
from conductor.content.v1.agent_service_pb2_grpc import AgentServiceStub
from conductor.content.v1.persona_service_pb2 import GetPersonaRequest, GetPersonaVersionRequest
from conductor.content.v1.persona_service_pb2_grpc import PersonaServiceStub
from conductor.content.v1.screenplay_service_pb2 import GetScreenplayRequest
from conductor.content.v1.screenplay_service_pb2_grpc import ScreenplayServiceStub
from services.conversations.ports.catalogue import AgentCard, Voice
from services.kit.errors import DomainError, Reason
from services.kit.peers import Peers

OWNER = "content"
"""The service that keeps them."""


class ContentCatalogue:
    """The agents and screenplays of the content service, asked for whoever calls."""

    def __init__(self, peers: Peers) -> None:
        channel = peers.channel(OWNER)
        self._agents = AgentServiceStub(channel)
        self._personas = PersonaServiceStub(channel)
        self._screenplays = ScreenplayServiceStub(channel)

    async def agent(self, agent_id: str) -> AgentCard:
        """Read an agent."""
        agent = await self._agents.GetAgent(GetAgentRequest(agent_id=agent_id))
        return AgentCard(agent.name, agent.emoji, agent.instructions, tuple(agent.mcp_servers))

    async def voice(self, agent_id: str) -> Voice:
        """Read the persona of an agent, as runs use it."""
        try:
            persona = await self._personas.GetPersona(GetPersonaRequest(agent_id=agent_id))
            if persona.active_version == persona.version:
                return Voice(persona.content, persona.version)
            asked = GetPersonaVersionRequest(agent_id=agent_id, version=str(persona.active_version))
            version = await self._personas.GetPersonaVersion(asked)
        except DomainError as error:
            if error.reason != Reason.REASON_PERSONA_NOT_FOUND:
                raise
            return Voice()
        return Voice(version.content, version.version)

    async def directory(self, screenplay_id: str) -> str:
        """Read where runs on a screenplay work."""
        asked = GetScreenplayRequest(screenplay_id=screenplay_id)
        return (await self._screenplays.GetScreenplay(asked)).working_directory
