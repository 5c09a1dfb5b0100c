"""One request through a whole mesh, as a collector sees it."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import pytest

from tests.fakes.collector import collecting
from tests.mesh.started import Mesh

TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
STARTED = "conductor.gateway.v1.GatewayService/StreamExecute"
RESOLVED = "conductor.content.v1.AgentService/ResolveAgent"
RUN = "invoke_agent default"

EDGES = {
    ("conductor-edge", f"/{STARTED}", "the caller"),
    ("conductor-execution", STARTED, f"/{STARTED}"),
    ("conductor-execution", RESOLVED, STARTED),
    ("conductor-content", RESOLVED, RESOLVED),
    ("conductor-execution", "write executions", STARTED),
    ("conductor-execution", "write audit_records", STARTED),
    ("conductor-execution", RUN, STARTED),
    ("conductor-execution", "write events", RUN),
    ("conductor-execution", "chat mock", RUN),
}
"""Every span of a job: who sends it, its name, and what it belongs to."""


@pytest.mark.timeout(120)
async def test_a_job_is_one_trace_from_the_edge_to_the_model(
    new_mesh: Callable[..., Mesh], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
    async with collecting() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", collector.endpoint)
        mesh = new_mesh()
        await mesh.start()
        async with httpx.AsyncClient(base_url=mesh.url, trust_env=False) as client:
            answer = await client.post(
                "/api/v1/stream-execute",
                json={"input": "Hello"},
                headers={"traceparent": f"00-{TRACE}-{CALLER}-01"},
            )
            job_id = answer.json()["job_id"]
            # Which is another trace.
            await client.get(f"/api/v1/stream/{job_id}")
        await collector.until(lambda: {RUN, f"/{STARTED}"} <= {one.name for one in collector.spans})
        await mesh.stop()
    spans = [one for one in collector.spans if one.trace_id == TRACE]
    names = {one.span_id: one.name for one in spans} | {CALLER: "the caller"}
    assert {(one.service, one.name, names[one.parent_id]) for one in spans} == EDGES
    (run,) = (one for one in spans if one.name == RUN)
    assert run.attributes["conductor.execution.id"] == job_id
