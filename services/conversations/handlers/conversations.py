"""Conversations."""

from __future__ import annotations

from google.protobuf.empty_pb2 import Empty

from conductor.conversations.v1 import conversation_pb2
from conductor.conversations.v1 import conversation_service_pb2 as pb
from conductor.conversations.v1.conversation_service_pb2_grpc import ConversationServiceServicer
from services.conversations.convert import conversations as convert
from services.conversations.usecases.clones import Cloner
from services.conversations.usecases.conversations import ConversationService
from services.kit import call, paging
from services.kit.interceptor import Context
from services.kit.masks import fields_of
from services.kit.messages import fitting


class ConversationHandlers(ConversationServiceServicer):
    """The rpcs of ConversationService.

    Args:
        keep_days: how long what is deleted is kept; 0 for ever.
    """

    def __init__(self, service: ConversationService, cloner: Cloner, keep_days: float) -> None:
        self._conversations = service
        self._cloner = cloner
        self._keep_days = keep_days

    async def CreateConversation(
        self, request: pb.CreateConversationRequest, context: Context
    ) -> conversation_pb2.Conversation:
        made = await self._conversations.create(call.org(), convert.asked_of_create(request))
        return convert.conversation_to_proto(made, self._keep_days)

    async def GetConversation(
        self, request: pb.GetConversationRequest, context: Context
    ) -> conversation_pb2.Conversation:
        found = await self._conversations.get(
            call.org(), request.conversation_id, include_deleted=request.include_deleted
        )
        return convert.conversation_to_proto(found, self._keep_days)

    async def ListConversations(
        self, request: pb.ListConversationsRequest, context: Context
    ) -> pb.ListConversationsResponse:
        wanted = convert.wanted_of(request)
        page = paging.page(request, wanted.content(), wanted.place_type)
        found = await self._conversations.list(call.org(), wanted, page.after, page.size + 1)
        shown = fitting(
            convert.summary_to_proto(one, self._keep_days) for one in found[: page.size]
        )
        token = page.next_token(
            found, len(shown), lambda one: self._conversations.place(one, wanted)
        )
        return pb.ListConversationsResponse(conversations=shown, next_page_token=token)

    async def UpdateConversation(
        self, request: pb.UpdateConversationRequest, context: Context
    ) -> conversation_pb2.Conversation:
        asked = request.conversation
        fields = fields_of(asked, request.update_mask, convert.UPDATABLE, "conversation")
        changed = await self._conversations.update(
            call.org(),
            asked.id,
            convert.values_of(asked, fields),
            asked.etag,
            force=request.force,
        )
        return convert.conversation_to_proto(changed, self._keep_days)

    async def SetConversationTitle(
        self, request: pb.SetConversationTitleRequest, context: Context
    ) -> conversation_pb2.Conversation:
        changed = await self._conversations.set_title(
            call.org(), request.conversation_id, request.new_title
        )
        return convert.conversation_to_proto(changed, self._keep_days)

    async def SetConversationContext(
        self, request: pb.SetConversationContextRequest, context: Context
    ) -> conversation_pb2.Conversation:
        changed = await self._conversations.set_context(
            call.org(), request.conversation_id, request.context, "context"
        )
        return convert.conversation_to_proto(changed, self._keep_days)

    async def UploadConversationContext(
        self, request: pb.UploadConversationContextRequest, context: Context
    ) -> conversation_pb2.Conversation:
        changed = await self._conversations.set_context(
            call.org(), request.conversation_id, convert.context_of(request), "file"
        )
        return convert.conversation_to_proto(changed, self._keep_days)

    async def SetConversationSettings(
        self, request: pb.SetConversationSettingsRequest, context: Context
    ) -> conversation_pb2.Conversation:
        changed = await self._conversations.set(
            call.org(), request.conversation_id, convert.settings_of(request)
        )
        return convert.conversation_to_proto(changed, self._keep_days)

    async def SetActiveAgent(
        self, request: pb.SetActiveAgentRequest, context: Context
    ) -> conversation_pb2.Conversation:
        changed = await self._conversations.set_active_agent(
            call.org(), request.conversation_id, convert.active_agent_of(request)
        )
        return convert.conversation_to_proto(changed, self._keep_days)

    async def ReorderConversations(
        self, request: pb.ReorderConversationsRequest, context: Context
    ) -> pb.ReorderConversationsResponse:
        places = [(one.conversation_id, one.display_order) for one in request.order_updates]
        count = await self._conversations.reorder(call.org(), places)
        return pb.ReorderConversationsResponse(updated_count=count)

    async def CloneConversation(
        self, request: pb.CloneConversationRequest, context: Context
    ) -> pb.CloneConversationResponse:
        copy = await self._cloner.clone(
            call.org(), request.conversation_id, request.title, request.request_id
        )
        return pb.CloneConversationResponse(
            conversation=convert.conversation_to_proto(copy, self._keep_days),
            instance_id_map=copy.instance_ids,
        )

    async def DeleteConversation(
        self, request: pb.DeleteConversationRequest, context: Context
    ) -> Empty:
        await self._conversations.delete(
            call.org(), request.conversation_id, request.etag, purge=request.purge
        )
        return Empty()

    async def UndeleteConversation(
        self, request: pb.UndeleteConversationRequest, context: Context
    ) -> conversation_pb2.Conversation:
        back = await self._conversations.undelete(call.org(), request.conversation_id)
        return convert.conversation_to_proto(back, self._keep_days)
