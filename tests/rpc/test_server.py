"""What every service has: health, reflection, faults without a text, a clean start and stop."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import struct
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.empty_pb2 import Empty
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from conductor.errors.v1.reason_pb2 import Reason
from conductor.execution.v1 import execution_service_pb2 as pb
from conductor.execution.v1.execution_pb2 import Execution
from conductor.execution.v1.execution_service_pb2_grpc import (
    ExecutionServiceServicer,
    ExecutionServiceStub,
    add_ExecutionServiceServicer_to_server,
)
from conductor.gateway.v1 import gateway_service_pb2 as gateway_pb
from services.execution.app import compose
from services.execution.settings import ExecutionSettings
from services.kit.errors import DomainError, Resource
from services.kit.server import App, serving
from services.kit.settings import SettingsError
from services.kit.storage.ports import UnreadableStoreError
from services.kit.storage.sqlite import SqliteStore
from tests.fakes.content import AWAY
from tests.patience import PATIENCE
from tests.rpc.serving import Mesh, refusal, served, stream_refusal

TRACE = "0af7651916cd43dd8448eb211c80319c"
EXECUTION = "conductor.execution.v1.ExecutionService"
GATEWAY = "conductor.gateway.v1.GatewayService"
ELSEWHERE = "conductor.content.v1.AgentService"


@pytest.mark.parametrize("service", ["", EXECUTION, GATEWAY])
async def test_every_service_says_that_it_is_serving(mesh: Mesh, service: str) -> None:
    stub = health_pb2_grpc.HealthStub(mesh.channel)
    answer = await stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=PATIENCE)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


async def test_a_service_that_is_not_here_is_not_found(mesh: Mesh) -> None:
    stub = health_pb2_grpc.HealthStub(mesh.channel)
    refused = await refusal(stub.Check(health_pb2.HealthCheckRequest(service="other")))
    assert refused.code == grpc.StatusCode.NOT_FOUND


async def test_health_is_watched_to_the_end(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        mesh = await stack.enter_async_context(served(tmp_path))
        stub = health_pb2_grpc.HealthStub(mesh.channel)
        here = stub.Watch(health_pb2.HealthCheckRequest(service=EXECUTION), timeout=PATIENCE)
        assert (await here.read()).status == health_pb2.HealthCheckResponse.SERVING
        other = stub.Watch(health_pb2.HealthCheckRequest(service="other"), timeout=PATIENCE)
        assert (await other.read()).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
        other.cancel()
        stopping = asyncio.create_task(stack.aclose())
        assert (await here.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        assert await here.read() == grpc.aio.EOF
        await stopping


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """A frame of HTTP/2."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


async def test_a_watcher_who_reads_nothing_keeps_nobody_waiting(tmp_path: Path) -> None:
    headers = {
        ":method": "POST",
        ":scheme": "http",
        ":authority": "mesh",
        ":path": "/grpc.health.v1.Health/Watch",
        "content-type": "application/grpc",
        "te": "trailers",
    }
    packed = b"".join(
        b"\0" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()
        for name, value in headers.items()
    )
    no_window = frame(4, 0, 0, struct.pack(">HI", 4, 0))
    asking = frame(1, 4, 1, packed) + frame(0, 1, 1, b"\0" * 5)
    async with AsyncExitStack() as stack:
        mesh = await stack.enter_async_context(served(tmp_path))
        reader, writer = await asyncio.open_connection("127.0.0.1", mesh.port)
        writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + no_window + asking)
        async with asyncio.timeout(PATIENCE):
            kind = 0
            while kind != 1:
                # The headers of the answer; no data may follow them.
                length, kind, _ = struct.unpack(">IBB", b"\0" + await reader.readexactly(5))
                await reader.readexactly(4 + length)
        stub = health_pb2_grpc.HealthStub(mesh.channel)
        watch = stub.Watch(health_pb2.HealthCheckRequest(), timeout=PATIENCE)
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        stopping = asyncio.create_task(stack.aclose())
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        assert await watch.read() == grpc.aio.EOF
        writer.close()
        await stopping


async def test_health_of_every_service_is_listed(mesh: Mesh) -> None:
    stub = health_pb2_grpc.HealthStub(mesh.channel)
    answer = await stub.List(health_pb2.HealthListRequest(), timeout=PATIENCE)
    assert {"", EXECUTION, GATEWAY} <= answer.statuses.keys()
    assert answer.statuses[""].status == health_pb2.HealthCheckResponse.SERVING


async def test_reflection_names_every_service_of_the_mesh_and_knows_its_messages(
    mesh: Mesh,
) -> None:
    stub = reflection_pb2_grpc.ServerReflectionStub(mesh.channel)
    requests = [
        reflection_pb2.ServerReflectionRequest(list_services=""),
        *(
            reflection_pb2.ServerReflectionRequest(file_containing_symbol=symbol)
            for symbol in (EXECUTION, ELSEWHERE, "grpc.channelz.v1.Channelz")
        ),
    ]
    listed, *described = [
        answer async for answer in stub.ServerReflectionInfo(iter(requests), timeout=PATIENCE)
    ]
    names = {service.name for service in listed.list_services_response.service}
    assert {EXECUTION, GATEWAY, ELSEWHERE, "grpc.health.v1.Health"} <= names
    for one in described:
        assert one.file_descriptor_response.file_descriptor_proto


async def test_a_method_that_is_not_there_is_unimplemented(mesh: Mesh) -> None:
    for method in (f"/{EXECUTION}/NoSuch", "/no.such.Service/Method"):
        refused = await refusal(mesh.raw(method, b""))
        assert refused.code == grpc.StatusCode.UNIMPLEMENTED


class Faulty(ExecutionServiceServicer):
    """Fails in every way a handler can."""

    async def GetExecution(self, request: object, context: object) -> Execution:
        raise RuntimeError("the password is hunter2")

    async def WatchExecution(
        self, request: object, context: object
    ) -> AsyncIterator[pb.WatchExecutionResponse]:
        yield pb.WatchExecutionResponse()
        raise KeyError("the password is hunter2")

    async def DeleteExecution(self, request: object, context: object) -> Empty:
        raise DomainError(
            Reason.REASON_STORE_UNAVAILABLE,
            "π " * 5000,
            resources=[Resource("execution", "x" * 10_000)] * 30,
            retry_after=1.2,
        )


# Its other methods are those of the base, whatever the types say: they are not there.
FAULTY: Any = Faulty


@pytest.fixture
async def faulty() -> AsyncIterator[ExecutionServiceStub]:
    async def drain() -> None:
        pass

    app = App(
        "127.0.0.1:0",
        [(EXECUTION, lambda server: add_ExecutionServiceServicer_to_server(FAULTY(), server))],
        background=[],
        drain=drain,
    )
    async with (
        serving(app, grace_seconds=1) as server,
        grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        yield ExecutionServiceStub(channel)


async def test_an_unexpected_fault_tells_its_trace_and_nothing_else(
    faulty: ExecutionServiceStub, caplog: pytest.LogCaptureFixture
) -> None:
    metadata = [("traceparent", f"00-{TRACE}-b7ad6b7169203331-01")]
    request = pb.GetExecutionRequest(execution_id="x")
    watch = pb.WatchExecutionRequest(execution_id="x")
    for refused in (
        await refusal(faulty.GetExecution(request, metadata=metadata, timeout=PATIENCE)),
        await stream_refusal(faulty.WatchExecution(watch, metadata=metadata, timeout=PATIENCE)),
    ):
        assert refused.kind == (grpc.StatusCode.INTERNAL, "INTERNAL")
        assert TRACE in refused.message
        assert refused.metadata == {"trace_id": TRACE}
        assert "hunter2" not in refused.message
    faults = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(faults) == 2
    assert "hunter2" in caplog.text


async def test_a_large_error_arrives_within_its_limit(faulty: ExecutionServiceStub) -> None:
    request = pb.DeleteExecutionRequest(execution_id="x")
    refused = await refusal(faulty.DeleteExecution(request, timeout=PATIENCE))
    assert refused.kind == (grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE")
    assert refused.size <= 4096
    assert refused.retry_after == 1.2
    # Whole seconds, and never too early.
    assert refused.retry_header == "2"
    assert refused.resources


async def test_a_mesh_without_its_store_is_unhealthy_and_says_which_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stores: list[SqliteStore] = []
    open_ = SqliteStore.open

    async def remembered(*args: object) -> SqliteStore:
        stores.append(await open_(*args))  # type: ignore[arg-type]  # passed on as they came
        return stores[-1]

    monkeypatch.setattr(SqliteStore, "open", remembered)
    async with served(tmp_path) as mesh:
        await stores[0].close()
        refused = await refusal(mesh.gateway.GetHealth(gateway_pb.GetHealthRequest()))
        assert refused.kind == (grpc.StatusCode.UNAVAILABLE, "UNHEALTHY")
        assert refused.resources == [("part", "store")]
        assert refused.retry_after is not None
        refused = await refusal(
            mesh.executions.StartExecution(pb.StartExecutionRequest(input="Hello"))
        )
        assert refused.kind == (grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE")
        assert refused.retry_after is not None


async def test_a_taken_port_is_a_sentence(mesh: Mesh, tmp_path: Path) -> None:
    settings = ExecutionSettings(
        data_dir=tmp_path / "other", execution_address=f"127.0.0.1:{mesh.port}", peers=AWAY
    )
    async with AsyncExitStack() as stack:
        app = await compose(settings, stack)
        with pytest.raises(SettingsError, match=f"127.0.0.1:{mesh.port}"):
            await stack.enter_async_context(serving(app, grace_seconds=1))


async def test_a_data_directory_that_cannot_be_used_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a directory")
    async with AsyncExitStack() as stack:
        with pytest.raises(SettingsError, match="CONDUCTOR_DATA_DIR"):
            await compose(ExecutionSettings(data_dir=tmp_path / "file"), stack)


async def test_data_of_a_newer_release_is_not_touched(tmp_path: Path) -> None:
    async with served(tmp_path) as mesh:
        execution = await mesh.start()
    path = tmp_path / "execution" / "execution.db"
    newer = sqlite3.connect(path)
    newer.execute("UPDATE schema_versions SET version=99 WHERE name='executions'")
    newer.commit()
    newer.close()
    async with AsyncExitStack() as stack:
        with pytest.raises(UnreadableStoreError, match="newer release"):
            await compose(ExecutionSettings(data_dir=tmp_path), stack)
    older = sqlite3.connect(path)
    older.execute("UPDATE schema_versions SET version=1 WHERE name='executions'")
    older.commit()
    older.close()
    async with served(tmp_path) as mesh:
        assert (await mesh.get(execution.id)).id == execution.id


async def test_a_file_that_is_no_store_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "execution").mkdir()
    (tmp_path / "execution" / "execution.db").write_bytes(b"this is not a database at all" * 100)
    async with AsyncExitStack() as stack:
        with pytest.raises(UnreadableStoreError, match="cannot be read"):
            await compose(ExecutionSettings(data_dir=tmp_path), stack)
