"""`conductor screenplays`: what agents work on, as people and programs use it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.rpc.commanded import Commands
from tests.rpc.terminal import COLOUR, COMMAND, unstyled

TEXT = "# Act one\n\nA sea.\n\nA ship.\n"


def made(conductor: Commands, name: str, *options: str, text: str = TEXT) -> str:
    """Make a screenplay with a text of its own; answers its id."""
    arguments = ("screenplays", "create", name, "--content", "-", *options, "--json")
    content = f"{text}\n{name}\n" if text is TEXT else text
    return str(json.loads(conductor.done(*arguments, stdin=content.encode()))["id"])


def test_a_screenplay_is_made_seen_renamed_deleted_and_taken_back(conductor: Commands) -> None:
    id_ = made(conductor, "Storm", "--tag", "sea", "--file-path", "acts/Storm.md")

    facts = conductor.done("screenplays", "get", id_)
    assert "kept in         acts/Storm.md\n" in facts
    assert conductor.done("screenplays", "rename", id_, "Calm") == (
        f"{id_} is called Calm, kept in acts/Calm.md\n"
    )
    conductor.done("screenplays", "set-directory", id_, "/srv")
    assert conductor.told("screenplays", "get", id_)["working_directory"] == "/srv"
    conductor.done("screenplays", "update", id_, "--tag", "", "--description", "No wind.")
    found = conductor.told("screenplays", "list", "-q", "wind")
    assert (found["id"], "tags" in found, "content" in found) == (id_, False, False)
    assert conductor.done("screenplays", "delete", id_) == f"{id_} deleted\n"
    other = made(conductor, "Other", "--file-path", "acts/Calm.md")
    taken = conductor.run("screenplays", "undelete", id_)
    assert (taken.status, other in taken.err) == (2, True)
    assert conductor.done("screenplays", "undelete", id_, "--drop-taken-paths") == (
        f"{id_} is back\n"
    )


def test_the_markdown_comes_out_to_the_byte_and_overwrites_no_other_file(
    conductor: Commands, tmp_path: Path
) -> None:
    text = "\ufeff# Ü\r\nno end"
    id_ = made(conductor, "A/ B..", text=text)

    assert conductor.done("screenplays", "export", id_) == text
    told = conductor.done("screenplays", "export", id_, str(tmp_path))
    assert told == f"{tmp_path}/A-B.md written\n"
    file = tmp_path / "A-B.md"
    assert file.read_bytes() == text.encode()
    assert conductor.done("screenplays", "export", id_, str(file)) == f"{file} is as it was\n"
    file.write_text("mine")
    kept = conductor.run("screenplays", "export", id_, str(file))
    assert (kept.status, "--force" in kept.err, file.read_text()) == (2, True, "mine")
    conductor.done("screenplays", "export", id_, str(file), "--force")
    assert file.read_bytes() == text.encode()
    assert [path.name for path in tmp_path.iterdir()] == ["A-B.md"]


def test_files_are_imported_once_and_known_again_by_their_path(
    conductor: Commands, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    for name in ("one", "two"):
        (tmp_path / f"in/{name}.md").write_text(f"# Import {name}\n")
    files = ("in/one.md", str(tmp_path / "in" / ".." / "in/two.md"))

    lines = conductor.done("screenplays", "import", *files, "--tag", "batch").splitlines()
    again = conductor.done("screenplays", "import", *files).splitlines()

    assert [line.partition(" is ")[2] for line in lines] == [
        *("in/one.md, version 1", "in/two.md, version 1"),
    ]
    assert again == lines
    (tmp_path / "in/one.md").write_text("# Import anew\n")
    taken = conductor.run("screenplays", "import", *files)
    assert (taken.status, "in/one.md: " in taken.err) == (2, True)
    assert taken.out == f"{lines[1]}\n"
    changed = conductor.done("screenplays", "import", "in/one.md", "--overwrite")
    assert changed.endswith("in/one.md, version 2\n")
    assert (
        conductor.run("screenplays", "import", "in/one.md", "in/two.md", "--name", "x").status == 2
    )


def test_who_has_a_path_or_an_equal_text_is_told(conductor: Commands, tmp_path: Path) -> None:
    id_ = made(conductor, "First", "--file-path", "dup/first.md", text="# Twin\n")
    (tmp_path / "twin.md").write_text("# Twin\r\n\n")

    lines = conductor.done(
        "screenplays", "duplicates", "twin.md", "--path", "dup/first.md"
    ).splitlines()

    assert [line.split() for line in lines[1:]] == [
        ["path", id_, "dup/first.md", "First"],
        ["text", id_, "dup/first.md", "First"],
    ]
    alone = conductor.run("screenplays", "duplicates", "--path", "dup/free.md")
    assert (alone.status, alone.err) == (0, "no other one is like that\n")
    second = conductor.run("screenplays", "create", "Second", "--content", "twin.md")
    assert f"{id_} (First) has an equal text\n" in second.err


def test_findings_are_told_as_compilers_do_and_keep_no_text_back(
    conductor: Commands, tmp_path: Path
) -> None:
    (tmp_path / "bad.md").write_text("# A\n\n### B\n\n```\nopen\n")
    (tmp_path / "good.md").write_text("# A\n")

    checked = conductor.run("screenplays", "validate", "good.md", "bad.md")
    assert checked.status == 1
    assert [line.split(":")[:4] for line in checked.out.splitlines()] == [
        ["bad.md", "3", "1", " warning"],
        ["bad.md", "5", "1", " error"],
    ]
    assert conductor.run("screenplays", "validate", "good.md").status == 0
    stored = conductor.run("screenplays", "create", "Bad", "--content", "bad.md")
    assert stored.status == 0
    assert "unclosed-fence" in stored.err


def test_versions_are_listed_shown_compared_and_restored(conductor: Commands) -> None:
    id_ = made(conductor, "Versions", text="one\n")
    conductor.done("screenplays", "update", id_, "--content", "-", stdin=b"two\n")

    lines = conductor.done("screenplays", "versions", id_).splitlines()
    assert [line.split()[0] for line in lines] == ["version", "2", "1"]
    assert conductor.done("screenplays", "show", id_, "1").endswith("\ntext:\none\n")
    compared = conductor.run("screenplays", "compare", id_, "1")
    assert compared.out.splitlines()[-2:] == ["-one", "+two"]
    assert "1 line added, 1 removed" in compared.err
    assert conductor.done("screenplays", "restore", id_, "1") == f"{id_} saved, version 3\n"
    assert conductor.done("screenplays", "export", id_, "--version", "2") == "two\n"
    stale = conductor.run("screenplays", "restore", id_, "2", "--etag", "1")
    assert (stale.status, "ETAG_MISMATCH" in stale.err) == (1, True)


def test_a_terminal_gets_a_diff_in_colours_that_no_text_commands(conductor: Commands) -> None:
    id_ = made(conductor, "Colours", text="a\n--- x\n[red]b\n")
    conductor.done(
        *("screenplays", "update", id_, "--content", "-"), stdin="a\n[red]c\x9b31m\n".encode()
    )

    shown = conductor.shown("screenplays", "compare", id_, "1", "2")

    assert f"{COLOUR}31m---- x" in shown
    assert f"{COLOUR}32m+[red]c31m" in shown
    assert "1 line added, 2 removed" in unstyled(shown)


def test_an_edit_is_merged_with_what_others_saved(conductor: Commands, tmp_path: Path) -> None:
    id_ = made(conductor, "Two places")
    theirs = tmp_path / "theirs"
    theirs.write_text(conductor.done("screenplays", "export", id_).replace("ship", "boat"))
    conductor.edits(
        tmp_path / "editor",
        f'{COMMAND} screenplays update {id_} --content {theirs}; sed -i s/sea/lake/ "$1"',
    )

    outcome = conductor.run("screenplays", "edit", id_)

    assert outcome.status == 0
    assert outcome.err.splitlines() == [
        "somebody else saved in the meantime; both changes are merged",
        f"{id_} saved as version 3",
    ]
    text = conductor.done("screenplays", "export", id_)
    assert ("A lake." in text, "A boat." in text) == (True, True)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("get", "nobody"), "SCREENPLAY_NOT_FOUND"),
        (("update", "x"), "nothing is to change"),
        (("create", "a<b"), "screenplay.name"),
        (("import", "-"), "needs a name"),
        (("duplicates",), "--path"),
        (("validate", "/nowhere"), "/nowhere cannot be read"),
        (("delete", "x", "--purge"), "say --yes"),
    ],
)
def test_what_makes_no_sense_is_refused_with_a_sentence(
    conductor: Commands, arguments: tuple[str, ...], told: str
) -> None:
    outcome = conductor.run("screenplays", *arguments)

    assert (outcome.status, outcome.out) == (2, "")
    assert told in outcome.err
