"""Agents placed in screenplays and conversations."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Mapping

from google.protobuf.field_mask_pb2 import FieldMask

from conductor.conversations.v1 import instance_service_pb2 as pb
from conductor.conversations.v1.instance_pb2 import HistoryEntry, Instance
from conductor.conversations.v1.instance_service_pb2_grpc import InstanceServiceStub
from conductor_ai.transport import Transport


class Instances:
    """The agent instances of an organisation."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._stub = InstanceServiceStub(transport.channel)

    async def create(self, instance: Instance, *, request_id: str = "") -> Instance:
        """Place an agent."""
        request = pb.CreateInstanceRequest(instance=instance, request_id=request_id)
        return await self._transport.answer(self._stub.CreateInstance, request)

    async def get(self, instance_id: str, *, include_deleted: bool = False) -> Instance:
        """Get an instance with what its runs came to."""
        request = pb.GetInstanceRequest(instance_id=instance_id, include_deleted=include_deleted)
        return await self._transport.answer(self._stub.GetInstance, request)

    def list(
        self, filters: pb.ListInstancesRequest | None = None
    ) -> AsyncGenerator[Instance, None]:
        """List instances without what is configured; `filters` are those of ListInstances."""
        asked = pb.ListInstancesRequest() if filters is None else filters
        return self._transport.listed(self._stub.ListInstances, asked, lambda page: page.instances)

    async def update(self, instance: Instance, *, fields: Iterable[str] = ()) -> Instance:
        """Change an instance; with an etag only while it is still that.

        Args:
            fields: which fields change; when left out, those that `instance` has.
        """
        request = pb.UpdateInstanceRequest(instance=instance)
        if paths := [*fields]:
            request.update_mask.CopyFrom(FieldMask(paths=paths))
        return await self._transport.answer(self._stub.UpdateInstance, request)

    async def set_cwd(self, instance_id: str, cwd: str) -> Instance:
        """Set where its runs work; empty for where those of the screenplay do."""
        request = pb.SetInstanceCwdRequest(instance_id=instance_id, cwd=cwd)
        return await self._transport.answer(self._stub.SetInstanceCwd, request)

    async def mcp_configs(self, instance_id: str) -> pb.InstanceMcpConfigs:
        """Get the MCP servers of an instance and those of its agent."""
        request = pb.GetInstanceMcpConfigsRequest(instance_id=instance_id)
        return await self._transport.answer(self._stub.GetInstanceMcpConfigs, request)

    async def set_mcp_configs(
        self, instance_id: str, mcp_configs: Iterable[str]
    ) -> pb.InstanceMcpConfigs:
        """Set the MCP servers of an instance."""
        request = pb.SetInstanceMcpConfigsRequest(instance_id=instance_id, mcp_configs=mcp_configs)
        return await self._transport.answer(self._stub.SetInstanceMcpConfigs, request)

    async def reorder(self, places: Mapping[str, float]) -> int:
        """Set places in lists ordered by hand, by id: all or none; answers how many."""
        updates = [
            pb.ReorderInstancesRequest.Place(instance_id=id_, display_order=place)
            for id_, place in places.items()
        ]
        request = pb.ReorderInstancesRequest(order_updates=updates)
        answer = await self._transport.answer(self._stub.ReorderInstances, request)
        return answer.updated_count

    async def delete(self, instance_id: str, *, etag: str = "", purge: bool = False) -> None:
        """Delete an instance; with `purge` for good. Messages stay."""
        request = pb.DeleteInstanceRequest(instance_id=instance_id, etag=etag, purge=purge)
        await self._transport.answer(self._stub.DeleteInstance, request)

    async def undelete(self, instance_id: str) -> Instance:
        """Take a deleted instance back."""
        request = pb.UndeleteInstanceRequest(instance_id=instance_id)
        return await self._transport.answer(self._stub.UndeleteInstance, request)

    async def context(self, instance_id: str) -> pb.InstanceContext:
        """Get what its runs start from: persona, procedure, newest history, directory."""
        request = pb.GetInstanceContextRequest(instance_id=instance_id)
        return await self._transport.answer(self._stub.GetInstanceContext, request)

    def history(
        self, *, instance_id: str = "", agent_id: str = "", page_size: int = 0
    ) -> AsyncGenerator[HistoryEntry, None]:
        """List the runs of an instance, or of an agent, that ended, newest first."""
        request = pb.ListHistoryRequest(
            agent_id=agent_id, instance_id=instance_id, page_size=page_size
        )
        return self._transport.listed(self._stub.ListHistory, request, lambda page: page.entries)

    async def clear_history(self, *, instance_id: str = "", agent_id: str = "") -> int:
        """Clear the history of an instance, or of an agent; answers how many runs it had."""
        request = pb.ClearHistoryRequest(agent_id=agent_id, instance_id=instance_id)
        answer = await self._transport.answer(self._stub.ClearHistory, request)
        return answer.cleared_count
