"""What the command line shows of texts that others wrote."""

from __future__ import annotations

import pytest

from conductor_ai.cli.output import harmless, plain_order, write_said


def test_a_diff_shows_what_would_turn_the_direction_of_its_line() -> None:
    assert plain_order("+if \u202e\x1b[2Jadmin\u2066") == "+if \\u202e[2Jadmin\\u2066"


def test_a_text_turns_the_direction_of_nothing_and_may_still_say_its_own() -> None:
    assert harmless("a\u202eb\u2066c\u2069\n") == "abc\n"
    assert harmless("\u200fאב\u200e می\u200cشد") == "\u200fאב\u200e می\u200cشد"


def test_no_line_of_a_text_can_be_taken_for_the_line_above_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_said("#1 user", "a\n#2 b\r#3 c\x85#4 d\u2028#5 e\n\n#6 f\n")

    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("#")] == ["#1 user"]
    assert lines[-2:] == ["  #6 f", ""]
