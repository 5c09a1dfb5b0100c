"""What is said in conversations."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from conductor.conversations.v1 import message_service_pb2 as pb
from conductor.conversations.v1.conversation_pb2 import Message
from conductor.conversations.v1.message_service_pb2_grpc import MessageServiceStub
from conductor_ai.transport import Transport


class Messages:
    """The messages of conversations."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._stub = MessageServiceStub(transport.channel)

    async def append(
        self, conversation_id: str, message: Message | str, *, request_id: str = ""
    ) -> Message:
        """Add a message that starts no run; a text is one of a person."""
        said = Message(content=message) if isinstance(message, str) else message
        request = pb.AppendMessageRequest(
            conversation_id=conversation_id, message=said, request_id=request_id
        )
        return await self._transport.answer(self._stub.AppendMessage, request)

    async def get(self, conversation_id: str, message_id: str) -> Message:
        """Get a message, also one that is deleted."""
        request = pb.GetMessageRequest(conversation_id=conversation_id, message_id=message_id)
        return await self._transport.answer(self._stub.GetMessage, request)

    def list(self, filters: pb.ListMessagesRequest) -> AsyncGenerator[Message, None]:
        """List messages in the order they came in, page after page.

        `filters` are those of ListMessages, `conversation_id` at least.
        """
        return self._transport.listed(self._stub.ListMessages, filters, lambda page: page.messages)

    def search(
        self, query: str, *, conversation_id: str = "", page_size: int = 0
    ) -> AsyncGenerator[Message, None]:
        """Find messages by words, in one conversation or in all, newest first."""
        request = pb.SearchMessagesRequest(
            query=query, conversation_id=conversation_id, page_size=page_size
        )
        return self._transport.listed(
            self._stub.SearchMessages, request, lambda page: page.messages
        )

    async def hide(
        self, conversation_id: str, message_id: str, *, hidden: bool | None = True
    ) -> Message:
        """Leave a message out of what later runs are told, or no longer; None turns it around."""
        request = pb.HideMessageRequest(
            conversation_id=conversation_id, message_id=message_id, hidden=hidden
        )
        return await self._transport.answer(self._stub.HideMessage, request)

    async def delete(self, conversation_id: str, message_id: str) -> Message:
        """Delete a message; its run is left out of histories, too."""
        request = pb.DeleteMessageRequest(conversation_id=conversation_id, message_id=message_id)
        return await self._transport.answer(self._stub.DeleteMessage, request)

    async def undelete(self, conversation_id: str, message_id: str) -> Message:
        """Take a deleted message back."""
        request = pb.UndeleteMessageRequest(conversation_id=conversation_id, message_id=message_id)
        return await self._transport.answer(self._stub.UndeleteMessage, request)

    async def toggle(self, conversation_id: str, message_id: str) -> Message:
        """Delete a message that is not deleted, and take one back that is."""
        request = pb.ToggleMessageRequest(conversation_id=conversation_id, message_id=message_id)
        return await self._transport.answer(self._stub.ToggleMessage, request)
