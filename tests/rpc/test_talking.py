"""Runs in conversations, with the real services that keep these and the agents."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from conductor.conversations.v1 import busy_policy_pb2
from conductor.conversations.v1 import conversation_service_pb2 as conversation_pb
from conductor.conversations.v1 import instance_service_pb2 as instance_pb
from conductor.conversations.v1 import message_service_pb2 as message_pb
from conductor.conversations.v1.conversation_pb2 import Conversation, Message
from conductor.conversations.v1.conversation_service_pb2_grpc import ConversationServiceStub
from conductor.conversations.v1.instance_pb2 import Instance
from conductor.conversations.v1.instance_service_pb2_grpc import InstanceServiceStub
from conductor.conversations.v1.message_service_pb2_grpc import MessageServiceStub
from conductor.execution.v1 import execution_service_pb2 as pb
from conductor.execution.v1.execution_pb2 import CONTEXT_MODE_STATELESS, Execution
from tests.patience import PATIENCE
from tests.rpc.both import CONTENT, CONVERSATIONS, EXECUTION, Both, both_served
from tests.rpc.modelled import last_answer
from tests.rpc.serving import refusal, stream_refusal

INTERRUPT = busy_policy_pb2.BUSY_POLICY_INTERRUPT


@pytest.fixture
async def three(tmp_path: Path) -> AsyncIterator[Both]:
    models: Any = {
        "endless": {"tokens": 1_000_000, "delay_ms": 10},
        "brisk": {"tokens": 30, "delay_ms": 20},
    }
    names = (CONTENT, CONVERSATIONS, EXECUTION)
    async with both_served(tmp_path, names=names, execution_mock_models=models) as three:
        yield three


async def conversation(three: Both, **fields: Any) -> Conversation:
    stub = ConversationServiceStub(three.channel(CONVERSATIONS))
    request = conversation_pb.CreateConversationRequest(conversation=Conversation(**fields))
    return await stub.CreateConversation(request, timeout=PATIENCE)


async def said(three: Both, conversation_id: str) -> list[tuple[str, str]]:
    """Content and status of every message, in order."""
    stub = MessageServiceStub(three.channel(CONVERSATIONS))
    request = message_pb.ListMessagesRequest(conversation_id=conversation_id)
    page = await stub.ListMessages(request, timeout=PATIENCE, wait_for_ready=True)
    found = sorted(page.messages, key=lambda one: one.position)
    return [(one.content, Message.Status.Name(one.status)) for one in found]


async def shown(three: Both, execution_id: str, kind: str, message: str = "") -> None:
    """Wait for an event of a kind that says something."""
    request = pb.WatchExecutionRequest(execution_id=execution_id)
    async for one in three.mesh.executions.WatchExecution(request, timeout=PATIENCE):
        if one.event.WhichOneof("payload") == kind and message in str(one.event):
            break


async def test_a_run_is_told_what_was_said_and_leaves_its_answer(three: Both) -> None:
    where = await conversation(three, title="Names", context="Be brief.")
    first = await three.mesh.finished("I am Ada.", conversation_id=where.id, model="mock")
    second = await three.mesh.finished("Who?", conversation_id=where.id, model="mock-recall")
    told = json.loads(second.result)
    assert [one["content"] for one in told["messages"]] == ["I am Ada.", first.result, "Who?"]
    assert "Names" in told["system"]
    assert "Be brief." in told["system"]
    assert await said(three, where.id) == [
        ("I am Ada.", "STATUS_COMPLETED"),
        (first.result, "STATUS_COMPLETED"),
        ("Who?", "STATUS_COMPLETED"),
        (second.result, "STATUS_COMPLETED"),
    ]


async def test_an_instance_counts_its_runs_in_and_out_of_conversations(three: Both) -> None:
    stub = InstanceServiceStub(three.channel(CONVERSATIONS))
    made = await stub.CreateInstance(
        instance_pb.CreateInstanceRequest(instance=Instance(agent_id="default", cwd="/srv")),
        timeout=PATIENCE,
    )
    where = await conversation(three)
    ended = await three.mesh.finished(instance_id=made.instance_id)
    assert ended.cwd == "/srv"
    await three.mesh.finished(instance_id=made.instance_id, conversation_id=where.id)
    failed = await three.mesh.finished(instance_id=made.instance_id, model="mock-fail")
    assert failed.state == Execution.STATE_FAILED
    request = instance_pb.GetInstanceRequest(instance_id=made.instance_id)
    counted = (await stub.GetInstance(request, timeout=PATIENCE)).statistics
    assert (counted.task_count, counted.success_count, counted.error_count) == (3, 2, 1)


async def test_a_run_of_an_instance_is_told_what_it_did_before(three: Both) -> None:
    stub = InstanceServiceStub(three.channel(CONVERSATIONS))
    placed = instance_pb.CreateInstanceRequest(instance=Instance(agent_id="default"))
    id_ = (await stub.CreateInstance(placed, timeout=PATIENCE)).instance_id
    where = await conversation(three)

    async def told(text: str, **asked: Any) -> list[str]:
        run = await three.mesh.finished(text, instance_id=id_, model="mock-recall", **asked)
        return [one["content"] for one in json.loads(run.result)["messages"]]

    first = await three.mesh.finished("I am Ada.", instance_id=id_, model="mock")
    broken = await three.mesh.finished("Fail.", instance_id=id_, model="mock-fail")
    cut = last_answer(await three.mesh.watch(broken.id))
    assert cut
    assert await told("In here?", conversation_id=where.id) == ["In here?"]
    assert await told("Who?", context_mode=CONTEXT_MODE_STATELESS) == ["Who?"]
    messages = await told("And now?")
    assert messages[:4] == ["I am Ada.", first.result, "Fail.", cut]
    assert (messages[4], messages[-1], len(messages)) == ("Who?", "And now?", 7)
    read = [
        one.context_read
        for one in await three.mesh.watch((await three.mesh.finished(instance_id=id_)).id)
        if one.HasField("context_read")
    ]
    assert [(one.history_count, one.omitted_count) for one in read] == [(8, 0)]
    clear = instance_pb.ClearHistoryRequest(instance_id=id_)
    await stub.ClearHistory(clear, timeout=PATIENCE)
    assert await told("Still?") == ["Still?"]


async def test_turns_wait_for_one_another_and_may_be_interrupted(three: Both) -> None:
    where = (await conversation(three)).id
    first = await three.mesh.start("1", conversation_id=where, model="endless")
    second = await three.mesh.start("2", conversation_id=where, model="mock")
    third = await three.mesh.start("3", conversation_id=where, model="mock", busy_policy=INTERRUPT)
    assert (await three.mesh.watch(third.id))[-1].HasField("result")
    for run in (first, second):
        assert (await three.mesh.get(run.id)).state == Execution.STATE_CANCELLED
    statuses = [status for _, status in await said(three, where)]
    assert [one.removeprefix("STATUS_") for one in statuses] == [
        *("COMPLETED", "CANCELLED") * 2,
        *("COMPLETED", "COMPLETED"),
    ]


async def test_nothing_is_lost_when_conversations_goes_away_and_comes_back(three: Both) -> None:
    where = (await conversation(three)).id
    run = await three.mesh.start("1", conversation_id=where, model="brisk")
    await shown(three, run.id, "on_llm_new_token")
    await three.stop(CONVERSATIONS)
    refused = await refusal(
        three.mesh.start("2", conversation_id=where, agent_id="default", request_id="r")
    )
    assert refused.kind == (grpc.StatusCode.UNAVAILABLE, "SERVICE_UNAVAILABLE")
    await shown(three, run.id, "status_update", "waits for conversations")
    await three.start(CONVERSATIONS)
    assert (await three.mesh.watch(run.id))[-1].HasField("result")
    again = await three.mesh.finished(
        "2", conversation_id=where, agent_id="default", request_id="r", model="mock"
    )
    assert await said(three, where) == [
        ("1", "STATUS_COMPLETED"),
        ((await three.mesh.get(run.id)).result, "STATUS_COMPLETED"),
        ("2", "STATUS_COMPLETED"),
        (again.result, "STATUS_COMPLETED"),
    ]


async def test_a_session_talks_in_a_conversation_of_its_own(three: Both) -> None:
    opening = pb.ConverseOpening(template=pb.StartExecutionRequest(model="mock"))
    session = three.mesh.executions.Converse(
        iter([pb.ConverseRequest(open=opening), pb.ConverseRequest(message="Hi.")]),
        timeout=PATIENCE,
    )
    told = [one async for one in session]
    run = next(one.started for one in told if one.HasField("started"))
    async with asyncio.timeout(PATIENCE):
        assert await said(three, told[0].opened.conversation_id) == [
            ("Hi.", "STATUS_COMPLETED"),
            ((await three.mesh.get(run.id)).result, "STATUS_COMPLETED"),
        ]


async def test_what_a_session_cannot_be_opened_with_is_named_by_its_field(three: Both) -> None:
    for field, template, reason in (
        ("agent_id", pb.StartExecutionRequest(agent_id="nobody"), "AGENT_NOT_FOUND"),
        ("screenplay_id", pb.StartExecutionRequest(screenplay_id="none"), "SCREENPLAY_NOT_FOUND"),
    ):
        opening = pb.ConverseRequest(open=pb.ConverseOpening(template=template))
        session = three.mesh.executions.Converse(iter([opening]), timeout=PATIENCE)

        refused = await stream_refusal(session)

        assert (refused.reason, refused.fields) == (reason, [field])
        assert refused.message.startswith(f"{field}: No ")


async def test_a_message_that_is_not_there_is_named_once(three: Both) -> None:
    made = await conversation(three)

    refused = await refusal(three.mesh.start(conversation_id=made.id, reply_to="none"))

    assert refused.fields == ["reply_to"]
    assert refused.message.startswith(f"reply_to: The conversation {made.id} has no message")
