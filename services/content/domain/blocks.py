"""The blocks of a Markdown text: headings, text, fences, and what is code, as CommonMark has them.

A reader of its own and no library's: a text is checked with each save, of up to 1 MiB, and whatever it
holds that has to take time in proportion to its length. What it leaves out is what nothing here asks
for: whether lists are loose, what text looks like, containers nested deeper than `DEPTH`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

DEPTH = 100
"""How many lists and quotes may be nested; what is deeper is text."""

TOO_DEEP = "#######"
"""What begins no heading, and was meant to."""

_INDENT = 3
"""How many spaces may stand before a mark; with more it is code."""
_MARKS = frozenset("#`~<=-*_+0123456789>")
"""With what else a line begins, after white space, it begins nothing but text."""
_BOX_MARKS = frozenset("*+-0123456789>")
"""With what else it begins, it begins no list item or quote."""
_LEADS = frozenset({*_MARKS, " ", "\t"})
_PREFIX = re.compile(r"[ \t>0-9.)*+-]*")
_SPACES = re.compile(" *")
_HEADING = re.compile(r"#{1,6}(?=[ \t]|$)")
_FENCE = re.compile(r"`{3,}(?=[^`]*$)|~{3,}")
_BREAK = re.compile(r"(?:(?:\*[ \t]*+){3,}|(?:-[ \t]*+){3,}|(?:_[ \t]*+){3,})$")
_UNDERLINE = re.compile(r"(?:=+|-+)[ \t]*+$")
_MARKER = re.compile(r"([*+-]|([0-9]{1,9})[.)])(?=[ \t]|$)")

_NAME = r"[A-Za-z][A-Za-z0-9-]*+"
_ATTRIBUTE = (
    r"(?>\s++[A-Za-z_:][A-Za-z0-9_.:-]*+(?>\s*+=\s*+(?:[^\s\"'=<>`]++|'[^']*+'|\"[^\"]*+\"))?)"
)
TAG = re.compile(rf"<{_NAME}{_ATTRIBUTE}*+\s*+/?>|</{_NAME}\s*+>")
"""A tag of HTML, whole."""

_HTML_NAMES = (
    "address|article|aside|base|basefont|blockquote|body|caption|center|col|colgroup|dd|details|dialog"
    "|dir|div|dl|dt|fieldset|figcaption|figure|footer|form|frame|frameset|h[1-6]|head|header|hr|html"
    "|iframe|legend|li|link|main|menu|menuitem|nav|noframes|ol|optgroup|option|p|param|search|section"
    "|summary|table|tbody|td|tfoot|th|thead|title|tr|track|ul"
)
_RAW = "script|pre|style|textarea"
_HTML = re.compile(
    rf"<(?:((?:{_RAW})(?=[\s>]|$))|(!--)|(\?)|(![A-Za-z])|(!\[CDATA\[)|/?(?:{_HTML_NAMES})(?=\s|/?>|$))",
    re.IGNORECASE,
)
"""How a block of HTML begins that may interrupt a paragraph; the group is the number of its end."""
_HTML_ENDS = (
    None,
    re.compile(rf"</(?:{_RAW})>", re.IGNORECASE),
    re.compile("-->"),
    re.compile(r"\?>"),
    re.compile(">"),
    re.compile(r"\]\]>"),
)
"""What ends it; None: a blank line after it."""

_LABEL = r"\[(?=[^\]]*?[^\s\]])((?:[^\[\]\\]|\\.){1,999}+)\]:"
_DEFINITION = re.compile(
    rf"{_LABEL}[ \t]*+\n?[ \t]*+(?:<(?:[^<>\\\n]|\\.)*+>|[^\s<]\S*+)", re.DOTALL
)
_TITLE = re.compile(
    r"(?:[ \t]++\n?|\n)[ \t]*+"
    r"(?:\"(?:[^\"\\]|\\.)*+\"|'(?:[^'\\]|\\.)*+'|\((?:[^()\\]|\\.)*+\))[ \t]*+(?:\n|$)",
    re.DOTALL,
)
_LINE_END = re.compile(r"[ \t]*+(?:\n|$)")


class Heading(NamedTuple):
    """A heading, and where it begins."""

    level: int
    line: int
    column: int


class Fence(NamedTuple):
    """A block of code between fences, and where it begins."""

    mark: str
    """The fence that opens it."""
    line: int
    column: int
    closed: bool


@dataclass(slots=True)
class Passage:
    """What a paragraph or a heading says, line by line."""

    lines: list[str] = field(default_factory=list)
    """Without what stands before them: white space, marks of lists and quotes."""
    places: list[tuple[int, int]] = field(default_factory=list)
    """Where each begins: line and column, from 1."""
    is_marked: bool = False
    """Whether it may hold what is wrong with a link, or too deep a heading."""

    def add(self, text: str, line: int, column: int) -> None:
        """Add a line, and where it begins."""
        self.lines.append(text)
        self.places.append((line, column))
        if ("]" in text and "(" in text) or text.startswith(TOO_DEEP):
            self.is_marked = True


@dataclass(slots=True)
class Blocks:
    """What a text is made of, in its order."""

    headings: list[Heading] = field(default_factory=list)
    fences: list[Fence] = field(default_factory=list)
    passages: list[Passage] = field(default_factory=list)
    """Those that are marked."""
    code: bytearray = field(default_factory=bytearray)
    """For each line, 1 when it is code, else 0."""
    labels: set[str] = field(default_factory=set)
    """What links may refer to by name, as `label` spells it."""


def label(text: str) -> str:
    """Spell the label of a link as all that mean the same are spelled."""
    return " ".join(text.split()).casefold()


def parse(lines: Sequence[str]) -> Blocks:
    """Read the blocks of a text.

    Args:
        lines: without their ends.
    """
    reader = _Reader(len(lines))
    for number, line in enumerate(lines, 1):
        reader.take(number, line)
    return reader.end()


_NOTHING, _PARAGRAPH, _IN_FENCE, _IN_HTML = range(4)
"""What is open beside containers. No enum: this is asked several times a line."""


class _Reader:
    """Takes one line after the other, and knows what is open."""

    def __init__(self, lines: int) -> None:
        self._blocks = Blocks(code=bytearray(lines))
        self._boxes: list[int] = []
        """The open containers: 0 is a quote, else a list item and how far in its content is."""
        self._quotes: list[int] = []
        """How many of the containers are quotes, up to and with each."""
        self._is_empty = False
        """Whether the innermost container is a list item that holds nothing yet."""
        self._leaf = _NOTHING
        self._passage = Passage()
        self._fence = ("", 0, 0)
        self._html_end: re.Pattern[str] | None = None

    def take(self, number: int, line: str) -> None:
        """Take the next line."""
        if self._leaf <= _PARAGRAPH and not (self._quotes and self._quotes[-1]) and not line:
            self._settle(len(self._boxes) - self._is_empty)
            return
        if not self._boxes and self._leaf <= _PARAGRAPH and line and line[0] not in _LEADS:
            # Most lines are of this kind.
            self._leaf = _PARAGRAPH
            self._passage.add(line, number, 1)
            return
        shift = 0
        if "\t" in line:
            # Blocks know columns only, where a tab ends at the next fourth one.
            head = line[: _PREFIX.match(line).end()]  # type: ignore[union-attr] # matches nothing, too
            spaced = head.expandtabs(4)
            line, shift = spaced + line[len(head) :], len(spaced) - len(head)
        at, matched = self._matched(line)
        if self._leaf in {_IN_FENCE, _IN_HTML}:
            if matched == len(self._boxes):
                self._blocks.code[number - 1] = self._leaf == _IN_FENCE
                self._raw(line, at)
                return
            self._settle(matched)
        self._blocks.code[number - 1] = self._open(number, line, at, matched, shift)

    def end(self) -> Blocks:
        """Close what is open and answer what there was."""
        self._settle(0)
        return self._blocks

    def _matched(self, line: str) -> tuple[int, int]:
        """Tell where the line goes on inside of the containers it stays in, and how many these are."""
        at = 0
        for index, need in enumerate(self._boxes):
            first = _first(line, at)
            if first == len(line):
                if not need:
                    return at, index
                before = self._quotes[index - 1] if index else 0
                if self._quotes[-1] == before:
                    # All others are list items, of which a blank line ends none but an empty one.
                    return first, len(self._boxes) - self._is_empty
            elif need:
                if first - at < need:
                    return at, index
                at += need
            elif first - at <= _INDENT and line[first] == ">":
                at = _after_quote(line, first)
            else:
                return at, index
        return at, len(self._boxes)

    def _raw(self, line: str, at: int) -> None:
        """Take a line of a fence or of HTML."""
        first = _first(line, at)
        if self._leaf == _IN_FENCE:
            mark = self._fence[0]
            if line.startswith(mark, first) and first - at <= _INDENT:
                closing = line[first:].rstrip(" \t")
                if closing == mark[0] * len(closing):
                    self._blocks.fences.append(Fence(*self._fence, closed=True))
                    self._leaf = _NOTHING
        elif self._html_end is None:
            if first == len(line):
                self._leaf = _NOTHING
        elif self._html_end.search(line, at):
            self._leaf = _NOTHING

    def _open(self, number: int, line: str, at: int, matched: int, shift: int) -> bool:
        """Take a line that goes on with a paragraph or begins something; tells whether it is code."""
        while True:
            first = _first(line, at)
            if first == len(line):
                self._blank(matched)
                return False
            if first - at > _INDENT:
                if self._leaf == _PARAGRAPH:
                    break
                self._settle(matched)
                return True
            if line[first] not in _MARKS:
                break
            if line[first] in _BOX_MARKS:
                box = self._container(line, at, first, matched < len(self._boxes))
                if box is not None:
                    self._settle(matched)
                    at, need = box
                    self._push(need)
                    matched = len(self._boxes)
                    continue
            if not self._block(number, line, first, matched, shift):
                break
            return self._leaf == _IN_FENCE
        if self._leaf != _PARAGRAPH:
            self._settle(matched)
            self._leaf = _PARAGRAPH
        self._passage.add(line[first:], number, first - shift + 1)
        return False

    def _container(self, line: str, at: int, first: int, is_lazy: bool) -> tuple[int, int] | None:
        """Read the mark of a quote or a list item: where its content is, and how far in."""
        if len(self._boxes) >= DEPTH:
            return None
        if line[first] == ">":
            return _after_quote(line, first), 0
        item = _MARKER.match(line, first)
        if item is None or (line[first] in "*-" and _BREAK.match(line, first)):
            return None
        after = item.end()
        content = _first(line, after)
        if self._leaf == _PARAGRAPH and not is_lazy:
            if line[first] == "-" and self._is_underline(line, first):
                return None
            if content == len(line) or (item[2] and int(item[2]) != 1):
                return None
        indent = after - at
        if content == len(line) or content - after > _INDENT + 1:
            return min(after + 1, len(line)), indent + 1
        return content, indent + content - after

    def _block(self, number: int, line: str, first: int, matched: int, shift: int) -> bool:
        """Begin what is no container, and tell whether it is there."""
        is_lazy = matched < len(self._boxes)
        mark, column = line[first], first - shift + 1
        if mark == "#" and (heading := _HEADING.match(line, first)):
            self._settle(matched)
            self._blocks.headings.append(Heading(len(heading[0]), number, column))
            if "]" in line and "(" in line:
                self._passage.add(line[heading.end() :], number, heading.end() - shift + 1)
                self._keep()
        elif mark in "`~" and (fence := _FENCE.match(line, first)):
            self._settle(matched)
            self._leaf, self._fence = _IN_FENCE, (fence[0], number, column)
        elif mark == "<":
            return self._html(line, first, matched)
        elif self._leaf == _PARAGRAPH and not is_lazy and self._is_underline(line, first):
            line_, column = self._passage.places[0]
            self._blocks.headings.append(Heading(1 if mark == "=" else 2, line_, column))
            self._settle(matched)
        elif mark in "*-_" and _BREAK.match(line, first):
            self._settle(matched)
        else:
            return False
        return True

    def _is_underline(self, line: str, first: int) -> bool:
        """Tell whether the line makes a heading of the paragraph that is open."""
        if not _UNDERLINE.match(line, first):
            return False
        self._define()
        if not self._passage.lines:
            self._leaf = _NOTHING
            return False
        return True

    def _html(self, line: str, first: int, matched: int) -> bool:
        begin = _HTML.match(line, first)
        if begin is None:
            tag = None if self._leaf == _PARAGRAPH else TAG.match(line, first)
            if tag is None or line[tag.end() :].strip(" \t"):
                return False
        end = _HTML_ENDS[begin.lastindex or 0] if begin else None
        self._settle(matched)
        if end is None or not end.search(line, first):
            self._leaf, self._html_end = _IN_HTML, end
        return True

    def _blank(self, matched: int) -> None:
        is_empty = self._is_empty and matched == len(self._boxes)
        self._settle(matched)
        self._is_empty = is_empty

    def _push(self, need: int) -> None:
        self._boxes.append(need)
        self._quotes.append((self._quotes[-1] if self._quotes else 0) + (not need))
        self._is_empty = need > 0

    def _settle(self, matched: int) -> None:
        """Close the leaf, and the containers beyond the first so many."""
        self._is_empty = False
        if self._leaf == _PARAGRAPH:
            self._define()
            self._keep()
        elif self._leaf == _IN_FENCE:
            self._blocks.fences.append(Fence(*self._fence, closed=False))
        self._leaf = _NOTHING
        if matched < len(self._boxes):
            del self._boxes[matched:], self._quotes[matched:]

    def _keep(self) -> None:
        if self._passage.is_marked:
            self._blocks.passages.append(self._passage)
        if self._passage.lines:
            self._passage = Passage()

    def _define(self) -> None:
        """Take the definitions of link targets off the beginning of a paragraph."""
        passage = self._passage
        if not passage.lines or not passage.lines[0].startswith("["):
            return
        text = "\n".join(passage.lines)
        at = 0
        while definition := _DEFINITION.match(text, at):
            end = _TITLE.match(text, definition.end()) or _LINE_END.match(text, definition.end())
            if end is None:
                break
            self._blocks.labels.add(label(definition[1]))
            at = end.end()
        count = len(passage.lines) if at == len(text) else text.count("\n", 0, at)
        del passage.lines[:count], passage.places[:count]


def _first(line: str, at: int) -> int:
    """Find what is no space."""
    if not line.startswith(" ", at):
        return at
    return _SPACES.match(line, at).end()  # type: ignore[union-attr] # matches nothing, too


def _after_quote(line: str, mark: int) -> int:
    return mark + 2 if line.startswith(" ", mark + 1) else mark + 1
