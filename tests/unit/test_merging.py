"""Two edits of one text: merged, or shown where they meet."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conductor_ai.cli.merging import first_marker, merge

BASE = "one\ntwo\nthree\nfour\nfive\n"
TEXTS = st.text(alphabet="ab\n\r\x0c<=> é", max_size=40)


def test_edits_apart_from_each_other_are_both_kept() -> None:
    merged = merge(BASE, BASE.replace("one", "ONE"), BASE.replace("five", "FIVE"))

    assert (merged.text, merged.width) == ("ONE\ntwo\nthree\nfour\nFIVE\n", 0)


def test_edits_of_the_same_line_are_both_shown_with_what_to_do() -> None:
    merged = merge(BASE, BASE.replace("two", "mine"), BASE.replace("two", "theirs"))

    assert merged.width == 7
    assert merged.text == (
        "one\n"
        "<<<<<<< yours: make one of both, and take these marker lines out\n"
        "mine\n"
        "=======\n"
        "theirs\n"
        ">>>>>>> theirs: what was saved in the meantime\n"
        "three\nfour\nfive\n"
    )
    assert first_marker(merged.text, merged.width) == 2
    assert first_marker("one\nmine\nthree\n", merged.width) == 0
    assert first_marker("one\n=======\n", merged.width) == 2


def test_the_same_edit_twice_is_no_conflict() -> None:
    edited = BASE.replace("two", "2")

    assert merge(BASE, edited, edited).text == edited
    assert merge(BASE, edited.replace("five", "5"), edited).text == edited.replace("five", "5")


def test_markers_are_longer_than_what_a_text_about_conflicts_holds() -> None:
    base = "<<<<<<< HEAD\na\n=======\nb\n>>>>>>>>> x\n"

    merged = merge(base, base.replace("a", "c"), base.replace("a", "d"))

    assert merged.width == 10
    assert first_marker(base, merged.width) == 0
    assert first_marker(merged.text, merged.width) == 2


def test_a_line_below_a_heading_is_no_marker() -> None:
    assert first_marker("Title\n=====\n", 7) == 0
    assert first_marker("<<<<<<< not from a conflict\n", 0) == 0


@pytest.mark.parametrize(
    ("base", "mine", "theirs", "merged"),
    [
        ("a\nb\nc", "A\nb\nc", "a\nb\nC", "A\nb\nC"),
        ("a\nb\nc", "A\nb\nc", "a\nb\nc\n", "A\nb\nc\n"),
        ("a\nb\nc\n", "a\nb\nc", "A\nb\nc\n", "A\nb\nc"),
        ("", "mine\n", "", "mine\n"),
        ("a\r\nb\r\nc\r\n", "A\r\nb\r\nc\r\n", "a\r\nb\r\nC\r\n", "A\r\nb\r\nC\r\n"),
        ("a\x0cx\nb\nc\n", "a\x0cy\nb\nc\n", "a\x0cx\nb\nC\n", "a\x0cy\nb\nC\n"),
    ],
)
def test_ends_of_lines_stay_what_they_are(base: str, mine: str, theirs: str, merged: str) -> None:
    assert merge(base, mine, theirs).text == merged


@settings(max_examples=100)
@given(TEXTS, TEXTS)
def test_an_edit_of_one_side_alone_is_what_comes_out(base: str, edited: str) -> None:
    assert merge(base, edited, base).text == edited
    assert merge(base, base, edited).text == edited


@settings(max_examples=200)
@given(TEXTS, TEXTS, TEXTS)
def test_a_conflict_holds_all_that_both_wrote(base: str, mine: str, theirs: str) -> None:
    merged = merge(base, mine, theirs)

    assert bool(first_marker(merged.text, merged.width)) == bool(merged.width)
    if merged.width:
        kept = {*merged.text.split("\n")}
        for side, other in ((mine, theirs), (theirs, mine)):
            new = {*side.split("\n")} - {*base.split("\n")} - {*other.split("\n")}
            assert new <= kept
