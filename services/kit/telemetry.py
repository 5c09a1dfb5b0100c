"""Telemetry: metrics over OTLP, when OpenTelemetry's own variables ask for them.

Whatever is wrong with it, the service runs. Switched off it costs nothing: nothing of OpenTelemetry
is imported.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Protocol

from services.kit.settings import environment

_LOG = logging.getLogger(__name__)
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")

Attributes = Mapping[str, str]
Record = Callable[[float, Attributes], None]
"""Takes one value; returns at once and may be called from any thread."""
Reading = tuple[float, Attributes]


class Meter(Protocol):
    """Makes the instruments of a service. Names and units are those of docs/operations.md."""

    def counter(self, name: str, unit: str, description: str) -> Record:
        """Make a sum that only grows; what it returns adds to it."""
        ...

    def histogram(self, name: str, unit: str, description: str, bounds: Sequence[float]) -> Record:
        """Make a distribution; what it returns adds a value to it.

        Args:
            bounds: the upper bounds of its buckets, ascending.
        """
        ...

    def gauge(
        self, name: str, unit: str, description: str, read: Callable[[], Iterable[Reading]]
    ) -> None:
        """Make a value that is read whenever metrics are sent.

        Args:
            read: called in another thread, so that it may only look at what can be looked at there.
        """
        ...


@asynccontextmanager
async def metering(service: str) -> AsyncIterator[Meter | None]:
    """Send metrics while the block runs, and what is left within two seconds after it.

    Yields None when nothing asks for them, or what asks for them cannot be done.

    Args:
        service: the `service.name`, unless the environment has another.
    """
    if not _is_wanted():
        yield None
        return
    try:
        # The SDK takes a third of a second to import: only for those who want it.
        from services.kit.otlp import Sending  # noqa: PLC0415

        sending = Sending(service)
    except Exception as error:  # noqa: BLE001 the variables are read by the SDK, which may raise anything
        _LOG.warning("No metrics are sent, the OTEL_ variables cannot be used: %r", error)
        yield None
        return
    try:
        yield sending.meter
    finally:
        await asyncio.to_thread(sending.close)


def _is_wanted() -> bool:
    if environment("OTEL_SDK_DISABLED").lower() == "true":
        return False
    if environment("OTEL_METRICS_EXPORTER").lower() not in {"", "otlp"}:
        return False
    if not any(environment(name) for name in _ENDPOINTS):
        return False
    protocol = next((said for name in _PROTOCOLS if (said := environment(name))), "grpc")
    if protocol != "grpc":
        _LOG.warning("No metrics are sent: OTLP is spoken over grpc, not over %s.", protocol)
        return False
    return True
