"""What people call things: names, titles, and free labels such as tags."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Mn", "Me", "Zl", "Zp", "Zs"})
_FILLERS = frozenset("\u115f\u1160\u2800\u3164\uffa0")
"""Letters and signs that are drawn as nothing."""

UNSEEN = "must hold something that can be seen"
"""What is wrong with a name that is not seen."""


def is_seen(text: str) -> bool:
    """Tell whether anything of a text is seen; joiners and marks are not, and may stand beside what is."""
    return any(unicodedata.category(one) not in _UNSEEN and one not in _FILLERS for one in text)


def trimmed(labels: Iterable[str]) -> tuple[str, ...]:
    """Trim labels; those with nothing to see go, and of those alike but for their case all but the first."""
    found: dict[str, str] = {}
    for label in labels:
        text = label.strip()
        if is_seen(text):
            found.setdefault(text.casefold(), text)
    return tuple(found.values())
