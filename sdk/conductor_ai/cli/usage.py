"""What runs used and cost, in words."""

from __future__ import annotations

from conductor.execution.v1.usage_pb2 import Usage


def dollars(amount: float) -> str:
    """Write an amount of US dollars, to the nano-dollar where it has any."""
    whole, _, fraction = f"{amount:,.9f}".partition(".")
    return f"${whole}.{fraction.rstrip('0'):0<2}"


def cost(usage: Usage) -> str:
    """Write what it cost; empty when nobody knows."""
    return dollars(usage.cost_usd) if usage.HasField("cost_usd") else ""


def tokens(usage: Usage) -> str:
    """Write the tokens that were reported, input first; empty when none were."""
    input_parts = [
        f"{count:,} {what}"
        for count, what in (
            (usage.cached_input_tokens, "cached"),
            (usage.cache_write_input_tokens, "cached anew"),
        )
        if count
    ]
    output_parts = [f"{usage.reasoning_tokens:,} thought"] if usage.reasoning_tokens else []
    told = []
    if usage.HasField("input_tokens"):
        told.append(_with(f"{_count(usage.input_tokens, 'token')} in", input_parts))
    if usage.HasField("output_tokens"):
        told.append(_with(f"{_count(usage.output_tokens, 'token')} out", output_parts))
    return ", ".join(told)


def unreported(usage: Usage) -> str:
    """Write how many calls may have cost more than that; empty when none."""
    calls = usage.unreported_calls
    return f"{_count(calls, 'call')} not reported" if calls else ""


def summary(usage: Usage) -> str:
    """Write all of it on one line; empty when nothing is known."""
    return ", ".join(part for part in (tokens(usage), cost(usage), unreported(usage)) if part)


def _count(number: int, thing: str) -> str:
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def _with(count: str, parts: list[str]) -> str:
    return f"{count} ({', '.join(parts)})" if parts else count
