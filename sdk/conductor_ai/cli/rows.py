"""Rows of things that are all there: a table fitted to them."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

from google.protobuf.timestamp_pb2 import Timestamp

from conductor_ai.cli import times
from conductor_ai.cli.output import one_line
from conductor_ai.cli.tables import ABSENT, Column, draw, fitted, plain, titles


def show(columns: Sequence[Column], rows: Iterable[Sequence[str]]) -> None:
    """Print rows under the titles of their columns; nothing for none."""
    shown = [tuple(one_line(cell) or ABSENT for cell in cells) for cells in rows]
    if not shown:
        return
    if sys.stdout.isatty():
        draw(columns, shown)
        return
    wide = fitted(columns, shown)
    for cells in (titles(wide), *shown):
        print(plain(wide, cells))


def moment(stamp: Timestamp) -> str:
    """Write a time; empty for one that is not known."""
    return times.moment(stamp) if stamp.seconds else ""
