"""The health of a container is asked by a command."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator

import grpc
import pytest
import pytest_asyncio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from services.mesh.healthy import healthy


@pytest_asyncio.fixture
async def server() -> AsyncIterator[tuple[health.aio.HealthServicer, int]]:
    """A gRPC server that says how it is, and its port."""
    servicer = health.aio.HealthServicer()
    server = grpc.aio.server()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield servicer, port
    await server.stop(None)


@pytest_asyncio.fixture
async def page() -> AsyncIterator[int]:
    """An HTTP server that has only `/ready`."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = await reader.readline()
        status = b"200 OK" if line.startswith(b"GET /ready ") else b"404 Not Found"
        writer.write(b"HTTP/1.1 " + status + b"\r\ncontent-length: 0\r\n\r\n")
        writer.close()

    listening = await asyncio.start_server(answer, "127.0.0.1", 0)
    yield listening.sockets[0].getsockname()[1]
    listening.close()


async def test_a_server_is_healthy_while_it_says_so(
    server: tuple[health.aio.HealthServicer, int],
) -> None:
    servicer, port = server
    await servicer.set("", health_pb2.HealthCheckResponse.SERVING)
    assert await healthy(f"grpc://127.0.0.1:{port}")

    await servicer.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
    assert not await healthy(f"grpc://127.0.0.1:{port}")


async def test_a_page_is_healthy_when_it_is_there(page: int) -> None:
    assert await healthy(f"http://127.0.0.1:{page}/ready")
    assert not await healthy(f"http://127.0.0.1:{page}/other")


async def test_the_command_ends_with_a_status_that_says_it(
    server: tuple[health.aio.HealthServicer, int],
) -> None:
    servicer, port = server
    command = [sys.executable, "-P", "-m", "services.mesh.healthy", f"grpc://127.0.0.1:{port}"]
    for said, status in ((health_pb2.HealthCheckResponse.SERVING, 0), (2, 1)):
        await servicer.set("", said)
        asking = await asyncio.create_subprocess_exec(*command)
        assert await asking.wait() == status


@pytest.mark.parametrize("url", ["127.0.0.1:7000", "grpc://127.0.0.1", "tcp://127.0.0.1:7000"])
async def test_what_cannot_be_asked_is_an_error_and_not_ill(url: str) -> None:
    with pytest.raises(ValueError, match="127"):
        await healthy(url)
