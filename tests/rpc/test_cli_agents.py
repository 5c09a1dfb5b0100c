"""`conductor agents`: the catalogue as people and programs use it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.rpc.commanded import Commands
from tests.rpc.terminal import COLOUR, COMMAND, unstyled


def test_an_agent_is_made_seen_changed_deleted_and_taken_back(conductor: Commands) -> None:
    made = conductor.run(
        *("agents", "create", "--name", "Poet", "--model", "mock", "--tag", "verse"),
        *("--fallback", "mock/mock-slow", "--description", "Writes verse."),
    )
    assert (made.status, made.out, made.err) == (0, "poet created\n", "")

    shown = conductor.done("agents", "get", "poet")
    facts = dict(line.split(maxsplit=1) for line in shown.splitlines())
    assert facts["name"] == "Poet"
    assert facts["fallback"] == "mock/mock-slow"
    assert facts["persona"] == "none"

    assert conductor.done("agents", "update", "poet", "--tag", "", "--group", "arts") == (
        "poet updated\n"
    )
    agent = conductor.told("agents", "get", "poet")
    assert ("tags" in agent, agent["group"], agent["model"]) == (False, "arts", "mock")

    assert conductor.done("agents", "delete", "poet") == "poet deleted\n"
    gone = conductor.run("agents", "get", "poet")
    assert (gone.status, "AGENT_NOT_FOUND" in gone.err) == (2, True)
    assert "poet" in conductor.done("agents", "list", "--deleted")
    assert conductor.done("agents", "undelete", "poet") == "poet is back\n"
    assert conductor.told("agents", "get", "poet")["group"] == "arts"


def test_a_list_is_columns_behind_a_pipe_and_finds_by_words(conductor: Commands) -> None:
    for number in range(3):
        conductor.done(
            *("agents", "create", "--name", f"Rower {number}", "--group", "boats"),
            *("--tag", "odd" if number % 2 else "even"),
        )

    lines = conductor.done("agents", "list", "--group", "boats").splitlines()
    assert lines[0].split() == [
        *("id", "name", "group", "model", "tags", "changed", "description"),
    ]
    assert [line.split()[0] for line in lines[1:]] == ["rower-0", "rower-1", "rower-2"]
    listed = conductor.run("agents", "list", "-q", "row", "--tag", "even", "--reverse", "--json")
    ids = [json.loads(line)["id"] for line in listed.out.splitlines()]
    assert ids == ["rower-2", "rower-0"]
    short = conductor.run("agents", "list", "--group", "boats", "--limit", "2")
    assert short.err == "there are more than the 2 listed; --limit 0 lists all\n"
    assert conductor.run("agents", "list", "-q", "submarine").err == "no agents are like that\n"


def test_a_definition_in_a_file_makes_an_agent_and_replaces_one(
    conductor: Commands, tmp_path: Path
) -> None:
    file = tmp_path / "definition.yaml"
    file.write_text("name: Filed\nversion: '1.10'\ntags: [a, b]\ninstructions: |\n  one\n  two\n")

    agent = conductor.told("agents", "create", "--file", str(file), "--id", "filed", "--tag", "c")
    assert (agent["definition_version"], agent["tags"]) == ("1.10", ["c"])
    assert agent["instructions"] == "one\ntwo\n"
    file.write_text("name: Filed anew\n")
    stale = conductor.run("agents", "update", "filed", "--file", str(file), "--etag", "0")
    assert (stale.status, "ETAG_MISMATCH" in stale.err) == (1, True)
    agent = conductor.told("agents", "update", "filed", "--file", str(file))
    assert (agent["name"], "tags" in agent) == ("Filed anew", False)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("create",), "needs a name"),
        (("create", "--file", "/nowhere.yaml"), "/nowhere.yaml cannot be read"),
        (("create", "--file", "-", "--persona", "-"), "cannot both be stdin"),
        (("update", "default"), "nothing is to change"),
        (("install",), "name templates"),
        (("install", "x", "--all"), "name templates"),
        (("install", "nobody"), "ListTemplates names all. (TEMPLATE_NOT_FOUND)"),
        (("install", "editr"), "Did you mean editor? (TEMPLATE_NOT_FOUND)"),
        (("delete", "default"), "AGENT_BUILT_IN"),
        (("delete", "x", "--purge"), "say --yes"),
        (("create", "--name", "x", "--color", "red"), "agent.color"),
    ],
)
def test_what_makes_no_sense_is_refused_with_a_sentence(
    conductor: Commands, arguments: tuple[str, ...], told: str
) -> None:
    outcome = conductor.run("agents", *arguments)

    assert (outcome.status, outcome.out) == (2, "")
    assert told in outcome.err


def test_a_definition_that_is_none_is_told_with_its_place(conductor: Commands) -> None:
    outcome = conductor.run("agents", "create", "--file", "-", stdin=b"name: x\nmodle: mock\n")

    assert (outcome.status, outcome.err) == (
        *(2, "error: -: modle: no definition has this key; did you mean model\n"),
    )


def test_templates_are_listed_and_installed_once(conductor: Commands) -> None:
    lines = conductor.done("agents", "templates").splitlines()
    assert (lines[0].split()[:4], len(lines)) == (["category", "id", "name", "installed"], 16)

    installed = conductor.done("agents", "install", "--category", "writing").splitlines()
    again = conductor.done("agents", "install", "editor", "code-reviewer").splitlines()

    assert len(installed) == 3
    assert "editor installed" in installed
    assert again == ["code-reviewer installed", "editor kept as it is"]
    (category,) = conductor.done("agents", "templates", "--category", "writing", "--json").split(
        "\n"
    )[:-1]
    assert all(one["installed"] for one in json.loads(category)["templates"])
    none = conductor.run("agents", "templates", "--category", "nothing")
    assert (none.status, "there are: engineering" in none.err) == (2, True)


def test_an_edit_changes_what_was_edited_and_merges_what_others_changed(
    conductor: Commands, tmp_path: Path
) -> None:
    conductor.done("agents", "create", "--name", "Edited", "--model", "mock", "--group", "g")
    conductor.edits(tmp_path / "editor", 'sed -i s/^model:.*/"model: mock-slow"/ "$1"')

    outcome = conductor.run("agents", "edit", "edited")

    assert (outcome.status, outcome.err) == (0, "edited updated: model\n")
    assert conductor.told("agents", "get", "edited")["model"] == "mock-slow"
    conductor.edits(tmp_path / "editor", "true")
    assert conductor.run("agents", "edit", "edited").err == "edited is as it was\n"


def test_an_edit_that_is_no_definition_is_kept(conductor: Commands, tmp_path: Path) -> None:
    conductor.done("agents", "create", "--name", "Kept")
    conductor.edits(tmp_path / "editor", 'echo "nmae: x" >> "$1"')

    outcome = conductor.run("agents", "edit", "kept")

    assert outcome.status == 1
    assert "nmae: no definition has this key" in outcome.err
    assert "conductor agents update kept --file /" in outcome.err


def test_what_others_change_while_one_edits_is_merged(conductor: Commands, tmp_path: Path) -> None:
    conductor.done("agents", "create", "--name", "Shared", "--model", "mock", "--group", "g")
    conductor.edits(
        tmp_path / "editor",
        f"""{COMMAND} agents update shared --group theirs; sed -i 's/^name:.*/name: Mine/' "$1" """,
    )

    outcome = conductor.run("agents", "edit", "shared")

    assert outcome.status == 0
    assert outcome.err.splitlines() == [
        "somebody else saved in the meantime; both changes are merged",
        "shared updated: name",
    ]
    agent = conductor.told("agents", "get", "shared")
    assert (agent["name"], agent["group"]) == ("Mine", "theirs")


def test_a_terminal_gets_colours_and_texts_on_their_line(conductor: Commands) -> None:
    conductor.done("agents", "create", "--name", "Sea", "--id", "sea", "--description", "a\nb")

    shown = conductor.shown("agents", "get", "sea")

    assert COLOUR in shown
    assert "description     a b\n" in unstyled(shown)
