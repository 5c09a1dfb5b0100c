"""The client: every event once whatever happens on the way, and errors with a reason."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import grpc
import pytest
import pytest_asyncio
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2

from conductor.execution.v1 import execution_service_pb2 as pb
from conductor.execution.v1.event_pb2 import Error, ExecutionEvent, JobStarted, LlmNewToken, Result
from conductor.execution.v1.execution_pb2 import Execution
from conductor.execution.v1.model_pb2 import Model, ModelChoice
from conductor_ai.client import Client, ConductorError, is_terminal
from conductor_ai.errors import ConductorError as SameError
from tests.fakes.relay import Process
from tests.patience import PATIENCE
from tests.rpc.scripted import ID, Failure, Scripted, events, serving, tokens

WHOLE = events(JobStarted(), *tokens("a", "b", "c"), Result(result="abc"))
UNAVAILABLE = Failure(
    grpc.StatusCode.UNAVAILABLE,
    "The server is stopping.",
    "SHUTTING_DOWN",
    error_details_pb2.RetryInfo(retry_delay=Duration(nanos=1)),
)


@pytest_asyncio.fixture
async def client(scripted: Scripted) -> AsyncIterator[Client]:
    async with serving(scripted) as address, Client(address, patience=3) as client:
        yield client


async def follow(stream: AsyncIterator[ExecutionEvent]) -> list[ExecutionEvent]:
    async with asyncio.timeout(PATIENCE):
        return [event async for event in stream]


async def test_a_run_is_followed_to_its_terminal_event(scripted: Scripted, client: Client) -> None:
    scripted.streams.append([*WHOLE])

    assert await follow(client.run("hello")) == WHOLE


async def test_a_run_that_fails_ends_with_its_error_as_an_event(
    scripted: Scripted, client: Client
) -> None:
    failed = events(JobStarted(), Error(reason="MODEL_FAILED", error="It died."))
    scripted.streams.append([*failed])

    seen = await follow(client.run("hello"))

    assert seen == failed
    assert is_terminal(seen[-1])


@pytest.mark.parametrize(
    "cut",
    [
        pytest.param([], id="ends"),
        pytest.param([UNAVAILABLE], id="unavailable"),
        pytest.param([Failure(grpc.StatusCode.INTERNAL, "RST_STREAM")], id="reset"),
    ],
)
async def test_resume_after_a_cut_misses_no_event(
    scripted: Scripted, client: Client, cut: list[Failure]
) -> None:
    scripted.streams.append([*WHOLE[:2], *cut])
    scripted.streams.append([*cut])
    scripted.streams.append([*WHOLE[2:4], *cut])
    scripted.streams.append([*WHOLE[4:]])

    assert await follow(client.run("hello")) == WHOLE
    assert [
        request.after_sequence
        for request in scripted.requests
        if isinstance(request, pb.WatchExecutionRequest)
    ] == [2, 2, 4]


async def test_an_event_that_comes_twice_is_seen_once(scripted: Scripted, client: Client) -> None:
    scripted.streams.append([*WHOLE[:3]])
    scripted.streams.append([*WHOLE[1:4], *WHOLE[2:]])

    assert await follow(client.run("hello")) == WHOLE


async def test_an_event_that_was_left_out_is_asked_for_again(
    scripted: Scripted, client: Client
) -> None:
    scripted.streams.append([*WHOLE[:2], *WHOLE[3:]])
    scripted.streams.append([*WHOLE[2:]])

    assert await follow(client.run("hello")) == WHOLE


async def test_heartbeats_are_not_shown(scripted: Scripted, client: Client) -> None:
    scripted.streams.append([*WHOLE[:2], pb.Heartbeat(), *WHOLE[2:]])

    assert await follow(client.run("hello")) == WHOLE


async def test_a_cut_start_is_sent_again_with_the_same_request_id(
    scripted: Scripted, client: Client
) -> None:
    scripted.streams.append([UNAVAILABLE])
    scripted.streams.append([*WHOLE])

    assert await follow(client.run("hello")) == WHOLE
    first, second = scripted.requests
    assert first.request_id
    assert first == second


async def test_who_waits_for_a_mesh_that_is_away_is_told_why_once_each_time(
    scripted: Scripted, client: Client
) -> None:
    away = [UNAVAILABLE]
    scripted.streams.extend([[*away], [*away], [*away], [*WHOLE[:2]], [*away], [*WHOLE[2:]]])
    told: list[ConductorError] = []

    assert await follow(client.run("hello", on_wait=told.append)) == WHOLE
    assert [failure.reason for failure in told] == ["SHUTTING_DOWN"] * 2


async def test_nobody_is_told_of_a_cut_that_the_next_try_mends(
    scripted: Scripted, client: Client
) -> None:
    scripted.streams.extend([[UNAVAILABLE], [*WHOLE[:2], UNAVAILABLE], [*WHOLE[2:]]])
    told: list[ConductorError] = []

    assert await follow(client.run("hello", on_wait=told.append)) == WHOLE
    assert told == []


async def test_a_watch_goes_on_after_its_cursor(scripted: Scripted, client: Client) -> None:
    scripted.streams.append([*WHOLE[3:]])

    assert await follow(client.watch(ID, after_sequence=3)) == WHOLE[3:]
    assert scripted.requests == [pb.WatchExecutionRequest(execution_id=ID, after_sequence=3)]


async def test_a_refusal_is_not_tried_again(scripted: Scripted, client: Client) -> None:
    scripted.streams.append([*WHOLE[:2]])
    scripted.streams.append(
        [Failure(grpc.StatusCode.NOT_FOUND, "It was deleted.", "EXECUTION_NOT_FOUND")]
    )

    with pytest.raises(ConductorError) as raised:
        await follow(client.run("hello"))
    assert raised.value.reason == "EXECUTION_NOT_FOUND"


async def test_patience_ends(scripted: Scripted) -> None:
    for _ in range(100):
        scripted.streams.append([UNAVAILABLE])
    async with serving(scripted) as address, Client(address, patience=0.05) as client:
        with pytest.raises(ConductorError) as raised:
            await follow(client.watch(ID))
    assert raised.value.reason == "SHUTTING_DOWN"


async def test_where_nobody_listens_the_answer_comes_at_once() -> None:
    async with Client("127.0.0.1:1") as client:
        with pytest.raises(ConductorError) as raised:
            await follow(client.run("hello"))
    assert raised.value.code is grpc.StatusCode.UNAVAILABLE
    assert raised.value.reason == ""


async def test_a_mesh_far_away_is_reached(scripted: Scripted) -> None:
    scripted.streams.append([*WHOLE])
    async with serving(scripted) as address:
        afar = Process(int(address.rpartition(":")[2]), away=0.5)
        port = await afar.start()
        async with Client(f"127.0.0.1:{port}", patience=0) as client:
            seen = await follow(client.run("hello"))
        afar.kill()

    assert seen == WHOLE


async def test_an_error_carries_everything_the_mesh_said(
    scripted: Scripted, client: Client
) -> None:
    scripted.failure = Failure(
        grpc.StatusCode.INVALID_ARGUMENT,
        "Two fields are wrong.",
        "INVALID_REQUEST",
        error_details_pb2.BadRequest(
            field_violations=[
                error_details_pb2.BadRequest.FieldViolation(field="model", description="too long")
            ]
        ),
        error_details_pb2.ResourceInfo(resource_name=ID),
        error_details_pb2.RetryInfo(retry_delay=Duration(seconds=1, nanos=500_000_000)),
    )

    with pytest.raises(ConductorError) as raised:
        await client.start("hello")

    error = raised.value
    assert error.code is grpc.StatusCode.INVALID_ARGUMENT
    assert error.reason == "INVALID_REQUEST"
    assert error.message == "Two fields are wrong."
    assert [(one.field, one.description) for one in error.field_violations] == [
        ("model", "too long")
    ]
    assert [one.resource_name for one in error.resources] == [ID]
    assert error.retry_after == 1.5
    assert str(error) == "INVALID_REQUEST: Two fields are wrong."


async def test_what_a_run_is_told_reaches_the_mesh(scripted: Scripted, client: Client) -> None:
    await client.start(
        "hello",
        agent_id="a",
        persona_version="3",
        ai_provider="mock",
        model="mock-slow",
        cwd="/srv/project",
        metadata={"k": "v"},
        request_id="r",
        timeout=timedelta(minutes=2),
        priority=1,
        max_output_tokens=100,
        max_cost_usd=0.5,
        fallbacks=(ModelChoice(ai_provider="openai"), ModelChoice(model="mock")),
    )
    await client.start("hello", timeout=1.5)

    assert scripted.requests == [
        pb.StartExecutionRequest(
            input="hello",
            agent_id="a",
            persona_version="3",
            ai_provider="mock",
            model="mock-slow",
            cwd="/srv/project",
            metadata={"k": "v"},
            request_id="r",
            timeout=Duration(seconds=120),
            priority=1,
            max_output_tokens=100,
            max_cost_usd=0.5,
            fallbacks=[ModelChoice(ai_provider="openai"), ModelChoice(model="mock")],
        ),
        pb.StartExecutionRequest(input="hello", timeout=Duration(seconds=1, nanos=500_000_000)),
    ]


async def test_every_page_of_a_list_is_read(scripted: Scripted, client: Client) -> None:
    for place, token in enumerate(["one", "two", ""]):
        page = pb.ListExecutionsResponse(
            executions=[Execution(id=f"exec_{place}")], next_page_token=token
        )
        scripted.pages.append(page)
    filters = pb.ListExecutionsRequest(agent_id="a")

    ids = [execution.id async for execution in client.list(filters)]

    assert ids == ["exec_0", "exec_1", "exec_2"]
    assert [(one.agent_id, one.page_token) for one in scripted.requests] == [
        ("a", ""),
        ("a", "one"),
        ("a", "two"),
    ]
    assert filters.page_token == ""


async def test_the_other_calls_answer_what_the_mesh_does(
    scripted: Scripted, client: Client
) -> None:
    scripted.models = [Model(id="mock")]

    assert (await client.get("exec_7")).id == "exec_7"
    assert (await client.cancel("exec_7")).state == Execution.STATE_CANCELLED
    await client.delete("exec_7")
    assert await client.models() == (Model(id="mock"),)


async def test_an_event_of_eight_mebibytes_is_received(scripted: Scripted) -> None:
    large = events(JobStarted(), LlmNewToken(chunk="x" * 8 * 1024 * 1024), Result())
    scripted.streams.append([*large])
    async with serving(scripted) as address, Client(f"http://{address}/") as client:
        assert await follow(client.run("hello")) == large


def test_an_address_of_another_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="write host:port"):
        Client("ftp://localhost")


def test_the_error_can_be_imported_beside_the_client() -> None:
    assert ConductorError is SameError
