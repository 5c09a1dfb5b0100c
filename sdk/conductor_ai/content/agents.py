"""The catalogue of agents."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable

from google.protobuf.field_mask_pb2 import FieldMask

from conductor.content.v1 import agent_service_pb2 as pb
from conductor.content.v1.agent_pb2 import Agent
from conductor.content.v1.agent_service_pb2_grpc import AgentServiceStub
from conductor_ai.transport import Transport


class Agents:
    """The agents of an organisation."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._stub = AgentServiceStub(transport.channel)

    async def create(self, agent: Agent, *, request_id: str = "") -> Agent:
        """Make an agent; without an id it gets one made from its name."""
        request = pb.CreateAgentRequest(agent=agent, request_id=request_id)
        return await self._transport.answer(self._stub.CreateAgent, request)

    async def get(self, agent_id: str, *, include_deleted: bool = False) -> Agent:
        """Get an agent."""
        request = pb.GetAgentRequest(agent_id=agent_id, include_deleted=include_deleted)
        return await self._transport.answer(self._stub.GetAgent, request)

    def list(self, filters: pb.ListAgentsRequest | None = None) -> AsyncGenerator[Agent, None]:
        """List agents, page after page; `filters` are those of ListAgents."""
        asked = pb.ListAgentsRequest() if filters is None else filters
        return self._transport.listed(self._stub.ListAgents, asked, lambda page: page.agents)

    async def update(
        self, agent: Agent, *, fields: Iterable[str] = (), force: bool = False
    ) -> Agent:
        """Change an agent whose etag is still that of `agent`, or with `force` whatever it is.

        Args:
            fields: which fields change; when left out, those that `agent` has.
        """
        request = pb.UpdateAgentRequest(agent=agent, force=force)
        if paths := [*fields]:
            request.update_mask.CopyFrom(FieldMask(paths=paths))
        return await self._transport.answer(self._stub.UpdateAgent, request)

    async def delete(self, agent_id: str, *, etag: str = "", purge: bool = False) -> None:
        """Delete an agent with its persona; with `purge` for good."""
        request = pb.DeleteAgentRequest(agent_id=agent_id, etag=etag, purge=purge)
        await self._transport.answer(self._stub.DeleteAgent, request)

    async def undelete(self, agent_id: str) -> Agent:
        """Take a deleted agent back, with what was deleted with it."""
        request = pb.UndeleteAgentRequest(agent_id=agent_id)
        return await self._transport.answer(self._stub.UndeleteAgent, request)
