"""A collector that takes what telemetry is sent and forgets it: `python -m tests.bench.collector PORT`."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import uvloop

_EMPTY = b""
"""The answer that everything was taken, of traces and of metrics."""


class _Everything(grpc.GenericRpcHandler):
    """Answers every rpc without reading what it was sent."""

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        del handler_call_details
        take: Callable[[bytes, Any], Awaitable[bytes]] = _take
        return grpc.unary_unary_rpc_method_handler(take)


async def _take(request: bytes, context: Any) -> bytes:
    del request, context
    return _EMPTY


async def _serve(port: int) -> None:
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers((_Everything(),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1])))
