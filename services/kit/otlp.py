"""Metrics over OTLP by the SDK of OpenTelemetry. Only `services.kit.telemetry` imports this.

A thread of the SDK reads what was gathered and sends it; the event loop only ever adds to numbers.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence

from opentelemetry import metrics as api
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import (
    SERVICE_INSTANCE_ID,
    SERVICE_NAME,
    OTELResourceDetector,
    Resource,
)

from services.kit.telemetry import Reading, Record

_SCOPE = "conductor"
_FLUSH_MS = 1500
_SELDOM_SECONDS = 600.0
_TALKATIVE = (
    # Writes several lines for each batch that cannot be sent.
    "opentelemetry.exporter.otlp.proto.grpc.exporter",
    "opentelemetry.sdk.metrics._internal.export",
    "opentelemetry.sdk.metrics._internal.instrument",
)
_INDISCREET = "opentelemetry.util.re"
"""Repeats headers it cannot read, which may be secrets."""


class SdkMeter:
    """The meter of the SDK, as `services.kit.telemetry.Meter`."""

    def __init__(self, meter: api.Meter) -> None:
        self._meter = meter

    def counter(self, name: str, unit: str, description: str) -> Record:
        """Make a sum that only grows."""
        return self._meter.create_counter(name, unit, description).add

    def histogram(self, name: str, unit: str, description: str, bounds: Sequence[float]) -> Record:
        """Make a distribution."""
        return self._meter.create_histogram(
            name, unit, description, explicit_bucket_boundaries_advisory=bounds
        ).record

    def gauge(
        self, name: str, unit: str, description: str, read: Callable[[], Iterable[Reading]]
    ) -> None:
        """Make a value that is read whenever metrics are sent."""

        def observe(_: api.CallbackOptions) -> Iterator[api.Observation]:
            for value, attributes in read():
                yield api.Observation(value, attributes)

        self._meter.create_observable_gauge(name, [observe], unit, description)


class Sending:
    """Sends metrics from now on, as the standard variables say.

    Args:
        service: the `service.name`, unless a variable has another.

    Attributes:
        meter: makes the instruments.
    """

    def __init__(self, service: str) -> None:
        ours = {SERVICE_NAME: service, SERVICE_INSTANCE_ID: str(uuid.uuid4())}
        resource = Resource.create(ours).merge(OTELResourceDetector().detect())
        reader = PeriodicExportingMetricReader(OTLPMetricExporter())
        self._provider = MeterProvider([reader], resource, shutdown_on_exit=False)
        for name in _TALKATIVE:
            _hush(logging.getLogger(name))
        logging.getLogger(_INDISCREET).setLevel(logging.CRITICAL)
        self.meter = SdkMeter(self._provider.get_meter(_SCOPE))

    def close(self) -> None:
        """Send what is left, as far as that takes no more than two seconds."""
        self._provider.shutdown(_FLUSH_MS)


class _Seldom(logging.Filter):
    """Lets an error through now and then, and no warning: a collector may be away for days."""

    def __init__(self) -> None:
        super().__init__()
        self._next = 0.0

    def filter(self, record: logging.LogRecord) -> bool:
        now = time.monotonic()
        if record.levelno < logging.ERROR or now < self._next:
            return False
        self._next = now + _SELDOM_SECONDS
        return True


def _hush(logger: logging.Logger) -> None:
    """Let a logger speak seldom, for good: a thread that was given up may speak after the end."""
    for earlier in [one for one in logger.filters if isinstance(one, _Seldom)]:
        logger.removeFilter(earlier)
    logger.addFilter(_Seldom())
