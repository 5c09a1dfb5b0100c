"""Figures as rows, and the table they are printed in."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

_HEADINGS = ("figure", "ours", "reference", "ratio (min-max)", "target", "")


@dataclass(frozen=True, slots=True)
class Target:
    """What a figure should come to. Missing it fails nothing."""

    limit: float
    at_least: bool = True
    unit: str = ""

    def __str__(self) -> str:
        return f"{'>=' if self.at_least else '<='} {self.limit:g}{self.unit}"

    def met(self, value: float) -> bool:
        """Whether a value is good enough."""
        return value >= self.limit if self.at_least else value <= self.limit


@dataclass(frozen=True, slots=True)
class Row:
    """One figure: the median over rounds, with the ratio to the reference of the same round."""

    figure: str
    ours: str
    reference: str = ""
    ratios: Sequence[float] = ()
    value: float | None = None
    """What the target is about where it is not the ratio."""
    target: Target | None = None

    @property
    def verdict(self) -> str:
        """`met`, `MISSED`, or nothing without a target."""
        if self.target is None:
            return ""
        value = self.value if self.value is not None else median(self.ratios)
        return "met" if self.target.met(value) else "MISSED"

    def cells(self) -> tuple[str, ...]:
        """Print the cells."""
        ratio = ""
        if self.ratios:
            low, high = min(self.ratios), max(self.ratios)
            ratio = f"{median(self.ratios):.2f} ({low:.2f}-{high:.2f})"
        target = str(self.target) if self.target else ""
        return self.figure, self.ours, self.reference, ratio, target, self.verdict

    def to_json(self) -> dict[str, Any]:
        """Print for programs."""
        return {
            "figure": self.figure,
            "ours": self.ours,
            "reference": self.reference,
            "ratios": list(self.ratios),
            "ratio": median(self.ratios) if self.ratios else None,
            "value": self.value,
            "target": str(self.target) if self.target else None,
            "met": None if self.target is None else self.verdict == "met",
        }


def table(rows: Iterable[Row]) -> str:
    """Print rows as plain text."""
    lines = [_HEADINGS, *(row.cells() for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    printed = ["  ".join(map(str.ljust, line, widths)).rstrip() for line in lines]
    printed.insert(1, "  ".join("-" * width for width in widths).rstrip())
    return "\n".join(printed)
