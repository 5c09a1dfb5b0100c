"""The nouns of the content service, called from Python."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest

from conductor.content.v1.agent_pb2 import Agent
from conductor.content.v1.persona_service_pb2 import ListPersonaVersionsRequest
from conductor.content.v1.screenplay_pb2 import Screenplay
from conductor_ai.client import Client, ConductorError
from tests.rpc.content import served_content


async def test_agents_personas_and_screenplays_have_their_nouns(tmp_path: Path) -> None:
    async with (
        served_content(tmp_path) as content,
        Client(f"127.0.0.1:{content.port}") as client,
    ):
        made = await client.agents.create(Agent(name="Poet", tags=["verse"]), request_id="once")
        assert await client.agents.create(
            Agent(name="Poet", tags=["verse"]), request_id="once"
        ) == (made)
        cleared = await client.agents.update(
            Agent(id="poet", etag=made.etag), fields=["tags", "group"]
        )
        assert [*cleared.tags] == []
        with pytest.raises(ConductorError, match="ETAG_MISMATCH") as refused:
            await client.agents.update(Agent(id="poet", etag=made.etag, name="Late"))
        assert refused.value.code is grpc.StatusCode.ABORTED
        assert [agent.id async for agent in client.agents.list()] == ["default", "poet"]
        assert (await client.templates.list("data"))[0].id == "data"
        installed = await client.templates.install(["editor"])
        assert [*installed.installed_agent_ids] == ["editor"]

        first = await client.personas.create("poet", "one", metadata={"n": 1})
        second = await client.personas.update("poet", "two", metadata={}, etag=first.etag)
        assert (second.version, [*second.metadata]) == (2, [])
        named = await client.personas.set_alias("poet", "production", "first")
        assert named.active_version == 1
        asked = ListPersonaVersionsRequest(agent_id="poet", page_size=1)
        assert [one.version async for one in client.personas.versions(asked)] == [2, 1]
        assert asked.page_token == ""

        play = await client.screenplays.create(Screenplay(name="Storm", content="# A\n"))
        used = await client.screenplays.mark_used(play.id)
        assert (used.etag, used.last_use_time != play.last_use_time) == (play.etag, True)
        assert await client.screenplays.export(play.id) == b"# A\n"
        await client.screenplays.delete(play.id, etag=play.etag)
        with pytest.raises(ConductorError, match="SCREENPLAY_NOT_FOUND"):
            await client.screenplays.export(play.id)
