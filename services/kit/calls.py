"""What is told of every call: its span, how long it took, and a line in the log."""

from __future__ import annotations

from collections.abc import Mapping
from time import perf_counter

from services.kit import call, tracing
from services.kit import conventions as names
from services.kit.call import Call
from services.kit.logs import CallLog
from services.kit.telemetry import SILENT, Record, Telemetry, Tracer
from services.kit.tracing import Kind

_SECONDS = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5),
    *(0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 30.0, 60.0, 300.0, 600.0),
)
"""The bounds that the conventions recommend, shorter ones, and longer ones for streams."""
_FOREIGN = "/grpc."
"""What the methods of health and reflection begin with, which probes call all day."""
_FAULTS = frozenset(
    {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}
)
"""The statuses that are a server's fault, as the conventions have it."""


class Calls:
    """Tells of the calls of a server."""

    def __init__(self, log: CallLog, telemetry: Telemetry = SILENT) -> None:
        self._log = log
        self._tracer, self._record = telemetry.tracer, None
        if telemetry.meter is not None:
            self._record = telemetry.meter.histogram(
                "rpc.server.call.duration", "s", "How long a call took.", _SECONDS
            )

    def of(self, method: str) -> Method:
        """Tell of the calls of one method, `/package.Service/Method`."""
        if method.startswith(_FOREIGN):
            return Method(method, self._log, None, None)
        return Method(method, self._log, self._tracer, self._record)


class Method:
    """Tells of the calls of one method."""

    def __init__(
        self, name: str, log: CallLog, tracer: Tracer | None, record: Record | None
    ) -> None:
        self._path = name
        self._name = name.removeprefix("/")
        self._log = log
        self._tracer = tracer
        self._record = record
        self._begun = {names.RPC_SYSTEM_NAME: names.GRPC, names.RPC_METHOD: self._name}
        self._ended: dict[tuple[str, str], Mapping[str, str]] = {}

    def begin(self, metadata: Mapping[str, str]) -> Call:
        """Make a call current, with its span if it is sampled."""
        served = call.begin(self._path, metadata)
        if self._tracer is not None:
            served.span = self._tracer.begin(
                self._name, Kind.SERVER, served.trace_id, served.parent, self._begun
            )
            if served.span is not None:
                tracing.enter(served.span)
        return served

    def end(self, served: Call, code: str, reason: str, began: float) -> None:
        """Tell how a call ended.

        Args:
            code: the name of its status.
            reason: why it failed, a name of the catalogue of reasons; may be empty.
            began: when it did, as `perf_counter` has it.
        """
        seconds = perf_counter() - began
        self._log.write(served, code, seconds)
        if self._record is not None:
            self._record(seconds, self._about(code, reason))
        if self._tracer is not None and served.span is not None:
            served.span.attributes = self._about(code, reason)
            served.span.failed = code in _FAULTS
            self._tracer.end(served.span)

    def _about(self, code: str, reason: str) -> Mapping[str, str]:
        about = self._ended.get((code, reason))
        if about is None:
            error = {names.ERROR_TYPE: reason} if reason else {}
            about = {**self._begun, names.RPC_RESPONSE_STATUS_CODE: code, **error}
            self._ended[code, reason] = about
        return about
