"""Logs stay bounded while they are written, and their ends can be shown."""

from __future__ import annotations

import os
from pathlib import Path

from services.mesh import logs


def test_a_log_below_its_limit_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "one.log"
    path.write_text("short\n")

    assert not logs.bound(path, limit=100)
    assert path.read_text() == "short\n"


def test_a_log_above_its_limit_moves_on_and_its_writer_goes_on_at_the_start(
    tmp_path: Path,
) -> None:
    path = tmp_path / "one.log"
    writer = logs.open_log(path)
    os.write(writer, b"before\n" * 100)

    assert logs.bound(path, limit=100)
    os.write(writer, b"after\n")
    os.close(writer)

    assert path.read_text() == "after\n"
    assert (tmp_path / "one.log.1").read_text() == "before\n" * 100


def test_a_log_that_is_not_there_has_no_end_and_needs_no_bound(tmp_path: Path) -> None:
    assert logs.tail(tmp_path / "none.log", 3) == []
    assert not logs.bound(tmp_path / "none.log")


def test_the_tail_is_that_of_the_last_start_without_empty_lines(tmp_path: Path) -> None:
    path = tmp_path / "one.log"
    path.write_text("old\n")
    since = logs.size(path)
    with path.open("a") as log:
        log.write("first\n\nsecond \n\n")

    assert logs.tail(path, 5, since) == ["first", "second"]
    assert logs.tail(path, 1, since) == ["second"]


def test_a_log_that_was_emptied_since_is_read_from_its_start(tmp_path: Path) -> None:
    path = tmp_path / "one.log"
    path.write_text("new\n")

    assert logs.tail(path, 5, since=1000) == ["new"]
