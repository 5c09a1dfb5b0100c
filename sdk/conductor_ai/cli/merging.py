"""Two edits of one text, made one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

_SHORTEST = 7
"""What a marker has of its character in other tools, which know it by that."""
_MINE, _MIDDLE, _THEIRS = "<=>"


@dataclass(frozen=True)
class Merge:
    """What became of two edits.

    Args:
        text: both edits; where they meet, both between markers.
        width: how many characters a marker begins with; 0 when the edits do not meet.
    """

    text: str
    width: int = 0


def merge(base: str, mine: str, theirs: str) -> Merge:
    """Merge two edits of a text line by line.

    Only a line feed ends a line: what else looks like an end to Python is part of somebody's text.
    """
    if mine in {base, theirs}:
        return Merge(theirs)
    if theirs == base:
        return Merge(mine)
    # Not at the top: it is for those who meet a conflict.
    from merge3 import Merge3  # noqa: PLC0415

    texts = _lines(base), _lines(mine), _lines(theirs)
    found = Merge3(*texts)
    width, is_clean = _free_width(texts), True
    parts: list[str] = []
    for region in found.reprocess_merge_regions(found.merge_regions()):
        if region[0] == "conflict":
            is_clean = False
            _, _, _, mine_from, mine_to, theirs_from, theirs_to = region
            # They say what to do where it is to be done: an editor hides what the terminal said.
            parts.append(
                f"{_MINE * width} yours: make one of both, and take these marker lines out\n"
            )
            parts += found.a[mine_from:mine_to]
            parts.append(f"{_MIDDLE * width}\n")
            parts += found.b[theirs_from:theirs_to]
            parts.append(f"{_THEIRS * width} theirs: what was saved in the meantime\n")
        else:
            side = {"unchanged": found.base, "b": found.b}.get(region[0], found.a)
            parts += side[region[1] : region[2]]
    text = "".join(parts)
    if not is_clean:
        return Merge(text, width)
    # Whether the last line ends is one more thing that either may have changed.
    ended = theirs if is_terminated(mine) == is_terminated(base) else mine
    return Merge(text if is_terminated(ended) else text.removesuffix("\n"))


def first_marker(text: str, width: int) -> int:
    """Find a marker that is left; answers its line, from 1, or 0 for none."""
    if width:
        for number, line in enumerate(text.split("\n"), start=1):
            # What is drawn below a heading looks like the one in the middle, and is longer or shorter.
            if line.startswith((_MINE * width, _THEIRS * width)) or (
                line.rstrip() == _MIDDLE * width
            ):
                return number
    return 0


def is_terminated(text: str) -> bool:
    """Whether the last line of a text ends, if there is one."""
    return not text or text.endswith("\n")


def _lines(text: str) -> list[str]:
    lines = [f"{line}\n" for line in text.split("\n")]
    return lines[:-1] if is_terminated(text) else lines


def _free_width(texts: Sequence[Sequence[str]]) -> int:
    """Choose how long markers are, so that no line of the texts looks like one."""
    return max([_SHORTEST, *(run + 1 for lines in texts for run in _runs(lines))])


def _runs(lines: Sequence[str]) -> Iterator[int]:
    """Measure with how many of their characters lines begin, where that could be a marker."""
    for line in lines:
        run = len(line) - len(line.lstrip(line[0]))
        if line[0] in {_MINE, _MIDDLE, _THEIRS} and run >= _SHORTEST:
            yield run
