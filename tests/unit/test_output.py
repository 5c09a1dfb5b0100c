"""What the command line shows of texts that others wrote."""

from __future__ import annotations

from conductor_ai.cli.output import harmless, plain_order


def test_a_diff_shows_what_would_turn_the_direction_of_its_line() -> None:
    assert plain_order("+if \u202e\x1b[2Jadmin\u2066") == "+if \\u202e[2Jadmin\\u2066"
    assert harmless("Bidi \u202b in a text stays.") == "Bidi \u202b in a text stays."
