"""Whether a process serves, as grpc.health.v1 tells it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable

import grpc
from grpc_health.v1.health_pb2 import (
    HealthCheckRequest,
    HealthCheckResponse,
    HealthListRequest,
    HealthListResponse,
)

from services.kit.interceptor import Context


class HealthServicer:
    """The health of a process: all its services serve, until it is about to end.

    The servicer that comes with grpc tells its watchers one after the other: one who reads nothing
    would keep the others, and the end of the process, waiting.

    Args:
        services: the full names of those it hosts.
    """

    def __init__(self, services: Iterable[str]) -> None:
        self._services = {"", *services}
        self._ending = asyncio.Event()
        self._closed = asyncio.Event()

    def end(self) -> None:
        """Say NOT_SERVING from now on."""
        self._ending.set()

    def close(self) -> None:
        """End what is watched."""
        self._closed.set()

    async def Check(self, request: HealthCheckRequest, context: Context) -> HealthCheckResponse:
        """Answer how it is now."""
        if request.service not in self._services:
            await context.abort(grpc.StatusCode.NOT_FOUND)
        return self._now()

    async def Watch(
        self, request: HealthCheckRequest, context: Context
    ) -> AsyncIterator[HealthCheckResponse]:
        """Answer how it is now, and that it ends."""
        if request.service not in self._services:
            yield HealthCheckResponse(status=HealthCheckResponse.SERVICE_UNKNOWN)
        else:
            yield self._now()
            if not self._ending.is_set():
                await self._ending.wait()
                yield self._now()
        await self._closed.wait()

    async def List(self, request: HealthListRequest, context: Context) -> HealthListResponse:
        """Answer how it is now, for each service."""
        now = self._now()
        return HealthListResponse(statuses=dict.fromkeys(self._services, now))

    def _now(self) -> HealthCheckResponse:
        ending = self._ending.is_set()
        return HealthCheckResponse(
            status=HealthCheckResponse.NOT_SERVING if ending else HealthCheckResponse.SERVING
        )
