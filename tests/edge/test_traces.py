"""Envoy's spans as a collector gets them."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest_asyncio

from services.mesh.clusters import Remote
from services.mesh.table import SERVICES
from services.mesh.tracing import Export
from tests.edge.conftest import StartEdge
from tests.fakes.collector import Collector, collecting

TRACE = "0af7651916cd43dd8448eb211c80319c"
CALLER = "b7ad6b7169203331"
RPCS = "/conductor.execution.v1.ExecutionService"


@pytest_asyncio.fixture
async def collector() -> AsyncIterator[Collector]:
    async with collecting() as collector:
        yield collector


async def test_a_call_is_one_span_of_the_callers_trace_without_secrets(
    start_edge: StartEdge, upstream: int, collector: Collector
) -> None:
    endpoints = {"execution": [("127.0.0.1", upstream)]}
    export = Export(Remote.from_url(collector.endpoint), headers=(("x-team", "mesh"),))
    edge = await start_edge(SERVICES, endpoints, export=export)

    async with httpx.AsyncClient(base_url=edge.url, trust_env=False) as client:
        answer = await client.post(
            "/api/executions",
            json={"input": "one"},
            headers={
                "traceparent": f"00-{TRACE}-{CALLER}-01",
                "authorization": "secret",
                "x-api-key": "secret",
            },
        )
        await client.get("/api/executions?page_token=secret")
        await client.get("/api/v1/stream/missing?token=secret")
    await collector.until(lambda: len(collector.spans) == 3)

    started, listed, watched = collector.spans
    assert started.service == "conductor-edge"
    assert (started.trace_id, started.parent_id) == (TRACE, CALLER)
    assert started.name == f"{RPCS}/StartExecution"
    assert answer.json()["metadata"]["traceparent"] == f"00-{TRACE}-{started.span_id}-01"
    assert started.attributes["http.url"] == "http://127.0.0.1/api/executions"
    assert listed.trace_id not in {TRACE, watched.trace_id}
    assert listed.parent_id == ""
    assert "secret" not in repr(collector.spans)
    assert collector.metadata[0]["x-team"] == "mesh"


async def test_what_the_sampler_leaves_out_goes_on_unsampled(
    start_edge: StartEdge, upstream: int, collector: Collector
) -> None:
    endpoints = {"execution": [("127.0.0.1", upstream)]}
    export = Export(Remote.from_url(collector.endpoint), ratio=0.0, by_parent=False)
    edge = await start_edge(SERVICES, endpoints, export=export)

    async with httpx.AsyncClient(base_url=edge.url, trust_env=False) as client:
        answer = await client.get(
            "/api/executions/one", headers={"traceparent": f"00-{TRACE}-{CALLER}-01"}
        )

    _, trace, _, flags = answer.json()["metadata"]["traceparent"].split("-")
    assert (trace, flags) == (TRACE, "00")
