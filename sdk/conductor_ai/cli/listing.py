"""Things as rows: runs, and what else comes in pages."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Generic, TypeVar

import typer
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from conductor.execution.v1.execution_pb2 import Execution
from conductor_ai.cli import times
from conductor_ai.cli.exits import Exit
from conductor_ai.cli.output import enum_name, json_line, one_line, tell
from conductor_ai.cli.tables import ABSENT, Column, draw, plain, titles
from conductor_ai.cli.usage import cost

T = TypeVar("T", bound=Message)

Limit = Annotated[int, typer.Option(help="The most to list; 0 lists all.", min=0)]
Reverse = Annotated[bool, typer.Option("--reverse", help="Turn the order around.")]
Deleted = Annotated[bool, typer.Option("--deleted", help="Only deleted ones.")]

_AGE = Column("age")
_CREATED = Column("created", 20)
_LARGEST_PAGE = 200


def _create_time(thing: Any) -> Timestamp:
    made: Timestamp = thing.create_time
    return made


@dataclass(frozen=True)
class Layout(Generic[T]):
    """How things of a kind become rows."""

    columns: Callable[[Column], tuple[Column, ...]]
    """Its columns, given that of when they were made."""
    cells: Callable[[T, str], tuple[str, ...]]
    """The cells of one, given when it was made."""
    time: Callable[[T], Timestamp] = _create_time
    """What stands for when it was made."""


def state_name(execution: Execution) -> str:
    """Name the state of a run."""
    return enum_name(Execution.State, execution.state, "STATE_")


def took(execution: Execution, now: datetime) -> str:
    """Tell how long a run has been worked on; empty before a worker picked it up."""
    if not execution.HasField("start_time"):
        return ""
    end = execution.end_time if execution.HasField("end_time") else now
    return times.duration(execution.start_time, end)


class _JsonRows(Generic[T]):
    """Prints each thing as one line of JSON, for programs."""

    def add(self, thing: T) -> None:
        print(json_line(thing))

    def end(self) -> None:
        pass


class _PlainRows(Generic[T]):
    """Prints each thing as it comes, in columns."""

    def __init__(self, layout: Layout[T]) -> None:
        self._columns = layout.columns(_CREATED)
        self._layout = layout
        self._is_empty = True

    def add(self, thing: T) -> None:
        if self._is_empty:
            self._is_empty = False
            print(plain(self._columns, titles(self._columns)))
        when = times.moment(self._layout.time(thing))
        print(plain(self._columns, _shown(self._layout.cells(thing, when))))

    def end(self) -> None:
        pass


class _TerminalRows(Generic[T]):
    """Draws all things at once, fitted to the terminal."""

    def __init__(self, layout: Layout[T]) -> None:
        self._layout = layout
        self._now = datetime.now(UTC)
        self._rows: list[tuple[str, ...]] = []

    def add(self, thing: T) -> None:
        age = times.age(self._layout.time(thing), self._now)
        self._rows.append(_shown(self._layout.cells(thing, age)))

    def end(self) -> None:
        if self._rows:
            draw(self._layout.columns(_AGE), self._rows)


def _rows_for(layout: Layout[T], as_json: bool) -> _JsonRows[T] | _PlainRows[T] | _TerminalRows[T]:
    """Choose the rows for whoever reads."""
    if as_json:
        return _JsonRows()
    return _TerminalRows(layout) if sys.stdout.isatty() else _PlainRows(layout)


def page_size(limit: int) -> int:
    """Choose how many to ask for at a time: one more than is shown tells whether there are more."""
    return min(limit + 1, _LARGEST_PAGE) if limit else _LARGEST_PAGE


async def show(
    things: AsyncGenerator[T, None], limit: int, layout: Layout[T], *, nothing: str, as_json: bool
) -> Exit:
    """Show the first things, or all for a limit of 0.

    Args:
        nothing: what is told when there are none.
    """
    rows = _rows_for(layout, as_json)
    count, more = 0, False
    async with aclosing(things):
        async for thing in things:
            if limit and count == limit:
                more = True
                break
            count += 1
            rows.add(thing)
    rows.end()
    if more:
        tell_more(count)
    elif not count:
        tell(nothing)
    return Exit.SUCCEEDED


def tell_more(count: int) -> None:
    """Say that those shown are not all."""
    tell(f"there are more than the {count} listed; --limit 0 lists all")


def _shown(cells: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(one_line(cell) or ABSENT for cell in cells)


def _columns(when: Column) -> tuple[Column, ...]:
    return (
        Column("id", 37),
        Column("state", 9, state=True),
        Column("agent", 10, below=True),
        Column("model", 12, below=True),
        when,
        Column("took", 7, right=True, below=True),
        Column("cost", 9, right=True),
        Column("input", below=True, long=True),
    )


def _cells(execution: Execution, when: str) -> tuple[str, ...]:
    return (
        execution.id,
        state_name(execution),
        execution.agent_id,
        execution.model,
        when,
        took(execution, datetime.now(UTC)),
        cost(execution.usage),
        execution.input_preview,
    )


EXECUTIONS: Final = Layout(_columns, _cells)
