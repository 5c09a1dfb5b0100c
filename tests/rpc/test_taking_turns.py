"""Turns as the execution service takes them, and what becomes of them in histories."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest_asyncio
from google.protobuf.duration_pb2 import Duration

from conductor.content.v1.agent_pb2 import Agent
from conductor.content.v1.agent_service_pb2 import CreateAgentRequest
from conductor.conversations.v1 import instance_service_pb2, message_service_pb2
from conductor.conversations.v1 import turn_service_pb2 as pb
from conductor.conversations.v1.busy_policy_pb2 import BUSY_POLICY_INTERRUPT, BUSY_POLICY_REJECT
from conductor.conversations.v1.conversation_pb2 import AgentReference, Message
from conductor.conversations.v1.instance_pb2 import Instance
from services.kit import ids
from services.kit.principals import Principal, Scope
from services.kit.signing import PRINCIPAL, Signer
from tests.patience import PATIENCE
from tests.rpc.content import served_content
from tests.rpc.conversations import Conversations, served_conversations
from tests.rpc.serving import refusal

AWAY = {"content": "ipv4:127.0.0.1:1"}
SECRET = "s" * 40
OK, NOT_FOUND = grpc.StatusCode.OK, grpc.StatusCode.NOT_FOUND
DENIED = grpc.StatusCode.PERMISSION_DENIED
DONE = Message.STATUS_COMPLETED
WRITER = AgentReference(agent_id="writer", name="Writer", emoji="✍")
INSTANCE = AgentReference(agent_id="writer", instance_id="inst_1", name="Writer")


@pytest_asyncio.fixture
async def talks(tmp_path: Path) -> AsyncIterator[Conversations]:
    """Content is away: turns ask nothing of it."""
    async with served_conversations(tmp_path, peers=AWAY) as talks:
        yield talks


@pytest_asyncio.fixture
async def placed(tmp_path: Path) -> AsyncIterator[Conversations]:
    """With an instance of the writer, `inst_1`."""
    async with served_content(tmp_path) as content:
        agent = Agent(id="writer", name="Writer", description="What it does, in some words")
        await content.agents.CreateAgent(CreateAgentRequest(agent=agent), timeout=PATIENCE)
        peers = {"content": f"ipv4:127.0.0.1:{content.port}"}
        async with served_conversations(tmp_path, peers=peers) as talks:
            instance = Instance(instance_id="inst_1", agent_id="writer")
            await talks.instances.CreateInstance(
                instance_service_pb2.CreateInstanceRequest(instance=instance), timeout=PATIENCE
            )
            yield talks


def as_(principal: str) -> dict[str, Any]:
    return {"metadata": ((PRINCIPAL, principal),), "timeout": PATIENCE}


async def append(talks: Conversations, id_: str, run: str, **fields: Any) -> pb.AppendTurnResponse:
    request = pb.AppendTurnRequest(
        execution_id=run,
        conversation_id=id_,
        **{"input": f"Q {run}", "agent": WRITER, "author": "key:ann", **fields},
    )
    return await talks.turns.AppendTurn(request, timeout=PATIENCE)


async def read(talks: Conversations, id_: str, run: str, max_bytes: int) -> pb.ReadTurnResponse:
    request = pb.ReadTurnRequest(execution_id=run, conversation_id=id_, max_bytes=max_bytes)
    return await talks.turns.ReadTurn(request, timeout=PATIENCE)


async def fill(talks: Conversations, id_: str, run: str, **fields: Any) -> str:
    request = pb.FillAnswerRequest(
        execution_id=run,
        conversation_id=id_,
        **{
            "agent": WRITER,
            "input_preview": f"Q {run}",
            "status": Message.STATUS_COMPLETED,
            "content": f"A {run}",
            "duration": Duration(seconds=1, nanos=500_000_000),
            **fields,
        },
    )
    return (await talks.turns.FillAnswer(request, timeout=PATIENCE)).answer_id


async def test_a_turn_from_its_message_to_its_answer(talks: Conversations) -> None:
    id_ = (await talks.create(title="Talk", context="Be kind.")).id
    hello = await talks.say(id_, "Hello 🎈")

    added = await append(talks, id_, "run_1", reply_to=hello.id)
    assert (await append(talks, id_, "run_1", reply_to=hello.id)) == added
    pending = await talks.get(id_)
    told = await read(talks, id_, "run_1", 1000)
    answer_id = await fill(talks, id_, "run_1")
    assert await fill(talks, id_, "run_1", status=Message.STATUS_CANCELLED) == answer_id

    assert list(pending.pending_executions) == ["run_1"]
    assert (told.title, told.context, told.place) == ("Talk", "Be kind.", 0)
    assert [one.content for one in told.history] == ["Hello 🎈"]
    assert answer_id == added.answer_id
    question, answer = (await talks.said(id_))[1:]
    assert (question.id, question.content, question.type) == (
        added.message_id,
        "Q run_1",
        Message.TYPE_USER,
    )
    assert (question.author, question.reply_to, question.execution_id) == (
        "key:ann",
        hello.id,
        "run_1",
    )
    assert (answer.content, answer.status, answer.type) == (
        "A run_1",
        Message.STATUS_COMPLETED,
        Message.TYPE_AGENT,
    )
    assert (answer.agent, answer.reply_to) == (WRITER, added.message_id)
    assert answer.complete_time.ToMicroseconds() > answer.create_time.ToMicroseconds()
    done = await talks.get(id_)
    assert (list(done.pending_executions), done.message_count) == ([], 3)
    assert list(done.participants) == [WRITER]
    assert done.etag == pending.etag


async def test_a_busy_conversation_names_the_run_that_answers(talks: Conversations) -> None:
    id_ = (await talks.create()).id
    await append(talks, id_, "run_1")
    await append(talks, id_, "run_2")

    refused = await refusal(append(talks, id_, "run_3", busy_policy=BUSY_POLICY_REJECT))
    interrupting = await append(talks, id_, "run_4", busy_policy=BUSY_POLICY_INTERRUPT)
    told = await read(talks, id_, "run_4", 1000)

    assert (refused.code, refused.reason) == (grpc.StatusCode.ABORTED, "CONVERSATION_BUSY")
    assert refused.metadata == {"execution_id": "run_1"}
    assert (interrupting.place, list(interrupting.interrupted_executions)) == (
        2,
        ["run_1", "run_2"],
    )
    assert (told.place, list(told.history)) == (2, [])


async def test_a_turn_that_was_withdrawn_is_refused(talks: Conversations) -> None:
    id_ = (await talks.create()).id
    await append(talks, id_, "run_1")
    request = pb.WithdrawTurnRequest(execution_id="run_1", conversation_id=id_)

    for _ in range(2):
        await talks.turns.WithdrawTurn(request, timeout=PATIENCE)

    for call in (append(talks, id_, "run_1"), fill(talks, id_, "run_1")):
        assert (await refusal(call)).reason == "TURN_WITHDRAWN"
    assert await talks.said(id_) == []
    assert list((await talks.get(id_)).pending_executions) == []


async def test_what_is_wrong_with_a_turn_is_named(talks: Conversations) -> None:
    id_ = (await talks.create()).id
    refusals = [
        await refusal(append(talks, "conv_0", "run_1")),
        await refusal(append(talks, id_, "run_1", agent=AgentReference())),
        await refusal(append(talks, id_, "run_1", reply_to="msg_0")),
        await refusal(
            append(talks, id_, "run_1", agent=AgentReference(agent_id="a", instance_id="i"))
        ),
        await refusal(read(talks, id_, "run_1", 1)),
        await refusal(fill(talks, id_, "run_1")),
        await refusal(fill(talks, "", "run_1", status=Message.STATUS_PENDING)),
        await refusal(fill(talks, "", "run_1", status=Message.STATUS_UNSPECIFIED)),
    ]

    assert [one.reason for one in refusals] == [
        "CONVERSATION_NOT_FOUND",
        "INVALID_REQUEST",
        "MESSAGE_NOT_FOUND",
        "INSTANCE_NOT_FOUND",
        "TURN_NOT_FOUND",
        "TURN_NOT_FOUND",
        "INVALID_REQUEST",
        "INVALID_REQUEST",
    ]


async def test_a_run_is_told_three_megabytes_and_how_much_there_is_besides(
    talks: Conversations,
) -> None:
    id_ = (await talks.create()).id
    for _ in range(4):
        await talks.say(id_, "x" * 1024 * 1024)
    await append(talks, id_, "run_1")

    told = await read(talks, id_, "run_1", 3 * 1024 * 1024)

    assert ([len(one.content) for one in told.history], told.omitted_count) == (
        [1024 * 1024] * 3,
        1,
    )


async def test_runs_of_an_instance_are_counted_listed_and_cleared(placed: Conversations) -> None:
    talks, id_ = placed, (await placed.create()).id
    get = instance_service_pb2.GetInstanceRequest(instance_id="inst_1")

    added = await append(talks, id_, "run_1", agent=INSTANCE)
    running = await talks.instances.GetInstance(get, timeout=PATIENCE)
    await fill(talks, id_, "run_1", agent=INSTANCE)
    failed = {"status": Message.STATUS_FAILED, "content": "", "error_reason": "MODEL_TIMEOUT"}
    await fill(talks, "", "run_2", agent=INSTANCE, duration=Duration(nanos=500_000_000), **failed)
    done = await talks.instances.GetInstance(get, timeout=PATIENCE)

    assert (running.status, done.status) == (Instance.STATUS_RUNNING, Instance.STATUS_ERROR)
    counted = done.statistics
    assert (counted.task_count, counted.success_count, counted.error_count) == (2, 1, 1)
    assert (counted.success_rate, counted.total_execution_time_ms) == (50.0, 2000.0)
    assert (counted.average_execution_time_ms, counted.last_task_duration_ms) == (1000.0, 500.0)
    listing = instance_service_pb2.ListHistoryRequest(instance_id="inst_1")
    entries = (await talks.instances.ListHistory(listing, timeout=PATIENCE)).entries
    assert [(one.execution_id, one.succeeded, one.error_reason) for one in entries] == [
        ("run_2", False, "MODEL_TIMEOUT"),
        ("run_1", True, ""),
    ]
    assert (entries[1].user_input, entries[1].ai_response, entries[1].duration_ms) == (
        "Q run_1",
        "A run_1",
        1500.0,
    )
    delete = message_service_pb2.DeleteMessageRequest(
        conversation_id=id_, message_id=added.message_id
    )
    await talks.messages.DeleteMessage(delete, timeout=PATIENCE)
    entries = (await talks.instances.ListHistory(listing, timeout=PATIENCE)).entries
    assert [one.execution_id for one in entries] == ["run_2"]
    clear = instance_service_pb2.ClearHistoryRequest(instance_id="inst_1")
    assert (await talks.instances.ClearHistory(clear, timeout=PATIENCE)).cleared_count == 1
    assert not (await talks.instances.ListHistory(listing, timeout=PATIENCE)).entries
    kept = await talks.instances.GetInstance(get, timeout=PATIENCE)
    assert kept.statistics == counted


async def test_what_an_instance_did_outside_of_conversations_is_told_in_order(
    placed: Conversations,
) -> None:
    for run in ("run_1", "run_2", "run_3"):
        await fill(placed, "", run, agent=INSTANCE)

    async def told(task_count: int, max_bytes: int) -> tuple[list[tuple[str, str]], int]:
        request = pb.ReadHistoryRequest(
            instance_id="inst_1", task_count=task_count, max_bytes=max_bytes
        )
        read = await placed.turns.ReadHistory(request, timeout=PATIENCE)
        return [(one.user_input, one.ai_response) for one in read.history], read.omitted_count

    said = [(f"Q run_{number}", f"A run_{number}") for number in (1, 2, 3)]
    assert await told(3, 3_000) == (said, 0)
    assert await told(2, 3_000) == (said[:2], 0)
    assert await told(3, 30) == (said[1:], 1)


async def test_only_services_of_the_mesh_speak_for_runs(tmp_path: Path) -> None:
    signer = Signer(SECRET, ids.now)
    auth: dict[str, Any] = {"auth": "on", "mesh_secret": SECRET, "bootstrap_key": "b" * 40}
    run: dict[str, Any] = {"execution_id": "run", "conversation_id": "conv_0"}
    async with served_conversations(tmp_path, peers=AWAY, **auth) as talks:
        for scope, kinds in ((Scope.ADMIN, {DENIED}), (Scope.OPERATOR, {NOT_FOUND, OK})):
            who = signer.principal(Principal("acme", "key:ann", frozenset({scope})))
            told = set()
            for call in (
                talks.turns.AppendTurn(pb.AppendTurnRequest(agent=WRITER, **run), **as_(who)),
                talks.turns.ReadTurn(pb.ReadTurnRequest(**run), **as_(who)),
                talks.turns.ReadHistory(pb.ReadHistoryRequest(instance_id="i"), **as_(who)),
                talks.turns.FillAnswer(pb.FillAnswerRequest(status=DONE, **run), **as_(who)),
                talks.turns.WithdrawTurn(pb.WithdrawTurnRequest(**run), **as_(who)),
            ):
                told.add(await call.code())
            assert told == kinds
