"""What model calls use and cost.

Money is whole nano-dollars (10⁻⁹ US dollars). What a provider does not report is None, not zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

NANO = 1_000_000_000
_MILLION = 1_000_000
_MOST = 2**32 - 1
"""The most tokens the Usage message can tell."""


@dataclass(frozen=True, slots=True)
class Usage:
    """The tokens of one or more model calls."""

    input_tokens: int | None = None
    """Given to the model, the cached ones included."""
    output_tokens: int | None = None
    """Made by the model, the reasoning ones included."""
    cached_input_tokens: int | None = None
    """Those of the input that were read from the provider's cache."""
    cache_write_input_tokens: int | None = None
    """Those of the input that were written to the provider's cache."""
    reasoning_tokens: int | None = None
    """Those of the output that were thought and not said."""

    def plus(self, other: Usage) -> Usage:
        """Add up; what only one of them knows is what it knows."""
        return Usage(*(_plus(getattr(self, one), getattr(other, one)) for one in _TOKENS))

    def updated(self, newer: Usage) -> Usage:
        """Take over what a newer report of the same call says."""
        known = {one: value for one in _TOKENS if (value := getattr(newer, one)) is not None}
        return replace(self, **known)


_TOKENS = tuple(one.name for one in fields(Usage))


@dataclass(frozen=True, slots=True)
class Price:
    """What a model costs, in nano-dollars for a million tokens."""

    input: int
    output: int
    cached_input: int | None = None
    """None: like other input."""
    cache_write_input: int | None = None
    """None: like other input."""

    def cost(self, usage: Usage) -> int | None:
        """Price a call, to the nearest nano-dollar; None unless input and output are known."""
        if usage.input_tokens is None or usage.output_tokens is None:
            return None
        cached, written = usage.cached_input_tokens or 0, usage.cache_write_input_tokens or 0
        total = (
            max(usage.input_tokens - cached - written, 0) * self.input
            + cached * (self.input if self.cached_input is None else self.cached_input)
            + written * (self.input if self.cache_write_input is None else self.cache_write_input)
            + usage.output_tokens * self.output
        )
        return (total + _MILLION // 2) // _MILLION


@dataclass(frozen=True, slots=True)
class Spend:
    """What the model calls of a run have used and cost so far."""

    usage: Usage = field(default_factory=Usage)
    cost: int | None = None
    """Nano-dollars; None before the first report, and for good once a call has no price."""
    unpriced: bool = False
    """Whether a call was reported that has no price."""
    unreported: int = 0
    """Calls that may have cost something the provider did not report."""

    def plus(self, other: Spend) -> Spend:
        """Add up."""
        unpriced = self.unpriced or other.unpriced
        return Spend(
            self.usage.plus(other.usage),
            None if unpriced else _plus(self.cost, other.cost),
            unpriced,
            self.unreported + other.unreported,
        )

    def content(self) -> dict[str, Any]:
        """Print it in the JSON form of the Usage message; empty for nothing."""
        shown = {
            one: min(value, _MOST)
            for one in _TOKENS
            if (value := getattr(self.usage, one)) is not None
        }
        if self.cost is not None:
            shown["cost_usd"] = self.cost / NANO
        if self.unreported:
            shown["unreported_calls"] = self.unreported
        return shown

    @classmethod
    def read(cls, content: Mapping[str, Any]) -> Spend:
        """Read it back."""
        usage = Usage(*(content.get(one) for one in _TOKENS))
        cost = round(content["cost_usd"] * NANO) if "cost_usd" in content else None
        return cls(
            usage, cost, cost is None and usage != Usage(), content.get("unreported_calls", 0)
        )


NOTHING = Spend()
LOST = Spend(unreported=1)
"""Of a call that nobody knows the end of."""


def spent(usage: Usage, price: Price | None) -> Spend:
    """Make the spend of one call from what its provider reported."""
    cost = None if price is None else price.cost(usage)
    return Spend(usage, cost, unpriced=cost is None)


def _plus(one: int | None, other: int | None) -> int | None:
    if one is None or other is None:
        return other if one is None else one
    return one + other
