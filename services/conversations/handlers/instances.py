"""Agents placed in screenplays and conversations, and their histories."""

from __future__ import annotations

from google.protobuf.empty_pb2 import Empty

from conductor.conversations.v1 import instance_pb2
from conductor.conversations.v1 import instance_service_pb2 as pb
from conductor.conversations.v1.instance_service_pb2_grpc import InstanceServiceServicer
from services.conversations.convert import instances as convert
from services.conversations.convert.histories import entry_to_proto, whose_of
from services.conversations.usecases.histories import HistoryService
from services.conversations.usecases.instances import Counted, InstanceService
from services.kit import call, paging
from services.kit.interceptor import Context
from services.kit.masks import fields_of
from services.kit.messages import fitting


class InstanceHandlers(InstanceServiceServicer):
    """The rpcs of InstanceService.

    Args:
        keep_days: how long what is deleted is kept; 0 for ever.
    """

    def __init__(
        self, service: InstanceService, histories: HistoryService, keep_days: float
    ) -> None:
        self._instances = service
        self._histories = histories
        self._keep_days = keep_days

    async def CreateInstance(
        self, request: pb.CreateInstanceRequest, context: Context
    ) -> instance_pb2.Instance:
        made = await self._instances.create(call.org(), convert.asked_of_create(request))
        return self._printed(made)

    async def GetInstance(
        self, request: pb.GetInstanceRequest, context: Context
    ) -> instance_pb2.Instance:
        found = await self._instances.counted(
            call.org(), request.instance_id, include_deleted=request.include_deleted
        )
        return self._printed(found)

    async def ListInstances(
        self, request: pb.ListInstancesRequest, context: Context
    ) -> pb.ListInstancesResponse:
        wanted = convert.wanted_of(request)
        page = paging.page(request, wanted.content(), wanted.place_type)
        found = await self._instances.list(call.org(), wanted, page.after, page.size + 1)
        shown = fitting(
            convert.summary_to_proto(one.instance, one.totals, self._keep_days)
            for one in await self._instances.counts(found[: page.size])
        )
        token = page.next_token(found, len(shown), lambda one: self._instances.place(one, wanted))
        return pb.ListInstancesResponse(instances=shown, next_page_token=token)

    async def UpdateInstance(
        self, request: pb.UpdateInstanceRequest, context: Context
    ) -> instance_pb2.Instance:
        asked = request.instance
        fields = fields_of(asked, request.update_mask, convert.UPDATABLE, "instance")
        changed = await self._instances.update(
            call.org(), asked.instance_id, convert.values_of(asked, fields), asked.etag
        )
        return self._printed(changed)

    async def SetInstanceCwd(
        self, request: pb.SetInstanceCwdRequest, context: Context
    ) -> instance_pb2.Instance:
        changed = await self._instances.update(
            call.org(), request.instance_id, {"cwd": request.cwd}, at=""
        )
        return self._printed(changed)

    async def GetInstanceMcpConfigs(
        self, request: pb.GetInstanceMcpConfigsRequest, context: Context
    ) -> pb.InstanceMcpConfigs:
        found = await self._instances.tools(call.org(), request.instance_id)
        return convert.tools_to_proto(found.instance, found.of_agent, found.combined)

    async def SetInstanceMcpConfigs(
        self, request: pb.SetInstanceMcpConfigsRequest, context: Context
    ) -> pb.InstanceMcpConfigs:
        changed = await self._instances.set_tools(
            call.org(), request.instance_id, tuple(request.mcp_configs)
        )
        return convert.tools_to_proto(changed.instance, changed.of_agent, changed.combined)

    async def ReorderInstances(
        self, request: pb.ReorderInstancesRequest, context: Context
    ) -> pb.ReorderInstancesResponse:
        places = [(one.instance_id, one.display_order) for one in request.order_updates]
        moved = await self._instances.reorder(call.org(), places)
        return pb.ReorderInstancesResponse(updated_count=moved)

    async def DeleteInstance(self, request: pb.DeleteInstanceRequest, context: Context) -> Empty:
        await self._instances.delete(
            call.org(), request.instance_id, request.etag, purge=request.purge
        )
        return Empty()

    async def UndeleteInstance(
        self, request: pb.UndeleteInstanceRequest, context: Context
    ) -> instance_pb2.Instance:
        return self._printed(await self._instances.undelete(call.org(), request.instance_id))

    async def GetInstanceContext(
        self, request: pb.GetInstanceContextRequest, context: Context
    ) -> pb.InstanceContext:
        found = await self._instances.beginning(call.org(), request.instance_id)
        return pb.InstanceContext(
            persona=found.voice.text,
            persona_version=found.voice.number,
            operating_procedure=found.instructions,
            history=map(entry_to_proto, found.runs),
            cwd=found.cwd,
        )

    async def ListHistory(
        self, request: pb.ListHistoryRequest, context: Context
    ) -> pb.ListHistoryResponse:
        whose = whose_of(request.agent_id, request.instance_id)
        page = paging.page(request, [request.agent_id, request.instance_id])
        await self._instances.check(call.org(), request.instance_id)
        found = await self._histories.list(call.org(), whose, page.after, page.size + 1)
        shown = fitting(map(entry_to_proto, found[: page.size]))
        token = page.next_token(found, len(shown))
        return pb.ListHistoryResponse(entries=shown, next_page_token=token)

    async def ClearHistory(
        self, request: pb.ClearHistoryRequest, context: Context
    ) -> pb.ClearHistoryResponse:
        await self._instances.check(call.org(), request.instance_id)
        whose = whose_of(request.agent_id, request.instance_id)
        cleared = await self._histories.clear(call.org(), whose)
        return pb.ClearHistoryResponse(cleared_count=cleared)

    def _printed(self, found: Counted) -> instance_pb2.Instance:
        return convert.instance_to_proto(found.instance, found.totals, self._keep_days)
