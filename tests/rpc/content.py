"""The real content service on a free port, and stubs for all it hosts."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc

from conductor.content.v1 import (
    agent_service_pb2_grpc,
    archive_service_pb2_grpc,
    persona_service_pb2_grpc,
    screenplay_service_pb2_grpc,
    system_service_pb2_grpc,
    template_service_pb2_grpc,
)
from services.content.app import compose
from services.content.settings import ContentSettings
from services.kit.server import serving


class Content:
    """A served content service and its clients."""

    def __init__(self, channel: grpc.aio.Channel, port: int) -> None:
        self.channel = channel
        self.port = port
        self.agents = agent_service_pb2_grpc.AgentServiceStub(channel)
        self.personas = persona_service_pb2_grpc.PersonaServiceStub(channel)
        self.screenplays = screenplay_service_pb2_grpc.ScreenplayServiceStub(channel)
        self.templates = template_service_pb2_grpc.TemplateServiceStub(channel)
        self.archives = archive_service_pb2_grpc.ArchiveServiceStub(channel)
        self.system = system_service_pb2_grpc.SystemServiceStub(channel)


@asynccontextmanager
async def served_content(data_dir: Path, **settings: Any) -> AsyncIterator[Content]:
    """Serve until the block ends, then stop gracefully.

    Served again over the same directory, it has what it had.
    """
    async with AsyncExitStack() as last, AsyncExitStack() as stack:
        app = await compose(ContentSettings(data_dir=data_dir, **settings), stack)
        server = await stack.enter_async_context(serving(app, 2))
        options = [("grpc.max_send_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
        channel = grpc.aio.insecure_channel(f"127.0.0.1:{server.port}", options=options)
        last.push_async_callback(channel.close)
        yield Content(channel, server.port)
