"""What goes and comes with screenplays and agents."""

from __future__ import annotations

from conductor.conversations.v1 import kin_service_pb2 as pb
from conductor.conversations.v1.kin_service_pb2_grpc import KinServiceServicer
from services.conversations.convert import instances as convert
from services.conversations.usecases.kin import KinService
from services.kit import call
from services.kit.interceptor import Context
from services.kit.messages import microseconds


class KinHandlers(KinServiceServicer):
    """The rpcs of KinService."""

    def __init__(self, service: KinService) -> None:
        self._kin = service

    async def MarkKin(self, request: pb.MarkKinRequest, context: Context) -> pb.MarkKinResponse:
        await self._kin.mark(
            call.org(),
            convert.kind_of(request.kind),
            request.parent_id,
            request.deletion_id,
            microseconds(request, "delete_time") or 0,
        )
        return pb.MarkKinResponse()

    async def UnmarkKin(
        self, request: pb.UnmarkKinRequest, context: Context
    ) -> pb.UnmarkKinResponse:
        await self._kin.unmark(
            call.org(), convert.kind_of(request.kind), request.parent_id, request.deletion_id
        )
        return pb.UnmarkKinResponse()

    async def PurgeKin(self, request: pb.PurgeKinRequest, context: Context) -> pb.PurgeKinResponse:
        await self._kin.purge(
            call.org(),
            convert.kind_of(request.kind),
            request.parent_id,
            request.deletion_id,
            microseconds(request, "delete_time") or 0,
        )
        return pb.PurgeKinResponse()
