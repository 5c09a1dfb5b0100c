"""What `kill -9` does to accepted runs: nothing that a client could see but a pause."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Callable

import pytest

from tests.mesh.started import Mesh
from tests.mesh.watching import Followed, chat_client, follow, follow_all, insist, start_job

RUNS = 50
KILLS = 20

NewMesh = Callable[..., Mesh]


@pytest.mark.timeout(240)
async def test_every_accepted_run_ends_whole_however_often_the_service_is_killed(
    mesh: Mesh,
) -> None:
    seed = os.environ.get("CRASH_SEED", str(time.time_ns()))
    print(f"CRASH_SEED={seed}")  # noqa: T201 shown when the test fails, to do the same again
    dice = random.Random(seed)
    async with chat_client(mesh.url) as client:
        requests = [f"run-{number}" for number in range(RUNS)]

        async def start_and_follow(request_id: str) -> Followed:
            job_id = await start_job(client, request_id, "mock-slow")
            return await follow(client, job_id, opened)

        opened = asyncio.Event()
        following = asyncio.gather(*map(start_and_follow, requests))
        # On a busy machine the service could be dead each time before anything is at stake.
        await opened.wait()
        for _ in range(KILLS):
            await asyncio.sleep(dice.uniform(0, 1))
            dead = await mesh.kill("execution")
            await mesh.serves_again("execution", dead)
        followed = await following

        for seen in followed:
            seen.assert_complete()
            execution = await insist(client, "GET", f"/api/executions/{seen.job_id}")
            assert execution["state"] == "STATE_SUCCEEDED"
            assert execution["result"] == seen.last_attempt == seen.terminal[0]["data"]["result"]
        again = [await start_job(client, request_id, "mock-slow") for request_id in requests]
        assert again == [seen.job_id for seen in followed]
        listed = await insist(client, "GET", "/api/executions", params={"page_size": 200})
        assert {one["id"] for one in listed["executions"]} == {seen.job_id for seen in followed}
    assert any(seen.connections > 1 for seen in followed)


async def test_a_killed_supervisor_takes_all_along_and_the_next_start_goes_on(mesh: Mesh) -> None:
    async with chat_client(mesh.url) as client:
        job_ids = [await start_job(client, f"run-{number}", "mock-slow") for number in range(10)]
        following = asyncio.create_task(follow_all(client, job_ids))
        await asyncio.sleep(0.5)
        await mesh.crash()
        await mesh.start()
        for seen in await following:
            seen.assert_complete()
            assert seen.terminal[0]["event"] == "result"


async def test_a_run_whose_worker_is_dead_is_cancelled_by_the_call_itself(mesh: Mesh) -> None:
    async with chat_client(mesh.url) as client:
        job_id = await start_job(client, "stalled", "mock-stall")
        following = asyncio.create_task(follow(client, job_id))
        dead = await mesh.kill("execution")
        await mesh.serves_again("execution", dead)
        # The dead worker's lease has not run out, so nobody else has taken the run over.
        cancelled = await insist(client, "POST", f"/api/executions/{job_id}:cancel")
        assert cancelled["state"] == "STATE_CANCELLED"
        seen = await following
        assert seen.terminal[0]["data"]["reason"] == "EXECUTION_CANCELLED"
        seen.assert_complete()


async def test_a_thousand_watchers_of_a_live_run_lose_nothing(mesh: Mesh) -> None:
    async with chat_client(mesh.url) as client:
        job_id = await start_job(client, "watched", "mock-slow")
        followed = await follow_all(client, [job_id] * 1000)
        first = followed[0]
        first.assert_complete()
        assert all(seen.events == first.events for seen in followed)


async def test_runs_that_waited_during_a_crash_run_afterwards(new_mesh: NewMesh) -> None:
    paused = new_mesh("paused", EXECUTION_CONCURRENCY="0")
    await paused.start()
    async with chat_client(paused.url) as client:
        job_ids = [await start_job(client, f"run-{number}", "mock") for number in range(20)]
        await paused.crash()
        paused.settings.clear()
        await paused.start()
        for seen in await follow_all(client, job_ids):
            seen.assert_complete()
            assert seen.terminal[0]["event"] == "result"
