"""Runs that wait: their places, what they are told, who begins next, and when no more may wait."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
from google.api.httpbody_pb2 import HttpBody

from conductor.execution.v1 import execution_service_pb2 as pb
from conductor.execution.v1.execution_pb2 import Execution
from conductor.gateway.v1 import gateway_service_pb2 as gateway_pb
from tests.fakes.models import Answer
from tests.patience import PATIENCE
from tests.rpc.modelled import followed, held_back, modelled, story
from tests.rpc.serving import Mesh, frames, refusal, served

FULL = (grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL")


async def cancel(mesh: Mesh, id_: str) -> Execution:
    request = pb.CancelExecutionRequest(execution_id=id_)
    return await mesh.executions.CancelExecution(request, timeout=PATIENCE)


async def placed(mesh: Mesh, id_: str, position: int) -> None:
    """Wait until a run has a place."""
    async with asyncio.timeout(PATIENCE):
        while (await mesh.get(id_)).queue_position != position:
            await asyncio.sleep(0.01)


async def test_a_full_queue_refuses_more_and_says_when_to_come_back(tmp_path: Path) -> None:
    async with served(tmp_path, execution_concurrency=0, execution_queue_limit=3) as mesh:
        runs = [await mesh.start(request_id=f"r{number}") for number in range(3)]

        refused = await refusal(mesh.start())
        assert refused.kind == FULL
        assert refused.retry_after == 2.0
        assert refused.retry_header == "2"
        assert "3 runs wait already" in refused.message
        request = gateway_pb.ExecuteRequest(input="Hello")
        for call in (mesh.gateway.Execute, mesh.gateway.StreamExecute):
            assert (await refusal(call(request, timeout=PATIENCE))).kind == FULL
        # What was accepted is answered again, however full it is.
        assert (await mesh.start(request_id="r1")).id == runs[1].id
        # And who leaves makes room.
        await cancel(mesh, runs[0].id)
        assert (await mesh.start()).state == Execution.STATE_QUEUED
        assert (await refusal(mesh.start())).kind == FULL


async def test_fifty_starts_at_once_fill_a_queue_exactly(tmp_path: Path) -> None:
    async with served(tmp_path, execution_concurrency=0, execution_queue_limit=20) as mesh:
        answers = await asyncio.gather(*(mesh.start() for _ in range(50)), return_exceptions=True)
        accepted = [one for one in answers if isinstance(one, Execution)]
        refused = [one for one in answers if isinstance(one, grpc.aio.AioRpcError)]
        assert (len(accepted), len(refused)) == (20, 30)
        assert {one.code() for one in refused} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
        listed = await mesh.executions.ListExecutions(pb.ListExecutionsRequest(page_size=200))
        assert {one.id for one in listed.executions} == {one.id for one in accepted}


async def test_a_run_that_waits_has_a_place_which_moves_as_others_go(tmp_path: Path) -> None:
    async with served(tmp_path, execution_concurrency=0) as mesh:
        runs = [await mesh.start() for _ in range(3)]
        for position, run in enumerate(runs, 1):
            await placed(mesh, run.id, position)
        urgent = await mesh.start(priority=1)
        await placed(mesh, urgent.id, 1)
        await placed(mesh, runs[2].id, 4)

        for gone in (urgent, runs[0]):
            cancelled = await cancel(mesh, gone.id)
            assert not cancelled.HasField("queue_position")

        await placed(mesh, runs[1].id, 1)
        await placed(mesh, runs[2].id, 2)


async def test_a_run_that_waits_is_told_its_place_in_words_every_client_knows(
    tmp_path: Path,
) -> None:
    async with served(tmp_path, execution_concurrency=0) as mesh:
        await mesh.start()
        second = await mesh.start()

        *before, told = await followed(mesh, second.id, until="job_queued")

        assert story(before) == ["job_started"]
        assert told.job_queued.position == 2
        assert "number 2" in told.job_queued.message
        request = gateway_pb.StreamJobRequest(job_id=second.id)
        stream = mesh.gateway.StreamJob(request, timeout=PATIENCE)
        content = b""
        while b"status_update" not in content:
            body = await stream.read()
            assert isinstance(body, HttpBody)
            content += body.data
        stream.cancel()
        shown = frames(content)[-1]
        assert shown.id == told.sequence
        assert shown.data["event"] == "status_update"
        assert shown.data["data"] == {"message": told.job_queued.message, "position": 2}


async def test_the_more_urgent_begin_first_and_equals_in_the_order_they_came(
    tmp_path: Path,
) -> None:
    async with modelled(tmp_path, execution_concurrency=1) as (mesh, server):
        server.says("m", Answer())
        async with held_back(server):
            first = await mesh.start("first", model="m", ai_provider="chat", priority=5)
            await followed(mesh, first.id, until="on_llm_start")
            runs = [
                await mesh.start(
                    f"{priority}{which}", model="m", ai_provider="chat", priority=priority
                )
                for which in "ab"
                for priority in (5, 3, 1, 0, 2, 4)
            ]
        for run in runs:
            await followed(mesh, run.id)

        begun = [request.body["messages"][0]["content"] for request in server.requests]
        # Who asks for nothing has priority 3.
        assert begun == [
            "first",
            "1a",
            "1b",
            "2a",
            "2b",
            "3a",
            "0a",
            "3b",
            "0b",
            "4a",
            "4b",
            "5a",
            "5b",
        ]
        assert [(await mesh.get(run.id)).priority for run in runs[:4]] == [5, 3, 1, 3]


async def test_no_more_runs_of_an_organisation_go_on_at_a_time_than_may(tmp_path: Path) -> None:
    async with modelled(tmp_path, execution_org_concurrency=2) as (mesh, server):
        server.says("m", Answer())
        async with held_back(server):
            runs = [await mesh.start(model="m", ai_provider="chat") for _ in range(5)]
            for run in runs[:2]:
                await followed(mesh, run.id, until="on_llm_start")
            for position, run in enumerate(runs[2:], 1):
                await followed(mesh, run.id, until="job_queued")
                assert (await mesh.get(run.id)).queue_position == position
            assert len(server.requests) <= 2
        for run in runs:
            events = await followed(mesh, run.id)
            assert events[-1].HasField("result")
        assert len(server.requests) == 5


async def test_a_run_that_may_begin_at_once_is_told_no_place(tmp_path: Path) -> None:
    async with served(tmp_path) as mesh:
        run = await mesh.finished()
        assert not run.HasField("queue_position")
        assert "job_queued" not in story(await mesh.watch(run.id))
