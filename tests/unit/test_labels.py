"""What people call things: what is seen of it counts."""

from __future__ import annotations

import pytest

from services.kit.resources.labels import is_seen, trimmed


@pytest.mark.parametrize(
    "name",
    [
        "می\u200cشد",
        "\u200fשבת\u200f",
        "👩\u200d🔬",
        "❤\ufe0f",
        "🏴\U000e0067\U000e0062\U000e007f",
        "क\u094d\u200dष",
        "1\ufe0f\u20e3",
        "…",
        "\ue000",
    ],
)
def test_what_scripts_and_emoji_need_stays_in_a_name(name: str) -> None:
    assert is_seen(name)
    assert trimmed([name]) == (name,)


@pytest.mark.parametrize(
    "name",
    [
        "\u200b\u200b\u200b",
        "\ufeff \u2060",
        "\u200d\u200c\u200e",
        "\u3164",
        "\u2800",
        "\u00ad",
        "\ufe0f",
        "\U000e0041\U000e0042",
    ],
)
def test_a_name_of_what_nobody_sees_is_none(name: str) -> None:
    assert not is_seen(name)
    assert trimmed(["a", name, "b"]) == ("a", "b")
