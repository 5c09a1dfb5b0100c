"""Free labels that people give things, such as tags."""

from __future__ import annotations

from collections.abc import Iterable


def trimmed(labels: Iterable[str]) -> tuple[str, ...]:
    """Trim labels; blank ones go, and of those alike but for their case all but the first."""
    found: dict[str, str] = {}
    for label in labels:
        if text := label.strip():
            found.setdefault(text.casefold(), text)
    return tuple(found.values())
