"""What a run uses of its agent: asked of the content service, told to models, noted with the run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from conductor.content.v1.agent_pb2 import Agent, AgentModel
from conductor.execution.v1 import execution_service_pb2 as pb
from conductor.execution.v1.execution_pb2 import AgentSnapshot
from services.execution.adapters import agents
from services.kit.errors import DomainError, Reason
from tests.fakes.content import AWAY, Catalogue, Persona
from tests.fakes.models import Answer
from tests.patience import PATIENCE
from tests.rpc.modelled import BOTH, modelled
from tests.rpc.serving import Mesh, refusal, served

NOT_FOUND = grpc.StatusCode.NOT_FOUND
INSTRUCTIONS = "Ask before you delete anything."
PERSONA = ("You are a clerk.\nYou file things.", "You are a writer.\nYou write things.\n")


def told(text: str) -> str:
    """What models are told of a version of the persona."""
    return f"{text.strip()}\n\n{INSTRUCTIONS}"


@pytest.fixture
def catalogue() -> Catalogue:
    """An agent `writer` with two versions of its persona, of which the first is in production."""
    writer = Agent(
        id="writer",
        name="Writer",
        etag="5",
        model="mock-persona",
        instructions=INSTRUCTIONS,
        tools=["search"],
        mcp_servers=["files"],
    )
    persona = Persona([*PERSONA], {"production": 1, "canary": 2})
    return Catalogue([writer, Agent(id="clerk", name="Clerk")], {"writer": persona})


@pytest.fixture
async def mesh(tmp_path: Path, catalogue: Catalogue) -> AsyncIterator[Mesh]:
    async with served(tmp_path, catalogue=catalogue) as mesh:
        yield mesh


def used(version: int, alias: str) -> AgentSnapshot:
    return AgentSnapshot(
        name="Writer",
        etag="5",
        persona_version=version,
        persona_alias=alias,
        tools=["search"],
        mcp_servers=["files"],
    )


@pytest.mark.parametrize(
    ("reference", "version", "alias"),
    [
        ("", 1, "production"),
        ("production", 1, "production"),
        ("canary", 2, "canary"),
        ("1", 1, ""),
        ("2", 2, ""),
        ("first", 1, ""),
        ("latest", 2, ""),
    ],
)
async def test_a_run_uses_the_version_it_names_else_the_active_one_and_notes_it(
    mesh: Mesh, reference: str, version: int, alias: str
) -> None:
    started = await mesh.start(agent_id="writer", persona_version=reference)
    await mesh.watch(started.id)
    ended = await mesh.get(started.id)
    assert ended.result == PERSONA[version - 1].splitlines()[0]
    page = await mesh.executions.ListExecutions(pb.ListExecutionsRequest(), timeout=PATIENCE)
    for shown in (started, ended, *page.executions):
        assert shown.agent == used(version, alias)


async def test_an_agent_without_a_persona_is_noted_too(mesh: Mesh) -> None:
    ended = await mesh.finished(agent_id="clerk", model="mock-persona")
    assert ended.result == "(no persona)"
    assert ended.agent == AgentSnapshot(name="Clerk")
    default = await mesh.finished()
    assert (default.agent_id, default.agent) == ("default", AgentSnapshot(name="Default"))


async def test_what_a_run_uses_stays_as_it_was(mesh: Mesh, catalogue: Catalogue) -> None:
    before = await mesh.finished(agent_id="writer", request_id="r")
    catalogue.agents["writer"].name = "Renamed"
    catalogue.personas["writer"].aliases["production"] = 2
    assert (await mesh.get(before.id)).agent == used(1, "production")
    # A repeated request is the run it was, whatever the agent has become.
    assert await mesh.start(agent_id="writer", request_id="r") == before
    async with asyncio.timeout(PATIENCE):
        while (after := await mesh.start(agent_id="writer")).agent.name != "Renamed":
            await asyncio.sleep(0.02)
    assert after.agent.persona_version == 2


async def test_a_repeated_request_id_with_another_version_is_another_request(mesh: Mesh) -> None:
    await mesh.start(agent_id="writer", persona_version="1", request_id="r")
    refused = await refusal(mesh.start(agent_id="writer", persona_version="2", request_id="r"))
    assert refused.reason == "REQUEST_ID_REUSED"


async def test_an_agent_that_is_not_there_is_refused_with_those_that_may_have_been_meant(
    mesh: Mesh,
) -> None:
    refused = await refusal(mesh.start(agent_id="writr"))
    assert refused.kind == (NOT_FOUND, "AGENT_NOT_FOUND")
    assert (refused.fields, refused.resources) == (["agent_id"], [("agent", "writr")])
    assert refused.metadata == {"suggestions": "default,writer,clerk"}


@pytest.mark.parametrize(
    ("agent_id", "reference"),
    [("writer", "3"), ("writer", "beta"), ("clerk", "1"), ("default", "latest")],
)
async def test_a_version_that_is_not_there_is_refused(
    mesh: Mesh, agent_id: str, reference: str
) -> None:
    refused = await refusal(mesh.start(agent_id=agent_id, persona_version=reference))
    assert refused.kind == (NOT_FOUND, "PERSONA_VERSION_NOT_FOUND")
    assert refused.fields == ["persona_version"]


@pytest.mark.parametrize("reference", ["0", "01", "1234567890", "Beta", "a_b", "-1", "a" * 33])
async def test_what_can_be_no_version_is_refused(mesh: Mesh, reference: str) -> None:
    refused = await refusal(mesh.start(agent_id="writer", persona_version=reference))
    assert refused.kind == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
    assert refused.fields == ["persona_version"]


@pytest.mark.parametrize(
    ("chooses", "reason", "sentence"),
    [
        ({"model": "mock-slwo"}, "MODEL_NOT_FOUND", "did you mean mock-slow"),
        ({"ai_provider": "nobody"}, "PROVIDER_NOT_FOUND", "nobody"),
        (
            {"model": "mock", "fallbacks": [AgentModel(model="none")]},
            "MODEL_NOT_FOUND",
            "fallbacks[0].model",
        ),
    ],
)
async def test_an_agent_whose_model_cannot_be_had_is_refused_by_its_id(
    mesh: Mesh, catalogue: Catalogue, chooses: dict[str, Any], reason: str, sentence: str
) -> None:
    catalogue.agents["broken"] = Agent(id="broken", **chooses)
    refused = await refusal(mesh.start(agent_id="broken"))
    assert (refused.reason, refused.fields) == (reason, ["agent_id"])
    assert refused.message.startswith("agent_id: the agent broken")
    assert sentence in refused.message
    # With a model of the request's own it runs.
    assert (await mesh.start(agent_id="broken", model="mock")).model == "mock"
    # And what is wrong with the request is said of the request.
    refused = await refusal(mesh.start(agent_id="broken", model="mock-slwo"))
    assert refused.fields == ["model"]


async def test_while_the_content_service_is_away_no_run_is_accepted_that_it_has_to_tell_of(
    tmp_path: Path,
) -> None:
    async with served(tmp_path, peers=AWAY) as mesh:
        refused = await refusal(mesh.start())
        assert refused.kind == (grpc.StatusCode.UNAVAILABLE, "SERVICE_UNAVAILABLE")
        assert refused.metadata == {"service": "content"}
        assert refused.retry_after is not None


async def test_runs_of_agents_that_were_read_are_accepted_while_it_is_away(
    mesh: Mesh, catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Believed for no time at all, so that each start asks.
    monkeypatch.setattr(agents, "FRESH_SECONDS", 0.0)
    before = await mesh.start(agent_id="writer")
    catalogue.trouble = DomainError(Reason.REASON_STORE_UNAVAILABLE, "Away.", retry_after=1.0)
    assert (await mesh.start(agent_id="writer")).agent == before.agent
    assert len(catalogue.requests) > 1
    refused = await refusal(mesh.start(agent_id="clerk"))
    assert refused.kind == (grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE")


@BOTH
async def test_models_are_told_the_persona_before_the_input(
    tmp_path: Path, catalogue: Catalogue, protocol: str
) -> None:
    async with modelled(tmp_path, catalogue=catalogue) as (mesh, server):
        server.says("m", Answer(), Answer())
        await mesh.finished("Hi.", agent_id="writer", ai_provider=protocol, model="m")
        await mesh.finished("Hi.", agent_id="clerk", ai_provider=protocol, model="m")
    asked = {"role": "user", "content": "Hi."}
    persona, plain = (request.body for request in server.requests)
    if protocol == "chat":
        first = {"role": "system", "content": told(PERSONA[0])}
        assert (persona["messages"], plain["messages"]) == ([first, asked], [asked])
    else:
        assert (persona["system"], persona["messages"]) == (told(PERSONA[0]), [asked])
        assert ("system" in plain, plain["messages"]) == (False, [asked])


async def test_what_models_are_told_counts_as_input(mesh: Mesh) -> None:
    plain = await mesh.finished("Hi.", agent_id="clerk", model="mock")
    ended = await mesh.finished("Hi.", agent_id="writer", model="mock")
    more = ended.usage.input_tokens - plain.usage.input_tokens
    assert more == len(told(PERSONA[0]).split())
    # Only a model that is there to show it repeats it.
    assert "clerk" not in ended.result
