"""Server-sent events through Envoy: live, complete, and without a queue for who does not read."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import httpx_sse
import pytest

from tests.edge.conftest import RunningEdge
from tests.edge.stub import FIRST_FRAME, FRAME, FRAMES_OF_A_LONG_STREAM, LAST_FRAME, Stub
from tests.patience import PATIENCE

WATCHERS = 1_100
MIB = 1024 * 1024
LAST_CHUNK = b"\r\n0\r\n\r\n"


@pytest.mark.parametrize("path", ["/api/executions/one:watch", "/api/v1/stream/one"])
async def test_frames_come_one_by_one_as_they_are_sent(
    client: httpx.AsyncClient, stub: Stub, path: str
) -> None:
    async with client.stream("GET", path) as response:
        pieces = response.aiter_raw()
        assert response.headers["content-type"] == "text/event-stream"
        assert await anext(pieces) == FIRST_FRAME
        stub.last_words.set()
        assert b"".join([piece async for piece in pieces]) == LAST_FRAME


async def test_a_run_streams_to_who_posts_it(client: httpx.AsyncClient, stub: Stub) -> None:
    stub.last_words.set()

    async with httpx_sse.aconnect_sse(
        client, "POST", "/api/executions:run", json={"input": "Hi"}
    ) as source:
        events = [event async for event in source.aiter_sse() if event.data]

    assert [(event.id, event.json()) for event in events] == [("1", {"last": True})]


async def test_a_reader_who_leaves_is_noticed(client: httpx.AsyncClient, stub: Stub) -> None:
    async with client.stream("GET", "/api/executions/one:watch") as response:
        await anext(response.aiter_raw())

    async with asyncio.timeout(PATIENCE):
        await stub.left.wait()


async def test_a_thousand_watchers_are_served_by_one_process(edge: RunningEdge, stub: Stub) -> None:
    async def watch() -> bytes:
        async with _stream(edge, "/api/executions/one:watch") as reader:
            return await reader.read()

    watchers = [asyncio.create_task(watch()) for _ in range(WATCHERS)]
    async with asyncio.timeout(90):
        while stub.held < WATCHERS:
            await asyncio.sleep(0.05)
            assert not any(watcher.done() for watcher in watchers), "one was not served"
        stub.last_words.set()
        answers = await asyncio.gather(*watchers)

    complete = [answer for answer in answers if answer.endswith(LAST_CHUNK)]
    assert len([answer for answer in complete if LAST_FRAME in answer]) == WATCHERS


async def test_a_reader_that_pauses_gets_every_byte(edge: RunningEdge) -> None:
    async def read(connection: str) -> bytes:
        received = bytearray()
        async with _stream(edge, "/api/executions/long:watch", connection) as reader:
            # Towards the end too, where the service is done and Envoy holds what is left.
            for pause_at in (1_000_000, 16_000_000, *range(33_000_000, 40_000_000, 700_000)):
                while len(received) < pause_at:
                    received += await reader.read(64 * 1024)
                # The point of the test: nothing is read meanwhile.
                await asyncio.sleep(1.5)
            while not received.endswith(LAST_CHUNK):
                piece = await reader.read(64 * 1024)
                assert piece, f"cut after {len(received)} bytes"
                received += piece
        return bytes(received)

    async with asyncio.timeout(90):
        answers = await asyncio.gather(read("keep-alive"), read("close"))

    for answer in answers:
        _, _, body = answer.partition(b"\r\n\r\n")
        assert body.count(b"x") == FRAME.count(b"x") * FRAMES_OF_A_LONG_STREAM


async def test_readers_that_stop_reading_cost_little_and_hold_nobody_up(
    edge: RunningEdge, client: httpx.AsyncClient, stub: Stub
) -> None:
    readers = 500
    before = edge.memory()

    streams = [_stream(edge, "/api/executions/endless:watch") for _ in range(readers)]
    for stream in streams:
        await stream.__aenter__()
    try:
        await _until_nothing_is_sent(stub)
        sent, memory = stub.sent_bytes, edge.memory()
        response = await client.get("/api/executions/big")
    finally:
        for stream in streams:
            await stream.__aexit__(None, None, None)

    assert response.status_code == httpx.codes.OK
    assert (memory - before) / readers < 1 * MIB
    assert sent / readers < 8 * MIB


async def _until_nothing_is_sent(stub: Stub) -> None:
    """The stub's streams have stood still for two seconds."""
    async with asyncio.timeout(PATIENCE):
        sent = -1
        while sent != stub.sent_bytes:
            sent = stub.sent_bytes
            await asyncio.sleep(2)


@asynccontextmanager
async def _stream(
    edge: RunningEdge, path: str, connection: str = "close"
) -> AsyncIterator[asyncio.StreamReader]:
    """A connection that has asked for a stream, and takes no more of it than it reads."""
    host, port = edge.target.split(":")
    sock = socket.socket()
    sock.setblocking(False)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
    await asyncio.get_running_loop().sock_connect(sock, (host, int(port)))
    reader, writer = await asyncio.open_connection(sock=sock, limit=64 * 1024)
    writer.write(
        f"GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: {connection}\r\n\r\n".encode()
    )
    try:
        yield reader
    finally:
        writer.transport.abort()
