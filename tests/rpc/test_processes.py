"""Two processes' worth of the served service on one SQLite file, with a real Redis between them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest

from conductor.execution.v1 import execution_service_pb2 as pb
from conductor.execution.v1.event_pb2 import ExecutionEvent
from conductor.execution.v1.execution_pb2 import Execution
from tests.patience import PATIENCE
from tests.rpc.serving import Mesh, served
from tests.servers.redis import RedisServer

MODELS = {"steady": {"tokens": 60, "delay_ms": 40}}
"""It takes 2.4 s."""
SILENT = {"mute": {"tokens": 2, "stall_after": 1}}


def settings(redis: RedisServer | None) -> dict[str, Any]:
    return {
        "execution_processes": 2,
        "execution_mock_models": MODELS | SILENT,
        "queue_url": "" if redis is None else redis.url(),
    }


async def live(mesh: Mesh, execution_id: str, after: int = 0) -> AsyncIterator[ExecutionEvent]:
    """Yield events until the stream ends, however it does."""
    request = pb.WatchExecutionRequest(execution_id=execution_id, after_sequence=after)
    stream = mesh.executions.WatchExecution(request, timeout=PATIENCE)
    try:
        async for one in stream:
            if one.HasField("event"):
                yield one.event
    except grpc.aio.AioRpcError as error:
        assert error.code() == grpc.StatusCode.UNAVAILABLE  # noqa: PT017 any other is a failure


async def begun(mesh: Mesh, model: str) -> Execution:
    """Start a run and wait until the worker there has it."""
    execution = await mesh.start(model=model)
    async for event in live(mesh, execution.id):
        if event.HasField("on_llm_new_token"):
            break
    return execution


async def lags(mesh: Mesh, execution_id: str) -> list[float]:
    """How old each token is when a watcher sees it."""
    return [
        time.time() - event.create_time.ToNanoseconds() / 1e9
        async for event in live(mesh, execution_id)
        if event.HasField("on_llm_new_token")
    ]


def is_gapless(events: list[ExecutionEvent]) -> None:
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert sum(event.HasField("result") or event.HasField("error") for event in events) == 1


@pytest.mark.parametrize("between", ["redis", "nothing"])
async def test_a_watcher_at_any_process_sees_tokens_as_they_come(
    between: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    redis = request.getfixturevalue("redis_server") if between == "redis" else None
    async with (
        served(tmp_path, **settings(redis)) as one,
        served(tmp_path, **settings(redis)) as two,
    ):
        execution = await one.start(model="steady")
        here, there = await asyncio.gather(lags(one, execution.id), lags(two, execution.id))
    assert len(here) == len(there) > 20
    # Of those that poll each second every second one would be later than this.
    assert sorted(there)[len(there) // 2] < 0.3


async def test_a_run_of_a_process_that_stops_goes_on_at_once_in_another(
    tmp_path: Path, redis_server: RedisServer
) -> None:
    async with AsyncExitStack() as first, AsyncExitStack() as second:
        one = await first.enter_async_context(served(tmp_path, **settings(redis_server)))
        execution = await begun(one, "steady")
        two = await second.enter_async_context(served(tmp_path, **settings(redis_server)))
        seen: list[ExecutionEvent] = []
        stopping: asyncio.Task[None] | None = None
        stopped = 0.0
        async for event in live(one, execution.id):
            seen.append(event)
            if event.HasField("on_llm_new_token") and stopping is None:
                stopping = asyncio.create_task(first.aclose())
                stopped = time.time()
        assert stopping is not None
        rest = [event async for event in live(two, execution.id, seen[-1].sequence)]
        await stopping
        events = [*seen, *rest]
        is_gapless(events)
        assert events == await two.watch(execution.id)
        resumed = [event for event in events if event.HasField("job_resumed")]
        assert len(resumed) == 1
        assert resumed[0].create_time.ToNanoseconds() / 1e9 - stopped < 1
        assert events[-1].HasField("result")


@pytest.mark.parametrize("between", ["redis", "nothing"])
async def test_a_run_is_cancelled_at_a_process_that_does_not_work_on_it(
    between: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    redis = request.getfixturevalue("redis_server") if between == "redis" else None
    async with served(tmp_path, **settings(redis)) as one:
        execution = await begun(one, "mute")
        async with served(tmp_path, **settings(redis)) as two:
            watching = asyncio.create_task(one.watch(execution.id))
            asked = pb.CancelExecutionRequest(execution_id=execution.id)
            await two.executions.CancelExecution(asked, timeout=PATIENCE)
            is_gapless(await watching)


async def test_runs_begin_and_are_watched_while_redis_comes_and_goes(
    tmp_path: Path, redis_server: RedisServer
) -> None:
    redis_server.stop()
    async with (
        served(tmp_path, **settings(redis_server)) as one,
        served(tmp_path, **settings(redis_server)) as two,
    ):
        runs = [await (one, two)[number % 2].start() for number in range(6)]
        redis_server.start()
        runs += [await (one, two)[number % 2].start() for number in range(6)]
        redis_server.flush()
        runs += [await (one, two)[number % 2].start() for number in range(6)]
        for number, run in enumerate(runs):
            events = await (two, one)[number % 2].watch(run.id)
            is_gapless(events)
            assert sum(event.HasField("on_llm_start") for event in events) == 1
