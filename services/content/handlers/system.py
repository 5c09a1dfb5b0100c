"""Whether the mesh is set up well."""

from __future__ import annotations

from conductor.content.v1 import system_service_pb2 as pb
from conductor.content.v1.system_service_pb2_grpc import SystemServiceServicer
from services.content.convert import system as convert
from services.content.usecases.system import SystemCheck
from services.kit import call
from services.kit.interceptor import Context


class SystemHandlers(SystemServiceServicer):
    """The rpcs of SystemService."""

    def __init__(self, check: SystemCheck) -> None:
        self._check = check

    async def ValidateSystem(
        self, request: pb.ValidateSystemRequest, context: Context
    ) -> pb.ValidateSystemResponse:
        return convert.report_to_proto(await self._check.run(call.org()))
