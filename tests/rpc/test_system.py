"""Whether the mesh is set up well, as the served service says it."""

from __future__ import annotations

import asyncio
import collections
from pathlib import Path

from conductor.content.v1 import agent_service_pb2, persona_service_pb2
from conductor.content.v1 import system_service_pb2 as pb
from conductor.content.v1.agent_service_pb2_grpc import AgentServiceStub
from conductor.content.v1.finding_pb2 import Finding
from conductor.content.v1.persona_service_pb2_grpc import PersonaServiceStub
from conductor.content.v1.system_service_pb2_grpc import SystemServiceStub
from services.content.adapters.templates import TemplateFolder
from tests.patience import PATIENCE
from tests.rpc.both import CONTENT, EXECUTION, both_served
from tests.rpc.content import served_content


def rules(findings: collections.abc.Iterable[Finding]) -> set[tuple[str, str]]:
    return {(one.rule, one.location) for one in findings}


async def test_a_service_alone_says_what_it_looked_at_and_what_it_could_not(
    tmp_path: Path,
) -> None:
    async with served_content(tmp_path, content_retention_days=0) as content:
        found = await content.system.ValidateSystem(pb.ValidateSystemRequest(), timeout=PATIENCE)

    assert found.is_valid
    assert {one.name: one.checked for one in found.checks} == {
        "settings": 6,
        "store": 1,
        "services": 0,
        "agents": 1,
        "templates": 15,
    }
    assert rules(found.warnings) - {("disk-nearly-full", "CONDUCTOR_DATA_DIR")} == {
        ("auth-off", "CONDUCTOR_AUTH"),
        ("kept-for-ever", "CONDUCTOR_CONTENT_RETENTION_DAYS"),
        ("models-unknown", "execution"),
    }
    assert all(one.fix and one.message for one in found.warnings)


async def test_agents_are_held_against_the_models_of_execution(tmp_path: Path) -> None:
    async with both_served(tmp_path) as both:
        agents = AgentServiceStub(both.channel(CONTENT))
        for id_, provider, model, fallback in (
            ("good", "mock", "mock-slow", "mock"),
            ("lost", "", "no-such-model", "mock"),
            ("off", "nobody", "", "neither"),
        ):
            request = agent_service_pb2.CreateAgentRequest()
            request.agent.id, request.agent.name = id_, id_
            request.agent.description = "For a test."
            request.agent.ai_provider, request.agent.model = provider, model
            request.agent.fallbacks.add(model=fallback)
            await agents.CreateAgent(request, timeout=PATIENCE)
        create = persona_service_pb2.CreatePersonaRequest()
        create.persona.agent_id, create.persona.content = "good", "# Good"
        await PersonaServiceStub(both.channel(CONTENT)).CreatePersona(create, timeout=PATIENCE)
        system = SystemServiceStub(both.channel(CONTENT))

        found = await system.ValidateSystem(pb.ValidateSystemRequest(), timeout=PATIENCE)

        assert not found.is_valid
        assert sorted((one.rule, one.location) for one in found.errors) == [
            ("unknown-model", "agents/lost"),
            ("unknown-model", "agents/off"),
            ("unknown-provider", "agents/off"),
        ]
        assert rules(found.warnings) >= {
            ("no-persona", "agents/lost"),
            ("no-persona", "agents/off"),
        }
        assert not [one for one in found.warnings if one.location == "agents/good"]
        assert {one.name: one.checked for one in found.checks}["services"] == 1

        await both.stop(EXECUTION)
        away = await system.ValidateSystem(pb.ValidateSystemRequest(), timeout=PATIENCE)
        assert rules(away.errors) == {("service-away", EXECUTION)}
        assert ("models-unknown", "execution") in rules(away.warnings)


async def test_a_broken_template_is_named(tmp_path: Path) -> None:
    (tmp_path / "categories.yaml").write_text("categories: [{id: a, name: A, description: B}]")

    count, problem = await asyncio.wait_for(TemplateFolder(tmp_path).check(), PATIENCE)

    assert count == 0
    assert "categories.yaml" in problem
