"""Spans: pieces of work as a collector is told of them, once they have ended.

Made without OpenTelemetry, which costs a multiple of most of what is told here: `services.kit.otlp`
puts them into its words and sends them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from enum import Enum, auto
from typing import NamedTuple

_TRACEPARENT = re.compile(
    r"([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?"
)
_SAMPLED = 1

Value = str | int | float | bool | tuple[str, ...]
Attributes = Mapping[str, Value]


class Kind(Enum):
    """Which side of a call a span is."""

    INTERNAL = auto()
    SERVER = auto()
    CLIENT = auto()


class SpanContext(NamedTuple):
    """What is known of a span in other places: all that a W3C `traceparent` says."""

    trace_id: str
    """32 hex digits."""
    span_id: str
    """16 hex digits."""
    sampled: bool

    @classmethod
    def read(cls, traceparent: str) -> SpanContext | None:
        """Read a `traceparent`; None when it is not valid."""
        matched = _TRACEPARENT.fullmatch(traceparent) if traceparent else None
        if matched is None:
            return None
        version, trace_id, span_id, flags, more = matched.groups()
        if version == "ff" or (version == "00" and more is not None):
            return None
        return cls(trace_id, span_id, bool(int(flags, 16) & _SAMPLED))

    @property
    def traceparent(self) -> str:
        """Print it as a `traceparent`."""
        return f"00-{self.trace_id}-{self.span_id}-{self.sampled:02x}"


@dataclass(slots=True, eq=False)
class Span:
    """One piece of work that is sampled. It is told of when it has ended."""

    name: str
    kind: Kind
    trace_id: str
    span_id: str
    parent: SpanContext | None
    start: int
    """Nanoseconds since the epoch, like `end`."""
    attributes: Attributes
    links: Sequence[SpanContext] = ()
    end: int = 0
    failed: bool = False
    operations: int = 0
    """How many store operations there were in it."""
    untold: int = 0
    """How many of them have no span of their own."""
    local: bool = False
    """Whether the parent is of this process too."""

    @property
    def context(self) -> SpanContext:
        """What is known of it in other places."""
        return SpanContext(self.trace_id, self.span_id, sampled=True)


_current: ContextVar[Span] = ContextVar("span")


def current() -> Span | None:
    """Return the span that this task works in, if there is one."""
    return _current.get(None)


def enter(span: Span) -> None:
    """Make a span current for this task and everything it awaits or begins."""
    _current.set(span)
