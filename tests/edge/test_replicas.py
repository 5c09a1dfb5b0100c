"""Two processes of a service: what callers notice when one of them dies or is about to end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import grpc
import httpx
import pytest_asyncio
from grpc_health.v1 import health_pb2

from services.mesh.table import SERVICES
from tests.edge.conftest import RunningEdge, StartEdge
from tests.edge.stub import FIRST_FRAME, LAST_FRAME, Stub, serve
from tests.fakes.relay import Process
from tests.patience import PATIENCE
from tests.processes import until

CALLS = 24
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class Away(Stub):
    """Says to each call that it cannot be done right now."""

    async def GetExecution(self, request: Any, context: Any) -> Any:
        self.calls.append("GetExecution")
        await context.abort(grpc.StatusCode.UNAVAILABLE, "The store does not answer.")

    async def StartExecution(self, request: Any, context: Any) -> Any:
        self.calls.append("StartExecution")
        await context.abort(grpc.StatusCode.UNAVAILABLE, "The store does not answer.")


@dataclass
class Pair:
    """Two processes behind one Envoy."""

    one: Stub
    other: Stub
    process: Process
    """The first one, which can be killed."""
    edge: RunningEdge
    client: httpx.AsyncClient

    @property
    def held(self) -> int:
        return self.one.held + self.other.held

    async def until_left_out(self, count: int) -> None:
        """Wait until Envoy holds so many processes for unable to serve."""
        async with httpx.AsyncClient(base_url=self.edge.admin_url) as admin:

            async def left_out() -> int:
                clusters = (await admin.get("/clusters", params={"format": "json"})).json()
                return sum(
                    "failed_active_health_check" in host["health_status"]
                    for cluster in clusters["cluster_statuses"]
                    if cluster["name"] == "execution"
                    for host in cluster.get("host_statuses", ())
                )

            async with asyncio.timeout(PATIENCE):
                while await left_out() != count:
                    await asyncio.sleep(0.05)

    def go_on(self) -> None:
        self.one.last_words.set()
        self.other.last_words.set()


@pytest_asyncio.fixture
async def new_pair(start_edge: StartEdge) -> AsyncIterator[Callable[..., Any]]:
    async with AsyncExitStack() as stack:

        async def make(one: Stub | None = None) -> Pair:
            one, other = one or Stub(), Stub()
            ports = [await stack.enter_async_context(serve(stub)) for stub in (one, other)]
            process = Process(ports[0])
            stack.callback(process.kill)
            endpoints = [("127.0.0.1", await process.start()), ("127.0.0.1", ports[1])]
            edge = await start_edge(SERVICES, {"execution": endpoints})
            client = await stack.enter_async_context(
                httpx.AsyncClient(base_url=edge.url, timeout=PATIENCE, trust_env=False)
            )
            return Pair(one, other, process, edge, client)

        yield make


@pytest_asyncio.fixture
async def pair(new_pair: Callable[..., Any]) -> Pair:
    made: Pair = await new_pair()
    return made


async def test_what_changes_nothing_is_answered_by_the_other_when_one_is_killed(
    pair: Pair,
) -> None:
    calls = [asyncio.create_task(pair.client.get("/api/executions/held")) for _ in range(CALLS)]
    await until(lambda: pair.held == CALLS, PATIENCE)
    assert pair.one.held > 0

    pair.process.kill()
    await until(lambda: pair.other.held == CALLS, PATIENCE)
    pair.go_on()

    assert {(await call).status_code for call in calls} == {200}


async def test_what_changes_something_never_reaches_two(pair: Pair) -> None:
    calls = [
        asyncio.create_task(pair.client.post("/execute", json={"input": "Hi"}))
        for _ in range(CALLS)
    ]
    await until(lambda: pair.held == CALLS, PATIENCE)
    lost = pair.one.held
    assert lost > 0

    pair.process.kill()
    await until(lambda: sum(call.done() for call in calls) == lost, PATIENCE)
    pair.go_on()

    statuses = [(await call).status_code for call in calls]
    assert sorted(statuses) == [200] * (CALLS - lost) + [503] * lost
    assert len(pair.one.calls) + len(pair.other.calls) == CALLS


async def test_unavailable_is_asked_of_the_other_where_nothing_changes(
    new_pair: Callable[..., Any],
) -> None:
    pair: Pair = await new_pair(Away())

    read = [await pair.client.get("/api/executions/one") for _ in range(CALLS)]
    assert {answer.status_code for answer in read} == {200}
    assert "GetExecution" in pair.one.calls

    pair.one.calls.clear()
    pair.other.calls.clear()
    started = [
        await pair.client.post("/api/executions", json={"input": "Hi"}) for _ in range(CALLS)
    ]
    assert {answer.status_code for answer in started} == {200, 503}
    assert len(pair.one.calls) + len(pair.other.calls) == CALLS


async def test_one_that_is_about_to_end_gets_no_new_calls_and_keeps_its_streams(
    pair: Pair,
) -> None:
    watches = [
        asyncio.create_task(pair.client.get("/api/executions/one:watch")) for _ in range(CALLS)
    ]
    await until(lambda: pair.held == CALLS, PATIENCE)
    assert pair.one.held > 0

    await pair.one.health.set("", NOT_SERVING)
    await pair.until_left_out(1)
    for _ in range(CALLS):
        assert (await pair.client.get("/api/executions/one")).status_code == 200
    assert (len(pair.one.calls), len(pair.other.calls)) == (0, CALLS)

    pair.go_on()
    assert {(await watch).content for watch in watches} == {FIRST_FRAME + LAST_FRAME}

    await pair.one.health.set("", SERVING)
    await pair.until_left_out(0)
    for _ in range(CALLS):
        await pair.client.get("/api/executions/one")
    assert pair.one.calls


async def test_when_none_says_that_it_serves_all_are_tried(pair: Pair) -> None:
    for stub in (pair.one, pair.other):
        await stub.health.set("", NOT_SERVING)
    await pair.until_left_out(2)

    for _ in range(CALLS):
        assert (await pair.client.get("/api/executions/one")).status_code == 200
    assert pair.one.calls
    assert pair.other.calls
