"""The real conversations service on a free port, beside a real content service."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc

from conductor.conversations.v1 import conversation_service_pb2 as conversations_pb
from conductor.conversations.v1 import (
    conversation_service_pb2_grpc,
    instance_service_pb2_grpc,
    message_service_pb2_grpc,
    turn_service_pb2_grpc,
)
from conductor.conversations.v1 import message_service_pb2 as messages_pb
from conductor.conversations.v1.conversation_pb2 import Conversation, Message
from services.conversations.app import compose
from services.conversations.settings import ConversationsSettings
from services.kit.server import serving
from tests.patience import PATIENCE


class Conversations:
    """A served conversations service and its clients."""

    def __init__(self, channel: grpc.aio.Channel, port: int) -> None:
        self.channel = channel
        self.port = port
        self.conversations = conversation_service_pb2_grpc.ConversationServiceStub(channel)
        self.messages = message_service_pb2_grpc.MessageServiceStub(channel)
        self.instances = instance_service_pb2_grpc.InstanceServiceStub(channel)
        self.turns = turn_service_pb2_grpc.TurnServiceStub(channel)

    async def create(self, **fields: Any) -> Conversation:
        request_id = fields.pop("request_id", "")
        request = conversations_pb.CreateConversationRequest(
            conversation=Conversation(**fields), request_id=request_id
        )
        return await self.conversations.CreateConversation(request, timeout=PATIENCE)

    async def get(self, conversation_id: str, **options: Any) -> Conversation:
        request = conversations_pb.GetConversationRequest(
            conversation_id=conversation_id, **options
        )
        return await self.conversations.GetConversation(request, timeout=PATIENCE)

    async def say(self, conversation_id: str, content: str, **fields: Any) -> Message:
        request_id = fields.pop("request_id", "")
        request = messages_pb.AppendMessageRequest(
            conversation_id=conversation_id,
            message=Message(content=content, **fields),
            request_id=request_id,
        )
        return await self.messages.AppendMessage(request, timeout=PATIENCE)

    async def page(self, conversation_id: str, **options: Any) -> messages_pb.ListMessagesResponse:
        request = messages_pb.ListMessagesRequest(conversation_id=conversation_id, **options)
        return await self.messages.ListMessages(request, timeout=PATIENCE)

    async def said(self, conversation_id: str, **options: Any) -> list[Message]:
        """Every page, one after the other."""
        found: list[Message] = []
        token = ""
        while True:
            page = await self.page(conversation_id, page_token=token, **options)
            found += page.messages
            token = page.next_page_token
            if not token:
                return found


@asynccontextmanager
async def served_conversations(data_dir: Path, **settings: Any) -> AsyncIterator[Conversations]:
    """Serve until the block ends, then stop gracefully.

    Served again over the same directory, it has what it had.

    Args:
        settings: among them `peers`, which say where content is; nobody answers as another service that
            they do not name.
    """
    settings["peers"] = {"execution": "ipv4:127.0.0.1:1", **settings.get("peers", {})}
    async with AsyncExitStack() as last, AsyncExitStack() as stack:
        app = await compose(ConversationsSettings(data_dir=data_dir, **settings), stack)
        server = await stack.enter_async_context(serving(app, 2))
        options = [("grpc.max_send_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
        channel = grpc.aio.insecure_channel(f"127.0.0.1:{server.port}", options=options)
        last.push_async_callback(channel.close)
        yield Conversations(channel, server.port)
