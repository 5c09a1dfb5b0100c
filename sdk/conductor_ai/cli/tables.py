"""Rows of things: styled and fitted at a terminal, plain columns behind a pipe."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

# rich takes time to import that most commands have no use for: it is imported where it is used.
if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

_GAP: Final = "  "
_LEAST_ROOM: Final = 20

ABSENT: Final = "-"
"""What stands for a value that nobody knows: it is not zero."""

STATE_STYLES: Final = {
    "queued": "yellow",
    "running": "blue",
    "waiting_approval": "magenta",
    "succeeded": "green",
    "failed": "red",
    "cancelled": "bright_black",
    "pending": "yellow",
    "completed": "green",
    "closed": "green",
    "open": "red",
    "half_open": "yellow",
    "active": "green",
    "expired": "bright_black",
    "revoked": "red",
    "warning": "yellow",
    "error": "red",
    "created": "green",
    "overwritten": "yellow",
    "kept": "magenta",
    "unchanged": "bright_black",
}
"""How a state looks at a terminal, by its name."""


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Args:
        title: its name.
        width: the cells it takes at least behind a pipe, where the rows to come are not known.
        right: whether it holds figures.
        state: whether it holds a state, whose name comes first.
        below: whether it goes on a second line at a terminal too narrow for all columns.
        long: whether its text may be cut at a terminal; only the last column.
    """

    title: str
    width: int = 0
    right: bool = False
    state: bool = False
    below: bool = False
    long: bool = False


def titles(columns: Sequence[Column]) -> tuple[str, ...]:
    """Give the first row."""
    return tuple(column.title for column in columns)


def fitted(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> tuple[Column, ...]:
    """Make the columns as wide as what they hold."""
    across = zip(columns, *rows, strict=True)
    return tuple(
        replace(column, width=max(map(_width, (column.title, *cells)))) for column, *cells in across
    )


def plain(columns: Sequence[Column], cells: Sequence[str]) -> str:
    """Write a row for a pipe: aligned as far as it fits, nothing cut, no colours."""
    padded = (_pad(cell, column) for column, cell in zip(columns, cells, strict=True))
    return _GAP.join(padded).rstrip()


def draw(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> None:
    """Draw rows at a terminal; a row takes a second line where one is too narrow for it."""
    from rich.console import Console  # noqa: PLC0415

    console = Console(file=sys.stdout)
    for text in _Drawing(console, columns, rows).lines():
        # A line that is too wide all the same is the terminal's to wrap: nothing is cut.
        console.print(text, soft_wrap=True)


class _Drawing:
    def __init__(
        self, console: Console, columns: Sequence[Column], rows: Sequence[Sequence[str]]
    ) -> None:
        self._columns = fitted(columns, rows)
        self._rows = rows
        self._room = console.width
        least = [
            min(column.width, _LEAST_ROOM) if column.long else column.width
            for column in self._columns
        ]
        self._is_narrow = sum(least) + len(_GAP) * (len(least) - 1) > self._room

    def lines(self) -> Iterator[Text]:
        yield self._first(titles(self._columns), "bold")
        for cells in self._rows:
            yield self._first(cells)
            if self._is_narrow:
                yield self._second(cells)

    def _first(self, cells: Sequence[str], style: str = "") -> Text:
        from rich.text import Text  # noqa: PLC0415

        parts = []
        for column, cell in zip(self._columns, cells, strict=True):
            if not (self._is_narrow and column.below):
                look = STATE_STYLES.get(cell.partition(" ")[0], "") if column.state else ""
                parts.append(Text(_pad(cell, column), look))
        text = Text(_GAP).join(parts)
        text.stylize(style)
        text.rstrip()
        return text if self._is_narrow else self._fit(text)

    def _second(self, cells: Sequence[str]) -> Text:
        from rich.text import Text  # noqa: PLC0415

        known = (
            f"{column.title}: {cell}"
            for column, cell in zip(self._columns, cells, strict=True)
            if column.below and cell not in ("", ABSENT)
        )
        return self._fit(Text(_GAP + ", ".join(known), "dim"))

    def _fit(self, text: Text) -> Text:
        if self._columns[-1].long:
            text.truncate(self._room, overflow="ellipsis")
        return text


def _pad(cell: str, column: Column) -> str:
    padding = " " * (column.width - _width(cell))
    return padding + cell if column.right else cell + padding


def _width(text: str) -> int:
    """Count the cells of a terminal that a text takes."""
    from rich.cells import cell_len  # noqa: PLC0415

    return cell_len(text)
