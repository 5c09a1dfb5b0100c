"""Conversations, messages and instances in memory, as far as those who call them can see.

python -m tests.fakes.talks      # serves them and prints the port
"""

from __future__ import annotations

import asyncio
import itertools
import signal
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import grpc
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message as ProtoMessage
from google.protobuf.timestamp_pb2 import Timestamp
from grpc_status import rpc_status

from conductor.conversations.v1 import conversation_service_pb2 as conversations_pb
from conductor.conversations.v1 import instance_service_pb2 as instances_pb
from conductor.conversations.v1 import message_service_pb2 as messages_pb
from conductor.conversations.v1.conversation_pb2 import AgentReference, Conversation, Message
from conductor.conversations.v1.conversation_service_pb2_grpc import (
    ConversationServiceServicer,
    add_ConversationServiceServicer_to_server,
)
from conductor.conversations.v1.instance_pb2 import HistoryEntry, Instance
from conductor.conversations.v1.instance_service_pb2_grpc import (
    InstanceServiceServicer,
    add_InstanceServiceServicer_to_server,
)
from conductor.conversations.v1.message_service_pb2_grpc import (
    MessageServiceServicer,
    add_MessageServiceServicer_to_server,
)
from services.kit.errors import DomainError, Reason, invalid, to_status

Context = grpc.aio.ServicerContext[Any, Any]
T = TypeVar("T")
R = TypeVar("R", Conversation, Instance)

_PAGE = 50
_MOST = 200
_MARKS = frozenset("\u061c\u200e\u200f")


class Talks(ConversationServiceServicer, MessageServiceServicer, InstanceServiceServicer):
    """What was said, by conversation. Every organisation has the same."""

    def __init__(self) -> None:
        self.conversations: dict[str, Conversation] = {}
        self.messages: dict[str, list[Message]] = {}
        self.instances: dict[str, Instance] = {}
        self.history: list[HistoryEntry] = []
        self.requests: list[ProtoMessage] = []
        """What was asked of conversations and messages."""
        self._ids = itertools.count(1)

    def made(self, prefix: str) -> str:
        return f"{prefix}_{next(self._ids):04d}"

    def turn(
        self, conversation_id: str, text: str, execution_id: str, agent_id: str, reply_to: str = ""
    ) -> tuple[Message, Message]:
        """Add what is said and the answer that is awaited."""
        conversation = self._conversation(conversation_id)
        said = Message(type=Message.TYPE_USER, content=text, reply_to=reply_to)
        said.execution_id = execution_id
        answer = Message(type=Message.TYPE_AGENT, status=Message.STATUS_PENDING)
        chosen = AgentReference(agent_id=agent_id) if agent_id else conversation.active_agent
        answer.agent.agent_id = chosen.agent_id or "default"
        answer.agent.instance_id = chosen.instance_id
        answer.execution_id = execution_id
        conversation.pending_executions.append(execution_id)
        return self._append(conversation_id, said), self._append(conversation_id, answer)

    def fill(self, execution_id: str, status: Message.Status.ValueType, content: str = "") -> None:
        """Complete the answer of a run."""
        for messages in self.messages.values():
            for message in messages:
                if message.execution_id == execution_id and message.type == Message.TYPE_AGENT:
                    message.status, message.content = status, content
                    self.conversations[message.conversation_id].pending_executions.remove(
                        execution_id
                    )

    def texts(self, conversation_id: str, *, visible: bool = False) -> list[str]:
        return [
            message.content
            for message in self.messages[conversation_id]
            if not (visible and message.hidden)
        ]

    async def CreateConversation(
        self, request: conversations_pb.CreateConversationRequest, context: Context
    ) -> Conversation:
        self.requests.append(request)
        made = Conversation(auto_delegate=True, max_chain_depth=10)
        made.MergeFrom(request.conversation)
        made.id = self.made("conv")
        made.title = self._title(made.title or "Conversation 2026-05-31 18:00")
        if made.HasField("active_agent"):
            self._fill_agent(made.active_agent)
            made.participants.append(made.active_agent)
        made.create_time.GetCurrentTime()
        self.messages[made.id] = []
        self.conversations[made.id] = _changed(made)
        return made

    async def GetConversation(
        self, request: conversations_pb.GetConversationRequest, context: Context
    ) -> Conversation:
        self.requests.append(request)
        return self._conversation(request.conversation_id, deleted=request.include_deleted)

    async def ListConversations(
        self, request: conversations_pb.ListConversationsRequest, context: Context
    ) -> conversations_pb.ListConversationsResponse:
        found = [
            one
            for one in self.conversations.values()
            if one.HasField("delete_time") == request.deleted
            and request.screenplay_id in ("", one.screenplay_id)
            and _has(one.title, request.query)
            and (not request.agent_id or request.agent_id in _agents(one.participants))
        ]
        if request.order == conversations_pb.ListConversationsRequest.ORDER_TITLE:
            found.sort(key=lambda one: one.title.casefold(), reverse=request.reverse)
        else:
            found.sort(key=lambda one: one.update_time.ToNanoseconds())
            found.reverse()
        page, token = _page(found, request.page_size, request.page_token)
        shown = []
        for one in page:
            shown.append(Conversation())
            shown[-1].CopyFrom(one)
            shown[-1].ClearField("context")
        return conversations_pb.ListConversationsResponse(
            conversations=shown, next_page_token=token
        )

    async def UpdateConversation(
        self, request: conversations_pb.UpdateConversationRequest, context: Context
    ) -> Conversation:
        wanted = request.conversation
        conversation = self._conversation(wanted.id)
        if not request.force and wanted.etag != conversation.etag:
            raise DomainError(Reason.REASON_ETAG_MISMATCH, "Somebody else changed it.")
        for path in request.update_mask.paths:
            if path == "allowed_agents":
                conversation.allowed_agents[:] = wanted.allowed_agents
            else:
                setattr(conversation, path, getattr(wanted, path))
        return _changed(conversation)

    async def SetConversationTitle(
        self, request: conversations_pb.SetConversationTitleRequest, context: Context
    ) -> Conversation:
        conversation = self._conversation(request.conversation_id)
        conversation.title = self._title(request.new_title)
        return _changed(conversation)

    async def SetConversationContext(
        self, request: conversations_pb.SetConversationContextRequest, context: Context
    ) -> Conversation:
        conversation = self._conversation(request.conversation_id)
        conversation.context = request.context
        return _changed(conversation)

    async def UploadConversationContext(
        self, request: conversations_pb.UploadConversationContextRequest, context: Context
    ) -> Conversation:
        conversation = self._conversation(request.conversation_id)
        conversation.context = request.file.data.decode()
        return _changed(conversation)

    async def SetConversationSettings(
        self, request: conversations_pb.SetConversationSettingsRequest, context: Context
    ) -> Conversation:
        conversation = self._conversation(request.conversation_id)
        for field, value in request.ListFields():
            if field.name != "conversation_id":
                setattr(conversation, field.name, value)
        return _changed(conversation)

    async def SetActiveAgent(
        self, request: conversations_pb.SetActiveAgentRequest, context: Context
    ) -> Conversation:
        conversation = self._conversation(request.conversation_id)
        self._fill_agent(request.agent_info)
        if conversation.allowed_agents and (
            request.agent_info.agent_id not in conversation.allowed_agents
        ):
            raise DomainError(Reason.REASON_AGENT_NOT_ALLOWED, "Choose one that is allowed.")
        conversation.active_agent.CopyFrom(request.agent_info)
        return _changed(conversation)

    async def ReorderConversations(
        self, request: conversations_pb.ReorderConversationsRequest, context: Context
    ) -> conversations_pb.ReorderConversationsResponse:
        for place in request.order_updates:
            self._conversation(place.conversation_id).display_order = place.display_order
        return conversations_pb.ReorderConversationsResponse(
            updated_count=len(request.order_updates)
        )

    async def CloneConversation(
        self, request: conversations_pb.CloneConversationRequest, context: Context
    ) -> conversations_pb.CloneConversationResponse:
        original = self._conversation(request.conversation_id)
        copy = Conversation()
        copy.CopyFrom(original)
        copy.id, copy.cloned_from = self.made("conv"), original.id
        copy.title = request.title or f"{original.title} (copy)"
        self.conversations[copy.id] = _changed(copy)
        self.messages[copy.id] = []
        for message in self.messages[original.id]:
            twin = Message()
            twin.CopyFrom(message)
            self._append(copy.id, twin)
        ids = {}
        for instance in [*self.instances.values()]:
            if instance.conversation_id == original.id:
                other = Instance()
                other.CopyFrom(instance)
                other.instance_id, other.conversation_id = self.made("inst"), copy.id
                self.instances[other.instance_id] = ids[instance.instance_id] = other
        return conversations_pb.CloneConversationResponse(
            conversation=copy,
            instance_id_map={old: new.instance_id for old, new in ids.items()},
        )

    async def DeleteConversation(
        self, request: conversations_pb.DeleteConversationRequest, context: Context
    ) -> Empty:
        conversation = self._conversation(request.conversation_id, deleted=request.purge)
        if request.purge:
            del self.conversations[conversation.id], self.messages[conversation.id]
        else:
            conversation.delete_time.GetCurrentTime()
        return Empty()

    async def UndeleteConversation(
        self, request: conversations_pb.UndeleteConversationRequest, context: Context
    ) -> Conversation:
        conversation = self._conversation(request.conversation_id, deleted=True)
        conversation.ClearField("delete_time")
        return conversation

    async def AppendMessage(
        self, request: messages_pb.AppendMessageRequest, context: Context
    ) -> Message:
        self._conversation(request.conversation_id)
        if request.message.reply_to:
            self._message(request.conversation_id, request.message.reply_to)
        if not request.message.content.strip():
            raise invalid("message.content", "Say something.")
        request.message.type = request.message.type or Message.TYPE_USER
        return self._append(request.conversation_id, request.message)

    async def GetMessage(self, request: messages_pb.GetMessageRequest, context: Context) -> Message:
        return self._message(request.conversation_id, request.message_id)

    async def ListMessages(
        self, request: messages_pb.ListMessagesRequest, context: Context
    ) -> messages_pb.ListMessagesResponse:
        self.requests.append(request)
        self._conversation(request.conversation_id, deleted=True)
        found = [
            one
            for one in self.messages[request.conversation_id]
            if one.position > request.after_position
            and (not request.before_position or one.position < request.before_position)
            and request.reply_to in ("", one.reply_to)
            and not (request.exclude_hidden and one.hidden)
            and (request.include_deleted or not one.HasField("delete_time"))
        ]
        if request.newest_first:
            found.reverse()
        page, token = _page(found, request.page_size, request.page_token)
        return messages_pb.ListMessagesResponse(messages=page, next_page_token=token)

    async def SearchMessages(
        self, request: messages_pb.SearchMessagesRequest, context: Context
    ) -> messages_pb.SearchMessagesResponse:
        found = [
            one
            for id_, messages in self.messages.items()
            if request.conversation_id in ("", id_)
            for one in messages
            if _has(one.content, request.query) and not one.HasField("delete_time")
        ]
        page, token = _page(found[::-1], request.page_size, request.page_token)
        return messages_pb.SearchMessagesResponse(messages=page, next_page_token=token)

    async def DeleteMessage(
        self, request: messages_pb.DeleteMessageRequest, context: Context
    ) -> Message:
        message = self._message(request.conversation_id, request.message_id)
        message.delete_time.GetCurrentTime()
        return message

    async def UndeleteMessage(
        self, request: messages_pb.UndeleteMessageRequest, context: Context
    ) -> Message:
        message = self._message(request.conversation_id, request.message_id)
        message.ClearField("delete_time")
        return message

    async def ToggleMessage(
        self, request: messages_pb.ToggleMessageRequest, context: Context
    ) -> Message:
        message = self._message(request.conversation_id, request.message_id)
        if message.HasField("delete_time"):
            message.ClearField("delete_time")
        else:
            message.delete_time.GetCurrentTime()
        return message

    async def HideMessage(
        self, request: messages_pb.HideMessageRequest, context: Context
    ) -> Message:
        message = self._message(request.conversation_id, request.message_id)
        message.hidden = request.hidden if request.HasField("hidden") else not message.hidden
        return message

    async def CreateInstance(
        self, request: instances_pb.CreateInstanceRequest, context: Context
    ) -> Instance:
        made = Instance(status=Instance.STATUS_PENDING)
        made.MergeFrom(request.instance)
        if made.conversation_id:
            self._conversation(made.conversation_id)
        if made.instance_id in self.instances:
            raise DomainError(
                Reason.REASON_INSTANCE_ALREADY_EXISTS, f"There is an instance {made.instance_id}."
            )
        made.instance_id = made.instance_id or self.made("inst")
        made.create_time.GetCurrentTime()
        self.instances[made.instance_id] = _changed(made)
        return made

    async def GetInstance(
        self, request: instances_pb.GetInstanceRequest, context: Context
    ) -> Instance:
        return self._instance(request.instance_id, deleted=request.include_deleted)

    async def ListInstances(
        self, request: instances_pb.ListInstancesRequest, context: Context
    ) -> instances_pb.ListInstancesResponse:
        found = [
            one
            for one in self.instances.values()
            if one.HasField("delete_time") == request.deleted
            and request.agent_id in ("", one.agent_id)
            and request.screenplay_id in ("", one.screenplay_id)
            and request.conversation_id in ("", one.conversation_id)
            and request.status in (Instance.STATUS_UNSPECIFIED, one.status)
        ]
        if request.order == instances_pb.ListInstancesRequest.ORDER_DISPLAY:
            found.sort(key=lambda one: one.display_order)
        page, token = _page(found, request.page_size, request.page_token)
        return instances_pb.ListInstancesResponse(instances=page, next_page_token=token)

    async def UpdateInstance(
        self, request: instances_pb.UpdateInstanceRequest, context: Context
    ) -> Instance:
        wanted = request.instance
        instance = self._instance(wanted.instance_id)
        if wanted.etag not in ("", instance.etag):
            raise DomainError(Reason.REASON_ETAG_MISMATCH, "Somebody else changed it.")
        for path in request.update_mask.paths:
            if path == "config":
                instance.config.MergeFrom(wanted.config)
                for key in [
                    key for key, one in wanted.config.fields.items() if one.HasField("null_value")
                ]:
                    del instance.config.fields[key]
            elif path == "position":
                instance.position.CopyFrom(wanted.position)
            elif path == "mcp_configs":
                instance.mcp_configs[:] = wanted.mcp_configs
            else:
                setattr(instance, path, getattr(wanted, path))
        return _changed(instance)

    async def SetInstanceCwd(
        self, request: instances_pb.SetInstanceCwdRequest, context: Context
    ) -> Instance:
        instance = self._instance(request.instance_id)
        instance.cwd = request.cwd
        return _changed(instance)

    async def GetInstanceMcpConfigs(
        self, request: instances_pb.GetInstanceMcpConfigsRequest, context: Context
    ) -> instances_pb.InstanceMcpConfigs:
        instance = self._instance(request.instance_id)
        return instances_pb.InstanceMcpConfigs(
            instance_id=instance.instance_id,
            agent_id=instance.agent_id,
            instance_mcps=instance.mcp_configs,
            combined=instance.mcp_configs,
        )

    async def SetInstanceMcpConfigs(
        self, request: instances_pb.SetInstanceMcpConfigsRequest, context: Context
    ) -> instances_pb.InstanceMcpConfigs:
        self._instance(request.instance_id).mcp_configs[:] = request.mcp_configs
        asked = instances_pb.GetInstanceMcpConfigsRequest(instance_id=request.instance_id)
        return await self.GetInstanceMcpConfigs(asked, context)

    async def ReorderInstances(
        self, request: instances_pb.ReorderInstancesRequest, context: Context
    ) -> instances_pb.ReorderInstancesResponse:
        for place in request.order_updates:
            self._instance(place.instance_id).display_order = place.display_order
        return instances_pb.ReorderInstancesResponse(updated_count=len(request.order_updates))

    async def DeleteInstance(
        self, request: instances_pb.DeleteInstanceRequest, context: Context
    ) -> Empty:
        instance = self._instance(request.instance_id, deleted=request.purge)
        if request.purge:
            del self.instances[instance.instance_id]
        else:
            instance.delete_time.GetCurrentTime()
        return Empty()

    async def UndeleteInstance(
        self, request: instances_pb.UndeleteInstanceRequest, context: Context
    ) -> Instance:
        instance = self._instance(request.instance_id, deleted=True)
        instance.ClearField("delete_time")
        return instance

    async def GetInstanceContext(
        self, request: instances_pb.GetInstanceContextRequest, context: Context
    ) -> instances_pb.InstanceContext:
        return instances_pb.InstanceContext(cwd=self._instance(request.instance_id).cwd)

    async def ListHistory(
        self, request: instances_pb.ListHistoryRequest, context: Context
    ) -> instances_pb.ListHistoryResponse:
        found = self._runs(request.agent_id, request.instance_id)
        page, token = _page(found[::-1], request.page_size, request.page_token)
        return instances_pb.ListHistoryResponse(entries=page, next_page_token=token)

    async def ClearHistory(
        self, request: instances_pb.ClearHistoryRequest, context: Context
    ) -> instances_pb.ClearHistoryResponse:
        gone = self._runs(request.agent_id, request.instance_id)
        self.history = [run for run in self.history if run not in gone]
        return instances_pb.ClearHistoryResponse(cleared_count=len(gone))

    def _runs(self, agent_id: str, instance_id: str) -> list[HistoryEntry]:
        if instance_id:
            self._instance(instance_id)
        return [
            run
            for run in self.history
            if (run.instance_id == instance_id if instance_id else run.agent_id == agent_id)
        ]

    def _fill_agent(self, agent: AgentReference) -> None:
        if agent.agent_id == "unknown":
            raise DomainError(Reason.REASON_AGENT_NOT_FOUND, "There is no agent unknown.")
        if agent.instance_id:
            agent.agent_id = self._instance(agent.instance_id).agent_id

    def _title(self, title: str) -> str:
        if not 3 <= len(title.strip()) <= 100:
            raise invalid("title", "Choose 3 to 100 characters.")
        if set(title) & _MARKS:
            raise invalid("title", "Leave out what turns the direction of writing.")
        return title.strip()

    def _append(self, conversation_id: str, message: Message) -> Message:
        messages = self.messages[conversation_id]
        message.id, message.conversation_id = self.made("msg"), conversation_id
        message.position = len(messages) + 1
        message.status = message.status or Message.STATUS_COMPLETED
        message.create_time.GetCurrentTime()
        messages.append(message)
        conversation = self.conversations[conversation_id]
        conversation.message_count = len(messages)
        conversation.last_message_preview = message.content[:200]
        conversation.update_time.GetCurrentTime()
        return message

    def _conversation(self, id_: str, *, deleted: bool = False) -> Conversation:
        return _found(
            self.conversations, id_, deleted, Reason.REASON_CONVERSATION_NOT_FOUND, "conversation"
        )

    def _instance(self, id_: str, *, deleted: bool = False) -> Instance:
        return _found(self.instances, id_, deleted, Reason.REASON_INSTANCE_NOT_FOUND, "instance")

    def _message(self, conversation_id: str, id_: str) -> Message:
        self._conversation(conversation_id)
        for message in self.messages[conversation_id]:
            if message.id == id_:
                return message
        raise DomainError(Reason.REASON_MESSAGE_NOT_FOUND, f"There is no message {id_}.")


class Refusing(grpc.aio.ServerInterceptor):
    """Answers DomainError as the mesh does."""

    async def intercept_service(self, continuation: Any, details: Any) -> Any:
        handler = await continuation(details)
        if handler is None or handler.unary_unary is None:
            return handler

        async def answer(request: Any, context: Context) -> Any:
            try:
                return await handler.unary_unary(request, context)
            except DomainError as error:
                await context.abort_with_status(rpc_status.to_status(to_status(error)))

        return grpc.unary_unary_rpc_method_handler(
            answer, handler.request_deserializer, handler.response_serializer
        )


def add_talks(talks: Talks, server: grpc.aio.Server) -> None:
    """Let a server, made with `Refusing`, serve them."""
    add_ConversationServiceServicer_to_server(talks, server)
    add_MessageServiceServicer_to_server(talks, server)
    add_InstanceServiceServicer_to_server(talks, server)


def _found(things: dict[str, R], id_: str, deleted: bool, reason: Reason.ValueType, noun: str) -> R:
    thing = things.get(id_)
    if thing is None or (thing.HasField("delete_time") and not deleted):
        raise DomainError(reason, f"There is no {noun} {id_}.")
    return thing


def _changed(thing: R) -> R:
    thing.etag = str(int(thing.etag or 0) + 1)
    thing.update_time.GetCurrentTime()
    return thing


def _has(text: str, query: str) -> bool:
    words = text.casefold().split()
    return all(any(word.startswith(part) for word in words) for part in query.casefold().split())


def _agents(participants: Iterable[AgentReference]) -> set[str]:
    return {one.agent_id for one in participants}


def _page(found: Sequence[T], size: int, token: str) -> tuple[Sequence[T], str]:
    first = int(token or 0)
    last = first + min(size or _PAGE, _MOST)
    return found[first:last], str(last) if last < len(found) else ""


def run_of(talks: Talks, instance_id: str, asked: str, *, reason: str = "") -> HistoryEntry:
    """Note a run that ended."""
    instance = talks.instances[instance_id]
    run = HistoryEntry(
        execution_id=talks.made("exec"),
        agent_id=instance.agent_id,
        instance_id=instance_id,
        user_input=asked,
        ai_response="" if reason else f"{asked}!",
        succeeded=not reason,
        error_reason=reason,
        duration_ms=1500,
        end_time=_now(),
    )
    talks.history.append(run)
    counts = instance.statistics
    counts.task_count += 1
    counts.success_count += not reason
    counts.error_count += bool(reason)
    counts.success_rate = 100 * counts.success_count / counts.task_count
    counts.last_execution.CopyFrom(run.end_time)
    return run


def _now() -> Timestamp:
    stamp = Timestamp()
    stamp.GetCurrentTime()
    return stamp


async def _serve() -> None:
    talks = Talks()
    talks.instances["worked"] = _changed(Instance(instance_id="worked", agent_id="writer"))
    for number in range(3):
        run_of(talks, "worked", f"ask {number}", reason="MODEL_FAILED" if number == 1 else "")
    server = grpc.aio.server(interceptors=[Refusing()])
    add_talks(talks, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)  # noqa: T201  # whoever started it reads it
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    await ended.wait()
    await server.stop(None)


if __name__ == "__main__":
    asyncio.run(_serve())
