"""A process of a service that can be killed, in front of a stub that goes on."""

from __future__ import annotations

import asyncio
from contextlib import suppress


class Process:
    """A process of a service, as far as callers can tell: what is sent to it goes to the stub.

    Args:
        upstream: the port of the stub.
        away: for how many seconds whoever connects hears nothing, as if from afar.
    """

    def __init__(self, upstream: int, away: float = 0.0) -> None:
        self._upstream = upstream
        self._away = away
        self._ends: list[asyncio.WriteTransport] = []
        self._relays: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def start(self, port: int = 0) -> int:
        """Listen; gives the port."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", port)
        bound: int = self._server.sockets[0].getsockname()[1]
        return bound

    def kill(self) -> None:
        """Be gone with every connection, without a word."""
        if self._server is not None:
            self._server.close()
        for end in self._ends:
            end.abort()
        self._ends.clear()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(self._away)
        stub_reader, stub_writer = await asyncio.open_connection("127.0.0.1", self._upstream)
        self._ends += [writer.transport, stub_writer.transport]
        for source, sink in ((reader, stub_writer), (stub_reader, writer)):
            relay = asyncio.create_task(self._relay(source, sink))
            self._relays.add(relay)
            relay.add_done_callback(self._relays.discard)

    async def _relay(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await source.read(64 * 1024):
                sink.write(data)
                await sink.drain()
        sink.transport.abort()
