"""The catalogue of agents."""

from __future__ import annotations

from google.protobuf.empty_pb2 import Empty

from conductor.content.v1 import agent_pb2
from conductor.content.v1 import agent_service_pb2 as pb
from conductor.content.v1.agent_service_pb2_grpc import AgentServiceServicer
from services.content.convert import agents as convert
from services.content.usecases.agents import AgentService, Resolver
from services.kit import call, paging
from services.kit.interceptor import Context
from services.kit.masks import fields_of
from services.kit.messages import fitting


class AgentHandlers(AgentServiceServicer):
    """The rpcs of AgentService.

    Args:
        keep_days: how long what is deleted is kept; 0 for ever.
    """

    def __init__(self, service: AgentService, resolver: Resolver, keep_days: float) -> None:
        self._agents = service
        self._resolver = resolver
        self._keep_days = keep_days

    async def CreateAgent(
        self, request: pb.CreateAgentRequest, context: Context
    ) -> agent_pb2.Agent:
        agent = await self._agents.create(call.org(), convert.asked_of_create(request))
        return convert.agent_to_proto(agent, self._keep_days)

    async def GetAgent(self, request: pb.GetAgentRequest, context: Context) -> agent_pb2.Agent:
        agent = await self._agents.get(
            call.org(), request.agent_id, include_deleted=request.include_deleted
        )
        return convert.agent_to_proto(agent, self._keep_days)

    async def ListAgents(
        self, request: pb.ListAgentsRequest, context: Context
    ) -> pb.ListAgentsResponse:
        wanted = convert.wanted_of(request)
        page = paging.page(request, wanted.content(), wanted.place_type)
        found = await self._agents.list(call.org(), wanted, page.after, page.size + 1)
        shown = fitting(
            convert.summary_to_proto(agent, self._keep_days) for agent in found[: page.size]
        )
        token = page.next_token(found, len(shown), lambda agent: self._agents.place(agent, wanted))
        return pb.ListAgentsResponse(agents=shown, next_page_token=token)

    async def UpdateAgent(
        self, request: pb.UpdateAgentRequest, context: Context
    ) -> agent_pb2.Agent:
        asked = request.agent
        fields = fields_of(asked, request.update_mask, convert.UPDATABLE, "agent")
        agent = await self._agents.update(
            call.org(), asked.id, convert.changes_of(asked, fields), asked.etag, force=request.force
        )
        return convert.agent_to_proto(agent, self._keep_days)

    async def DeleteAgent(self, request: pb.DeleteAgentRequest, context: Context) -> Empty:
        await self._agents.delete(call.org(), request.agent_id, request.etag, purge=request.purge)
        return Empty()

    async def UndeleteAgent(
        self, request: pb.UndeleteAgentRequest, context: Context
    ) -> agent_pb2.Agent:
        agent = await self._agents.undelete(call.org(), request.agent_id)
        return convert.agent_to_proto(agent, self._keep_days)

    async def ResolveAgent(
        self, request: pb.ResolveAgentRequest, context: Context
    ) -> pb.ResolveAgentResponse:
        resolved = await self._resolver.resolve(
            call.org(), request.agent_id, request.persona_version
        )
        return convert.resolved_to_proto(resolved)
