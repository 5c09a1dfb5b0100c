"""How a process ends that others still send calls to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.execution.app import compose
from services.execution.settings import ExecutionSettings
from services.kit.server import LameDuck, serving
from tests.fakes.content import FakeContent
from tests.patience import PATIENCE
from tests.rpc.serving import Mesh

NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@asynccontextmanager
async def ending(folder: Path, lame_duck: LameDuck) -> AsyncIterator[tuple[Mesh, asyncio.Event]]:
    """A service that is told to stop when the event is set, and its clients."""
    stop = asyncio.Event()
    ready: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def serve() -> None:
        async with AsyncExitStack() as stack:
            content = await stack.enter_async_context(FakeContent())
            settings = ExecutionSettings(
                data_dir=folder,
                execution_address="127.0.0.1:0",
                peers={"content": content.target},
            )
            app = await compose(settings, stack)
            async with serving(app, 2, lame_duck=lame_duck) as server:
                ready.set_result(server.port)
                await server.until(stop)

    served = asyncio.create_task(serve())
    port = await asyncio.wait_for(ready, PATIENCE)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield Mesh(channel, port), stop
        await asyncio.wait_for(served, PATIENCE)


async def says_not_serving(mesh: Mesh) -> None:
    """Wait until the process says that it is about to end."""
    stub = health_pb2_grpc.HealthStub(mesh.channel)
    async with asyncio.timeout(PATIENCE):
        while (await stub.Check(health_pb2.HealthCheckRequest())).status != NOT_SERVING:
            await asyncio.sleep(0.01)


async def test_it_says_that_it_ends_and_serves_on_for_a_while(tmp_path: Path) -> None:
    lame_duck = LameDuck(3600, asyncio.Event())
    async with ending(tmp_path, lame_duck) as (mesh, stop):
        stop.set()
        await says_not_serving(mesh)

        finished = await mesh.finished("Hello")
        assert "Hello" in finished.result

        lame_duck.at_once.set()


async def test_streams_end_only_after_that_while(tmp_path: Path) -> None:
    lame_duck = LameDuck(3600, asyncio.Event())
    async with ending(tmp_path, lame_duck) as (mesh, stop):
        stalled = await mesh.start(model="mock-stall")
        watching = asyncio.create_task(mesh.watch(stalled.id))
        stop.set()
        await says_not_serving(mesh)
        await mesh.finished()
        assert not watching.done()

        lame_duck.at_once.set()

        with pytest.raises(grpc.aio.AioRpcError) as cut:
            await watching
        assert cut.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_without_a_while_it_ends_at_once(tmp_path: Path) -> None:
    async with ending(tmp_path, LameDuck(0, asyncio.Event())) as (_, stop):
        stop.set()
