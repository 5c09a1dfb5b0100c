"""`conductor personas`: texts and their versions as people and programs use them."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.rpc.commanded import Commands
from tests.rpc.terminal import COMMAND

TEXT = "# Poet\n\nYou write verse.\n\nShort lines.\n"


@pytest.fixture
def agent(conductor: Commands, request: pytest.FixtureRequest) -> str:
    """An agent of the test's own, without a persona."""
    made: str = conductor.told("agents", "create", "--name", request.node.name[:60])["id"]
    return made


def texts(conductor: Commands, agent: str, *contents: str) -> None:
    for content in contents:
        conductor.done("personas", "set", agent, "-", stdin=content.encode())


def test_a_text_comes_out_to_the_byte_it_went_in(
    conductor: Commands, agent: str, tmp_path: Path
) -> None:
    text = "\ufeff# Zoë\r\n\x0c\ttext without an end"
    file = tmp_path / "persona.md"
    file.write_bytes(text.encode().replace(b"\x0c", b""))

    told = conductor.done("personas", "set", agent, str(file), "--reason", "first")

    assert told == f"the persona of {agent} is version 1\n"
    assert conductor.done("personas", "get", agent).encode() == file.read_bytes()
    assert conductor.done("personas", "set", agent, str(file)).endswith("version 1\n")


def test_versions_are_listed_shown_compared_and_restored(conductor: Commands, agent: str) -> None:
    texts(conductor, agent, TEXT)
    second = TEXT.replace("Short", "Long")
    conductor.done(
        *("personas", "set", agent, "-", "--reason", "longer", "--metadata", '{"n": 1}'),
        stdin=second.encode(),
    )

    lines = conductor.done("personas", "versions", agent).splitlines()
    assert lines[0].split() == [
        *("version", "created", "author", "characters", "used", "aliases", "reason"),
    ]
    assert [line.split()[0] for line in lines[1:]] == ["2", "1"]
    assert lines[1].endswith("longer")
    shown = conductor.done("personas", "show", agent, "2")
    assert "reason          longer\n" in shown
    assert 'metadata        {"n": 1.0}\n' in shown
    assert shown.endswith(f"\ntext:\n{second}")
    compared = conductor.run("personas", "compare", agent, "1", "2")
    assert compared.out.splitlines()[-2:] == ["-Short lines.", "+Long lines."]
    assert compared.err == "1 line added, 1 removed, 4 unchanged: 20.00 % changed\n"
    assert conductor.run("personas", "compare", agent, "2").err == "the texts are equal\n"
    restored = conductor.done("personas", "restore", agent, "first", "--reason", "back")
    assert restored == f"the persona of {agent} is version 3\n"
    assert conductor.done("personas", "get", agent) == TEXT
    assert "restored from 1: back" in conductor.done("personas", "versions", agent, "--from", "3")


def test_a_diff_behind_a_pipe_is_one_that_patch_takes(
    conductor: Commands, agent: str, tmp_path: Path
) -> None:
    texts(conductor, agent, "one\ntwo", "one\n2\nthree")
    file = tmp_path / "text"
    file.write_text("one\ntwo")

    diff = conductor.done("personas", "compare", agent, "1", "2")
    subprocess.run(["patch", "-s", str(file)], input=diff.encode(), check=True, cwd=tmp_path)

    assert file.read_text() == "one\n2\nthree"


def test_an_alias_moves_and_says_which_version_runs_use(conductor: Commands, agent: str) -> None:
    texts(conductor, agent, "one", "two")

    assert conductor.done("personas", "alias", agent, "production", "first") == (
        f"production of {agent} is version 1\n"
    )
    told = conductor.done("personas", "set", agent, "-", stdin=b"three")
    assert told == (
        f"the persona of {agent} is version 3; runs use 1, which `production` stands for\n"
    )
    assert conductor.done("personas", "get", agent, "--version", "production") == "one"
    assert "alias           production is 1\n" in conductor.done("personas", "show", agent)
    assert "production is 1" in conductor.done("agents", "get", agent)
    conductor.done("personas", "unalias", agent, "production")
    assert conductor.told("personas", "show", agent)["active_version"] == 3
    gone = conductor.run("personas", "unalias", agent, "production")
    assert (gone.status, "PERSONA_ALIAS_NOT_FOUND" in gone.err) == (2, True)


def test_statistics_and_a_clean_up_that_says_first_what_it_would_do(
    conductor: Commands, agent: str
) -> None:
    texts(conductor, agent, "one", "two", TEXT)

    assert "headings        1\n" in conductor.done("personas", "statistics", agent)
    refused = conductor.run("personas", "clean-up", agent, "--keep", "1")
    assert (refused.status, "--yes" in refused.err) == (2, True)
    would = conductor.done("personas", "clean-up", agent, "--keep", "1", "--dry-run")
    assert would.startswith("2 versions would be deleted, 1 kept")
    done = conductor.told("personas", "clean-up", agent, "--keep", "1", "--yes")
    assert (done["deleted"], done["kept"]) == (2, 1)


def test_a_persona_is_deleted_and_taken_back(conductor: Commands, agent: str) -> None:
    texts(conductor, agent, TEXT)

    assert conductor.done("personas", "delete", agent) == f"the persona of {agent} deleted\n"
    assert "PERSONA_NOT_FOUND" in conductor.run("personas", "get", agent).err
    assert agent in conductor.done("personas", "list", "--deleted")
    assert "gone for good" in conductor.done("personas", "show", agent, "--deleted")
    assert conductor.run("personas", "show", agent, "1", "--deleted").status == 2
    conductor.done("personas", "undelete", agent)
    assert conductor.done("personas", "get", agent) == TEXT
    assert agent in conductor.done("personas", "list")


def test_an_edit_makes_a_version_and_the_first_edit_the_first_one(
    conductor: Commands, agent: str, tmp_path: Path
) -> None:
    conductor.edits(tmp_path / "editor", 'echo one > "$1"', 'echo two >> "$1"', "true")

    first = conductor.run("personas", "edit", agent)
    second = conductor.run("personas", "edit", agent, "--reason", "more")
    third = conductor.run("personas", "edit", agent)

    assert first.err == f"the persona of {agent} is version 1\n"
    assert second.err == f"the persona of {agent} is version 2\n"
    assert third.err == f"the persona of {agent} is as it was\n"
    assert conductor.done("personas", "get", agent) == "one\ntwo\n"


def test_two_edits_of_one_line_meet_in_the_editor(
    conductor: Commands, agent: str, tmp_path: Path
) -> None:
    texts(conductor, agent, TEXT)
    theirs = tmp_path / "theirs"
    theirs.write_text(TEXT.replace("Short", "Their"))
    conductor.edits(
        tmp_path / "editor",
        f'{COMMAND} personas set {agent} {theirs} > {tmp_path}/out; sed -i s/Short/My/ "$1"',
        """sed -i -e '/^[<=>]\\{7\\}/d' "$1" """,
    )

    outcome = conductor.run("personas", "edit", agent)

    assert outcome.status == 0
    assert outcome.err.endswith(f"the persona of {agent} is version 3\n")
    assert conductor.done("personas", "get", agent) == TEXT.replace(
        "Short lines.\n", "My lines.\nTheir lines.\n"
    )


def test_two_first_edits_meet_in_the_editor(
    conductor: Commands, agent: str, tmp_path: Path
) -> None:
    theirs = tmp_path / "theirs"
    theirs.write_text("theirs\n")
    conductor.edits(
        tmp_path / "editor",
        f'{COMMAND} personas set {agent} {theirs} > {tmp_path}/out; echo mine > "$1"',
        """sed -i -e '/^[<=>]\\{7\\}/d' "$1" """,
    )

    outcome = conductor.run("personas", "edit", agent)

    assert outcome.status == 0
    assert conductor.done("personas", "get", agent) == "mine\ntheirs\n"


def test_a_text_that_is_refused_is_kept(conductor: Commands, agent: str, tmp_path: Path) -> None:
    conductor.edits(tmp_path / "editor", "printf 'a\\001b' > \"$1\"")

    outcome = conductor.run("personas", "edit", agent)

    assert outcome.status == 2
    kept, rescue, error = outcome.err.splitlines()[:3]
    path = Path(kept.removeprefix("your text is kept in "))
    assert path.read_bytes() == b"a\x01b"
    assert rescue == f"  conductor personas set {agent} {path} saves it"
    assert "persona.content" in error + outcome.err
    path.unlink()
    path.parent.rmdir()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("get", "nobody"), "AGENT_NOT_FOUND"),
        (("get", "default", "--version", "No!"), "version"),
        (("set", "default", "/nowhere"), "/nowhere cannot be read"),
        (("set", "default", "-", "--metadata", "[1]"), "has to be an object"),
        (("delete", "default", "--purge"), "say --yes"),
    ],
)
def test_what_makes_no_sense_is_refused_with_a_sentence(
    conductor: Commands, arguments: tuple[str, ...], told: str
) -> None:
    outcome = conductor.run("personas", *arguments)

    assert (outcome.status, outcome.out) == (2, "")
    assert told in outcome.err


def test_every_list_is_an_object_a_line_for_programs(conductor: Commands, agent: str) -> None:
    texts(conductor, agent, "one", "two", "three")

    for arguments in (("versions", agent, "--reverse", "--limit", "2"), ("list",)):
        lines = conductor.done("personas", *arguments, "--json").splitlines()
        assert agent in [json.loads(line)["agent_id"] for line in lines]
        assert all("content" not in json.loads(line) for line in lines)
