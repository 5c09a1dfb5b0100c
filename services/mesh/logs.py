"""Logs of the processes: bounded files, and their last lines."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

LIMIT = 32 * 1024 * 1024
"""Bytes after which a log moves on to its `.1`."""

_TAIL = 16 * 1024


def open_log(path: Path) -> int:
    """Open a log so that whoever inherits the descriptor goes on at the end, also after `bound`."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)


def bound(path: Path, limit: int = LIMIT) -> bool:
    """Copy a log that has grown beyond `limit` bytes to its `.1` and empty it.

    Copied and emptied, not renamed: the process that writes it holds it open. Lines written while
    it is copied are lost; where there is no room for the copy, all of them are. Answers whether it
    was emptied.
    """
    try:
        if path.stat().st_size <= limit:
            return False
        _copy(path, path.with_name(path.name + ".1"))
        os.truncate(path, 0)
    except OSError:
        return False
    return True


def _copy(path: Path, copy: Path) -> None:
    try:
        shutil.copyfile(path, copy)
    except OSError:
        copy.unlink(missing_ok=True)


def size(path: Path) -> int:
    """The bytes in a log."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def tail(path: Path, lines: int, since: int = 0) -> list[str]:
    """Read the last lines of a log that were written after its size was `since`."""
    end = size(path)
    if end == 0:
        return []
    start = max(since if since <= end else 0, end - _TAIL)
    with path.open("rb") as log:
        log.seek(start)
        text = log.read(end - start).decode("utf-8", "replace")
    return [line.rstrip() for line in text.splitlines() if line.strip()][-lines:]
