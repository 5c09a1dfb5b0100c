"""Definitions of agents in YAML, as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conductor.content.v1.agent_pb2 import Agent, AgentModel
from conductor_ai.cli.definitions import FIELDS, DefinitionError, changed, copied, read, write

WHOLE = Agent(
    name="Writer: the one",
    definition_version="1.10",
    description="Writes. " * 40,
    author="Ada",
    group="writing",
    emoji="✍️",
    color="#112233",
    tags=["a", "yes", "1.0"],
    capabilities=["say things: well"],
    tools=["web_fetch"],
    mcp_servers=["files"],
    ai_provider="mock",
    model="mock",
    fallbacks=[AgentModel(ai_provider="mock", model="mock-slow"), AgentModel(model="other")],
    instructions="First this.\n\n  Then `that`: #3\n",
)


def test_every_field_of_an_agent_comes_back() -> None:
    again = read(write(WHOLE))

    assert changed(WHOLE, again) == []
    assert {field for field in FIELDS if getattr(WHOLE, field)} == {*FIELDS}


@settings(max_examples=150)
@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=30))
def test_any_text_comes_back_as_it_was(text: str) -> None:
    agent = Agent(name=text, instructions=f"{text}\n{text}", tags=[text], definition_version=text)

    assert changed(agent, read(write(agent))) == []


def test_a_definition_shows_every_key_there_is_and_no_line_is_broken() -> None:
    text = write(Agent(name="Writer", definition_version="1.0", description="long " * 60))

    assert [line.partition(":")[0] for line in text.splitlines()] == [
        *("schema_version", "name", "version", "description", "author", "group", "emoji"),
        *("color", "tags", "capabilities", "tools", "mcp_servers", "ai_provider", "model"),
        *("fallbacks", "instructions"),
    ]
    assert 'version: "1.0"\n' in text


def test_several_lines_are_written_as_such() -> None:
    assert "instructions: |\n  one\n  two\n" in write(Agent(name="a", instructions="one\ntwo\n"))


def test_keys_that_are_left_out_are_empty() -> None:
    agent = read("name: Writer\ntags:\ndescription:\n")

    assert (agent.name, agent.description, [*agent.tags]) == ("Writer", "", [])


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("name: [", "line 1"),
        ("- name", "keys and values"),
        ("", "keys and values"),
        ("nmae: Writer", "nmae: no definition has this key; did you mean name"),
        ("name: yes", "name: has to be a text; put it in quotes"),
        ("version: 1.10", "version: has to be a text; put it in quotes"),
        ("tags: writing", "tags: has to be a list"),
        ("tags: [1]", "tags[0]: has to be a text"),
        ("fallbacks: [mock]", "fallbacks[0]: has to be ai_provider and model"),
        ("fallbacks: [{name: mock}]", "fallbacks[0]"),
        ("schema_version: 2\nname: Writer", "schema_version: this release reads 1, not 2"),
        ("name: !!python/object:os.system x", "line 1"),
        ("a: &a [*a]", "no definition has this key"),
        ("name: \x00", "no YAML"),
        ("name: a\nmodel: b\nname: c", "line 3, column 1: the key name is there twice"),
    ],
)
def test_what_no_agent_has_is_named_with_its_place(text: str, told: str) -> None:
    with pytest.raises(DefinitionError) as refused:
        read(text)

    assert told in str(refused.value)


def test_fields_are_copied_whole_and_the_others_stay() -> None:
    agent = Agent(name="Old", tags=["old"], model="m")

    copied(["tags", "name"], Agent(name="New", tags=[]), agent)

    assert (agent.name, [*agent.tags], agent.model) == ("New", [], "m")
