"""One thing, told whole: a line for each fact."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp

from conductor_ai.cli import times
from conductor_ai.cli.output import harmless, one_line
from conductor_ai.cli.tables import STATE_STYLES

_LABEL = 16


def show(facts: Iterable[tuple[str, str]]) -> None:
    """Print facts, each with its label; those that are empty are left out."""
    known = [(label, one_line(fact)) for label, fact in facts if fact]
    if sys.stdout.isatty():
        _draw(known)
    else:
        for label, fact in known:
            print(f"{label:<{_LABEL}}{fact}")


def text(label: str, content: str) -> None:
    """Print a text below the facts; one that is empty is left out."""
    if content:
        print(f"\n{label}:")
        print((harmless(content) if sys.stdout.isatty() else content).removesuffix("\n"))


def when(stamp: Timestamp, now: datetime | None = None) -> str:
    """Write a time, and how long ago it was; empty for one that is not known."""
    if not stamp.seconds:
        return ""
    return f"{times.moment(stamp)} ({times.age(stamp, now or datetime.now(UTC))} ago)"


def count(number: int, thing: str) -> str:
    """Write how many there are of a thing."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def _draw(facts: list[tuple[str, str]]) -> None:
    from rich.console import Console  # noqa: PLC0415  # see tables.py
    from rich.text import Text  # noqa: PLC0415

    console = Console(file=sys.stdout)
    for label, fact in facts:
        style = STATE_STYLES.get(fact, "") if label == "state" else ""
        line = Text.assemble((f"{label:<{_LABEL}}", "dim"), (fact, style))
        console.print(line, soft_wrap=True)
