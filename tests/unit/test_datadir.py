"""One mesh at a time on a data directory."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from services.mesh.datadir import LAYOUT, DataDir
from services.mesh.errors import CannotStart


def test_a_new_directory_gets_its_layout_page_and_its_version(tmp_path: Path) -> None:
    data = DataDir(tmp_path / "deep" / "data")

    with data.locked():
        assert (data.path / "VERSION").read_text() == f"{LAYOUT}\n"
        assert "VERSION" in (data.path / "README.md").read_text()
        assert data.logs.is_dir()
        assert data.path.stat().st_mode & 0o077 == 0


def test_a_second_mesh_is_refused_with_the_directory_and_the_pid_of_the_first(
    tmp_path: Path,
) -> None:
    with (
        DataDir(tmp_path).locked(),
        pytest.raises(CannotStart, match=rf"pid {os.getpid()}\).*{re.escape(str(tmp_path))}"),
        DataDir(tmp_path).locked(),
    ):
        pass


def test_a_directory_is_free_again_when_its_mesh_has_ended(tmp_path: Path) -> None:
    for _ in range(2):
        with DataDir(tmp_path).locked():
            pass


def test_a_child_that_outlives_the_mesh_does_not_keep_the_lock(tmp_path: Path) -> None:
    with DataDir(tmp_path).locked():
        child = subprocess.Popen(
            [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, close_fds=False
        )
    with child, DataDir(tmp_path).locked():
        child.kill()


def test_a_newer_layout_is_refused(tmp_path: Path) -> None:
    (tmp_path / "VERSION").write_text(f"{LAYOUT + 1}\n")

    with pytest.raises(CannotStart, match="newer release"), DataDir(tmp_path).locked():
        pass
    assert (tmp_path / "VERSION").read_text() == f"{LAYOUT + 1}\n"


def test_a_version_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "VERSION").write_text("3.0-beta\n")

    with pytest.raises(CannotStart, match=r"'3\.0-beta'"), DataDir(tmp_path).locked():
        pass


def test_a_file_in_the_place_of_the_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")

    with (
        pytest.raises(CannotStart, match="CONDUCTOR_DATA_DIR"),
        DataDir(tmp_path / "data").locked(),
    ):
        pass


def test_a_secret_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    data = DataDir(tmp_path)
    with data.locked():
        first = data.kept(data.mesh_secret, lambda: "made")

        assert data.kept(data.mesh_secret, lambda: "made again") == first == "made"
        assert data.mesh_secret.stat().st_mode & 0o777 == 0o600
        assert {path.name for path in tmp_path.glob("mesh.secret*")} == {"mesh.secret"}
        page = (tmp_path / "README.md").read_text()
        assert data.mesh_secret.name in page
        assert data.bootstrap_key.name in page


def test_a_secret_that_cannot_be_kept_is_named(tmp_path: Path) -> None:
    data = DataDir(tmp_path)
    data.bootstrap_key.mkdir()

    with data.locked(), pytest.raises(CannotStart, match=r"bootstrap\.key cannot be read"):
        data.kept(data.bootstrap_key, lambda: "made")


def test_a_mesh_that_was_killed_is_known_by_what_it_wrote_down(tmp_path: Path) -> None:
    data = DataDir(tmp_path)
    with data.locked():
        assert not data.interrupted()
        data.record({"pid": 1})
        assert data.interrupted()
        data.forget()
        assert not data.interrupted()
