"""Agents that come with the mesh."""

from __future__ import annotations

from collections.abc import Iterable

from conductor.content.v1 import template_service_pb2 as pb
from conductor.content.v1.template_service_pb2_grpc import TemplateServiceStub
from conductor_ai.transport import Transport


class Templates:
    """The templates of agents."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._stub = TemplateServiceStub(transport.channel)

    async def list(self, category: str = "") -> tuple[pb.TemplateCategory, ...]:
        """List templates by category, or those of one."""
        request = pb.ListTemplatesRequest(category=category)
        answer = await self._transport.answer(self._stub.ListTemplates, request)
        return tuple(answer.categories)

    async def install(
        self, template_ids: Iterable[str] = (), *, category: str = "", everything: bool = False
    ) -> pb.InstallTemplatesResponse:
        """Make agents of some templates, those of a category, or all; what exists is kept."""
        request = pb.InstallTemplatesRequest(
            template_ids=template_ids, category=category, all=everything
        )
        return await self._transport.answer(self._stub.InstallTemplates, request)
