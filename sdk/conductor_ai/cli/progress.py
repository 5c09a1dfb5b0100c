"""How far a long one is, for somebody who watches."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from conductor.content.v1.archive_service_pb2 import ArchiveProgress

_PHASES: Final = {
    ArchiveProgress.PHASE_EXPORT: "exporting",
    ArchiveProgress.PHASE_RECEIVE: "sending",
    ArchiveProgress.PHASE_CHECK: "checking",
    ArchiveProgress.PHASE_STAGE: "setting aside",
    ArchiveProgress.PHASE_APPLY: "writing",
}


class Bar:
    """Shows nothing: nobody watches."""

    def show(self, progress: ArchiveProgress) -> None:
        """Show how far it is."""


class _TerminalBar(Bar):
    """A bar that begins anew with each phase."""

    def __init__(self) -> None:
        from rich.console import Console  # noqa: PLC0415  # see tables.py
        from rich.progress import (  # noqa: PLC0415
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
        )

        self.display = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self._task = self.display.add_task("waiting", total=None)

    def show(self, progress: ArchiveProgress) -> None:
        self.display.update(
            self._task,
            description=_PHASES.get(progress.phase, "working"),
            completed=progress.done,
            total=progress.total or None,
        )


@contextmanager
def bar() -> Iterator[Bar]:
    """Show a bar on stderr while the block runs, where stderr is a terminal."""
    if not sys.stderr.isatty():
        yield Bar()
        return
    shown = _TerminalBar()
    with shown.display:
        yield shown
