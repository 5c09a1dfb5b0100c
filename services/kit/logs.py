"""Logs: one JSON object a line on standard error, with the ids of the call and span that wrote it."""

from __future__ import annotations

import logging
import sys
import time
from typing import IO, Any

import orjson

from services.kit import call, tracing

_FLUSH_LINES = 256


class JsonFormatter(logging.Formatter):
    """Prints a record as JSON: time, level, logger, message, ids of the call, and `extra` fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Format one record."""
        line: dict[str, Any] = {
            "time": record.created,
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        served = call.find()
        if served is not None:
            line["call_id"], line["trace_id"] = served.call_id, served.trace_id
        span = tracing.current()
        if span is not None:
            line["trace_id"], line["span_id"] = span.trace_id, span.span_id
        line.update(getattr(record, "facts", {}))
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return orjson.dumps(line, default=str).decode()


def configure(level: str) -> None:
    """Send every logger of the process to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)


class CallLog:
    """The line written for each rpc that failed, and at DEBUG for every one.

    Envoy's access log has a line for each call; doing the same again here costs a tenth of a short
    one. Lines are gathered and written together.

    Args:
        stream: where whole lines go.
    """

    def __init__(self, stream: IO[str] | None = None) -> None:
        self._stream = stream if stream is not None else sys.stderr
        self._lines: list[bytes] = []
        logger = logging.getLogger("call")
        self._enabled = logger.isEnabledFor(logging.INFO)
        self._every_one = logger.isEnabledFor(logging.DEBUG)

    def write(self, served: call.Call, code: str, seconds: float) -> None:
        """Note that a call ended."""
        if not self._enabled or (code == "OK" and not self._every_one):
            return
        line = {
            "time": time.time(),
            "level": "DEBUG" if code == "OK" else "INFO",
            "logger": "call",
            "message": served.method,
            "code": code,
            "ms": round(seconds * 1000, 3),
            "call_id": served.call_id,
            "trace_id": served.trace_id,
            "org": served.principal.org_id,
        }
        if served.span is not None:
            line["span_id"] = served.span.span_id
        self._lines.append(orjson.dumps(line))
        if len(self._lines) >= _FLUSH_LINES:
            self.flush()

    def flush(self) -> None:
        """Write what was gathered. A full disk or closed stream loses log lines, never a call."""
        lines, self._lines = self._lines, []
        if not lines:
            return
        try:
            self._stream.write(b"\n".join(lines).decode() + "\n")
            self._stream.flush()
        except (OSError, ValueError):
            self._enabled = not self._stream.closed
