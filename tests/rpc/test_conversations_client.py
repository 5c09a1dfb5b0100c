"""Conversations, messages and instances, called from Python."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
import pytest_asyncio

from conductor.conversations.v1.busy_policy_pb2 import BusyPolicy
from conductor.conversations.v1.conversation_pb2 import Conversation, Message
from conductor.conversations.v1.conversation_service_pb2 import ListConversationsRequest
from conductor.conversations.v1.instance_pb2 import Instance
from conductor.conversations.v1.message_service_pb2 import ListMessagesRequest
from conductor.execution.v1.execution_pb2 import ContextMode
from conductor_ai.client import Client, ConductorError
from services.kit.errors import DomainError, Reason
from tests.rpc.talking import Talking, serving_talks
from tests.rpc.talks import served_talks


@pytest_asyncio.fixture
async def talking(tmp_path: Path) -> AsyncIterator[Talking]:
    async with served_talks(tmp_path) as talks:
        yield Talking(talks)


@pytest_asyncio.fixture
async def client(talking: Talking) -> AsyncIterator[Client]:
    async with serving_talks(talking) as address, Client(address) as client:
        yield client


async def test_what_is_no_request_is_not_sent_as_one_that_filters_nothing(client: Client) -> None:
    one = await client.conversations.create()

    with pytest.raises(TypeError, match=f"the fields of its request, not '{one.id}'"):
        await anext(client.conversations.list(one.id))  # type: ignore[arg-type]  # as without mypy


async def test_conversations_have_their_noun(client: Client) -> None:
    talks = client.conversations
    one = await talks.create(Conversation(title="Storm", context="# A\n"))
    two = await talks.create()

    assert (await talks.set_title(one.id, "Calm")).title == "Calm"
    assert (await talks.set_context(one.id, "# B\n")).context == "# B\n"
    assert (await talks.upload_context(one.id, "# Ü\n".encode())).context == "# Ü\n"
    settings = await talks.set_settings(one.id, max_chain_depth=0)
    assert (settings.auto_delegate, settings.max_chain_depth) == (True, 10)
    assert (await talks.set_settings(one.id, auto_delegate=False)).auto_delegate is False
    assert (await talks.set_active_agent(one.id, "poet")).active_agent.agent_id == "poet"
    with pytest.raises(ConductorError, match="ETAG_MISMATCH"):
        await talks.update(Conversation(id=one.id, etag=one.etag, title="Late"), fields=["title"])
    late = Conversation(id=one.id, etag=one.etag, title="Late")
    assert (await talks.update(late, fields=["title"], force=True)).title == "Late"
    assert await talks.reorder({one.id: 2.0, two.id: 1.5}) == 2
    assert (await talks.get(two.id)).display_order == 1.5
    asked = ListConversationsRequest(page_size=1)
    assert {found.id async for found in talks.list(asked)} == {one.id, two.id}
    assert (await talks.clone(one.id, title="Again")).conversation.cloned_from == one.id
    await talks.delete(two.id)
    with pytest.raises(ConductorError, match="CONVERSATION_NOT_FOUND"):
        await talks.get(two.id)
    assert (await talks.get(two.id, include_deleted=True)).HasField("delete_time")
    assert (await talks.undelete(two.id)).id == two.id


async def test_messages_have_theirs(client: Client) -> None:
    id_ = (await client.conversations.create()).id
    messages = client.conversations.messages
    one, two, three = [await messages.append(id_, text) for text in ("one", "two", "three")]

    listed = ListMessagesRequest(conversation_id=id_, page_size=2, newest_first=True)
    assert [found.position async for found in messages.list(listed)] == [3, 2, 1]
    assert [found.id async for found in messages.search("tw", conversation_id=id_)] == [two.id]
    assert (await messages.hide(id_, one.id)).hidden
    assert not (await messages.hide(id_, one.id, hidden=None)).hidden
    assert (await messages.delete(id_, two.id)).HasField("delete_time")
    assert not (await messages.undelete(id_, two.id)).HasField("delete_time")
    assert (await messages.toggle(id_, two.id)).HasField("delete_time")
    assert (await messages.get(id_, three.id)).content == "three"
    reply = await messages.append(id_, Message(content="four", reply_to=one.id))
    assert reply.type == Message.TYPE_USER


async def test_instances_have_theirs(client: Client) -> None:
    instances = client.instances
    await instances.create(Instance(instance_id="desk", agent_id="poet", mcp_configs=["files"]))

    assert (await instances.set_cwd("desk", "/srv")).cwd == "/srv"
    assert [*(await instances.mcp_configs("desk")).combined] == ["files"]
    assert [*(await instances.set_mcp_configs("desk", [])).combined] == []
    changed = await instances.update(Instance(instance_id="desk", emoji="🐙"), fields=["emoji"])
    assert (changed.emoji, changed.cwd) == ("🐙", "/srv")
    assert await instances.reorder({"desk": 3.0}) == 1
    assert [found.instance_id async for found in instances.list()] == ["desk"]
    assert (await instances.context("desk")).cwd == "/srv"
    assert [run async for run in instances.history(instance_id="desk")] == []
    assert await instances.clear_history(agent_id="poet") == 0
    await instances.delete("desk")
    with pytest.raises(ConductorError, match="INSTANCE_NOT_FOUND"):
        await instances.get("desk")
    assert (await instances.undelete("desk")).instance_id == "desk"


async def test_a_run_is_told_where_it_answers(talking: Talking, client: Client) -> None:
    id_ = (await client.conversations.create()).id
    said = await client.conversations.messages.append(id_, "before")
    await client.instances.create(Instance(instance_id="desk", agent_id="poet"))

    await client.start(
        "Hello",
        conversation_id=id_,
        instance_id="desk",
        screenplay_id="sp_1",
        context_mode=ContextMode.CONTEXT_MODE_CONTEXTUAL,
        busy_policy=BusyPolicy.BUSY_POLICY_REJECT,
        reply_to=said.id,
    )

    (start,) = talking.starts
    assert (start.instance_id, start.screenplay_id) == ("desk", "sp_1")
    assert (start.context_mode, start.busy_policy) == (2, 1)
    assert (await talking.talks.said(id_))[1].reply_to == said.id


async def test_who_holds_a_busy_conversation_is_in_the_error(
    talking: Talking, client: Client
) -> None:
    talking.refusals.append(
        DomainError(Reason.REASON_CONVERSATION_BUSY, "Busy.", metadata={"execution_id": "exec_9"})
    )

    with pytest.raises(ConductorError) as refused:
        await client.start("Hello", conversation_id="conv_1")

    assert refused.value.code is grpc.StatusCode.ABORTED
    assert refused.value.metadata == {"execution_id": "exec_9"}
