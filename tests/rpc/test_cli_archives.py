"""`conductor backup`, `migrate` and `validate`: content as a file, as a directory, and as a whole."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

from tests.rpc.commanded import Commands
from tests.rpc.terminal import unstyled

PERSONA = "# Poet\n\nYou write verse.\n"
PLAY = "# Störm\r\n\r\nA sea.\n"


@pytest.fixture
def filled(conductor: Commands) -> Commands:
    """Content of each kind, and nothing else."""
    for agent in json_lines(conductor, "agents", "list", "--json"):
        if not agent.get("built_in"):
            conductor.done("agents", "delete", str(agent["id"]), "--purge", "--yes")
    for play in json_lines(conductor, "screenplays", "list", "--json"):
        conductor.done("screenplays", "delete", str(play["id"]), "--purge", "--yes")
    conductor.done("agents", "create", "--name", "Poet", "--tag", "verse")
    for text in ("# First\n", PERSONA):
        conductor.done("personas", "set", "poet", "-", stdin=text.encode())
    conductor.done(
        *("screenplays", "create", "Störm", "--file-path", "acts/Störm.md", "--content", "-"),
        stdin=PLAY.encode(),
    )
    return conductor


def json_lines(conductor: Commands, *arguments: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in conductor.done(*arguments).splitlines()]


def files_in(directory: Path) -> dict[str, bytes]:
    return {
        path.relative_to(directory).as_posix(): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file()
    }


def test_a_backup_is_a_whole_file_that_brings_back_what_was_changed(
    filled: Commands, tmp_path: Path
) -> None:
    made = filled.run("backup", "create", "all.zip")
    assert (made.status, made.out) == (0, "")
    assert made.err.startswith("all.zip written, ")
    assert [path.name for path in tmp_path.iterdir()] == ["all.zip"]
    before = (tmp_path / "all.zip").read_bytes()
    assert zipfile.is_zipfile(tmp_path / "all.zip")

    assert "exists" in filled.run("backup", "create", "all.zip").err
    filled.done("agents", "update", "poet", "--name", "Changed")
    kept = filled.run("backup", "restore", "all.zip")
    assert (kept.status, "1 kept" in kept.err, "--force" in kept.err) == (0, True, True)
    would = filled.run("backup", "restore", "all.zip", "--force", "--dry-run")
    assert would.err.startswith("dry run: ")
    assert ", 1 overwritten, 0 kept" in would.err
    assert "Changed" in filled.done("agents", "get", "poet")
    report = json.loads(filled.done("backup", "restore", "all.zip", "--force", "--json"))
    assert report["overwritten"] == 1
    assert filled.done("agents", "get", "poet").splitlines()[1].endswith("Poet")
    filled.done("backup", "create", "all.zip", "--force")
    assert (tmp_path / "all.zip").read_bytes() == before


def test_a_backup_that_is_damaged_is_refused_whole_and_one_that_fails_leaves_no_file(
    filled: Commands, tmp_path: Path
) -> None:
    filled.done("backup", "create", "all.zip")
    whole = (tmp_path / "all.zip").read_bytes()

    refused = filled.run("backup", "restore", "-", stdin=whole[:-20])

    assert (refused.status, "ARCHIVE_INVALID" in refused.err) == (2, True)
    assert filled.run("backup", "restore", "nowhere.zip").status == 2
    lost = filled.run("backup", "create", "other.zip", "--address", "127.0.0.1:1")
    assert lost.status == 3
    assert [path.name for path in tmp_path.iterdir()] == ["all.zip"]


def test_a_directory_there_and_back_changes_nothing(filled: Commands, tmp_path: Path) -> None:
    would = filled.run("migrate", "export", "there", "--dry-run")
    assert (would.status, (tmp_path / "there").exists()) == (0, False)
    assert would.err.startswith("dry run: 3 created")
    filled.done("migrate", "export", "there")
    first = files_in(tmp_path / "there")
    assert first["agents/poet/persona.md"] == PERSONA.encode()
    assert first["screenplays/acts/Störm.md"] == PLAY.encode()

    again = filled.run("migrate", "import", "there")
    assert (again.status, "there is nothing to do" in again.err) == (0, True)
    (tmp_path / "there/agents/poet/persona.md").write_text("# Mine\n")
    kept = filled.run("migrate", "export", "there")
    assert "agents/poet/persona.md" in kept.out
    assert "1 kept" in kept.err
    taken = filled.run("migrate", "import", "there", "--force")
    assert taken.err.splitlines()[0].startswith("dry run: 0 created, 1 overwritten")
    assert taken.err.splitlines()[-1].startswith("0 created, 1 overwritten")
    assert filled.told("personas", "show", "poet")["version"] == 3
    assert filled.done("personas", "get", "poet") == "# Mine\n"
    assert filled.done("personas", "get", "poet", "--version", "2") == PERSONA


def test_a_directory_that_holds_nothing_or_odd_things_is_told(
    filled: Commands, tmp_path: Path
) -> None:
    assert "neither agents/ nor" in filled.run("migrate", "import", ".").err
    (tmp_path / "agents/odd").mkdir(parents=True)
    (tmp_path / "agents/odd/definition.yaml").write_text("name: Odd\nplaybook: old\n")
    (tmp_path / "agents/odd/history.log").write_text("old")
    (tmp_path / "agents/odd/persona.md").symlink_to("/etc/passwd")

    told = filled.run("migrate", "import", ".", "--dry-run")

    (tables, found) = told.out.split("\n\n")
    assert "created  agent  odd  Odd" in tables
    assert sorted(line.split()[1] for line in found.splitlines()[1:]) == [
        *("agents/odd/definition.yaml", "agents/odd/history.log", "agents/odd/persona.md"),
    ]


def test_a_person_is_asked_after_the_dry_run(filled: Commands, tmp_path: Path) -> None:
    (tmp_path / "screenplays").mkdir()
    (tmp_path / "screenplays/asked.md").write_text("# Asked\n")

    shown = unstyled(filled.shown("migrate", "import", ".", typed=b"n\n"))

    assert "dry run: 1 created" in shown
    assert "nothing was written" in shown
    assert filled.run("screenplays", "list", "-q", "asked").out == ""


def test_the_mesh_is_validated_in_tables(filled: Commands) -> None:
    filled.done("agents", "create", "--name", "Bare")

    outcome = filled.run("validate")

    assert outcome.status == 0
    assert "agents/bare" in outcome.out
    assert outcome.err.startswith("0 errors, ")
    assert filled.told("validate")["is_valid"] is True


def test_a_narrow_terminal_cuts_nothing_of_what_is_to_be_done(
    filled: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled.columns = 60

    shown = unstyled(filled.shown("validate"))

    assert "fix: Set CONDUCTOR_AUTH=on before others than you can reach the mesh." in shown
