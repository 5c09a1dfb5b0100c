"""What an operator does with grpcurl, through Envoy."""

from __future__ import annotations

import asyncio
import json

import pytest

from services.mesh.table import SERVICES
from tests.conftest import grpcurl
from tests.mesh.started import Mesh

pytestmark = pytest.mark.skipif(
    grpcurl() is None, reason="grpcurl is not there: `make tools` builds it where Go is"
)


async def ask(mesh: Mesh, *arguments: str) -> tuple[int, str]:
    """Run grpcurl; answers its exit status and all it printed."""
    process = await asyncio.create_subprocess_exec(
        grpcurl() or "",
        "-plaintext",
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode()


async def test_grpcurl_finds_calls_and_streams(mesh: Mesh) -> None:
    _, services = await ask(mesh, mesh.address, "list")
    described, text = await ask(
        mesh, mesh.address, "describe", "conductor.execution.v1.ExecutionService"
    )
    status, streamed = await ask(
        mesh,
        "-d",
        json.dumps({"input": "Hello"}),
        mesh.address,
        "conductor.execution.v1.ExecutionService/RunExecution",
    )
    refused, error = await ask(
        mesh,
        "-d",
        json.dumps({"input": "Hello", "model": "nope"}),
        mesh.address,
        "conductor.execution.v1.ExecutionService/StartExecution",
    )

    hosted = {name for service in SERVICES for name in service.rpc_services}
    assert {*hosted, "grpc.health.v1.Health"} <= set(services.split())
    assert described == 0
    assert "rpc WatchExecution" in text
    for name in hosted:
        assert (await ask(mesh, mesh.address, "describe", name))[0] == 0
    assert status == 0
    assert '"job_started"' in streamed or '"jobStarted"' in streamed
    assert '"result"' in streamed
    assert refused != 0
    assert "NotFound" in error
    assert "MODEL_NOT_FOUND" in error
