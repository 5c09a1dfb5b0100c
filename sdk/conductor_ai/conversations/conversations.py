"""Conversations."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Mapping

from google.api.httpbody_pb2 import HttpBody
from google.protobuf.field_mask_pb2 import FieldMask

from conductor.conversations.v1 import conversation_service_pb2 as pb
from conductor.conversations.v1.conversation_pb2 import AgentReference, Conversation
from conductor.conversations.v1.conversation_service_pb2_grpc import ConversationServiceStub
from conductor_ai.conversations.messages import Messages
from conductor_ai.transport import Transport

_MARKDOWN = "text/markdown"


class Conversations:
    """The conversations of an organisation; `messages` is what is said in them."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._stub = ConversationServiceStub(transport.channel)
        self.messages = Messages(transport)

    async def create(
        self, conversation: Conversation | None = None, *, request_id: str = ""
    ) -> Conversation:
        """Make a conversation; nothing of it has to be given."""
        request = pb.CreateConversationRequest(
            conversation=conversation or Conversation(), request_id=request_id
        )
        return await self._transport.answer(self._stub.CreateConversation, request)

    async def get(self, conversation_id: str, *, include_deleted: bool = False) -> Conversation:
        """Get a conversation with its context, without its messages."""
        request = pb.GetConversationRequest(
            conversation_id=conversation_id, include_deleted=include_deleted
        )
        return await self._transport.answer(self._stub.GetConversation, request)

    def list(
        self, filters: pb.ListConversationsRequest | None = None
    ) -> AsyncGenerator[Conversation, None]:
        """List conversations without their contexts; `filters` are those of ListConversations."""
        asked = pb.ListConversationsRequest() if filters is None else filters
        return self._transport.listed(
            self._stub.ListConversations, asked, lambda page: page.conversations
        )

    async def update(
        self, conversation: Conversation, *, fields: Iterable[str] = (), force: bool = False
    ) -> Conversation:
        """Change one whose etag is still that of `conversation`, or with `force` whatever it is.

        Args:
            fields: which fields change; when left out, those that `conversation` has.
        """
        request = pb.UpdateConversationRequest(conversation=conversation, force=force)
        if paths := [*fields]:
            request.update_mask.CopyFrom(FieldMask(paths=paths))
        return await self._transport.answer(self._stub.UpdateConversation, request)

    async def set_title(self, conversation_id: str, title: str) -> Conversation:
        """Set the title, whatever else changes meanwhile."""
        request = pb.SetConversationTitleRequest(conversation_id=conversation_id, new_title=title)
        return await self._transport.answer(self._stub.SetConversationTitle, request)

    async def set_context(self, conversation_id: str, context: str) -> Conversation:
        """Set what every run in it is told besides the messages; empty for nothing."""
        request = pb.SetConversationContextRequest(conversation_id=conversation_id, context=context)
        return await self._transport.answer(self._stub.SetConversationContext, request)

    async def upload_context(self, conversation_id: str, markdown: bytes) -> Conversation:
        """Set the context from the bytes of a Markdown file in UTF-8."""
        request = pb.UploadConversationContextRequest(
            conversation_id=conversation_id,
            file=HttpBody(content_type=_MARKDOWN, data=markdown),
        )
        return await self._transport.answer(self._stub.UploadConversationContext, request)

    async def set_settings(
        self,
        conversation_id: str,
        *,
        auto_delegate: bool | None = None,
        max_chain_depth: int | None = None,
    ) -> Conversation:
        """Set whether and how far agents hand work on; what is left out stays."""
        request = pb.SetConversationSettingsRequest(
            conversation_id=conversation_id,
            auto_delegate=auto_delegate,
            max_chain_depth=max_chain_depth,
        )
        return await self._transport.answer(self._stub.SetConversationSettings, request)

    async def set_active_agent(
        self, conversation_id: str, agent_id: str = "", *, instance_id: str = ""
    ) -> Conversation:
        """Set who answers messages that name no agent; an instance says its agent.

        Neither of them is the agent `default`.
        """
        chosen = AgentReference(agent_id=agent_id, instance_id=instance_id)
        request = pb.SetActiveAgentRequest(conversation_id=conversation_id, agent_info=chosen)
        return await self._transport.answer(self._stub.SetActiveAgent, request)

    async def reorder(self, places: Mapping[str, float]) -> int:
        """Set places in lists ordered by hand, by id: all or none; answers how many."""
        updates = [
            pb.ReorderConversationsRequest.Place(conversation_id=id_, display_order=place)
            for id_, place in places.items()
        ]
        request = pb.ReorderConversationsRequest(order_updates=updates)
        answer = await self._transport.answer(self._stub.ReorderConversations, request)
        return answer.updated_count

    async def clone(
        self, conversation_id: str, *, title: str = "", request_id: str = ""
    ) -> pb.CloneConversationResponse:
        """Make a copy with its messages and instances, all with new ids."""
        request = pb.CloneConversationRequest(
            conversation_id=conversation_id, title=title, request_id=request_id
        )
        return await self._transport.answer(self._stub.CloneConversation, request)

    async def delete(self, conversation_id: str, *, etag: str = "", purge: bool = False) -> None:
        """Delete a conversation with its instances; with `purge` for good."""
        request = pb.DeleteConversationRequest(
            conversation_id=conversation_id, etag=etag, purge=purge
        )
        await self._transport.answer(self._stub.DeleteConversation, request)

    async def undelete(self, conversation_id: str) -> Conversation:
        """Take a deleted conversation back, with what was deleted with it."""
        request = pb.UndeleteConversationRequest(conversation_id=conversation_id)
        return await self._transport.answer(self._stub.UndeleteConversation, request)
