"""The call being served: who calls, and the ids that tie its traces and logs together."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field

from services.kit.principals import ANYONE, Principal
from services.kit.tracing import Span, SpanContext

_CLIENT = "x-envoy-external-address"
"""The edge says here where a call came from, and believes nobody else who does."""


@dataclass(slots=True)
class Call:
    """One rpc while it is served. Its metadata was read once."""

    method: str
    metadata: Mapping[str, str] = field(repr=False)
    """Among it may be the caller's key."""
    call_id: str
    """The `x-request-id` of the edge, else made here. Not an idempotency key."""
    trace_id: str
    """The W3C trace id, 32 hex digits."""
    parent: SpanContext | None = None
    """The span of the caller, when there is one."""
    span: Span | None = None
    """Its own, when the trace is sampled."""
    principal: Principal = field(default=ANYONE)
    remaining: Callable[[], float | None] = field(default=lambda: None, repr=False)
    """Tells how many seconds its caller still waits; None for as long as it takes."""
    resource_id: str = ""
    """What the call made or changed, for its record; said where no answer says it."""

    @property
    def client(self) -> str:
        """The address the edge says the call came from; empty when it came by no edge."""
        return self.metadata.get(_CLIENT, "")

    def context(self) -> SpanContext:
        """Return what a trace goes on from, sampled or not."""
        if self.span is not None:
            return self.span.context
        span_id = secrets.token_hex(8) if self.parent is None else self.parent.span_id
        return SpanContext(self.trace_id, span_id, sampled=False)


_current: ContextVar[Call] = ContextVar("call")


def begin(method: str, metadata: Mapping[str, str]) -> Call:
    """Make the call current for this task and everything it awaits."""
    parent = SpanContext.read(metadata.get("traceparent", ""))
    call = Call(
        method,
        metadata,
        call_id=metadata.get("x-request-id") or secrets.token_hex(8),
        trace_id=secrets.token_hex(16) if parent is None else parent.trace_id,
        parent=parent,
    )
    _current.set(call)
    return call


def current() -> Call:
    """Return the call being served.

    Raises:
        LookupError: outside of an rpc.
    """
    return _current.get()


def org() -> str:
    """Return the organisation of the caller."""
    return _current.get().principal.org_id


def author() -> str:
    """Return who calls, as audit records name it."""
    return _current.get().principal.name


def find() -> Call | None:
    """Return the call being served, or None outside of an rpc."""
    return _current.get(None)
