"""Callers that speak TLS to Envoy, and servers that Envoy speaks it to."""

from __future__ import annotations

import ssl
from pathlib import Path

import grpc
import httpx
import pytest

from conductor.execution.v1 import execution_service_pb2 as pb
from conductor.execution.v1.execution_service_pb2_grpc import ExecutionServiceStub
from services.mesh.clusters import Remote
from services.mesh.table import SERVICES
from services.mesh.tracing import Export
from tests.edge.conftest import RunningEdge, StartEdge
from tests.fakes.certificates import Certificate, new_certificate
from tests.fakes.collector import collecting
from tests.patience import PATIENCE


@pytest.fixture
def certificate(tmp_path: Path) -> Certificate:
    return new_certificate(tmp_path)


@pytest.fixture
async def edge(start_edge: StartEdge, upstream: int, certificate: Certificate) -> RunningEdge:
    return await start_edge(
        SERVICES,
        {"execution": [("127.0.0.1", upstream)]},
        certificate=(certificate.chain, certificate.key),
    )


async def test_rest_and_grpc_are_spoken_over_tls(
    edge: RunningEdge, certificate: Certificate
) -> None:
    trust = ssl.create_default_context(cafile=str(certificate.chain))
    async with httpx.AsyncClient(
        base_url=f"https://{edge.target}", verify=trust, timeout=PATIENCE, trust_env=False
    ) as client:
        answer = await client.get("/api/executions/one")
    async with grpc.aio.secure_channel(
        edge.target, grpc.ssl_channel_credentials(certificate.chain.read_bytes())
    ) as channel:
        execution = await ExecutionServiceStub(channel).GetExecution(
            pb.GetExecutionRequest(execution_id="two")
        )

    assert answer.json()["id"] == "one"
    assert answer.json()["metadata"]["x-forwarded-proto"] == "https"
    assert execution.id == "two"


async def test_plain_text_is_not_understood(edge: RunningEdge) -> None:
    async with httpx.AsyncClient(base_url=edge.url, trust_env=False) as client:
        with pytest.raises(httpx.TransportError):
            await client.get("/api/executions/one")


@pytest.mark.parametrize("known", [True, False])
async def test_spans_go_only_to_a_collector_whose_certificate_is_trusted(
    start_edge: StartEdge, upstream: int, tmp_path: Path, certificate: Certificate, known: bool
) -> None:
    stranger = tmp_path / "stranger"
    stranger.mkdir()
    trusted = certificate if known else new_certificate(stranger)
    async with collecting(certificate) as collector:
        export = Export(
            Remote.from_url(f"https://{collector.address}", authorities=str(trusted.chain))
        )
        edge = await start_edge(SERVICES, {"execution": [("127.0.0.1", upstream)]}, export=export)
        async with httpx.AsyncClient(base_url=edge.url, trust_env=False) as client:
            await client.get("/api/executions/one")
        if known:
            await collector.until(lambda: collector.spans)
        else:
            await edge.counts("cluster.otel-collector.ssl.fail_verify_error")

    assert bool(collector.spans) is known
