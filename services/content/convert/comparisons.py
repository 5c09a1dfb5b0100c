"""Comparisons as messages."""

from __future__ import annotations

from conductor.content.v1 import comparison_pb2
from services.content.domain.comparisons import Comparison


def comparison_to_proto(comparison: Comparison) -> comparison_pb2.Comparison:
    """Print how two texts differ."""
    return comparison_pb2.Comparison(
        diff=comparison.diff,
        added_lines=comparison.added_lines,
        removed_lines=comparison.removed_lines,
        unchanged_lines=comparison.unchanged_lines,
        from_lines=comparison.from_lines,
        to_lines=comparison.to_lines,
        change_percentage=comparison.change_percentage,
    )
