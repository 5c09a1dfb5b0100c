"""Telemetry: metrics and traces over OTLP, when OpenTelemetry's own variables ask for them.

Whatever is wrong with it, the service runs. Switched off it costs nothing: nothing of OpenTelemetry
is imported.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

from services.kit import tracing
from services.kit.settings import environment
from services.kit.tracing import Kind, Span, SpanContext

_LOG = logging.getLogger(__name__)

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


class Tracer(Protocol):
    """Tells a collector of spans. Every method returns at once."""

    def begin(
        self,
        name: str,
        kind: Kind,
        trace_id: str,
        parent: SpanContext | None,
        attributes: tracing.Attributes,
        links: Sequence[SpanContext] = (),
    ) -> Span | None:
        """Begin the first span of this process in a trace; None when it is not sampled.

        Args:
            trace_id: 32 hex digits; the parent's when there is one.
            parent: the span elsewhere that this one belongs to.
            links: spans of other traces that it has to do with.
        """
        ...

    def end(self, span: Span) -> None:
        """Note that a span ends now, with the attributes it has. Nothing is changed in it any more."""
        ...

    def tell(
        self,
        parent: Span,
        name: str,
        kind: Kind,
        start: int,
        attributes: tracing.Attributes,
        *,
        failed: bool = False,
    ) -> None:
        """Note a span that ends now and has no spans in it.

        Args:
            start: nanoseconds since the epoch.
        """
        ...


@dataclass(frozen=True, slots=True)
class Telemetry:
    """What a service tells of itself with; None for what nobody wants."""

    meter: Meter | None = None
    tracer: Tracer | None = None


SILENT = Telemetry()


@asynccontextmanager
async def sending(service: str) -> AsyncIterator[Telemetry]:
    """Send metrics and traces while the block runs, and what is left within two seconds after it.

    Each is left out when nothing asks for it, or what asks for it cannot be done.

    Args:
        service: the `service.name`, unless the environment has another.
    """
    with_metrics, with_traces = _is_wanted("METRICS"), _is_wanted("TRACES")
    if not (with_metrics or with_traces):
        yield SILENT
        return
    meter: Meter | None = None
    tracer: Tracer | None = None
    closing: list[Callable[[], None]] = []
    try:
        # The SDK takes a third of a second to import: only for those who want it.
        from services.kit.otlp import metrics, resource, traces  # noqa: PLC0415

        about = resource(service)
    except Exception as error:  # noqa: BLE001 the variables are read by the SDK, which may raise anything
        _LOG.warning("Nothing is sent, the OTEL_ variables cannot be used: %r", error)
        yield SILENT
        return
    if with_metrics:
        try:
            measured = metrics.Metrics(about)
        except Exception as error:  # noqa: BLE001 the same
            _LOG.warning("No metrics are sent, the OTEL_ variables cannot be used: %r", error)
        else:
            meter = measured.meter
            closing.append(measured.close)
    if with_traces:
        try:
            traced = traces.Traces(about)
        except Exception as error:  # noqa: BLE001 the same
            _LOG.warning("No traces are sent, the OTEL_ variables cannot be used: %r", error)
        else:
            tracer = traced
            closing.append(traced.close)
    try:
        yield Telemetry(meter, tracer)
    finally:
        await asyncio.gather(*(asyncio.to_thread(close) for close in closing))


def _is_wanted(signal: str) -> bool:
    """Tell whether the variables ask for a signal, METRICS or TRACES."""
    if environment("OTEL_SDK_DISABLED").lower() == "true":
        return False
    if environment(f"OTEL_{signal}_EXPORTER").lower() not in {"", "otlp"}:
        return False
    if not _said(signal, "ENDPOINT"):
        return False
    protocol = _said(signal, "PROTOCOL") or "grpc"
    if protocol != "grpc":
        name = signal.lower()
        _LOG.warning("No %s are sent: OTLP is spoken over grpc, not over %s.", name, protocol)
        return False
    return True


def _said(signal: str, name: str) -> str:
    """Read a variable of the exporter, the one of the signal alone first."""
    own = environment(f"OTEL_EXPORTER_OTLP_{signal}_{name}")
    return own or environment(f"OTEL_EXPORTER_OTLP_{name}")
