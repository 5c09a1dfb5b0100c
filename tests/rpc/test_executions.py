"""Starting, reading, listing, cancelling and deleting executions over the wire."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from conductor.execution.v1 import execution_service_pb2 as pb
from conductor.execution.v1.execution_pb2 import Execution
from tests.patience import PATIENCE
from tests.rpc.serving import Mesh, refusal, served

MEBIBYTE = 1024 * 1024
INVALID = grpc.StatusCode.INVALID_ARGUMENT
START = "/conductor.execution.v1.ExecutionService/StartExecution"
UNICODE = "π 𝄞 \u0000 \u2028 \"\\'\r\n ﷽ e\u0301"


async def started_with(mesh: Mesh, **fields: Any) -> Any:
    request = pb.StartExecutionRequest(**({"input": "Hello"} | fields))
    return await refusal(mesh.executions.StartExecution(request))


async def listed(mesh: Mesh, **fields: Any) -> list[Execution]:
    """Every page, one after the other."""
    request = pb.ListExecutionsRequest(**fields)
    found: list[Execution] = []
    while True:
        response = await mesh.executions.ListExecutions(request, timeout=PATIENCE)
        found += response.executions
        if not response.next_page_token:
            return found
        assert len(response.executions) == (fields.get("page_size") or 50)
        request.page_token = response.next_page_token


class TestStart:
    async def test_a_run_is_answered_as_it_was_stored(self, waiting_mesh: Mesh) -> None:
        execution = await waiting_mesh.start(
            UNICODE,
            cwd="/tmp",
            metadata={"k": "v", "leer": ""},
            request_id="r/1",
            timeout=Duration(seconds=5, nanos=500_000_000),
        )
        assert execution.id.startswith("exec_")
        assert execution.state == Execution.STATE_QUEUED
        assert execution.input == execution.input_preview == UNICODE
        assert (execution.agent_id, execution.ai_provider) == ("default", "mock")
        assert execution.model == "mock"
        assert (execution.cwd, execution.request_id) == ("/tmp", "r/1")
        assert dict(execution.metadata) == {"k": "v", "leer": ""}
        assert execution.timeout.ToMilliseconds() == 5500
        assert execution.create_time == execution.update_time
        assert not execution.HasField("start_time")
        assert not execution.HasField("error")
        stored = await waiting_mesh.get(execution.id)
        assert stored.queue_position == 1
        stored.ClearField("queue_position")
        assert stored == execution

    async def test_a_run_goes_to_its_end(self, mesh: Mesh) -> None:
        execution = await mesh.finished("How are you?")
        assert execution.state == Execution.STATE_SUCCEEDED
        assert execution.result.startswith("You said: How are you?")
        assert not execution.HasField("error")
        times = [
            time.ToMicroseconds()
            for time in (execution.create_time, execution.start_time, execution.end_time)
        ]
        assert times == sorted(times)
        assert execution.update_time == execution.end_time

    async def test_a_run_that_fails_says_why(self, mesh: Mesh) -> None:
        execution = await mesh.finished(model="mock-fail")
        assert execution.state == Execution.STATE_FAILED
        assert execution.error.reason == "MODEL_FAILED"
        assert execution.error.message
        assert execution.result == ""

    async def test_a_run_that_takes_too_long_times_out(self, mesh: Mesh) -> None:
        execution = await mesh.finished(model="mock-stall", timeout=Duration(nanos=100_000_000))
        assert execution.state == Execution.STATE_FAILED
        assert execution.error.reason == "EXECUTION_TIMEOUT"

    @pytest.mark.parametrize("text", ["", " ", "\n\t ", "\u00a0\u3000"])
    async def test_an_input_without_text_is_refused(self, mesh: Mesh, text: str) -> None:
        refused = await started_with(mesh, input=text)
        assert refused.kind == (INVALID, "INVALID_REQUEST")
        assert refused.fields == ["input"]

    async def test_an_input_of_a_mebibyte_is_taken_and_a_larger_one_refused(
        self, waiting_mesh: Mesh
    ) -> None:
        execution = await waiting_mesh.start("é" * (MEBIBYTE // 2))
        assert len((await waiting_mesh.get(execution.id)).input) == MEBIBYTE // 2
        assert execution.input_preview == "é" * 200
        refused = await started_with(waiting_mesh, input="é" * (MEBIBYTE // 2) + "x")
        assert refused.kind == (INVALID, "INVALID_REQUEST")
        assert refused.fields == ["input"]

    async def test_a_message_of_five_mebibytes_is_refused_unread(self, mesh: Mesh) -> None:
        refused = await started_with(mesh, input="x" * 5 * MEBIBYTE)
        assert refused.code == grpc.StatusCode.RESOURCE_EXHAUSTED

    @pytest.mark.parametrize(
        "request_",
        [b"\x0a\x02\xff\xfe", b"\x0a\xff", b"garbage", b"\x0a\x03\xed\xa0\x80"],
        ids=["not UTF-8", "cut", "garbage", "surrogate"],
    )
    async def test_bytes_that_are_no_message_are_refused(self, mesh: Mesh, request_: bytes) -> None:
        refused = await refusal(mesh.raw(START, request_))
        assert refused.kind == (INVALID, "MALFORMED_REQUEST")

    @pytest.mark.parametrize(
        ("fields", "named"),
        [
            ({"agent_id": "a b"}, "agent_id"),
            ({"agent_id": "x" * 65}, "agent_id"),
            ({"ai_provider": "x" * 65}, "ai_provider"),
            ({"model": "x" * 129}, "model"),
            ({"cwd": f"/{'x' * 4096}"}, "cwd"),
            ({"cwd": "work"}, "cwd"),
            ({"cwd": "/srv\0"}, "cwd"),
            ({"request_id": "x" * 129}, "request_id"),
            ({"conversation_id": "x" * 65}, "conversation_id"),
            ({"metadata": {"": "v"}}, 'metadata[""]'),
            ({"metadata": {"k": "v" * 1025}}, 'metadata["k"]'),
            ({"metadata": {"k" * 65: "v"}}, f'metadata["{"k" * 65}"]'),
            ({"metadata": {str(n): "" for n in range(65)}}, "metadata"),
            ({"timeout": Duration(nanos=999_999)}, "timeout"),
            ({"timeout": Duration(seconds=-1)}, "timeout"),
            ({"timeout": Duration(seconds=86_401)}, "timeout"),
        ],
    )
    async def test_a_field_that_breaks_a_rule_is_named(
        self, mesh: Mesh, fields: dict[str, Any], named: str
    ) -> None:
        refused = await started_with(mesh, **fields)
        assert refused.kind == (INVALID, "INVALID_REQUEST")
        assert refused.fields == [named]
        assert refused.message.startswith(named)

    async def test_many_broken_rules_are_told_within_four_kibibytes(self, mesh: Mesh) -> None:
        metadata = {f"{n}" + "𝄞" * 300: "v" * 2000 for n in range(64)}
        refused = await started_with(mesh, metadata=metadata, model="x" * 200)
        assert refused.kind == (INVALID, "INVALID_REQUEST")
        assert refused.fields
        assert refused.size <= 4096

    @pytest.mark.parametrize(
        ("fields", "code", "reason", "named"),
        [
            ({"agent_id": "nobody"}, grpc.StatusCode.NOT_FOUND, "AGENT_NOT_FOUND", "agent_id"),
            ({"model": "none"}, grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND", "model"),
            (
                {"ai_provider": "none"},
                grpc.StatusCode.NOT_FOUND,
                "PROVIDER_NOT_FOUND",
                "ai_provider",
            ),
            (
                {"conversation_id": "c"},
                grpc.StatusCode.FAILED_PRECONDITION,
                "FEATURE_UNAVAILABLE",
                "conversation_id",
            ),
            (
                {"instance_id": "i"},
                grpc.StatusCode.FAILED_PRECONDITION,
                "FEATURE_UNAVAILABLE",
                "instance_id",
            ),
        ],
    )
    async def test_what_is_not_there_is_refused_with_its_reason(
        self, mesh: Mesh, fields: dict[str, str], code: grpc.StatusCode, reason: str, named: str
    ) -> None:
        refused = await started_with(mesh, **fields)
        assert refused.kind == (code, reason)
        assert refused.fields == [named]
        assert await listed(mesh) == []

    async def test_a_request_id_starts_one_run(self, waiting_mesh: Mesh) -> None:
        first = await waiting_mesh.start("Hello", request_id="r")
        assert await waiting_mesh.start("Hello", request_id="r") == first
        refused = await started_with(waiting_mesh, input="Bye", request_id="r")
        assert refused.kind == (grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED")
        assert refused.fields == ["request_id"]
        assert refused.resources == [("execution", first.id)]
        assert len(await listed(waiting_mesh)) == 1

    async def test_twenty_starts_with_one_request_id_at_once_are_one_run(self, mesh: Mesh) -> None:
        started = await asyncio.gather(*(mesh.start("Hello", request_id="r") for _ in range(20)))
        assert len({execution.id for execution in started}) == 1
        assert len(await listed(mesh)) == 1

    async def test_mock_models_come_from_the_settings(self, tmp_path: Any) -> None:
        models = {"mine": {"tokens": 2, "token_bytes": 3}}
        async with served(tmp_path, execution_mock_models=models) as mesh:
            execution = await mesh.finished(model="mine")
            assert (execution.model, execution.result) == ("mine", "xxxxxx")


class TestGet:
    async def test_an_unknown_run_is_not_found(self, mesh: Mesh) -> None:
        refused = await refusal(mesh.get("exec_none"))
        assert refused.kind == (grpc.StatusCode.NOT_FOUND, "EXECUTION_NOT_FOUND")
        assert refused.resources == [("execution", "exec_none")]

    @pytest.mark.parametrize("id_", ["", "x" * 65])
    async def test_an_id_that_cannot_be_one_is_refused(self, mesh: Mesh, id_: str) -> None:
        refused = await refusal(mesh.get(id_))
        assert refused.kind == (INVALID, "INVALID_REQUEST")
        assert refused.fields == ["execution_id"]

    async def test_each_version_of_a_run_is_answered_as_it_is(self, mesh: Mesh) -> None:
        """Answers are kept by version; none may be older than what was seen."""
        execution = await mesh.start(model="mock-stall")
        while (await mesh.get(execution.id)).state == Execution.STATE_QUEUED:
            await asyncio.sleep(0)
        assert (await mesh.get(execution.id)).state == Execution.STATE_RUNNING
        await mesh.executions.CancelExecution(pb.CancelExecutionRequest(execution_id=execution.id))
        assert (await mesh.get(execution.id)).state == Execution.STATE_CANCELLED


class TestList:
    async def test_pages_hold_every_run_once_newest_first(self, waiting_mesh: Mesh) -> None:
        started = [
            (await waiting_mesh.start(f"run {n}", metadata={"n": str(n)})).id for n in range(120)
        ]
        for size in (0, 7, 119, 120, 121, 200):
            found = await listed(waiting_mesh, page_size=size)
            assert [execution.id for execution in found] == started[::-1]
        page = await waiting_mesh.executions.ListExecutions(pb.ListExecutionsRequest(page_size=1))
        assert [execution.id for execution in page.executions] == [started[-1]]
        assert page.executions[0].input == ""
        assert page.executions[0].input_preview == "run 119"

    async def test_pages_are_at_most_two_hundred(self, waiting_mesh: Mesh) -> None:
        await asyncio.gather(*(waiting_mesh.start() for _ in range(201)))
        request = pb.ListExecutionsRequest(page_size=2**31 - 1)
        page = await waiting_mesh.executions.ListExecutions(request)
        assert len(page.executions) == 200
        assert page.next_page_token

    async def test_filters_are_joined_by_and(self, mesh: Mesh) -> None:
        done = await mesh.finished()
        failed = await mesh.finished(model="mock-fail")
        running = await mesh.start(model="mock-stall")
        while (await mesh.get(running.id)).state == Execution.STATE_QUEUED:
            await asyncio.sleep(0)
        every = [running.id, failed.id, done.id]

        async def ids(**fields: Any) -> list[str]:
            return [execution.id for execution in await listed(mesh, **fields)]

        assert await ids() == every
        assert await ids(state=Execution.STATE_RUNNING) == [running.id]
        assert await ids(state=Execution.STATE_FAILED) == [failed.id]
        assert await ids(state=Execution.STATE_CANCELLED) == []
        assert await ids(agent_id="default") == every
        assert await ids(agent_id="other") == []
        assert await ids(conversation_id="c") == await ids(instance_id="i") == []
        assert await ids(create_time_from=failed.create_time) == every[:2]
        assert await ids(create_time_before=failed.create_time) == every[2:]
        assert await ids(
            create_time_from=done.create_time,
            create_time_before=running.create_time,
            state=Execution.STATE_SUCCEEDED,
        ) == [done.id]

    @pytest.mark.parametrize(
        ("fields", "named"),
        [
            ({"page_size": -1}, "page_size"),
            ({"state": 99}, "state"),
            ({"page_token": "x" * 1025}, "page_token"),
            ({"agent_id": "x" * 65}, "agent_id"),
            ({"create_time_from": Timestamp(seconds=2**62)}, "create_time_from"),
            ({"create_time_before": Timestamp(seconds=-(2**62))}, "create_time_before"),
            ({"create_time_from": Timestamp(nanos=-1)}, "create_time_from"),
            ({"create_time_from": Timestamp(nanos=2_000_000_000)}, "create_time_from"),
        ],
    )
    async def test_a_filter_that_breaks_a_rule_is_named(
        self, mesh: Mesh, fields: dict[str, Any], named: str
    ) -> None:
        refused = await refusal(mesh.executions.ListExecutions(pb.ListExecutionsRequest(**fields)))
        assert refused.kind == (INVALID, "INVALID_REQUEST")
        assert refused.fields == [named]

    async def test_a_token_belongs_to_its_list_and_filters(self, waiting_mesh: Mesh) -> None:
        for _ in range(3):
            await waiting_mesh.start()
        page = await waiting_mesh.executions.ListExecutions(pb.ListExecutionsRequest(page_size=1))
        token = page.next_page_token
        requests = [
            pb.ListExecutionsRequest(page_token="garbage"),
            pb.ListExecutionsRequest(page_token="é"),
            pb.ListExecutionsRequest(page_token=token[:-2]),
            pb.ListExecutionsRequest(page_token=token, agent_id="default"),
            pb.ListExecutionsRequest(page_token=token, state=Execution.STATE_QUEUED),
        ]
        for request in requests:
            refused = await refusal(waiting_mesh.executions.ListExecutions(request))
            assert refused.kind == (INVALID, "PAGE_TOKEN_INVALID")
            assert refused.fields == ["page_token"]
        # Another page size is fine.
        request = pb.ListExecutionsRequest(page_token=token, page_size=2)
        assert len((await waiting_mesh.executions.ListExecutions(request)).executions) == 2


class TestCancel:
    async def cancel(self, mesh: Mesh, id_: str) -> Execution:
        return await mesh.executions.CancelExecution(
            pb.CancelExecutionRequest(execution_id=id_), timeout=PATIENCE
        )

    @pytest.mark.parametrize("model", ["mock-stall", "brisk"])
    async def test_a_running_run_is_cancelled_when_it_is_answered(
        self, mesh: Mesh, model: str
    ) -> None:
        execution = await mesh.start(model=model)
        cancelled = await self.cancel(mesh, execution.id)
        assert cancelled.state == Execution.STATE_CANCELLED
        assert cancelled.error.reason == "EXECUTION_CANCELLED"
        events = await mesh.watch(execution.id)
        assert events[-1].error.reason == "EXECUTION_CANCELLED"
        assert await mesh.get(execution.id) == cancelled

    async def test_a_queued_run_is_cancelled_and_cancelling_again_answers_it(
        self, waiting_mesh: Mesh
    ) -> None:
        execution = await waiting_mesh.start()
        cancelled = await self.cancel(waiting_mesh, execution.id)
        assert cancelled.state == Execution.STATE_CANCELLED
        assert not cancelled.HasField("start_time")
        assert await self.cancel(waiting_mesh, execution.id) == cancelled

    async def test_a_finished_run_cannot_be_cancelled(self, mesh: Mesh) -> None:
        execution = await mesh.finished()
        refused = await refusal(self.cancel(mesh, execution.id))
        assert refused.kind == (grpc.StatusCode.FAILED_PRECONDITION, "EXECUTION_FINISHED")
        assert refused.resources == [("execution", execution.id)]
        assert await mesh.get(execution.id) == execution

    async def test_an_unknown_run_cannot_be_cancelled(self, mesh: Mesh) -> None:
        refused = await refusal(self.cancel(mesh, "exec_none"))
        assert refused.kind == (grpc.StatusCode.NOT_FOUND, "EXECUTION_NOT_FOUND")
        refused = await refusal(self.cancel(mesh, ""))
        assert refused.kind == (INVALID, "INVALID_REQUEST")


class TestDelete:
    async def delete(self, mesh: Mesh, id_: str) -> object:
        return await mesh.executions.DeleteExecution(
            pb.DeleteExecutionRequest(execution_id=id_), timeout=PATIENCE
        )

    async def test_a_finished_run_is_gone_with_its_events_and_its_request_id(
        self, mesh: Mesh
    ) -> None:
        execution = await mesh.finished(request_id="r")
        await mesh.get(execution.id)
        await self.delete(mesh, execution.id)
        for call in (
            mesh.get(execution.id),
            self.delete(mesh, execution.id),
            mesh.watch(execution.id),
        ):
            refused = await refusal(call)
            assert refused.kind == (grpc.StatusCode.NOT_FOUND, "EXECUTION_NOT_FOUND")
        assert await listed(mesh) == []
        assert (await mesh.start("Other", request_id="r")).id != execution.id

    async def test_a_run_that_has_not_ended_is_not_deleted(self, mesh: Mesh) -> None:
        execution = await mesh.start(model="mock-stall")
        refused = await refusal(self.delete(mesh, execution.id))
        assert refused.kind == (grpc.StatusCode.FAILED_PRECONDITION, "EXECUTION_NOT_FINISHED")
        assert (await mesh.get(execution.id)).id == execution.id


async def test_models_are_listed_in_the_order_of_their_ids(mesh: Mesh) -> None:
    models = (await mesh.executions.ListModels(pb.ListModelsRequest())).models
    assert [model.id for model in models] == sorted(model.id for model in models)
    assert {"mock", "mock-slow", "mock-long", "mock-fail", "mock-flaky"} <= {
        model.id for model in models
    }
    assert [model.id for model in models if model.is_default] == ["mock"]
    assert {model.ai_provider for model in models} == {"mock"}
    assert all(model.description.endswith(".") for model in models)
