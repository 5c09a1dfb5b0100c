"""A directory and the store say the same, whichever of the two it goes through."""

from __future__ import annotations

import itertools
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from services.content.adapters.yamls import PlainYaml
from services.content.domain.agents import AgentModel, Definition, built_in, checked
from services.content.domain.archives import Layout
from services.content.domain.directories import definition_row
from services.content.domain.imports import Action, ImportReport
from services.content.stores import COLLECTIONS
from services.kit.errors import DomainError, Reason
from services.kit.resources import deletions
from services.kit.resources.deletions import Cascade
from tests.fakes.archivist import ORG, Archivist, archivist, files, zipped
from tests.fakes.cuts import Cut
from tests.fakes.memory import Memory, MemoryStore


async def exported(house: Archivist) -> dict[str, bytes]:
    return files(await house.export(Layout.DIRECTORY))


async def taken_in(house: Archivist, content: dict[str, bytes], **how: Any) -> ImportReport:
    return await house.take_in(zipped(content), Layout.DIRECTORY, **how)


async def refused(call: Any) -> DomainError:
    with pytest.raises(DomainError) as error:
        await call
    return error.value


@pytest.fixture
async def furnished(tmp_path: Path) -> Archivist:
    house = archivist(tmp_path)
    await house.furnish()
    return house


HAND_MADE = {
    "agents/": b"",
    "agents/helper/definition.yaml": b"name: Helper\ntags: [a, b]\n",
    "agents/helper/persona.md": "# Helper\r\n\r\nGrüße\n".encode(),
    "screenplays/a.md": b"# A\n",
    "screenplays/deep/er/b.markdown": b"",
    "screenplays/deep/er/b.markdown.yaml": b"name: Bee\ndescription: About bees.\ntags: [x]\n",
}


# There and back


async def test_a_directory_of_an_organisation_is_what_people_would_write(
    furnished: Archivist,
) -> None:
    content = await exported(furnished)

    assert sorted(content) == [
        "agents/writer-2/definition.yaml",
        "agents/writer/definition.yaml",
        "agents/writer/persona.md",
        "screenplays/notes/ä.md",
        "screenplays/notes/ä.md.yaml",
        "screenplays/play_2.md",
        "screenplays/play_2.md.yaml",
    ]
    assert content["agents/writer/persona.md"] == "# Three\n\n👋".encode()
    definition = yaml.safe_load(content["agents/writer/definition.yaml"])
    assert list(definition)[:4] == ["schema_version", "name", "version", "description"]
    assert definition["instructions"] == "Do this.\r\nThen that.\n"
    assert yaml.safe_load(content["screenplays/play_2.md.yaml"]) == {
        "id": "play_2",
        "working_directory": "/tmp",
        "file_path": "",
        "import_path": "notes/ä.md",
    }


async def test_a_directory_goes_through_a_store_and_comes_out_byte_for_byte(
    tmp_path: Path, furnished: Archivist
) -> None:
    raw = await furnished.export(Layout.DIRECTORY)
    wiped = archivist(tmp_path)

    report = await wiped.take_in(raw, Layout.DIRECTORY)

    assert report.counts[Action.CREATED] == 5
    assert await wiped.export(Layout.DIRECTORY) == raw
    again = await wiped.take_in(raw, Layout.DIRECTORY, force=True)
    assert again.counts == {**dict.fromkeys(Action, 0), Action.UNCHANGED: 5}
    assert (again.items, again.findings) == ([], [])


async def test_a_directory_written_by_hand_is_taken_in(tmp_path: Path) -> None:
    house = archivist(tmp_path)

    report = await taken_in(house, HAND_MADE)

    assert report.counts[Action.CREATED] == 4
    assert report.findings == []
    persona = await house.versions.get(ORG, "helper", 1)
    assert persona is not None
    assert persona.content.encode() == HAND_MADE["agents/helper/persona.md"]
    assert persona.author == "ann"
    play = await house.screenplays.by_path(ORG, "file_path", "deep/er/b.markdown")
    assert play is not None
    assert (play.name, play.description, play.tags) == ("Bee", "About bees.", ("x",))
    # What it says is in the form it is stored in from now on.
    assert (await taken_in(house, await exported(house))).counts[Action.UNCHANGED] == 4


async def test_screenplays_without_a_file_are_named_by_their_names_each_by_its_own(
    tmp_path: Path,
) -> None:
    house = archivist(tmp_path)
    for id_, name in (("play_1", "a/b"), ("play_2", "A-B"), ("play_3", "a-b"), ("play_4", "..")):
        await house.screenplay(id_, id_, name=name)
    await house.screenplay("play_5", "x", name="x", file_path="a-b (2).md")
    await house.screenplay("play_6", "x", name="y", file_path="f.md/x.md")
    await house.screenplay("play_7", "x", name="f", file_path="f.md")
    raw = await house.export(Layout.DIRECTORY)
    other = archivist(tmp_path)

    await other.take_in(raw, Layout.DIRECTORY)

    assert {path for path in files(raw) if not path.endswith("yaml")} == {
        "screenplays/A-B.md",
        "screenplays/a-b (2).md",
        "screenplays/a-b (3).md",
        "screenplays/a-b (4).md",
        "screenplays/...md",
        "screenplays/f.md/x.md",
        "screenplays/f (2).md",
    }
    assert await other.export(Layout.DIRECTORY) == raw
    kept = await other.screenplays.get(ORG, "play_7")
    assert kept is not None
    assert kept.file_path == "f.md"


async def test_names_that_file_systems_do_not_take_are_not_given_to_files(tmp_path: Path) -> None:
    house = archivist(tmp_path)
    await house.screenplay("play_1", "x", name="山" * 200)
    await house.screenplay("play_2", "x", name="x", file_path=f"{'山' * 84}.md")
    await house.screenplay("play_3", "x", name="x", file_path=f"{'山' * 82}.md")
    raw = await house.export(Layout.DIRECTORY)
    other = archivist(tmp_path)

    await other.take_in(raw, Layout.DIRECTORY)

    texts = {path for path in files(raw) if path.endswith(".md")}
    assert texts == {
        "screenplays/play_1.md",
        "screenplays/x.md",
        f"screenplays/{'山' * 82}.md",
    }
    assert await other.export(Layout.DIRECTORY) == raw


async def test_names_alone_cannot_fill_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.content.adapters.archives.MOST_NAME_BYTES", 100)
    content = {f"screenplays/{'n' * 40}{number}.png": b"" for number in range(2)}

    with pytest.raises(DomainError, match="names have more than 100 bytes") as refused:
        await taken_in(archivist(tmp_path), content)

    assert refused.value.reason == Reason.REASON_ARCHIVE_TOO_LARGE


async def test_the_built_in_agent_is_there_once_it_is_somebodys(tmp_path: Path) -> None:
    house = archivist(tmp_path)
    await house.agents.add(built_in(ORG))
    assert await exported(house) == {}
    content = {
        "agents/default/definition.yaml": b"name: Mine\n",
        "agents/default/persona.md": b"# Mine",
    }

    await taken_in(house, content)

    written = await exported(house)
    assert sorted(written) == sorted(content)
    fresh = archivist(tmp_path)
    await taken_in(fresh, written)
    assert await exported(fresh) == written


async def test_an_empty_directory_is_nothing(tmp_path: Path) -> None:
    house = archivist(tmp_path)

    report = await taken_in(house, await exported(house))

    assert report.counts == dict.fromkeys(Action, 0)


# What exists


async def test_what_differs_is_kept_and_with_force_becomes_a_new_version(tmp_path: Path) -> None:
    house = archivist(tmp_path)
    await taken_in(house, HAND_MADE)
    changed = {
        **HAND_MADE,
        "agents/helper/definition.yaml": b"name: Other\n",
        "agents/helper/persona.md": b"# Other\n",
        "screenplays/a.md": b"# Other\n",
    }

    kept = await taken_in(house, changed)
    before = await exported(house)
    forced = await taken_in(house, changed, force=True)

    assert kept.counts[Action.KEPT] == forced.counts[Action.OVERWRITTEN] == 3
    assert before["agents/helper/persona.md"] == HAND_MADE["agents/helper/persona.md"]
    agent = await house.agents.get(ORG, "helper")
    persona = await house.personas.get(ORG, "helper")
    first = await house.versions.get(ORG, "helper", 1)
    play = await house.screenplays.by_path(ORG, "file_path", "a.md")
    assert agent is not None
    assert persona is not None
    assert first is not None
    assert play is not None
    assert (agent.definition.name, agent.revision) == ("Other", 2)
    assert persona.number == 2
    assert first.content.encode() == HAND_MADE["agents/helper/persona.md"]
    assert (play.content, play.revision) == ("# Other\n", 2)
    earlier = await house.texts.get(ORG, play.id, 1)
    assert earlier is not None
    assert earlier.content == "# A\n"


async def test_a_text_alone_says_nothing_of_what_is_known_besides(tmp_path: Path) -> None:
    house = archivist(tmp_path)
    await house.screenplay("play_1", "# A", file_path="a.md", tags=("x",), description="Mine.")

    report = await taken_in(house, {"screenplays/a.md": b"# B"}, force=True)

    assert report.counts[Action.OVERWRITTEN] == 1
    play = await house.screenplays.get(ORG, "play_1")
    assert play is not None
    assert (play.content, play.tags, play.description) == ("# B", ("x",), "Mine.")


async def test_with_force_what_is_deleted_comes_back(tmp_path: Path, furnished: Archivist) -> None:
    directory = await furnished.export(Layout.DIRECTORY)
    agent = await furnished.agents.get(ORG, "writer")
    play = await furnished.screenplays.get(ORG, "play_2")
    assert agent is not None
    assert play is not None
    await furnished.delete(agent)
    life = deletions.deleted(play.life, "del_9", furnished.now, Cascade.NONE)
    await furnished.screenplays.save(replace(play, life=life))

    kept = await furnished.take_in(directory, Layout.DIRECTORY)
    forced = await furnished.take_in(directory, Layout.DIRECTORY, force=True)

    assert kept.counts[Action.KEPT] == forced.counts[Action.OVERWRITTEN] == 3
    assert all("deleted" in item.detail for item in kept.items)
    assert await furnished.export(Layout.DIRECTORY) == directory
    persona = await furnished.personas.get(ORG, "writer")
    assert persona is not None
    assert persona.number == 3


async def test_an_agent_comes_back_with_its_persona_although_the_directory_has_none(
    tmp_path: Path, furnished: Archivist
) -> None:
    content = await exported(furnished)
    agent = await furnished.agents.get(ORG, "writer")
    assert agent is not None
    await furnished.delete(agent)

    only = {path: raw for path, raw in content.items() if path.endswith("writer/definition.yaml")}
    await taken_in(furnished, only, force=True)

    assert await exported(furnished) == content


async def test_only_as_many_texts_as_are_kept_are_kept(tmp_path: Path) -> None:
    house = archivist(tmp_path)
    await house.screenplay("play_1", *map(str, range(50)), file_path="a.md")

    await taken_in(house, {"screenplays/a.md": b"new"}, force=True)

    assert await house.library.revisions(ORG, "play_1") == list(range(2, 51))


async def test_a_dry_run_tells_the_same_and_writes_nothing(tmp_path: Path) -> None:
    memory = Memory()
    house = archivist(tmp_path, memory)

    dry = await taken_in(house, HAND_MADE, dry_run=True)

    assert memory.documents == {}
    real = await taken_in(house, HAND_MADE)
    assert dry.counts == real.counts
    assert [item.kind for item in dry.items] == [item.kind for item in real.items]


async def test_what_is_not_taken_in_is_told(tmp_path: Path) -> None:
    content = {
        **HAND_MADE,
        ".DS_Store": b"",
        "agents/helper/history.log": b"x" * 3_000_000,
        "agents/helper/notes/persona.md": b"x",
        "screenplays/picture.png": b"x",
        "agents/helper/definition.yaml": b"name: Helper\nplaybook: x\n",
    }

    report = await taken_in(archivist(tmp_path), content)

    assert sorted((one.rule, one.location) for one in report.findings) == [
        ("not-taken-in", ".DS_Store"),
        ("not-taken-in", "agents/helper/history.log"),
        ("not-taken-in", "agents/helper/notes/persona.md"),
        ("not-taken-in", "screenplays/picture.png"),
        ("unknown-key", "agents/helper/definition.yaml"),
    ]


# Refused whole


BROKEN: dict[str, tuple[dict[str, bytes], str, str]] = {
    "a path that goes up": ({"screenplays/../a.md": b""}, "screenplays/../a.md", "leads out"),
    "an absolute path": ({"/screenplays/a.md": b""}, "/screenplays/a.md", "relative"),
    "a drive": ({"C:/screenplays/a.md": b""}, "C:/screenplays/a.md", "relative"),
    "a backslash": ({"screenplays\\a.md": b""}, "screenplays\\a.md", "relative"),
    "an odd path of what is not read": ({"x/../../y": b""}, "x/../../y", "leads out"),
    "an id that is none": (
        {"agents/a b/definition.yaml": b"name: X"},
        "agents/a b/definition.yaml",
        "letters",
    ),
    "an id that routes have": (
        {"agents/run/definition.yaml": b"name: X"},
        "agents/run/definition.yaml",
        "routes",
    ),
    "no name": (
        {"agents/a/definition.yaml": b"description: X"},
        "agents/a/definition.yaml",
        "name",
    ),
    "not YAML": (
        {"agents/a/definition.yaml": b"name: [\n"},
        "agents/a/definition.yaml",
        "not YAML",
    ),
    "a list": ({"agents/a/definition.yaml": b"- a\n"}, "agents/a/definition.yaml", "keys"),
    "a program": (
        {"agents/a/definition.yaml": b"name: !!python/object/apply:os.getcwd []\n"},
        "agents/a/definition.yaml",
        "not YAML",
    ),
    "aliases": (
        {"agents/a/definition.yaml": b"name: X\ntags: &t [a]\ntools: *t\n"},
        "agents/a/definition.yaml",
        "anchors",
    ),
    "a key twice": (
        {"agents/a/definition.yaml": b"name: X\nname: Y\n"},
        "agents/a/definition.yaml",
        "twice",
    ),
    "deep YAML": (
        {"agents/a/definition.yaml": b"[" * 50_000},
        "agents/a/definition.yaml",
        "",
    ),
    "a version that is a number": (
        {"agents/a/definition.yaml": b"name: X\nversion: 1.0\n"},
        "agents/a/definition.yaml",
        "quotes",
    ),
    "a newer schema": (
        {"agents/a/definition.yaml": b"name: X\nschema_version: 2\n"},
        "agents/a/definition.yaml",
        "schema_version",
    ),
    "a persona of blanks": (
        {"agents/a/definition.yaml": b"name: X", "agents/a/persona.md": b" \n"},
        "agents/a/persona.md",
        "white space",
    ),
    "a persona without an agent": (
        {"agents/a/persona.md": b"# X"},
        "agents/a/persona.md",
        "no such agent",
    ),
    "a persona that is not UTF-8": (
        {"agents/a/definition.yaml": b"name: X", "agents/a/persona.md": b"\xff"},
        "agents/a/persona.md",
        "UTF-8",
    ),
    "a path no system has": (
        {"screenplays/a?.md": b""},
        "screenplays/a?.md",
        "must hold none",
    ),
    "a sidecar alone": (
        {"screenplays/a.md.yaml": b"name: X"},
        "screenplays/a.md.yaml",
        "missing",
    ),
    "a relative working directory": (
        {"screenplays/a.md": b"", "screenplays/a.md.yaml": b"working_directory: x"},
        "screenplays/a.md",
        "absolute",
    ),
    "one path twice": (
        {
            "screenplays/a.md": b"",
            "screenplays/b.md": b"",
            "screenplays/b.md.yaml": b"file_path: a.md",
        },
        "screenplays/b.md",
        "same file_path",
    ),
    "nothing that is known": ({"top/agents/a/definition.yaml": b"name: X"}, "archive", "neither"),
}


@pytest.mark.parametrize("how", BROKEN)
async def test_a_broken_or_hostile_directory_is_refused_whole(tmp_path: Path, how: str) -> None:
    content, where, why = BROKEN[how]
    memory = Memory()

    error = await refused(
        taken_in(archivist(tmp_path, memory), {"screenplays/ok.md": b"# Ok", **content})
        if how != "nothing that is known"
        else taken_in(archivist(tmp_path, memory), content)
    )

    assert error.reason == Reason.REASON_ARCHIVE_INVALID
    assert error.violations[0].field == where
    assert why in error.violations[0].description
    assert memory.documents == {}


async def test_all_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    content = {f"agents/a{number}/definition.yaml": b"name: ''" for number in range(60)}

    error = await refused(taken_in(archivist(tmp_path), content, dry_run=True))

    assert len(error.violations) == 50


# All or nothing


@pytest.mark.parametrize("keeps_prefix", [False, True], ids=["atomic", "prefix"])
@pytest.mark.parametrize("answered", [True, False], ids=["before", "after"])
async def test_a_migration_that_is_cut_anywhere_is_there_whole_or_not_at_all(
    tmp_path: Path, keeps_prefix: bool, answered: bool
) -> None:
    start = Memory()
    house = archivist(tmp_path, start)
    await taken_in(house, HAND_MADE)
    old = await exported(house)
    changed = {
        **old,
        "agents/helper/definition.yaml": b"name: Other\n",
        "agents/helper/persona.md": b"# Other\n",
        "agents/new/definition.yaml": b"name: New\n",
        "agents/new/persona.md": b"# New\n",
        "screenplays/a.md": b"# Other\n",
    }
    reference = replace(start, documents=dict(start.documents))
    await taken_in(archivist(tmp_path, reference), changed, force=True)
    new = await exported(archivist(tmp_path, reference))
    outcomes = set()
    for writes in itertools.count():
        memory = replace(start, documents=dict(start.documents))
        line = Cut(
            MemoryStore(memory, COLLECTIONS), writes, answered=answered, keeps_prefix=keeps_prefix
        )
        with suppress(DomainError):
            await taken_in(Archivist(tmp_path, line, prefix="v", batch=3), changed, force=True)
        if not line.is_cut:
            break
        after = archivist(tmp_path, memory)
        await after.keeper.start(alone=True)
        seen = await exported(after)
        assert seen in (old, new)
        outcomes.add(seen == new)
        persona = await after.personas.get(ORG, "helper")
        assert persona is not None
        assert persona.number == 1 + (seen == new)
    assert outcomes == {True, False}


# YAML

TEXT = st.text(st.characters(codec="utf-8"), max_size=60)
LINES = st.text(st.sampled_from("ab #:-'\"\n\t \r\u2028\x85é👋|>[]{}%@&*!"), max_size=60)


@settings(max_examples=150, deadline=None, database=None)
@given(values=st.dictionaries(st.sampled_from(("name", "x", "on")), TEXT | LINES | st.lists(TEXT)))
def test_yaml_says_every_text_as_it_is(values: dict[str, Any]) -> None:
    assert PlainYaml().read(PlainYaml().written(values)) == values


def test_a_definition_is_written_as_people_would_write_it() -> None:
    definition = checked(
        Definition(
            "Ä",
            definition_version="1.0",
            instructions="One.\nTwo.\n",
            tags=("a",),
            model="m",
            fallbacks=(AgentModel(model="n"),),
        ),
        "",
    )

    assert PlainYaml().written(definition_row(definition)).decode() == (
        "schema_version: 1\n"
        "name: Ä\n"
        "version: '1.0'\n"
        "description: ''\n"
        "author: ''\n"
        "group: ''\n"
        "emoji: ''\n"
        "color: ''\n"
        "tags:\n"
        "- a\n"
        "capabilities: []\n"
        "tools: []\n"
        "mcp_servers: []\n"
        "instructions: |\n"
        "  One.\n"
        "  Two.\n"
        "model: m\n"
        "fallbacks:\n"
        "- ai_provider: ''\n"
        "  model: n\n"
    )
