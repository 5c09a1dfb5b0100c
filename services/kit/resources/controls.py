"""Characters that texts of people must not hold: they would act where the text is shown."""

from __future__ import annotations

import unicodedata

_CONTROLS = frozenset({"Cc", "Zl", "Zp"})
_DIRECTIONS = frozenset(map(chr, (*range(0x202A, 0x202F), *range(0x2066, 0x206A))))
"""What turns the direction of writing: a name that holds one reads as another."""


def has_controls(text: str) -> bool:
    """Tell whether a text of one line holds controls, which turns of direction count among."""
    return any(unicodedata.category(one) in _CONTROLS or one in _DIRECTIONS for one in text)


def has_controls_in_prose(text: str) -> bool:
    """Tell whether a text of several lines holds control characters but tabs and line breaks."""
    return any(unicodedata.category(one) == "Cc" and one not in "\t\n\r" for one in text)
