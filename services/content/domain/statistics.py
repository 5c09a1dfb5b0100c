"""What a text in Markdown is made of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from markdown_it import MarkdownIt
from markdown_it.ruler import RuleOptionsType
from markdown_it.rules_block import StateBlock
from markdown_it.token import Token

from services.content.domain.comparisons import lines_of

_LOOKS = 1000
"""How often it may be asked what begins at a line, next to a number of times for each line."""
_LOOKS_A_LINE = 12
"""Texts that people write take 1 to 4."""


class _TooHardError(Exception):
    """The text was made so that reading it takes forever."""


@dataclass(frozen=True, slots=True)
class TextStatistics:
    """What a text is made of."""

    lines: int
    words: int
    """What white space parts."""
    characters: int
    headings: int
    bold: int
    italic: int
    """Spans in italics, those in bold not among them."""
    code_blocks: int
    links: int
    images: int
    list_items: int


def statistics_of(text: str) -> TextStatistics:
    """Count what a text is made of, as CommonMark reads it.

    Time grows with the length of the text: up to about a second for 50,000 characters. The few texts that
    would take longer, which nobody writes by chance, are read without quotes and lists.
    """
    kinds = Counter(token.type for token in _flat(_tokens(text)))
    return TextStatistics(
        lines=len(lines_of(text)),
        words=len(text.split()),
        characters=len(text),
        headings=kinds["heading_open"],
        bold=kinds["strong_open"],
        italic=kinds["em_open"],
        code_blocks=kinds["fence"] + kinds["code_block"],
        links=kinds["link_open"],
        images=kinds["image"],
        list_items=kinds["list_item_open"],
    )


def _tokens(text: str) -> Sequence[Token]:
    """Read a text.

    markdown-it takes a square of time for quotes with fences that end where the quote does not, and may
    for others: so the times it looks for what begins at a line are counted. Without what can hold other
    blocks it looks a few times a line.
    """
    reader = MarkdownIt("commonmark")
    everywhere: RuleOptionsType = {"alt": ["paragraph", "reference", "blockquote", "list"]}
    reader.block.ruler.before("code", "look", _look, everywhere)
    try:
        return reader.parse(text, {"looks": _LOOKS + _LOOKS_A_LINE * (text.count("\n") + 1)})
    except _TooHardError:
        return MarkdownIt("commonmark").disable(["blockquote", "list"]).parse(text)


def _look(state: StateBlock, start: int, end: int, silent: bool) -> bool:
    """Count a look; a rule of markdown-it that finds nothing."""
    del start, end, silent
    state.env["looks"] -= 1
    if state.env["looks"] < 0:
        raise _TooHardError
    return False


def _flat(tokens: Sequence[Token]) -> Iterator[Token]:
    """Walk over all tokens; what an image says in place of itself is plain text."""
    for token in tokens:
        yield token
        if token.type == "inline":
            yield from token.children or ()
