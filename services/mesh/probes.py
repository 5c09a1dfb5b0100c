"""Questions to a process: do you serve?"""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

_TIMEOUT = 2.0


async def listens(host: str, port: int) -> bool:
    """Whether somebody accepts connections."""
    try:
        async with asyncio.timeout(_TIMEOUT):
            _, writer = await asyncio.open_connection(host, port)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True


async def serves_grpc(host: str, port: int) -> bool:
    """Whether the health service of a gRPC server answers SERVING for the server as a whole."""
    return bool(await _health(host, port) == health_pb2.HealthCheckResponse.SERVING)


async def answers_grpc(host: str, port: int) -> bool:
    """Whether the health service of a gRPC server answers anything."""
    return await _health(host, port) is not None


async def _health(host: str, port: int) -> int | None:
    # A refused channel waits a second before its next try, a refused socket costs nothing.
    if not await listens(host, port):
        return None
    async with grpc.aio.insecure_channel(
        f"{host}:{port}", options=[("grpc.enable_http_proxy", 0)]
    ) as channel:
        try:
            answer: health_pb2.HealthCheckResponse = await health_pb2_grpc.HealthStub(
                channel
            ).Check(health_pb2.HealthCheckRequest(), timeout=_TIMEOUT)
        except grpc.aio.AioRpcError:
            return None
    return int(answer.status)


@dataclass(frozen=True)
class Answer:
    """An HTTP answer."""

    status: int
    """The status; 0 when there was no answer."""
    body: str


def trusting(certificate: Path) -> ssl.SSLContext:
    """Trust the server with this certificate and no other, whatever names it has."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.load_verify_locations(certificate)
    return context


async def http(
    method: str,
    host: str,
    port: int,
    path: str,
    timeout: float = _TIMEOUT,
    tls: ssl.SSLContext | None = None,
) -> Answer:
    """Make one HTTP request without a body."""
    # A name that Envoy serves on whatever address it listens.
    request = f"{method} {path} HTTP/1.1\r\nhost: localhost:{port}\r\nconnection: close\r\n"
    if method != "GET":
        request += "content-length: 0\r\n"
    try:
        async with asyncio.timeout(timeout):
            reader, writer = await asyncio.open_connection(host, port, ssl=tls)
            try:
                writer.write(f"{request}\r\n".encode())
                head, _, body = (
                    (await reader.read()).decode("utf-8", "replace").partition("\r\n\r\n")
                )
            finally:
                writer.close()
        return Answer(int(head.split()[1]), body)
    except (OSError, TimeoutError, ValueError, IndexError) as error:
        return Answer(0, str(error) or type(error).__name__)
