"""Agents that come with the mesh."""

from __future__ import annotations

from conductor.content.v1 import template_service_pb2 as pb
from conductor.content.v1.template_service_pb2_grpc import TemplateServiceServicer
from services.content.convert import templates as convert
from services.content.usecases.templates import TemplateService
from services.kit import call
from services.kit.interceptor import Context


class TemplateHandlers(TemplateServiceServicer):
    """The rpcs of TemplateService."""

    def __init__(self, service: TemplateService) -> None:
        self._templates = service

    async def ListTemplates(
        self, request: pb.ListTemplatesRequest, context: Context
    ) -> pb.ListTemplatesResponse:
        found = await self._templates.list(call.org(), request.category)
        return convert.templates_to_proto(*found)

    async def InstallTemplates(
        self, request: pb.InstallTemplatesRequest, context: Context
    ) -> pb.InstallTemplatesResponse:
        installed, kept = await self._templates.install(
            call.org(), convert.choice_of(request), call.author()
        )
        return pb.InstallTemplatesResponse(installed_agent_ids=installed, kept_agent_ids=kept)
