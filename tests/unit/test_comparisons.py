from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from services.content.domain.comparisons import Comparison, compare, lines_of

HUNK = re.compile(r"@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@\n")
LINES = st.lists(
    st.sampled_from(
        ["a", "b", "", "c\r", "-- x", "++ y", "@@ -1 +1 @@", "\f", " \u2028d", "\\ No"]
    ),
    max_size=25,
)
TEXTS = st.builds(lambda lines, end: "\n".join(lines) + end, LINES, st.sampled_from(["", "\n"]))


def compared(before: str, after: str) -> Comparison:
    return compare(before, after, "version 1", "version 2")


def applied(before: str, diff: str) -> str:
    """Apply a unified diff, and judge what its hunks say of themselves."""
    source, target = lines_of(before), list[str]()
    lines = [line.removesuffix("\n") for line in lines_of(diff)][2:]
    place = 0
    while lines:
        head = HUNK.fullmatch(lines.pop(0) + "\n")
        assert head
        begin, size, to_begin, to_size = (1 if one is None else int(one) for one in head.groups())
        start = begin - 1 if size else begin
        target += source[place:start]
        place = start
        assert len(target) == (to_begin - 1 if to_size else to_begin)
        while size or to_size:
            sign, line = lines[0][0], lines.pop(0)[1:] + "\n"
            if lines and lines[0] == "\\ No newline at end of file":
                line = line[:-1]
                lines.pop(0)
            if sign in " -":
                assert source[place] == line
                place, size = place + 1, size - 1
            if sign in " +":
                target.append(line)
                to_size -= 1
    return "".join(target + source[place:])


def check(before: str, after: str) -> Comparison:
    """Compare two texts, and hold what is said of them to account."""
    found = compared(before, after)
    assert applied(before, found.diff) == after
    body = [line for line in lines_of(found.diff)[2:] if not HUNK.fullmatch(line)]
    assert sum(line.startswith("+") for line in body) == found.added_lines
    assert sum(line.startswith("-") for line in body) == found.removed_lines
    assert found.from_lines == found.unchanged_lines + found.removed_lines == len(lines_of(before))
    assert found.to_lines == found.unchanged_lines + found.added_lines == len(lines_of(after))
    assert 0 <= found.change_percentage <= 100
    assert (before == after) == (not found.diff) == (found.added_lines + found.removed_lines == 0)
    return found


@settings(max_examples=200, deadline=None)
@given(TEXTS, TEXTS)
@example("", "\n")
@example("a", "a\n")
@example("a\n", "")
def test_the_diff_applied_to_the_first_text_gives_the_second(before: str, after: str) -> None:
    check(before, after)


@settings(max_examples=100, deadline=None)
@given(st.text(), st.text())
def test_any_texts_can_be_compared(before: str, after: str) -> None:
    check(before, after)


@settings(max_examples=100, deadline=None)
@given(LINES, LINES)
def test_the_shortest_way_is_found_where_no_line_is_there_once(
    some: list[str], others: list[str]
) -> None:
    before, after = ["<", *some, *some, "<"], [">", *others, *others, ">"]
    longest = [[0] * (len(after) + 1) for _ in range(len(before) + 1)]
    for i, line in enumerate(before):
        for j, other in enumerate(after):
            longest[i + 1][j + 1] = (
                longest[i][j] + 1 if line == other else max(longest[i][j + 1], longest[i + 1][j])
            )
    found = check("".join(f"{line}\n" for line in before), "".join(f"{line}\n" for line in after))
    assert found.unchanged_lines == longest[-1][-1]


def test_lines_are_counted_as_they_are_shown() -> None:
    found = compared("one\ntwo\nthree\n", "one\n2\nthree\nfour\n")
    assert found == Comparison(
        "--- a/text.md\tversion 1\n+++ b/text.md\tversion 2\n"
        "@@ -1,3 +1,4 @@\n one\n-two\n+2\n three\n+four\n",
        added_lines=2,
        removed_lines=1,
        unchanged_lines=2,
        from_lines=3,
        to_lines=4,
        change_percentage=42.86,
    )


def test_a_line_feed_that_is_missing_at_the_end_is_a_change() -> None:
    found = compared("one\ntwo", "one\ntwo\n")
    assert (found.added_lines, found.removed_lines, found.unchanged_lines) == (1, 1, 1)
    assert found.diff.endswith(" one\n-two\n\\ No newline at end of file\n+two\n")


def test_changes_far_apart_are_hunks_of_their_own_and_close_ones_are_one() -> None:
    lines = [f"{number}\n" for number in range(40)]
    far = [*lines[:5], "new\n", *lines[5:30], *lines[31:]]
    near = [*lines[:5], "new\n", *lines[5:11], *lines[12:]]
    assert check("".join(lines), "".join(far)).diff.count("@@ -") == 2
    assert check("".join(lines), "".join(near)).diff.count("@@ -") == 1


def test_a_block_that_moved_costs_no_more_than_itself() -> None:
    lines = [f"line {number}\n\n" for number in range(300)]
    moved = lines[:100] + lines[110:200] + lines[100:110] + lines[200:]
    found = check("".join(lines), "".join(moved))
    assert (found.added_lines, found.removed_lines) == (20, 20)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("01" * 30_000, "110" * 20_000),
        ("0" * 50_000, "0" * 25_000 + "1" + "0" * 10_000),
        ("0123456789" * 5_000, "9876543210" * 5_000),
        (
            "".join(chr(256 + n) for n in range(30_000)),
            "".join(chr(30_256 - n) for n in range(30_000)),
        ),
        (
            "".join(chr(256 + n) * 2 for n in range(9_000)),
            "".join(chr(9_256 - n) * 2 for n in range(9_000)),
        ),
    ],
    ids=["two lines", "one line", "ten lines", "turned around", "pairs turned around"],
)
def test_texts_made_to_be_hard_are_compared_coarsely_and_rightly(before: str, after: str) -> None:
    check("\n".join(before), "\n".join(after))


def test_labels_and_names_cannot_break_the_head() -> None:
    found = compare("a\n", "b\n", "one\n@@", "two\t", 'x"\\\n.md')
    assert found.diff.startswith("--- a/x__ .md\tone @@\n+++ b/x__ .md\ttwo \n@@ -1 +1 @@\n")


@pytest.mark.parametrize(
    "program", [["git", "apply"], ["patch", "--silent", "--strip=1"]], ids=" ".join
)
@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("one\ntwo\nthree\n", "one\nthree\n"),
        ("one\ntwo", "one\ntwo\n"),
        ("one\ntwo\n", "one\nthree"),
        ("a\r\nb\r\nc\r\n", "a\r\nb\nc\r\n"),
        ("a\rb\fc\u2028d\x85e\nf\n", "a\rb\fc\u2028d\x85e\ng\r"),
        ("x\n" * 50 + "y\n" + "x\n" * 50, "x\n" * 40 + "ü 🎈\n" + "x\n" * 60),
        ("-- a\n++ b\n@@ -1 +1 @@\n", "+++ b\n--- a\n\\ No newline at end of file\n"),
        ("a\n", "\n\n\n"),
    ],
)
def test_other_programs_apply_the_diff(
    program: list[str], before: str, after: str, tmp_path: Path
) -> None:
    text = tmp_path / "a text.md"
    text.write_bytes(before.encode())
    diff = compare(before, after, "version 1", "version 2", text.name).diff
    subprocess.run(program, input=diff.encode(), cwd=tmp_path, check=True, timeout=5)
    assert text.read_bytes().decode() == after
