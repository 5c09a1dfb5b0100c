"""Metrics: the SDK's counters and gauges, and histograms of our own.

The SDK takes 12 µs to add a value to a histogram, most of it to look at the same attributes again, and
each call of an rpc is a value. Here it takes one.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from opentelemetry import metrics as api
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk import metrics as sdk
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricExportResult,
    MetricsData,
    PeriodicExportingMetricReader,
)
from opentelemetry.sdk.resources import Resource

from services.kit.otlp import FLUSH_SECONDS, SCOPE
from services.kit.telemetry import Attributes, Reading, Record


@dataclass(slots=True, eq=False)
class _Series:
    """What a histogram holds of one set of attributes."""

    attributes: Attributes
    start: int
    buckets: list[int]
    total: float = 0.0
    least: float = float("inf")
    most: float = float("-inf")


class Distribution:
    """A histogram."""

    def __init__(self, name: str, unit: str, description: str, bounds: Sequence[float]) -> None:
        self._name = name
        self._unit = unit
        self._description = description
        self._bounds = tuple(bounds)
        self._lock = threading.Lock()
        self._series: dict[frozenset[tuple[str, str]], _Series] = {}
        self._start = time.time_ns()

    def record(self, value: float, attributes: Attributes) -> None:
        """Add a value."""
        key = frozenset(attributes.items())
        bucket = bisect_left(self._bounds, value)
        with self._lock:
            series = self._series.get(key)
            if series is None:
                buckets = [0] * (len(self._bounds) + 1)
                series = self._series[key] = _Series(dict(attributes), self._start, buckets)
            series.buckets[bucket] += 1
            series.total += value
            series.least = min(series.least, value)
            series.most = max(series.most, value)

    def read(self, temporality: AggregationTemporality) -> Metric | None:
        """Say what was added so far, or since this was last asked; None when that is nothing."""
        now = time.time_ns()
        with self._lock:
            points = [self._point(series, now) for series in self._series.values()]
            if temporality is AggregationTemporality.DELTA:
                self._series, self._start = {}, now
        if not points:
            return None
        data = Histogram(points, temporality)
        return Metric(self._name, self._description, self._unit, data)

    def _point(self, series: _Series, now: int) -> HistogramDataPoint:
        return HistogramDataPoint(
            attributes=dict(series.attributes),
            start_time_unix_nano=series.start,
            time_unix_nano=now,
            count=sum(series.buckets),
            sum=series.total,
            bucket_counts=tuple(series.buckets),
            explicit_bounds=self._bounds,
            min=series.least,
            max=series.most,
        )


class SdkMeter:
    """The meter of the SDK, as `services.kit.telemetry.Meter`.

    Attributes:
        distributions: its histograms, which the SDK knows nothing of.
    """

    def __init__(self, meter: api.Meter) -> None:
        self._meter = meter
        self.distributions: list[Distribution] = []

    def counter(self, name: str, unit: str, description: str) -> Record:
        """Make a sum that only grows."""
        return self._meter.create_counter(name, unit, description).add

    def histogram(self, name: str, unit: str, description: str, bounds: Sequence[float]) -> Record:
        """Make a distribution."""
        made = Distribution(name, unit, description, bounds)
        self.distributions.append(made)
        return made.record

    def gauge(
        self, name: str, unit: str, description: str, read: Callable[[], Iterable[Reading]]
    ) -> None:
        """Make a value that is read whenever metrics are sent."""

        def observe(_: api.CallbackOptions) -> Iterator[api.Observation]:
            for value, attributes in read():
                yield api.Observation(value, attributes)

        self._meter.create_observable_gauge(name, [observe], unit, description)


class Metrics:
    """Sends metrics from now on, as the standard variables say.

    Attributes:
        meter: makes the instruments.
    """

    def __init__(self, about: Resource) -> None:
        exporter = _Exporter()
        reader = PeriodicExportingMetricReader(exporter)
        self._provider = MeterProvider([reader], about, shutdown_on_exit=False)
        self.meter = SdkMeter(self._provider.get_meter(SCOPE))
        exporter.distributions = self.meter.distributions
        began = time.monotonic()
        # The SDK sends nothing, and so no histogram, while there is nothing of its own.
        self.meter.gauge(
            "process.uptime",
            "s",
            "How long the process has been sending.",
            lambda: [(time.monotonic() - began, {})],
        )

    def close(self) -> None:
        """Send what is left, as far as that takes no more than two seconds."""
        self._provider.shutdown(round(FLUSH_SECONDS * 1000))


class _Exporter(OTLPMetricExporter):
    """The exporter of the SDK, which sends our histograms too."""

    def __init__(self) -> None:
        super().__init__()
        self.distributions: Sequence[Distribution] = ()

    def export(
        self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any
    ) -> MetricExportResult:
        """Send what the SDK has gathered, and what we have."""
        preferred = self._preferred_temporality or {}
        kind = preferred.get(sdk.Histogram, AggregationTemporality.CUMULATIVE)
        ours = [found for one in self.distributions if (found := one.read(kind)) is not None]
        both = [
            # There is one resource with one scope.
            replace(
                resource,
                scope_metrics=[
                    replace(scope, metrics=[*scope.metrics, *ours])
                    for scope in resource.scope_metrics
                ],
            )
            for resource in metrics_data.resource_metrics
        ]
        return super().export(MetricsData(both), timeout_millis, **kwargs)
