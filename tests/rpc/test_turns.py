"""Runs in conversations as clients start, watch and cancel them, over the wire to conversations."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from conductor.audit.v1.audit_service_pb2 import ListAuditRecordsRequest
from conductor.audit.v1.audit_service_pb2_grpc import AuditServiceStub
from conductor.content.v1.agent_pb2 import Agent
from conductor.conversations.v1 import busy_policy_pb2
from conductor.conversations.v1 import turn_service_pb2 as turn_pb
from conductor.execution.v1 import execution_pb2
from conductor.execution.v1 import execution_service_pb2 as pb
from conductor.execution.v1.event_pb2 import ExecutionEvent
from conductor.execution.v1.execution_pb2 import Execution
from conductor.gateway.v1 import gateway_service_pb2 as gateway_pb
from services.execution.domain import Filling, Placement
from services.kit.errors import DomainError, Reason
from tests.fakes.content import Catalogue
from tests.fakes.turn_service import TurnRpcs
from tests.fakes.turns import FakeTurns, Outage, away
from tests.patience import PATIENCE
from tests.rpc.modelled import last_answer
from tests.rpc.serving import Mesh, refusal, served, stream_refusal

UNAVAILABLE = (grpc.StatusCode.UNAVAILABLE, "SERVICE_UNAVAILABLE")
INTERRUPT = busy_policy_pb2.BUSY_POLICY_INTERRUPT
REJECT = busy_policy_pb2.BUSY_POLICY_REJECT


@pytest.fixture
def turns() -> FakeTurns:
    placed = Placement("writer", "inst-1", "c", cwd="/srv", emoji="🖋", mcp_servers=("files",))
    return FakeTurns(instances={"inst-1": placed})


@pytest.fixture
async def mesh(tmp_path: Path, turns: FakeTurns) -> AsyncIterator[Mesh]:
    catalogue = Catalogue([Agent(id="writer", name="Writer")])
    models: Any = {
        "brisk": {"tokens": 10, "delay_ms": 10},
        "endless": {"tokens": 1_000_000, "delay_ms": 10},
    }
    async with served(
        tmp_path,
        catalogue=catalogue,
        turns=turns,
        execution_mock_models=models,
        execution_default_model="brisk",
    ) as mesh:
        yield mesh


def kept(turns: FakeTurns, conversation_id: str = "c") -> list[tuple[str, str]]:
    return [(one.content, one.status) for one in turns.conversation(conversation_id).messages]


async def cancel(mesh: Mesh, execution_id: str) -> Execution:
    request = pb.CancelExecutionRequest(execution_id=execution_id)
    return await mesh.executions.CancelExecution(request, timeout=PATIENCE)


async def running(mesh: Mesh, execution_id: str) -> None:
    async with asyncio.timeout(PATIENCE):
        while (await mesh.get(execution_id)).state != Execution.STATE_RUNNING:
            await asyncio.sleep(0.02)


async def test_a_turn_is_visible_when_its_run_is_accepted_and_complete_when_it_ends(
    mesh: Mesh, turns: FakeTurns
) -> None:
    started = await mesh.start("Hello", conversation_id="c", reply_to="m", agent_id="writer")
    assert kept(turns)[0] == ("Hello", "completed")
    assert turns.conversation("c").messages[0].reply_to == "m"
    assert started.conversation_id == "c"
    assert (started.message_id, started.answer_id) == (
        f"{started.id}.message",
        f"{started.id}.answer",
    )
    events = await mesh.watch(started.id)
    kinds = [event.WhichOneof("payload") for event in events]
    assert kinds[-2:] == ["run_ending", "result"]
    ended = await mesh.get(started.id)
    assert kept(turns)[1] == (ended.result, "completed")
    assert events[-2].run_ending.result.usage == events[-1].result.usage
    assert turns.runs[started.id].agent_name == "Writer"


async def test_an_instance_says_who_runs_and_where(mesh: Mesh, turns: FakeTurns) -> None:
    ended = await mesh.finished(instance_id="inst-1")
    assert (ended.agent_id, ended.conversation_id, ended.cwd) == ("writer", "c", "/srv")
    assert list(ended.agent.mcp_servers) == ["files"]
    told = turns.runs[ended.id]
    assert (told.instance_id, told.emoji, told.status) == ("inst-1", "🖋", "completed")


@pytest.mark.parametrize(
    ("fields", "kind", "field"),
    [
        (
            {"conversation_id": "nowhere"},
            (grpc.StatusCode.NOT_FOUND, "CONVERSATION_NOT_FOUND"),
            "conversation_id",
        ),
        (
            {"instance_id": "nobody"},
            (grpc.StatusCode.NOT_FOUND, "INSTANCE_NOT_FOUND"),
            "instance_id",
        ),
        (
            {"instance_id": "inst-1", "agent_id": "default"},
            (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST"),
            "agent_id",
        ),
    ],
)
async def test_what_is_not_there_is_refused_by_its_field(
    mesh: Mesh, fields: dict[str, str], kind: tuple[grpc.StatusCode, str], field: str
) -> None:
    refused = await refusal(mesh.start(**fields))
    assert (refused.kind, refused.fields) == (kind, [field])
    page = await mesh.executions.ListExecutions(pb.ListExecutionsRequest(), timeout=PATIENCE)
    assert not page.executions


@pytest.mark.parametrize("lost", [False, True])
async def test_while_conversations_is_away_runs_of_conversations_are_refused_and_others_are_not(
    mesh: Mesh, turns: FakeTurns, lost: bool
) -> None:
    outage = Outage(frozenset({"append"}), lost=lost)
    turns.trouble = outage
    refused = await refusal(mesh.start(conversation_id="c", agent_id="default", request_id="r"))
    assert refused.kind == UNAVAILABLE
    assert refused.retry_after is not None
    assert (await mesh.finished("apart")).state == Execution.STATE_SUCCEEDED
    outage.over = True
    ended = await mesh.finished("again", conversation_id="c", agent_id="default", request_id="r")
    async with asyncio.timeout(PATIENCE):
        while not turns.withdrawn:
            await asyncio.sleep(0.05)
    assert kept(turns) == [("again", "completed"), (ended.result, "completed")]


async def test_what_is_refused_when_it_is_asked_for_again_is_taken_back(
    mesh: Mesh, turns: FakeTurns
) -> None:
    async def deleted_meanwhile(what: str, answered: bool) -> None:
        if what == "append" and turns.asked["append"] == 1 and answered:
            raise away()
        if what == "append" and turns.asked["append"] == 2:
            raise DomainError(Reason.REASON_INSTANCE_NOT_FOUND, "There is no inst-1.")

    turns.trouble = deleted_meanwhile
    refused = await refusal(mesh.start("1", conversation_id="c", instance_id="inst-1"))
    assert refused.kind == (grpc.StatusCode.NOT_FOUND, "INSTANCE_NOT_FOUND")
    async with asyncio.timeout(PATIENCE):
        while not turns.withdrawn:
            await asyncio.sleep(0.05)
    assert kept(turns) == []
    assert turns.conversation("c").turns == []


async def test_a_busy_conversation_refuses_queues_or_interrupts(
    mesh: Mesh, turns: FakeTurns
) -> None:
    first = await mesh.start("1", conversation_id="c", model="endless")
    await running(mesh, first.id)
    refused = await refusal(mesh.start("2", conversation_id="c", busy_policy=REJECT))
    assert refused.kind == (grpc.StatusCode.ABORTED, "CONVERSATION_BUSY")
    assert refused.metadata["execution_id"] == first.id
    second = await mesh.start("3", conversation_id="c")
    third = await mesh.start("4", conversation_id="c", busy_policy=INTERRUPT)
    assert (await mesh.get(first.id)).state == Execution.STATE_CANCELLED
    assert (await mesh.get(second.id)).state == Execution.STATE_CANCELLED
    await mesh.watch(third.id)
    ended = await mesh.get(third.id)
    shown = last_answer(await mesh.watch(first.id))
    assert shown.startswith("the")
    assert kept(turns) == [
        ("1", "completed"),
        (shown, "cancelled"),
        ("3", "completed"),
        ("", "cancelled"),
        ("4", "completed"),
        (ended.result, "completed"),
    ]


async def test_a_run_behind_another_begins_as_soon_as_that_has_ended(mesh: Mesh) -> None:
    first = await mesh.start("1", conversation_id="c", model="endless")
    second = await mesh.start("2", conversation_id="c")
    await running(mesh, first.id)
    request = pb.WatchExecutionRequest(execution_id=second.id)
    places = []
    async for one in mesh.executions.WatchExecution(request, timeout=PATIENCE):
        if one.event.HasField("turn_queued"):
            places.append(one.event.turn_queued.place)
            break
    assert places == [1]
    await cancel(mesh, first.id)
    assert (await mesh.watch(second.id))[-1].HasField("result")


async def test_an_end_waits_for_conversations_and_a_cancel_does_not(
    mesh: Mesh, turns: FakeTurns
) -> None:
    outage = Outage(frozenset({"fill"}))
    turns.trouble = outage
    first = await mesh.start("1", conversation_id="c")
    second = await mesh.start("2", conversation_id="d", model="endless")
    request = pb.WatchExecutionRequest(execution_id=first.id)
    stream = mesh.executions.WatchExecution(request, timeout=PATIENCE)
    async for one in stream:
        if "waits for conversations" in one.event.status_update.message:
            break
    assert (await mesh.get(first.id)).state == Execution.STATE_RUNNING
    refused = await refusal(cancel(mesh, first.id))
    assert refused.kind == (grpc.StatusCode.FAILED_PRECONDITION, "EXECUTION_FINISHED")
    await cancel(mesh, second.id)
    deleting = pb.DeleteExecutionRequest(execution_id=second.id)
    refused = await refusal(mesh.executions.DeleteExecution(deleting, timeout=PATIENCE))
    assert refused.reason == "EXECUTION_NOT_FINISHED"
    outage.over = True
    assert (await mesh.watch(first.id))[-1].HasField("result")
    async with asyncio.timeout(PATIENCE):
        while kept(turns, "d")[1][1] == "pending":
            await asyncio.sleep(0.05)
    await mesh.executions.DeleteExecution(deleting, timeout=PATIENCE)


async def test_a_service_that_is_stopped_amid_an_end_goes_on_with_it(
    tmp_path: Path, turns: FakeTurns
) -> None:
    outage = Outage(frozenset({"fill"}), lost=True)
    turns.trouble = outage
    async with served(tmp_path, turns=turns) as mesh:
        run = await mesh.start("1", conversation_id="c")
        async with asyncio.timeout(PATIENCE):
            while turns.asked["fill"] < 2:
                await asyncio.sleep(0.02)
    outage.over = True
    async with served(tmp_path, turns=turns) as mesh:
        assert (await mesh.watch(run.id))[-1].HasField("result")
        assert kept(turns)[1] == ((await mesh.get(run.id)).result, "completed")


async def test_what_is_asked_of_conversations_is_what_their_protos_ask(tmp_path: Path) -> None:
    turns = FakeTurns()
    rpcs: list[TurnRpcs] = []
    mesh: Mesh
    async with served(tmp_path, turns=turns, noted=rpcs) as mesh:
        run = await mesh.finished("Hi.", conversation_id="c", model="mock")
    asked = {type(one): one for one in rpcs[0].requests}
    append = asked[turn_pb.AppendTurnRequest]
    assert isinstance(append, turn_pb.AppendTurnRequest)
    assert (append.execution_id, append.conversation_id, append.input) == (run.id, "c", "Hi.")
    assert (append.agent.agent_id, append.agent.name) == ("default", "Default")
    assert append.busy_policy == busy_policy_pb2.BUSY_POLICY_QUEUE
    assert append.author == "anonymous"
    fill = asked[turn_pb.FillAnswerRequest]
    assert isinstance(fill, turn_pb.FillAnswerRequest)
    assert (fill.content, fill.input_preview) == (run.result, "Hi.")
    assert fill.duration.ToMicroseconds() > 0


async def test_a_run_is_told_what_was_said_before_it(mesh: Mesh, turns: FakeTurns) -> None:
    first = await mesh.finished("My name is Ada.", conversation_id="c", model="mock")
    second = await mesh.finished("What is my name?", conversation_id="c", model="mock-recall")
    assert second.context_mode == execution_pb2.CONTEXT_MODE_CONTEXTUAL
    told = json.loads(second.result)
    assert [one["role"] for one in told["messages"]] == ["user", "assistant", "user"]
    said = [one["content"] for one in told["messages"]]
    assert said == ["My name is Ada.", first.result, "What is my name?"]
    for part in ("A title", "A context"):
        assert part in told["system"]
    # One that is told nothing of it asks nothing.
    before = turns.asked["place"]
    stateless = execution_pb2.CONTEXT_MODE_STATELESS
    third = await mesh.finished(
        "And?", conversation_id="c", model="mock-recall", context_mode=stateless
    )
    assert len(json.loads(third.result)["messages"]) == 1
    assert turns.asked["place"] == before


async def test_a_run_of_an_instance_is_told_what_that_did_before_it_was_accepted(
    mesh: Mesh, turns: FakeTurns
) -> None:
    for number, answer in enumerate(("short", "long" * 900, "later")):
        run = Filling("default", f"r{number}", "", "default", "i", "", "", "Q", "completed", answer)
        turns.runs[run.execution_id] = run
    turns.instances["i"] = Placement("default", "i", task_count=2)
    turns.trouble = Outage(frozenset({"recall"}), times=1)
    ended = await mesh.finished("And?", instance_id="i", model="mock-recall")
    note, *said = [one["content"] for one in json.loads(ended.result)["messages"]]
    assert "2 earlier messages are left out here." in note
    assert note.endswith("\n\nQ")
    assert said == ["short", "Q", "long" * 500 + " […]", "And?"]
    assert turns.asked["recall"] == 2
    # Neither one that is told nothing of it nor the first one asks.
    stateless = execution_pb2.CONTEXT_MODE_STATELESS
    await mesh.finished(instance_id="i", context_mode=stateless)
    turns.instances["j"] = Placement("default", "j")
    await mesh.finished(instance_id="j")
    assert turns.asked["recall"] == 2


# The gateway


async def test_an_agent_is_executed_in_a_conversation_and_answered_with_how_it_went(
    mesh: Mesh, turns: FakeTurns
) -> None:
    request = gateway_pb.ExecuteAgentRequest(
        agent_id="writer", input_text="Hello", conversation_id="c", instance_id="inst-1"
    )
    answer = await mesh.gateway.ExecuteAgent(request, timeout=PATIENCE)
    assert (answer.status, answer.result.status, answer.result.exit_code) == (
        "success",
        "completed",
        0,
    )
    assert answer.execution_id == answer.task_id
    assert answer.instance_id == "inst-1"
    assert answer.duration_ms > 0
    assert kept(turns) == [("Hello", "completed"), (answer.result.result, "completed")]


async def test_an_agent_that_fails_is_answered_with_the_reason(mesh: Mesh) -> None:
    request = gateway_pb.ExecuteAgentRequest(
        agent_id="writer",
        input_text="Hello",
        model="endless",
        timeout=Duration(nanos=100_000_000),
    )
    answer = await mesh.gateway.ExecuteAgent(request, timeout=PATIENCE)
    assert (answer.status, answer.result.status, answer.result.exit_code) == ("error", "error", 1)
    assert answer.result.error_reason == "EXECUTION_TIMEOUT"
    assert answer.result.result == (await mesh.get(answer.execution_id)).error.message


@pytest.mark.parametrize(
    ("fields", "reason", "field"),
    [
        ({"input_text": "  "}, "INVALID_REQUEST", "input"),
        ({"agent_id": "nobody"}, "AGENT_NOT_FOUND", "agent_id"),
        (
            {"conversation_id": "c", "save_to_conversation": False},
            "INVALID_REQUEST",
            "save_to_conversation",
        ),
        ({"screenplay_id": "a", "document_id": "b"}, "INVALID_REQUEST", "document_id"),
        ({"conversation_id": "nowhere"}, "CONVERSATION_NOT_FOUND", "conversation_id"),
    ],
)
async def test_what_cannot_be_executed_is_refused_whatever_is_to_be_kept(
    mesh: Mesh, fields: dict[str, Any], reason: str, field: str
) -> None:
    for saves in ({}, {"save_to_conversation": True}):
        asked = {"agent_id": "writer", "input_text": "Hello"} | saves | fields
        request = gateway_pb.ExecuteAgentRequest(**asked)
        refused = await refusal(mesh.gateway.ExecuteAgent(request, timeout=PATIENCE))
        assert (refused.reason, refused.fields) == (reason, [field])


async def test_nothing_is_kept_of_an_instance_that_is_told_not_to(
    mesh: Mesh, turns: FakeTurns
) -> None:
    request = gateway_pb.ExecuteAgentRequest(
        agent_id="writer", input_text="Hello", instance_id="inst-1", save_to_conversation=False
    )
    answer = await mesh.gateway.ExecuteAgent(request, timeout=PATIENCE)
    assert answer.status == "success"
    assert kept(turns) == []
    assert turns.runs.keys() == {answer.execution_id}


async def test_chat_clients_may_name_a_conversation(mesh: Mesh, turns: FakeTurns) -> None:
    request = gateway_pb.ExecuteRequest(input="Hello", conversation_id="c")
    answer = await mesh.gateway.Execute(request, timeout=PATIENCE)
    assert kept(turns) == [("Hello", "completed"), (answer.result, "completed")]


# Sessions


def opening(session: str = "", **template: Any) -> pb.ConverseRequest:
    return pb.ConverseRequest(
        open=pb.ConverseOpening(template=pb.StartExecutionRequest(**template), request_id=session)
    )


def message(text: str) -> pb.ConverseRequest:
    return pb.ConverseRequest(message=text)


async def read(session: Any) -> pb.ConverseResponse:
    response = await session.read()
    assert isinstance(response, pb.ConverseResponse)
    return response


async def until(session: Any, kind: str) -> ExecutionEvent:
    """Read to the first event of a kind."""
    while (event := (await read(session)).event).WhichOneof("payload") != kind:
        pass
    return event


async def test_a_session_makes_a_conversation_and_answers_in_it(
    mesh: Mesh, turns: FakeTurns
) -> None:
    session = mesh.executions.Converse(
        iter([opening(agent_id="writer"), message("1"), message("2")]), timeout=PATIENCE
    )
    told = [one async for one in session]
    assert told[0].opened.conversation_id == "conv_1"
    assert turns.conversation("conv_1").active.agent_id == "writer"
    started = [one.started for one in told if one.HasField("started")]
    assert [run.input for run in started] == ["1", "2"]
    ended = [one.event.execution_id for one in told if one.event.HasField("result")]
    assert ended == [run.id for run in started]
    assert [status for _, status in kept(turns, "conv_1")] == ["completed"] * 4


@pytest.mark.parametrize("session", ["", "s"])
async def test_a_session_whose_opening_is_asked_for_again_has_one_conversation(
    mesh: Mesh, turns: FakeTurns, session: str
) -> None:
    turns.trouble = Outage(frozenset({"create"}), lost=True, times=1)
    for _ in range(2):
        first = opening(session, agent_id="writer")
        said = iter([first, message("1")])
        async for one in mesh.executions.Converse(said, timeout=PATIENCE):
            assert not one.HasField("refused")
    # What is asked for by name goes on there; who names nothing begins anew, and once.
    assert sorted(turns.conversations) == (["conv_1"] if session else ["conv_1", "conv_2"])
    assert len(kept(turns, "conv_1")) == (4 if session else 2)


async def test_a_session_leaves_a_record_that_names_its_conversation(mesh: Mesh) -> None:
    first = opening(agent_id="writer")
    async for _ in mesh.executions.Converse(iter([first]), timeout=PATIENCE):
        pass
    request = ListAuditRecordsRequest()
    audit = AuditServiceStub(mesh.channel)
    (record,) = (await audit.ListAuditRecords(request, timeout=PATIENCE)).audit_records
    assert (record.outcome, record.resource_id) == ("OK", "conv_1")
    assert record.rpc == "conductor.execution.v1.ExecutionService/Converse"


async def test_a_session_interrupts_and_goes_on(mesh: Mesh, turns: FakeTurns) -> None:
    session = mesh.executions.Converse(timeout=PATIENCE)
    await session.write(opening(conversation_id="c", model="endless"))
    await session.write(message("1"))
    await until(session, "on_llm_new_token")
    await session.write(pb.ConverseRequest(interrupt=pb.ConverseInterruption()))
    end = await until(session, "error")
    shown = last_answer(await mesh.watch(end.execution_id))
    assert kept(turns) == [("1", "completed"), (shown, "cancelled")]
    await session.write(message(" "))
    refused = await read(session)
    assert refused.refused.reason == "INVALID_REQUEST"
    await session.done_writing()
    assert await session.read() is grpc.aio.EOF
    assert await session.code() is grpc.StatusCode.OK


@pytest.mark.parametrize(
    ("requests", "field"),
    [
        ([message("1")], "open"),
        ([], "open"),
        ([opening(conversation_id="c"), opening()], "open"),
        ([opening(input="x")], "open.template.input"),
        ([opening(request_id="x")], "open.template.request_id"),
        ([opening(priority=9)], "open.template.priority"),
        ([pb.ConverseRequest()], "content"),
    ],
)
async def test_a_session_that_is_opened_wrongly_is_refused_by_the_field(
    mesh: Mesh, requests: list[pb.ConverseRequest], field: str
) -> None:
    refused = await stream_refusal(mesh.executions.Converse(iter(requests), timeout=PATIENCE))
    assert (refused.reason, refused.fields) == ("INVALID_REQUEST", [field])


async def test_a_session_ends_with_the_server_and_says_when_to_come_again(
    tmp_path: Path, turns: FakeTurns
) -> None:
    async with served(tmp_path, turns=turns) as mesh:
        session = mesh.executions.Converse(timeout=PATIENCE)
        await session.write(opening(conversation_id="c"))
        assert (await read(session)).opened.conversation_id == "c"
    refused = await refusal(session.read())
    assert refused.kind == (grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN")
    assert refused.retry_after is not None
