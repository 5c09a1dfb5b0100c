"""OTLP by the SDK of OpenTelemetry. Only `services.kit.telemetry` imports this, and only when it is wanted.

Threads of the SDK read what was gathered and send it; the event loop only ever adds to numbers and
appends to a queue.
"""

from __future__ import annotations

import logging
import time
import uuid

from opentelemetry.sdk.resources import (
    SERVICE_INSTANCE_ID,
    SERVICE_NAME,
    OTELResourceDetector,
    Resource,
)

SCOPE = "conductor"
FLUSH_SECONDS = 1.5
_SELDOM_SECONDS = 600.0
_TALKATIVE = (
    # Writes several lines for each batch that cannot be sent.
    "opentelemetry.exporter.otlp.proto.grpc.exporter",
    "opentelemetry.sdk.metrics._internal.export",
    "opentelemetry.sdk.metrics._internal.instrument",
    "opentelemetry.sdk._shared_internal",
)
_INDISCREET = "opentelemetry.util.re"
"""Repeats headers it cannot read, which may be secrets."""


def resource(service: str) -> Resource:
    """Describe this process, and keep the SDK from talking much of what it cannot send.

    Args:
        service: the `service.name`, unless a variable has another.
    """
    for name in _TALKATIVE:
        _hush(logging.getLogger(name))
    logging.getLogger(_INDISCREET).setLevel(logging.CRITICAL)
    ours = {SERVICE_NAME: service, SERVICE_INSTANCE_ID: str(uuid.uuid4())}
    return Resource.create(ours).merge(OTELResourceDetector().detect())


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
