"""The services of the mesh: what runs, and which rpcs are asked of it.

A new service is one line here; its routes and its part of the JSON surface follow from its protos.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Service:
    """One service of the mesh, run as `python -m services.<name>`."""

    name: str
    """The name of its package, and of its cluster in Envoy."""

    rpc_services: tuple[str, ...]
    """Full names of the proto services it hosts, each in one place only.

    What all of them host is named at the first, which answers for the others: AuditService here, health
    and reflection by themselves.
    """

    long_rpcs: tuple[str, ...] = ()
    """Unary rpcs, as `package.Service/Method`, that answer when their work is done.

    They wait as long as the caller does. Streams need no mention: the descriptor tells.
    """


SERVICES = (
    Service(
        name="execution",
        rpc_services=(
            "conductor.execution.v1.ExecutionService",
            "conductor.gateway.v1.GatewayService",
            "conductor.auth.v1.KeyService",
            "conductor.audit.v1.AuditService",
        ),
        long_rpcs=(
            "conductor.gateway.v1.GatewayService/Execute",
            "conductor.gateway.v1.GatewayService/ExecuteAgent",
        ),
    ),
    Service(
        name="content",
        rpc_services=(
            "conductor.content.v1.AgentService",
            "conductor.content.v1.PersonaService",
            "conductor.content.v1.ScreenplayService",
            "conductor.content.v1.TemplateService",
            "conductor.content.v1.ArchiveService",
            "conductor.content.v1.SystemService",
        ),
    ),
    Service(
        name="conversations",
        rpc_services=(
            "conductor.conversations.v1.ConversationService",
            "conductor.conversations.v1.MessageService",
            "conductor.conversations.v1.PortfolioService",
            "conductor.conversations.v1.InstanceService",
            "conductor.conversations.v1.TurnService",
            "conductor.conversations.v1.KinService",
        ),
        long_rpcs=(
            "conductor.conversations.v1.ConversationService/CloneConversation",
            "conductor.conversations.v1.PortfolioService/ChatPortfolio",
        ),
    ),
)
