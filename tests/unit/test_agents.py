"""The rules of agents and the templates they are made of."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from services.content.adapters.templates import FOLDER, BrokenTemplateError, read_templates
from services.content.domain import agents
from services.content.domain.agents import Asked, Definition
from services.content.domain.templates import Choice
from services.kit.errors import DomainError, Reason, Resource
from services.kit.resources import etags
from tests.fakes.catalogue import ORG, Catalogue

DAY = 24 * 3600 * 1_000_000


def refused(call: Callable[[], object]) -> DomainError:
    with pytest.raises(DomainError) as raised:
        call()
    return raised.value


# The rules


def test_a_definition_is_refused_with_every_rule_it_breaks() -> None:
    definition = Definition(
        name=" " * 3,
        description="x" * 501,
        color="#12345",
        tags=("ok", "x" * 51),
        tools=("no blanks",),
        mcp_servers=("ok",) * 40,
    )

    error = refused(lambda: agents.checked(definition, at="agent."))

    assert error.reason == Reason.REASON_INVALID_REQUEST
    fields = [violation.field for violation in error.violations]
    broken = ["name", "description", "color", "tags[1]", "tools[0]"]
    assert fields == [f"agent.{name}" for name in broken]


def test_a_checked_definition_is_checked_again_to_the_same() -> None:
    once = agents.checked(Definition(" A ", tags=(" b", "B ", ""), capabilities=("c", "C")))

    assert once == Definition("A", tags=("b",), capabilities=("c",))
    assert agents.checked(once) is not None
    assert agents.checked(once) == once


@pytest.mark.parametrize(
    ("name", "first", "second"),
    [
        ("Code Reviewer", "code-reviewer", "code-reviewer-2"),
        ("  --Ünïted__Übung!! ", "united-ubung", "united-ubung-2"),
        ("小説", "agent", "agent-2"),
        ("Run", "run-2", "run-3"),
        ("DEFAULT", "default-2", "default-3"),
        ("x" * 100, "x" * 48, "x" * 48 + "-2"),
    ],
)
def test_an_id_is_made_of_the_letters_a_name_has(name: str, first: str, second: str) -> None:
    slugs = list(agents.slugs(name, "0193e0f2"))

    assert slugs[:2] == [first, second]
    assert slugs[-1].endswith("-0193e0f2")
    for slug in slugs:
        agents.check_id(slug)


def test_those_most_alike_are_suggested_first_and_no_more_than_three() -> None:
    known = [
        ("reviewer", "the reviewer"),
        ("Code-Reviewer", "other"),
        ("code-review", "x"),
        ("x1", "code-reviewer"),
        ("release-manager", "release manager"),
    ]

    assert agents.suggestions("CODE-REVIEWER", known) == ("Code-Reviewer", "x1", "code-review")
    assert agents.suggestions("zzzz", known) == ()
    assert agents.suggestions("\u0301", [("a", "b")]) == ()


def test_a_hostile_id_is_compared_with_many_agents_in_bounded_steps() -> None:
    known = [(f"{'ab' * 31}{number % 10}", "ba" * 50) for number in range(500)]

    assert len(agents.suggestions("ba" * 32, known)) == 3


def test_whoever_shows_the_etag_of_now_or_forces_may_change() -> None:
    thing = Resource("agent", "writer")
    etags.check("3", "3", force=False, required=True, what=thing)
    etags.check("2", "3", force=True, required=True, what=thing)
    etags.check("", "3", force=True, required=True, what=thing)
    etags.check("", "3", force=False, required=False, what=thing)

    late = refused(lambda: etags.check("2", "3", force=False, required=False, what=thing))
    without = refused(lambda: etags.check("", "3", force=False, required=True, what=thing))
    wildcard = refused(lambda: etags.check("*", "3", force=False, required=True, what=thing))

    assert late.reason == wildcard.reason == Reason.REASON_ETAG_MISMATCH
    assert late.metadata == {"etag": "3"}
    assert "2" in late.message
    assert without.violations[0].field == "etag"


async def test_a_change_that_was_not_answered_is_made_once_however_often_it_is_asked_for() -> None:
    catalogue = Catalogue()
    made = await catalogue.create()

    async def ask() -> agents.Agent:
        changes = {"description": "New."}
        return await catalogue.service.update(ORG, made.id, changes, made.etag, force=False)

    assert await ask() == await ask()


# What an organisation has


async def test_organisations_know_nothing_of_each_other() -> None:
    catalogue = Catalogue()
    asked = Asked(Definition("Writer"), "writer", "r1")
    await catalogue.service.create("one", asked)
    await catalogue.service.create("two", asked)
    await catalogue.service.delete("one", "writer", "", purge=False)

    assert (await catalogue.service.get("two", "writer")).org == "two"
    with pytest.raises(DomainError, match="No agent"):
        await catalogue.service.get("three", "writer")
    for org in ("one", "two"):
        found = await catalogue.service.list(org, agents.Wanted(), None, 10)
        assert {agent.org for agent in found} == {org}


async def test_nothing_is_stored_for_an_organisation_that_only_reads_and_runs() -> None:
    catalogue = Catalogue()
    await catalogue.service.get(ORG, "default")
    await catalogue.resolver.resolve(ORG, "default", "")
    with pytest.raises(DomainError):
        await catalogue.service.get(ORG, "nobody")

    assert await catalogue.agents.get(ORG, "default") is None
    assert await catalogue.listed() == ["default"]
    assert await catalogue.agents.get(ORG, "default") is not None


async def test_a_run_gets_the_persona_and_it_is_noted() -> None:
    catalogue = Catalogue()
    await catalogue.create()

    await catalogue.personas.set_alias(ORG, "writer", "canary", "1")

    resolved = await catalogue.resolver.resolve(ORG, "writer", "canary")

    assert resolved.version is not None
    assert (resolved.version.content, resolved.alias) == ("# writer", "canary")
    _, version = await catalogue.personas.version(ORG, "writer", "1")
    assert version.used


async def test_what_was_deleted_long_enough_ago_goes_for_good() -> None:
    catalogue = Catalogue()
    await catalogue.create("old")
    await catalogue.create("new")
    await catalogue.create("live")
    await catalogue.service.delete(ORG, "old", "", purge=False)
    catalogue.now += 20 * DAY
    await catalogue.service.delete(ORG, "new", "", purge=False)
    catalogue.now += 11 * DAY

    assert await catalogue.purge.sweep() == 1

    assert [await catalogue.state(id_) for id_ in ("old", "new", "live")] == [
        "absent",
        "deleted",
        "live",
    ]
    assert await catalogue.lives.get(ORG, "old") is None
    assert await catalogue.purge.sweep() == 0


async def test_what_comes_back_was_deleted_anew_and_is_kept_as_long_again() -> None:
    catalogue = Catalogue()
    await catalogue.create()
    await catalogue.service.delete(ORG, "writer", "", purge=False)
    catalogue.now += 29 * DAY
    await catalogue.service.undelete(ORG, "writer")
    await catalogue.service.delete(ORG, "writer", "", purge=False)
    catalogue.now += 2 * DAY

    assert await catalogue.purge.sweep() == 0
    assert await catalogue.state("writer") == "deleted"


async def test_a_persona_that_was_deleted_by_itself_stays_so_when_its_agent_comes_back() -> None:
    catalogue = Catalogue()
    await catalogue.create()
    await catalogue.personas.delete(ORG, "writer", "", purge=False)
    await catalogue.service.delete(ORG, "writer", "", purge=False)
    await catalogue.service.undelete(ORG, "writer")

    assert await catalogue.state("writer") == "live"
    assert not await catalogue.has_persona("writer")


async def test_templates_are_installed_in_the_order_of_the_catalogue_each_once() -> None:
    catalogue = Catalogue()
    choice = Choice(("analyst", "editor", "analyst"))

    assert await catalogue.templates.install(ORG, choice, "ann") == (["editor", "analyst"], [])
    for id_ in ("editor", "analyst"):
        assert await catalogue.state(id_) == "live"
        assert await catalogue.has_persona(id_)


# The files of the templates


def test_every_template_that_comes_with_the_mesh_is_sound() -> None:
    categories = read_templates()

    assert [len(one.templates) for one in categories] == [3] * 5
    for template in (template for one in categories for template in one.templates):
        assert template.definition.group == template.category
        assert template.definition.instructions
        assert template.persona.startswith(f"# {template.definition.name}\n")


EDITOR = "writing/editor/definition.yaml"


def _replace(file: str, old: str, new: str) -> Callable[[Path], Any]:
    def change(folder: Path) -> None:
        path = folder / file
        text = path.read_text("utf-8")
        assert old in text
        path.write_text(text.replace(old, new, 1), "utf-8")

    return change


@pytest.mark.parametrize(
    ("change", "file", "says"),
    [
        (_replace(EDITOR, "name: Editor", "name: [a"), EDITOR, "is not YAML"),
        (_replace(EDITOR, "name: Editor", "title: Editor"), EDITOR, "lacks name"),
        (_replace(EDITOR, "group: writing", "group: data"), EDITOR, "group"),
        (
            _replace(EDITOR, "schema_version: 1", "schema_version: 2"),
            EDITOR,
            "schema_version has to be 1",
        ),
        (_replace(EDITOR, 'version: "1.0.0"', "version: 1.0"), EDITOR, "in quotes"),
        (_replace(EDITOR, "mcp_servers: []", "servers: []"), EDITOR, "unknown keys servers"),
        (_replace(EDITOR, "mcp_servers: []", "mcp_servers: [1]"), EDITOR, "list of texts"),
        (_replace(EDITOR, 'color: "#', 'color: "'), EDITOR, "color"),
        (_replace(EDITOR, "mcp_servers: []", "name: Twice"), EDITOR, "key name twice"),
        (lambda f: (f / "data/sql-expert/persona.md").unlink(), "persona.md", "cannot be read"),
        (lambda f: (f / EDITOR).write_bytes(b"\xff"), EDITOR, "is not UTF-8"),
        (
            lambda f: (f / "writing/editor/persona.md").write_text(" \n"),
            "persona.md",
            "white space",
        ),
        (lambda f: (f / "legal").mkdir(), "categories.yaml", "legal"),
        (lambda f: shutil.rmtree(f / "data"), "categories.yaml", "data"),
        (_replace("categories.yaml", "name: Data", "title: Data"), "categories.yaml", "needs"),
        (lambda f: (f / "categories.yaml").write_text("[]"), "categories.yaml", "keys"),
        (lambda f: shutil.copytree(f / "data/sql-expert", f / "writing/sql"), "sql", "group"),
        (lambda f: shutil.move(f / "writing/editor", f / "writing/e d"), "e d", "id"),
    ],
)
def test_a_broken_template_is_refused_by_the_name_of_its_file(
    change: Callable[[Path], Any], file: str, says: str, tmp_path: Path
) -> None:
    folder = tmp_path / "templates"
    shutil.copytree(FOLDER, folder)
    change(folder)

    with pytest.raises(BrokenTemplateError) as raised:
        read_templates(folder)

    assert file in str(raised.value)
    assert says in str(raised.value)
