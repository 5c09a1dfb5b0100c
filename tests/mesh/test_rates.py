"""How many calls pass where an organisation may make so many a second, over two processes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import grpc
import httpx

from conductor.execution.v1.execution_service_pb2 import GetExecutionRequest
from conductor.execution.v1.execution_service_pb2_grpc import ExecutionServiceStub
from tests.mesh.started import Mesh
from tests.servers.redis import RedisServer

RATE = 20
BURST = 200
STEADY = 40
SECONDS = 3.0


async def test_a_burst_and_what_follows_pass_at_the_rate_of_the_organisation(
    new_mesh: Callable[..., Mesh], redis_server: RedisServer
) -> None:
    mesh = new_mesh(EXECUTION_PROCESSES="2", QUEUE_URL=redis_server.url(), RATE_LIMIT=str(RATE))
    await mesh.start()
    async with grpc.aio.insecure_channel(mesh.address) as channel:
        stub = ExecutionServiceStub(channel)

        async def ask() -> grpc.StatusCode:
            try:
                await stub.GetExecution(GetExecutionRequest(execution_id="none"))
            except grpc.aio.AioRpcError as error:
                return error.code()
            raise AssertionError("there is no such execution")

        began = time.monotonic()
        calls = [asyncio.create_task(ask()) for _ in range(BURST)]
        for number in range(round(STEADY * SECONDS)):
            await asyncio.sleep(began + (number + 1) / STEADY - time.monotonic())
            calls.append(asyncio.create_task(ask()))
        codes = await asyncio.gather(*calls)
        elapsed = time.monotonic() - began
        async with httpx.AsyncClient(base_url=mesh.url, trust_env=False) as browser:
            answers = await asyncio.gather(*(browser.get("/api/executions") for _ in range(30)))
    passed, refused = grpc.StatusCode.NOT_FOUND, grpc.StatusCode.RESOURCE_EXHAUSTED
    assert set(codes) == {passed, refused}
    allowed = RATE + RATE * elapsed
    # A machine that is busy elsewhere for a while leaves out some of what it might have called.
    assert allowed - RATE / 2 <= codes.count(passed) <= allowed + 2
    told = [answer for answer in answers if answer.status_code == 429]
    assert told
    assert {answer.headers["retry-after"] for answer in told} == {"1"}
    assert {answer.json()["details"][0]["reason"] for answer in told} == {"RATE_LIMITED"}
