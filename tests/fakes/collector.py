"""A collector of OpenTelemetry: takes what is sent by OTLP over gRPC, and keeps it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.common.v1.common_pb2 import KeyValue

from tests.fakes.certificates import Certificate
from tests.patience import PATIENCE


@dataclass(frozen=True)
class Span:
    """A span as it arrived, ids in hexadecimal."""

    service: str
    """The `service.name` of who sent it."""
    name: str
    trace_id: str
    span_id: str
    parent_id: str
    attributes: dict[str, Any]
    links: tuple[tuple[str, str], ...]
    """Trace and span of each."""
    raw: Any
    """All of it."""


class Collector:
    """Keeps spans and metrics."""

    def __init__(self) -> None:
        self.address = ""
        """host:port"""
        self.spans: list[Span] = []
        self.metrics: list[Any] = []
        """Requests as they came."""
        self.metadata: list[dict[str, str]] = []
        """Of each request with spans."""
        self.arrived = asyncio.Condition()

    @property
    def endpoint(self) -> str:
        """The address as OTEL_EXPORTER_OTLP_ENDPOINT has it."""
        return f"http://{self.address}"

    @property
    def services(self) -> list[dict[str, Any]]:
        """Who sent the metrics, by its attributes."""
        return [
            plain(resource.resource.attributes)
            for request in self.metrics
            for resource in request.resource_metrics
        ]

    def of(self, name: str, about: Mapping[str, str] | None = None) -> Any:
        """The newest value of a series, of a histogram the sum; None when it never came."""
        values = [value for attributes, value in self._points(name) if attributes == (about or {})]
        return values[-1] if values else None

    def series(self, name: str) -> list[dict[str, Any]]:
        """The attributes of every value that came."""
        return [attributes for attributes, _ in self._points(name)]

    async def until(self, condition: Callable[[], Any]) -> None:
        """Wait until what has arrived is enough."""
        async with asyncio.timeout(PATIENCE), self.arrived:
            await self.arrived.wait_for(condition)

    async def take_spans(self, request: Any, context: Any) -> Any:
        """Answer an export of spans."""
        self.metadata.append({key: str(value) for key, value in context.invocation_metadata()})
        for resource in request.resource_spans:
            service = str(plain(resource.resource.attributes).get("service.name", ""))
            for scope in resource.scope_spans:
                self.spans += [_span(service, raw) for raw in scope.spans]
        await self._tell()
        return trace_service_pb2.ExportTraceServiceResponse()

    async def take_metrics(self, request: Any, _: Any) -> Any:
        """Answer an export of metrics."""
        self.metrics.append(request)
        await self._tell()
        return metrics_service_pb2.ExportMetricsServiceResponse()

    def _points(self, name: str) -> Iterator[tuple[dict[str, Any], Any]]:
        for request in self.metrics:
            for resource in request.resource_metrics:
                for scope in resource.scope_metrics:
                    for metric in scope.metrics:
                        if metric.name != name:
                            continue
                        for point in metric.histogram.data_points:
                            yield plain(point.attributes), point.sum
                        for one in (*metric.sum.data_points, *metric.gauge.data_points):
                            value = one.as_int if one.HasField("as_int") else one.as_double
                            yield plain(one.attributes), value

    async def _tell(self) -> None:
        async with self.arrived:
            self.arrived.notify_all()


class _Traces(trace_service_pb2_grpc.TraceServiceServicer):
    def __init__(self, collector: Collector) -> None:
        self._collector = collector

    # Asynchronous, which the generated base does not know.
    async def Export(self, request: Any, context: Any) -> Any:
        return await self._collector.take_spans(request, context)


class _Metrics(metrics_service_pb2_grpc.MetricsServiceServicer):
    def __init__(self, collector: Collector) -> None:
        self._collector = collector

    async def Export(self, request: Any, context: Any) -> Any:
        return await self._collector.take_metrics(request, context)


@asynccontextmanager
async def collecting(certificate: Certificate | None = None) -> AsyncIterator[Collector]:
    """Collect while the block runs; with a certificate, over TLS."""
    collector, server = Collector(), grpc.aio.server()
    # The generated functions say nothing of their types.
    add_traces: Any = trace_service_pb2_grpc.add_TraceServiceServicer_to_server
    add_metrics: Any = metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server
    add_traces(_Traces(collector), server)
    add_metrics(_Metrics(collector), server)
    if certificate is None:
        port = server.add_insecure_port("127.0.0.1:0")
    else:
        pair = (certificate.key.read_bytes(), certificate.chain.read_bytes())
        port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([pair]))
    collector.address = f"127.0.0.1:{port}"
    await server.start()
    try:
        yield collector
    finally:
        await server.stop(None)


def plain(attributes: Iterable[KeyValue]) -> dict[str, Any]:
    """Attributes by name."""
    return {
        one.key: getattr(one.value, one.value.WhichOneof("value") or "string_value")
        for one in attributes
    }


def _span(service: str, raw: Any) -> Span:
    return Span(
        service,
        raw.name,
        raw.trace_id.hex(),
        raw.span_id.hex(),
        raw.parent_span_id.hex(),
        plain(raw.attributes),
        tuple((link.trace_id.hex(), link.span_id.hex()) for link in raw.links),
        raw,
    )
