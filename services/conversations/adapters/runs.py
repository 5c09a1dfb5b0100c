"""The runs that answer visitors, as execution and content know them."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any, Protocol

from google.protobuf.duration_pb2 import Duration

from conductor.content.v1.template_service_pb2 import InstallTemplatesRequest
from conductor.gateway.v1.gateway_service_pb2 import ExecuteRequest, ExecuteResponse

_SECONDS = 60
_PATIENCE_SECONDS = 65.0
"""How long the answer is waited for: as long as the run may take, and its way back."""


class Gateway(Protocol):
    """A part of the generated stub."""

    def Execute(  # noqa: N802 generated
        self, request: ExecuteRequest, *, timeout: float
    ) -> Awaitable[ExecuteResponse]:
        """Run an agent and answer when it is done."""
        ...


class Templates(Protocol):
    """A part of the generated stub."""

    def InstallTemplates(  # noqa: N802 generated
        self, request: InstallTemplatesRequest
    ) -> Awaitable[Any]:
        """Make agents of templates; what exists is kept."""
        ...


class VisitorRuns:
    """Asks execution and content, for the caller of the rpc that is being served."""

    def __init__(self, gateway: Gateway, templates: Templates) -> None:
        self._gateway = gateway
        self._templates = templates

    async def answer(self, agent_id: str, conversation_id: str, text: str) -> str:
        """Run an agent in a conversation."""
        request = ExecuteRequest(
            input=text,
            agent_id=agent_id,
            conversation_id=conversation_id,
            context_mode="contextual",
            timeout=Duration(seconds=_SECONDS),
        )
        answer = await self._gateway.Execute(request, timeout=_PATIENCE_SECONDS)
        return answer.result

    async def install(self, template_id: str) -> None:
        """Make an agent of a template."""
        await self._templates.InstallTemplates(InstallTemplatesRequest(template_ids=[template_id]))
