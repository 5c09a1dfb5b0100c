"""The service on a shared store: it is stopped and started, and it is not alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from conductor.execution.v1 import execution_service_pb2 as pb
from conductor.execution.v1.event_pb2 import ExecutionEvent
from conductor.execution.v1.execution_pb2 import Execution
from services.execution.stores import COLLECTIONS, EVENTS, LOGS, WORKERS
from services.kit.storage.mongodb import MongoStore
from services.kit.storage.ports import Query
from tests.patience import PATIENCE
from tests.rpc.serving import Mesh, served

MODELS = {"brisk": {"tokens": 30, "delay_ms": 10}, "slow": {"tokens": 60, "delay_ms": 50}}


@pytest.fixture
def shared(mongo_url: str) -> dict[str, Any]:
    """Settings of a service on the test's database."""
    return {"store_url": mongo_url, "execution_mock_models": MODELS}


@pytest.fixture
async def store(mongo_url: str) -> AsyncIterator[MongoStore]:
    """The same database, looked at from outside."""
    store = await MongoStore.open(mongo_url, "motor", "execution", COLLECTIONS, LOGS)
    yield store
    await store.close()


async def ended(mesh: Mesh, id_: str) -> Execution:
    """A run after its end. Its last event is stored, and seen, a moment before its state."""
    async with asyncio.timeout(PATIENCE):
        while not (run := await mesh.get(id_)).HasField("end_time"):
            await asyncio.sleep(0.01)
    return run


def sequences(events: list[ExecutionEvent]) -> list[int]:
    return [event.sequence for event in events]


async def test_a_run_outlives_the_service_that_began_it(
    tmp_path: Path, shared: dict[str, Any]
) -> None:
    async with served(tmp_path, **shared) as mesh:
        before = await mesh.start("before", model="brisk")
        await mesh.watch(before.id)
        before = await ended(mesh, before.id)
        assert before.state == Execution.STATE_SUCCEEDED
        run = await mesh.start("across", model="slow")
        seen: list[ExecutionEvent] = []
        watching = mesh.executions.WatchExecution(
            pb.WatchExecutionRequest(execution_id=run.id), timeout=PATIENCE
        )
        async for one in watching:
            seen.append(one.event)
            if one.event.HasField("on_llm_new_token"):
                break
        watching.cancel()
    async with served(tmp_path, **shared) as mesh:
        assert await mesh.get(before.id) == before
        rest = await mesh.watch(run.id, after=seen[-1].sequence)
        assert sequences(seen + rest) == list(range(1, len(seen + rest) + 1))
        assert (await ended(mesh, run.id)).state == Execution.STATE_SUCCEEDED
        assert await mesh.watch(run.id) == seen + rest


async def test_two_services_on_one_database_share_the_runs(
    tmp_path: Path, shared: dict[str, Any], store: MongoStore
) -> None:
    alone = {**shared, "execution_concurrency": 4}
    async with served(tmp_path, **alone) as one, served(tmp_path, **alone) as other:
        runs = [
            await mesh.start(f"run {number}", model="brisk")
            for number in range(8)
            for mesh in (one, other)
        ]
        # Whichever of them has a run, both can show it.
        logs = await asyncio.gather(*(one.watch(run.id) for run in runs))
        done = await asyncio.gather(*(ended(other, run.id) for run in runs))
        workers = {found.id for found in await store.query(Query(WORKERS, "_mesh"))}
    assert {run.state for run in done} == {Execution.STATE_SUCCEEDED}
    for events in logs:
        assert sequences(events) == list(range(1, len(events) + 1))
        assert sum(event.HasField("on_llm_start") for event in events) == 1
    assert len(workers) == 2
    served_by = {
        writer
        for run in runs
        for _, _, writer in await store.read(
            EVENTS, "default", run.id, 1, limit=1000, max_bytes=2**30
        )
    }
    assert workers <= served_by
