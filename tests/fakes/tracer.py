"""A tracer that keeps the spans it is told of."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from services.kit.tracing import Attributes, Kind, Span, SpanContext


class Spans:
    """Samples everything, unless the parent is not sampled."""

    def __init__(self) -> None:
        self.ended: list[Span] = []
        self._ids = itertools.count(1)

    def begin(
        self,
        name: str,
        kind: Kind,
        trace_id: str,
        parent: SpanContext | None,
        attributes: Attributes,
        links: Sequence[SpanContext] = (),
    ) -> Span | None:
        if parent is not None and not parent.sampled:
            return None
        return Span(name, kind, trace_id, f"{next(self._ids):016x}", parent, 0, attributes, links)

    def end(self, span: Span) -> None:
        self.ended.append(span)

    def tell(
        self,
        parent: Span,
        name: str,
        kind: Kind,
        start: int,
        attributes: Attributes,
        *,
        failed: bool = False,
    ) -> None:
        span = self.begin(name, kind, parent.trace_id, parent.context, attributes)
        assert span is not None
        span.failed, span.local = failed, True
        self.end(span)

    def names(self) -> list[str]:
        return [one.name for one in self.ended]
