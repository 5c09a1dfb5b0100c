"""Two real services in one process, or three, each told where the others are."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from conductor.audit.v1.audit_service_pb2_grpc import AuditServiceStub
from conductor.auth.v1.key_service_pb2_grpc import KeyServiceStub
from services.content.app import compose as compose_content
from services.content.settings import ContentSettings
from services.conversations.app import compose as compose_conversations
from services.conversations.settings import ConversationsSettings
from services.execution.app import compose as compose_execution
from services.execution.settings import ExecutionSettings
from services.kit.server import App, serving
from services.kit.telemetry import SILENT, Telemetry
from services.mesh.addresses import free_ports
from tests.rpc.serving import Mesh

Compose = Callable[[Any, AsyncExitStack, Telemetry], Awaitable[App]]

CONTENT, EXECUTION, CONVERSATIONS = "content", "execution", "conversations"
COMPOSED: dict[str, tuple[type[Any], Compose]] = {
    CONTENT: (ContentSettings, compose_content),
    EXECUTION: (ExecutionSettings, compose_execution),
    CONVERSATIONS: (ConversationsSettings, compose_conversations),
}
NOBODY = {EXECUTION: "ipv4:127.0.0.1:1"}
"""Where execution is when it is not served."""


@dataclass
class Both:
    """The services; each can be stopped and started again where it was.

    Attributes:
        settings: what both are told; each reads of its own section what is meant for it.
    """

    folder: Path
    telemetry: Telemetry
    settings: dict[str, Any]
    ports: dict[str, int]
    running: dict[str, AsyncExitStack] = field(default_factory=dict)
    channels: dict[str, grpc.aio.Channel] = field(default_factory=dict)

    async def start(self, name: str) -> None:
        kind, compose = COMPOSED[name]
        addresses = {f"{one}_address": f"127.0.0.1:{port}" for one, port in self.ports.items()}
        settings = kind(data_dir=self.folder, **addresses, **self.settings)
        async with AsyncExitStack() as stack:
            app = await compose(settings, stack, self.telemetry)
            await stack.enter_async_context(serving(app, 2, self.telemetry))
            self.running[name] = stack.pop_all()

    async def stop(self, name: str) -> None:
        await self.running.pop(name).aclose()

    def channel(self, name: str) -> grpc.aio.Channel:
        """One channel to each service, of callers from outside."""
        if name not in self.channels:
            options = [
                ("grpc.use_local_subchannel_pool", 1),
                ("grpc.initial_reconnect_backoff_ms", 100),
            ]
            target = f"127.0.0.1:{self.ports[name]}"
            self.channels[name] = grpc.aio.insecure_channel(target, options=options)
        return self.channels[name]

    def audit(self, name: str) -> AuditServiceStub:
        return AuditServiceStub(self.channel(name))

    @property
    def keys(self) -> KeyServiceStub:
        return KeyServiceStub(self.channel(EXECUTION))

    @property
    def mesh(self) -> Mesh:
        """Execution, as tests of it know it."""
        return Mesh(self.channel(EXECUTION), self.ports[EXECUTION])


@asynccontextmanager
async def both_served(
    folder: Path,
    telemetry: Telemetry = SILENT,
    *,
    names: tuple[str, ...] = (CONTENT, EXECUTION),
    **settings: Any,
) -> AsyncIterator[Both]:
    """Serve content and execution, or those that are named, until the block ends."""
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    peers = NOBODY | {name: f"ipv4:127.0.0.1:{port}" for name, port in ports.items()}
    both = Both(folder, telemetry, {"peers": peers} | settings, ports)
    try:
        for name in names:
            await both.start(name)
        yield both
    finally:
        for name in list(both.running):
            await both.stop(name)
        for channel in both.channels.values():
            await channel.close()
