"""Runs as rows."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Protocol

from conductor.execution.v1.execution_pb2 import Execution
from conductor_ai.cli import times
from conductor_ai.cli.output import json_line, one_line
from conductor_ai.cli.tables import ABSENT, Column, draw, plain, titles
from conductor_ai.cli.usage import cost

_AGE = Column("age")
_CREATED = Column("created", 20)


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


def state_name(execution: Execution) -> str:
    """Name the state of a run; one that this release does not know, by its number."""
    try:
        return Execution.State.Name(execution.state).removeprefix("STATE_").lower()
    except ValueError:
        return str(execution.state)


def took(execution: Execution, now: datetime) -> str:
    """Tell how long a run has been worked on; empty before a worker picked it up."""
    if not execution.HasField("start_time"):
        return ""
    end = execution.end_time if execution.HasField("end_time") else now
    return times.duration(execution.start_time, end)


class _Rows(Protocol):
    """Shows runs one after the other."""

    def add(self, execution: Execution) -> None: ...

    def end(self) -> None: ...


class _JsonRows:
    """Prints each run as one line of JSON, for programs."""

    def add(self, execution: Execution) -> None:
        print(json_line(execution))

    def end(self) -> None:
        pass


class _PlainRows:
    """Prints each run as it comes, in columns."""

    def __init__(self) -> None:
        self._columns = _columns(_CREATED)
        self._is_empty = True

    def add(self, execution: Execution) -> None:
        if self._is_empty:
            self._is_empty = False
            print(plain(self._columns, titles(self._columns)))
        print(plain(self._columns, _cells(execution, times.moment(execution.create_time))))

    def end(self) -> None:
        pass


class _TerminalRows:
    """Draws all runs at once, fitted to the terminal."""

    def __init__(self) -> None:
        self._now = datetime.now(UTC)
        self._rows: list[tuple[str, ...]] = []

    def add(self, execution: Execution) -> None:
        self._rows.append(_cells(execution, times.age(execution.create_time, self._now)))

    def end(self) -> None:
        if self._rows:
            draw(_columns(_AGE), self._rows)


def _rows_for(as_json: bool) -> _Rows:
    """Choose the rows for whoever reads."""
    if as_json:
        return _JsonRows()
    return _TerminalRows() if sys.stdout.isatty() else _PlainRows()


async def show(
    executions: AsyncGenerator[Execution, None], limit: int, *, as_json: bool
) -> tuple[int, bool]:
    """Show the first runs, or all for a limit of 0; answers how many, and whether there are more."""
    rows = _rows_for(as_json)
    count, more = 0, False
    async with aclosing(executions):
        async for execution in executions:
            if limit and count == limit:
                more = True
                break
            count += 1
            rows.add(execution)
    rows.end()
    return count, more


def _cells(execution: Execution, when: str) -> tuple[str, ...]:
    cells = (
        execution.id,
        state_name(execution),
        execution.agent_id,
        execution.model,
        when,
        took(execution, datetime.now(UTC)),
        cost(execution.usage),
        execution.input_preview,
    )
    return tuple(one_line(cell) or ABSENT for cell in cells)
