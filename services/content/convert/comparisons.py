"""Comparisons as messages."""

from __future__ import annotations

from dataclasses import asdict

from conductor.content.v1 import comparison_pb2
from services.content.domain.comparisons import Comparison


def comparison_to_proto(comparison: Comparison) -> comparison_pb2.Comparison:
    """Print how two texts differ."""
    return comparison_pb2.Comparison(**asdict(comparison))
