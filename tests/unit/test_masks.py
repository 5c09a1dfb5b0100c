from __future__ import annotations

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from conductor.content.v1.agent_pb2 import Agent
from conductor.content.v1.persona_pb2 import Persona
from services.kit.errors import DomainError, Reason
from services.kit.masks import fields_of

UPDATABLE = frozenset({"name", "description", "tags", "color"})


def changed(agent: Agent, *paths: str) -> set[str]:
    return set(fields_of(agent, FieldMask(paths=paths), UPDATABLE, "agent"))


def test_without_a_mask_an_update_changes_what_is_there_even_if_it_is_empty() -> None:
    assert changed(Agent(name="Ann", description="")) == {"name", "description"}
    assert changed(Agent(tags=["a"])) == {"tags"}


def test_a_message_that_is_there_is_a_change_even_if_it_is_empty() -> None:
    persona = Persona(content="x")
    persona.metadata.SetInParent()
    updatable = frozenset({"content", "metadata"})
    assert fields_of(persona, FieldMask(), updatable, "persona") == updatable


def test_what_only_the_service_says_is_passed_over_without_a_mask() -> None:
    assert changed(Agent(id="ann", name="Ann", built_in=True, etag="3")) == {"name"}


def test_a_mask_says_alone_what_changes() -> None:
    assert changed(Agent(name="Ann", color="#000000"), "tags", "name") == {"tags", "name"}


@pytest.mark.parametrize("path", ["id", "etag", "built_in", "nme", "agent.name", "*", "", "tags.0"])
def test_a_mask_with_anything_else_is_refused_with_what_it_may_name(path: str) -> None:
    with pytest.raises(DomainError) as refused:
        changed(Agent(name="Ann"), "name", path)
    assert refused.value.reason == Reason.REASON_INVALID_REQUEST
    assert [one.field for one in refused.value.violations] == ["update_mask"]
    assert "color, description, name, tags" in refused.value.message
    assert f"`{path}`" in refused.value.message


def test_an_update_of_nothing_is_refused() -> None:
    with pytest.raises(DomainError) as refused:
        changed(Agent(id="ann", etag="3"))
    assert [one.field for one in refused.value.violations] == ["update_mask"]
    assert "agent" in refused.value.message
