"""The links of a Markdown passage, and what was meant to be one; in time linear in its length."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from enum import Enum, auto
from itertools import accumulate

from services.content.domain.blocks import TAG, TOO_DEEP, Passage, label

_TOKEN = re.compile(r"\\[!-/:-@\[-`{-~]|`+|<|!?\[|\]")
_TICKS = re.compile("`+")
_AUTOLINK = re.compile(r"<(?:[A-Za-z][A-Za-z0-9+.-]{1,31}:[^\s<>]*+|[^\s<>@]++@[^\s<>@]++)>")
_BLANK = re.compile(r"\s*+")
_POINTED = re.compile(r"<((?:[^<>\\\n]|\\.)*+)>")
_TITLE = re.compile(
    r"\s++(?:\"(?:[^\"\\]|\\.)*+\"|'(?:[^'\\]|\\.)*+'|\((?:[^()\\]|\\.)*+\))\s*+", re.DOTALL
)
_TARGET = r"(?:[^\s\\()]++|\\.)*+"
for _ in range(4):
    # Parentheses are part of a target when they come in pairs, up to some depth.
    _TARGET = rf"(?:[^\s\\()]++|\\.|\({_TARGET}\))*+"
_BARE = re.compile(_TARGET)
_LONGEST_LABEL = 999
_REFERENCE = re.compile(r"\[((?:[^\[\]\\]|\\.){0,999}+)\]", re.DOTALL)
_FOOTNOTE_OR_BOX = re.compile(r"\[(?:[ xX]|\^[^\[\]\s]{1,100})\]")
_BRACKETS = frozenset("[]()")
_NOT_LINE_FEED = re.compile("[^\n]")


class Fault(Enum):
    """What is wrong with a link."""

    TOO_DEEP = auto()
    """Not with a link: the line begins with more number signs than a heading may have."""
    NO_TEXT = auto()
    NO_TARGET = auto()
    MALFORMED = auto()


_Link = tuple[int, int, tuple[Fault, ...]]
"""Where a link begins and ends, and what is wrong with it."""


def faults(passage: Passage, labels: Collection[str]) -> Iterator[tuple[Fault, int, int]]:
    """Yield what is wrong with the links of a passage, each with its line and column.

    Args:
        labels: what the text defines as targets, spelled by `blocks.label`.
    """
    text = "\n".join(passage.lines)
    begins = [0, *accumulate(len(line) + 1 for line in passage.lines[:-1])]

    def line_of(at: int) -> int:
        return bisect_right(begins, at) - 1

    scan = _Scan(text, labels)
    links = sorted(scan.links())
    found = [(begin, fault) for begin, _, those in links for fault in those]
    linked: set[int] = set()
    beyond = 0
    for begin, end, _ in links:
        # Links may be nested (in images), so each line is counted once.
        lines = range(max(line_of(begin), beyond), line_of(end - 1) + 1)
        linked.update(lines)
        beyond = max(beyond, lines.stop)
    rest = scan.rest([(begin, end) for begin, end, _ in links])
    for index, line in enumerate(rest.split("\n")):
        if line.startswith(TOO_DEEP):
            found.append((begins[index], Fault.TOO_DEEP))
        if (opened := line.rfind("[", 0, max(line.find("]("), 0))) >= 0:
            found.append((begins[index] + opened, Fault.MALFORMED))
        elif index not in linked and _BRACKETS.issubset(line):
            found.append((begins[index] + line.index("["), Fault.MALFORMED))
    for at, fault in sorted(found, key=lambda one: (one[0], one[1].value)):
        index = line_of(at)
        number, column = passage.places[index]
        yield fault, number, column + at - begins[index]


class _Scan:
    """Reads a passage once from its beginning to its end."""

    def __init__(self, text: str, labels: Collection[str]) -> None:
        self._text = text
        self._labels = labels
        self._hidden: list[tuple[int, int]] = []
        """What is code, a tag, an address or escaped: no bracket in it counts."""
        self._runs: dict[int, list[int]] = defaultdict(list)
        """Where runs of backticks begin, by their length."""
        for run in _TICKS.finditer(text):
            self._runs[len(run[0])].append(run.start())
        self._openers: list[tuple[int, int]] = []
        """Where brackets open, and where what is in them begins."""
        self._inactive = 0
        """So many of them, from the first on, hold a link: they make no link of their own, and images
        only."""
        self._no_comment = False
        """Whether no comment ends any more."""

    def links(self) -> Iterator[_Link]:
        """Find the links, an image before the link that it is in."""
        text, openers, at = self._text, self._openers, 0
        while token := _TOKEN.search(text, at):
            begin, end = token.span()
            mark = text[begin]
            if mark == "]":
                at = end
                if openers and (link := self._closed(*openers.pop(), begin)):
                    at = link[1]
                    yield link
            elif mark in "[!":
                openers.append((begin, end))
                at = end
            else:
                at = self._covered(mark, begin, end)
                if mark == "\\" or at > end:
                    self._hidden.append((begin, at))

    def rest(self, links: Iterable[tuple[int, int]]) -> str:
        """Return the passage with blanks in place of links and of what cannot be one."""
        text = self._text
        marks = ((one.start(), one.end()) for one in _FOOTNOTE_OR_BOX.finditer(text))
        parts, last = [], 0
        for begin, end in sorted((*self._hidden, *links, *marks)):
            if end > last:
                covered = text[max(begin, last) : end]
                parts += [text[last:begin], _NOT_LINE_FEED.sub(" ", covered)]
                last = end
        return "".join((*parts, text[last:]))

    def _covered(self, mark: str, begin: int, end: int) -> int:
        """Tell where an escape, code, an address or a tag ends that begins with a token."""
        text = self._text
        if mark == "`":
            runs = self._runs[end - begin]
            following = bisect_left(runs, end)
            return runs[following] + end - begin if following < len(runs) else end
        if mark == "<":
            if text.startswith("<!--", begin):
                return self._comment(begin)
            found = _AUTOLINK.match(text, begin) or TAG.match(text, begin)
            return found.end() if found else end
        return end

    def _comment(self, begin: int) -> int:
        end = -1 if self._no_comment else self._text.find("-->", begin + 2)
        self._no_comment = end < 0
        return begin + 1 if end < 0 else end + 3

    def _closed(self, begin: int, inside: int, bracket: int) -> _Link | None:
        """Make a link of a pair of brackets and what follows, if it is one."""
        text, after, depth = self._text, bracket + 1, len(self._openers)
        is_image = inside - begin == 2
        is_active = is_image or depth >= self._inactive
        self._inactive = min(self._inactive, depth)
        if not is_active:
            return None
        those: tuple[Fault, ...] = ()
        end = 0
        if text.startswith("(", after) and (target := _target(text, after + 1)):
            end, is_empty = target
            if not is_image and not text[inside:bracket].strip():
                those += (Fault.NO_TEXT,)
            if is_empty:
                those += (Fault.NO_TARGET,)
        elif self._labels:
            end = self._referred(inside, bracket)
        if not end:
            return None
        if not is_image:
            self._inactive = depth
        return begin, end, those

    def _referred(self, inside: int, bracket: int) -> int:
        """Tell where a link ends that names its target by a label; 0 when it is none."""
        text, after = self._text, bracket + 1
        following = _REFERENCE.match(text, after)
        if following and following[1].strip():
            return following.end() if label(following[1]) in self._labels else 0
        # A label holds no brackets, so this one has to be the last that was opened.
        if bracket - inside > _LONGEST_LABEL or text.find("]", inside, bracket) >= 0:
            return 0
        if label(text[inside:bracket]) not in self._labels:
            return 0
        return following.end() if following else after


def _target(text: str, at: int) -> tuple[int, bool] | None:
    """Read a target up to its closing parenthesis: where it ends, and whether it is empty."""
    at = _end(_BLANK, text, at)
    if pointed := _POINTED.match(text, at):
        end, is_empty = pointed.end(), not pointed[1].strip()
    elif text.startswith("<", at):
        return None
    else:
        end = _end(_BARE, text, at)
        is_empty = end == at
    end = title.end() if (title := _TITLE.match(text, end)) else _end(_BLANK, text, end)
    return (end + 1, is_empty) if text.startswith(")", end) else None


def _end(pattern: re.Pattern[str], text: str, at: int) -> int:
    found = pattern.match(text, at)
    return found.end() if found else at
