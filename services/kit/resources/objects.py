"""Free JSON that callers keep with a thing."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from services.kit.errors import invalid


def check(value: Any, at: str, deepest: int) -> None:
    """Check that a value can be kept as JSON.

    Args:
        at: the field of the request that holds it.
        deepest: how deep objects and lists may lie in one another.

    Raises:
        DomainError: INVALID_REQUEST.
    """
    _check(value, at, deepest, deepest)


def _check(value: Any, at: str, deepest: int, left: int) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise invalid(at, f"holds {value}, which JSON has no number for")
    if not isinstance(value, dict | list):
        return
    if left == 0:
        raise invalid(at, f"must be at most {deepest} objects and lists deep")
    for one in value.values() if isinstance(value, dict) else value:
        _check(one, at, deepest, left - 1)


def keys(value: Any) -> Iterator[str]:
    """Yield the keys of an object, and of all objects in it."""
    if isinstance(value, dict):
        yield from value
        value = list(value.values())
    if isinstance(value, list):
        for one in value:
            yield from keys(one)
