"""Models that fail several times in a row are left alone, and asked again when they are well."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from conductor.execution.v1 import execution_service_pb2 as pb
from conductor.execution.v1.execution_pb2 import Execution
from conductor.execution.v1.model_pb2 import Circuit
from tests.fakes import models
from tests.fakes.models import Answer, Then
from tests.patience import PATIENCE
from tests.rpc.modelled import BOTH, asked, circuit, held_back, modelled, story
from tests.rpc.serving import Mesh

IMPATIENT: dict[str, Any] = {"execution_attempts": 1, "execution_breaker_failures": 3}
OPEN_FOR_LONG = IMPATIENT | {"execution_breaker_open_seconds": 3600}
SOON_HALF_OPEN = IMPATIENT | {"execution_breaker_open_seconds": 0.05}


async def half_open(mesh: Mesh, protocol: str) -> None:
    """Fail until the circuit opens, and wait until it may be probed."""
    for _ in range(3):
        assert (await mesh.finished(ai_provider=protocol, model="m")).error.reason == "MODEL_FAILED"
    async with asyncio.timeout(PATIENCE):
        while (await circuit(mesh, protocol, "m")).state != Circuit.STATE_HALF_OPEN:
            await asyncio.sleep(0.01)


@BOTH
async def test_a_model_is_left_alone_once_so_many_calls_failed_in_a_row(
    tmp_path: Path, protocol: str
) -> None:
    async with modelled(tmp_path, "m", "other", **OPEN_FOR_LONG) as (mesh, server):
        server.says("m", models.failed())
        server.says("other", Answer())
        for failures in range(3):
            shown = await circuit(mesh, protocol, "m")
            assert (shown.state, shown.failures) == (Circuit.STATE_CLOSED, failures)
            assert not shown.HasField("probe_time")
            await mesh.finished(ai_provider=protocol, model="m")

        shown = await circuit(mesh, protocol, "m")
        assert (shown.state, shown.failures) == (Circuit.STATE_OPEN, 3)
        assert shown.probe_time.seconds > time.time()
        for _ in range(3):
            run = await mesh.finished(ai_provider=protocol, model="m")
            assert story((await mesh.watch(run.id))[2:]) == [
                f"start 1: {protocol}/m",
                "failed 1: MODEL_CIRCUIT_OPEN",
                "error: MODEL_CIRCUIT_OPEN",
            ]
            assert not run.HasField("usage")
        assert len(server.requests) == 3
        # One model is no other model, and no other provider.
        assert (await mesh.finished(ai_provider=protocol, model="other")).result
        another = "messages" if protocol == "chat" else "chat"
        assert (await circuit(mesh, another, "m")).state == Circuit.STATE_CLOSED


async def test_the_attempts_of_one_run_open_a_circuit_as_well(tmp_path: Path) -> None:
    settings = OPEN_FOR_LONG | {"execution_attempts": 5}
    async with modelled(tmp_path, **settings) as (mesh, server):
        server.says("m", models.failed())

        run = await mesh.finished(ai_provider="chat", model="m")

        assert run.error.reason == "MODEL_CIRCUIT_OPEN"
        assert len(server.requests) == 3


@BOTH
async def test_one_call_probes_a_half_open_circuit_however_many_runs_there_are(
    tmp_path: Path, protocol: str
) -> None:
    async with modelled(tmp_path, **SOON_HALF_OPEN) as (mesh, server):
        server.says("m", *[models.failed()] * 3, Answer())
        await half_open(mesh, protocol)

        async with held_back(server):
            asking = [
                asyncio.create_task(mesh.finished(ai_provider=protocol, model="m"))
                for _ in range(5)
            ]
            refused = asyncio.as_completed(asking, timeout=PATIENCE)
            for run in [await next(refused) for _ in range(4)]:
                assert run.error.reason == "MODEL_CIRCUIT_OPEN"
            (probing,) = (task for task in asking if not task.done())
        async with asyncio.timeout(PATIENCE):
            assert (await probing).state == Execution.STATE_SUCCEEDED

        assert len(server.requests) == 4
        shown = await circuit(mesh, protocol, "m")
        assert (shown.state, shown.failures) == (Circuit.STATE_CLOSED, 0)
        assert (await mesh.finished(ai_provider=protocol, model="m")).result


@BOTH
async def test_a_probe_that_fails_opens_the_circuit_again(tmp_path: Path, protocol: str) -> None:
    async with modelled(tmp_path, **SOON_HALF_OPEN) as (mesh, server):
        server.says("m", models.failed())
        await half_open(mesh, protocol)

        run = await mesh.finished(ai_provider=protocol, model="m")

        assert run.error.reason == "MODEL_FAILED"
        shown = await circuit(mesh, protocol, "m")
        assert (shown.state == Circuit.STATE_CLOSED, shown.failures) == (False, 4)


async def test_a_probe_that_is_cancelled_lets_the_next_one_through(tmp_path: Path) -> None:
    async with modelled(tmp_path, **SOON_HALF_OPEN) as (mesh, server):
        server.says("m", *[models.failed()] * 3, Answer((), then=Then.STALL), Answer())
        await half_open(mesh, "chat")
        stalled = await mesh.start(ai_provider="chat", model="m")
        await asked(server, 4)

        cancel = pb.CancelExecutionRequest(execution_id=stalled.id)
        await mesh.executions.CancelExecution(cancel, timeout=PATIENCE)
        async with asyncio.timeout(PATIENCE):
            await server.requests[-1].gone.wait()

        assert (await mesh.finished(ai_provider="chat", model="m")).result
        assert (await circuit(mesh, "chat", "m")).state == Circuit.STATE_CLOSED


@pytest.mark.parametrize(
    "fault", [models.rate_limited(), models.key_rejected(), models.context_too_long()]
)
async def test_a_fault_that_is_not_the_model_s_opens_no_circuit(
    tmp_path: Path, fault: Answer
) -> None:
    async with modelled(tmp_path, **OPEN_FOR_LONG) as (mesh, server):
        server.says("m", fault)
        for _ in range(4):
            await mesh.finished(ai_provider="chat", model="m")

        assert (await circuit(mesh, "chat", "m")).state == Circuit.STATE_CLOSED
        assert len(server.requests) == 4


async def test_a_fallback_answers_at_once_while_a_circuit_is_open(tmp_path: Path) -> None:
    async with modelled(tmp_path, "m", "n", **OPEN_FOR_LONG) as (mesh, server):
        server.says("m", models.failed())
        server.says("n", Answer())
        for _ in range(3):
            await mesh.finished(ai_provider="chat", model="m")

        fallbacks = [{"ai_provider": "messages", "model": "n"}]
        run = await mesh.finished(ai_provider="chat", model="m", fallbacks=fallbacks)

        assert story((await mesh.watch(run.id))[2:5]) == [
            "start 1: chat/m",
            "failed 1: MODEL_CIRCUIT_OPEN and another",
            "start 2: messages/n",
        ]
        assert run.served_by.ai_provider == "messages"
        assert [request.model for request in server.requests] == ["m", "m", "m", "n"]
