"""What is said in conversations."""

from __future__ import annotations

from conductor.conversations.v1 import conversation_pb2
from conductor.conversations.v1 import message_service_pb2 as pb
from conductor.conversations.v1.message_service_pb2_grpc import MessageServiceServicer
from services.conversations.convert import messages as convert
from services.conversations.usecases.messages import MessageService
from services.kit import call, paging
from services.kit.interceptor import Context


class MessageHandlers(MessageServiceServicer):
    """The rpcs of MessageService."""

    def __init__(self, service: MessageService) -> None:
        self._messages = service

    async def AppendMessage(
        self, request: pb.AppendMessageRequest, context: Context
    ) -> conversation_pb2.Message:
        draft = convert.draft_of(request, call.author())
        added = await self._messages.append(call.org(), request.conversation_id, draft)
        return convert.message_to_proto(added)

    async def GetMessage(
        self, request: pb.GetMessageRequest, context: Context
    ) -> conversation_pb2.Message:
        found = await self._messages.get(call.org(), request.conversation_id, request.message_id)
        return convert.message_to_proto(found)

    async def ListMessages(
        self, request: pb.ListMessagesRequest, context: Context
    ) -> pb.ListMessagesResponse:
        wanted = convert.wanted_of(request)
        filters = wanted.content()
        asked = paging.page(request, filters)
        page = await self._messages.list(call.org(), wanted, asked.after, asked.size)
        return pb.ListMessagesResponse(
            messages=map(convert.message_to_proto, page.messages),
            next_page_token="" if page.next is None else paging.encode_token(page.next, filters),
        )

    async def SearchMessages(
        self, request: pb.SearchMessagesRequest, context: Context
    ) -> pb.SearchMessagesResponse:
        filters = [request.query, request.conversation_id]
        asked = paging.page(request, filters)
        page = await self._messages.search(
            call.org(), request.query, request.conversation_id, asked.after, asked.size
        )
        return pb.SearchMessagesResponse(
            messages=map(convert.message_to_proto, page.messages),
            next_page_token="" if page.next is None else paging.encode_token(page.next, filters),
        )

    async def DeleteMessage(
        self, request: pb.DeleteMessageRequest, context: Context
    ) -> conversation_pb2.Message:
        changed = await self._messages.delete(
            call.org(), request.conversation_id, request.message_id
        )
        return convert.message_to_proto(changed)

    async def UndeleteMessage(
        self, request: pb.UndeleteMessageRequest, context: Context
    ) -> conversation_pb2.Message:
        changed = await self._messages.undelete(
            call.org(), request.conversation_id, request.message_id
        )
        return convert.message_to_proto(changed)

    async def ToggleMessage(
        self, request: pb.ToggleMessageRequest, context: Context
    ) -> conversation_pb2.Message:
        changed = await self._messages.toggle(
            call.org(), request.conversation_id, request.message_id
        )
        return convert.message_to_proto(changed)

    async def HideMessage(
        self, request: pb.HideMessageRequest, context: Context
    ) -> conversation_pb2.Message:
        changed = await self._messages.hide(
            call.org(),
            request.conversation_id,
            request.message_id,
            hidden=request.hidden if request.HasField("hidden") else None,
        )
        return convert.message_to_proto(changed)
