"""The bootstrap of every service: settings, logs, server, health, reflection, channelz, stop."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from typing import Any, Self, TypeVar

import grpc
import uvloop
from google.protobuf.internal import api_implementation
from grpc_channelz.v1 import channelz, channelz_pb2_grpc
from grpc_health.v1 import health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2_grpc

from services.kit import logs, reflection
from services.kit.audit import Auditor
from services.kit.calls import Calls
from services.kit.errors import DomainError
from services.kit.guard import Guard
from services.kit.health import HealthServicer
from services.kit.interceptor import Interceptor
from services.kit.settings import Settings, SettingsError, load
from services.kit.storage.ports import UnreadableStoreError
from services.kit.tasks import ended
from services.kit.telemetry import SILENT, Telemetry, sending

_LOG = logging.getLogger(__name__)
_FLUSH_LOG_SECONDS = 0.25

PENDING = (
    # Of more calls than these that nobody has begun to serve some are answered CANCELLED, which is 499 to
    # a browser, whose EventSource does not try again. The default is 1,000: a burst of watchers.
    ("grpc.server.max_pending_requests", 20_000),
    ("grpc.server.max_pending_requests_hard_limit", 30_000),
)
"""How many calls a server lets wait."""

OPTIONS = (
    *PENDING,
    # A port that two processes share splits traffic in silence.
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", 4 * 1024 * 1024 + 64 * 1024),
    # More than the 16 KiB of headers that Envoy lets through.
    ("grpc.max_metadata_size", 64 * 1024),
    ("grpc.absolute_max_metadata_size", 64 * 1024),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
)

S = TypeVar("S", bound=Settings)

Hosted = tuple[str, Callable[[grpc.aio.Server], None]]
"""The full name of a proto service, and the way to register it."""


@dataclass(frozen=True, slots=True)
class App:
    """A composed service, ready to be served."""

    address: str
    """`host:port`; port 0 is any free one."""
    services: Sequence[Hosted]
    """What it hosts."""
    background: Sequence[Callable[[], Coroutine[Any, Any, None]]]
    """What runs beside the calls. One that fails ends the process, so that it is started anew."""
    drain: Callable[[], Awaitable[None]]
    """Hands running work back and ends open streams; called once, before the server stops."""
    guard: Guard | None = None
    """Judges callers; None lets everyone in, as `ANYONE`."""
    auditor: Auditor | None = None
    """Keeps records of calls that change something."""


Compose = Callable[[S, AsyncExitStack, Telemetry], Awaitable[App]]
"""Puts a service together from its settings; what it opens is closed by the stack."""


@dataclass(frozen=True, slots=True)
class LameDuck:
    """How long a process serves on that has said NOT_SERVING, so that no call finds it gone."""

    seconds: float
    at_once: asyncio.Event
    """Ends it early."""

    async def over(self) -> None:
        """Wait for its end."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self.seconds):
                await self.at_once.wait()


def main(settings_type: type[S], compose: Compose[S], name: str) -> None:
    """Run a service until SIGTERM or SIGINT.

    SIGTERM lets it serve on for `drain_seconds` after it said that it ends; SIGINT does not.

    A start that cannot succeed ends the process with status 1 and one sentence on standard error.

    Args:
        name: of the service, in what it tells of itself.
    """
    # What is said to agents and by them is nobody else's on this machine.
    os.umask(0o077)
    try:
        settings = load(settings_type)
        if api_implementation.Type() != "upb":
            raise SettingsError(
                "protobuf runs without its C library (upb); unset "
                "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION."
            )
        logs.configure(settings.log_level)
        uvloop.run(_run(settings, compose, name))
    except (SettingsError, UnreadableStoreError, DomainError) as error:
        sys.exit(str(error))


async def _run(settings: S, compose: Compose[S], name: str) -> None:
    stop, at_once = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)

    def interrupted() -> None:
        # Also after SIGTERM: it ends the wait for those who send calls.
        at_once.set()
        stop.set()

    loop.add_signal_handler(signal.SIGINT, interrupted)
    # Telemetry comes first, so that it ends last and tells of the end too.
    async with sending(name) as telemetry, AsyncExitStack() as stack:
        app = await compose(settings, stack, telemetry)
        lame_duck = LameDuck(settings.drain_seconds, at_once)
        async with serving(
            app, settings.shutdown_seconds, telemetry, lame_duck=lame_duck
        ) as served:
            await served.until(stop)


class serving:  # noqa: N801 used as a context manager, like a function
    """Serves an app while the block runs, then stops gracefully.

    Args:
        app: what to serve.
        grace_seconds: how long open calls may take to end.
        telemetry: tells of the calls.
        lame_duck: what comes between NOT_SERVING and the end; None for nothing.

    Attributes:
        port: the port it listens on.
    """

    def __init__(
        self,
        app: App,
        grace_seconds: float,
        telemetry: Telemetry = SILENT,
        *,
        lame_duck: LameDuck | None = None,
    ) -> None:
        self._app = app
        self._grace_seconds = grace_seconds
        self._lame_duck = lame_duck
        self._call_log = logs.CallLog()
        self._calls = Calls(self._call_log, telemetry)
        self._server = grpc.aio.server(options=OPTIONS)
        self._health = HealthServicer(name for name, _ in app.services)
        self.port = 0

    async def __aenter__(self) -> Self:
        """Bind, serve, and say SERVING."""
        names = [name for name, _ in self._app.services]
        registration = Interceptor(self._calls, self._app.guard, self._app.auditor).around(
            self._server
        )
        for _, register in self._app.services:
            register(registration)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, registration)
        channelz_pb2_grpc.add_ChannelzServicer_to_server(
            channelz.aio.ChannelzServicer(), registration
        )
        reflection_pb2_grpc.add_ServerReflectionServicer_to_server(
            reflection.servicer(), registration
        )
        try:
            self.port = self._server.add_insecure_port(self._app.address)
        except RuntimeError as error:
            raise SettingsError(
                f"The address {self._app.address} cannot be listened on; is it taken?"
            ) from error
        await self._server.start()
        self._background = [asyncio.create_task(work()) for work in self._app.background]
        self._flushing = asyncio.create_task(self._flush_log())
        # What lives now lives as long as the process; the collector need not look at it again.
        gc.collect()
        gc.freeze()
        _LOG.info("serving", extra={"facts": {"port": self.port, "services": names}})
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Say NOT_SERVING, serve on for a while, hand work back, end streams, let calls end, close."""
        self._health.end()
        if self._lame_duck is not None and kind is None:
            await self._lame_duck.over()
        for task in self._background:
            await ended(task)
        await self._app.drain()
        self._health.close()
        await self._server.stop(self._grace_seconds)
        await ended(self._flushing)
        self._call_log.flush()
        _LOG.info("stopped")

    async def until(self, stop: asyncio.Event) -> None:
        """Wait for the order to stop.

        Raises:
            Exception: what a task in the background failed with.
        """
        stopping = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait([stopping, *self._background], return_when=asyncio.FIRST_COMPLETED)
        finally:
            await ended(stopping)
        for task in self._background:
            if task.done():
                task.result()

    async def _flush_log(self) -> None:
        while True:
            await asyncio.sleep(_FLUSH_LOG_SECONDS)
            self._call_log.flush()
