"""InstanceService over the wire, beside a real content service."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.struct_pb2 import Struct

from conductor.content.v1 import agent_pb2, persona_pb2, screenplay_pb2
from conductor.content.v1 import agent_service_pb2 as agents
from conductor.content.v1 import persona_service_pb2 as personas
from conductor.content.v1 import screenplay_service_pb2 as plays
from conductor.conversations.v1 import instance_service_pb2 as pb
from conductor.conversations.v1.conversation_pb2 import AgentReference, Message
from conductor.conversations.v1.instance_pb2 import Instance, Position
from conductor.conversations.v1.turn_service_pb2 import FillAnswerRequest
from tests.patience import PATIENCE
from tests.rpc.content import Content, served_content
from tests.rpc.conversations import Conversations, served_conversations
from tests.rpc.serving import refusal


class Stage:
    """Both services, with an agent that has a persona, and a screenplay that has a directory."""

    def __init__(self, content: Content, talks: Conversations) -> None:
        self.content = content
        self.talks = talks
        self.stub = talks.instances
        self.play = ""

    async def build(self) -> None:
        writer = agent_pb2.Agent(
            id="writer", name="Writer", instructions="Write.", mcp_servers=["files"]
        )
        await self.content.agents.CreateAgent(
            agents.CreateAgentRequest(agent=writer), timeout=PATIENCE
        )
        persona = persona_pb2.Persona(agent_id="writer", content="# One")
        await self.content.personas.CreatePersona(
            personas.CreatePersonaRequest(persona=persona), timeout=PATIENCE
        )
        for work in (
            self.content.personas.SetPersonaAlias(
                personas.SetPersonaAliasRequest(agent_id="writer", alias="production", version="1"),
                timeout=PATIENCE,
            ),
            self.content.personas.UpdatePersona(
                personas.UpdatePersonaRequest(
                    persona=persona_pb2.Persona(agent_id="writer", content="# Two"), force=True
                ),
                timeout=PATIENCE,
            ),
        ):
            await work
        play = screenplay_pb2.Screenplay(name="Play", working_directory="/srv/play")
        made = await self.content.screenplays.CreateScreenplay(
            plays.CreateScreenplayRequest(screenplay=play), timeout=PATIENCE
        )
        self.play = made.id

    async def place(self, request_id: str = "", **fields: Any) -> Instance:
        request = pb.CreateInstanceRequest(
            instance=Instance(**{"agent_id": "writer", **fields}), request_id=request_id
        )
        return await self.stub.CreateInstance(request, timeout=PATIENCE)

    async def get(self, instance_id: str) -> Instance:
        request = pb.GetInstanceRequest(instance_id=instance_id)
        return await self.stub.GetInstance(request, timeout=PATIENCE)

    async def update(self, instance_id: str, *paths: str, **fields: Any) -> Instance:
        request = pb.UpdateInstanceRequest(
            instance=Instance(instance_id=instance_id, **fields),
            update_mask=FieldMask(paths=paths),
        )
        return await self.stub.UpdateInstance(request, timeout=PATIENCE)

    async def ran(self, instance: Instance, number: int) -> None:
        """Count a run of an instance."""
        request = FillAnswerRequest(
            execution_id=f"exec_{number}",
            agent=AgentReference(agent_id=instance.agent_id, instance_id=instance.instance_id),
            input_preview=f"q{number}",
            status=Message.STATUS_COMPLETED,
            content=f"a{number}",
            duration=Duration(seconds=2),
        )
        await self.talks.turns.FillAnswer(request, timeout=PATIENCE)


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    async with served_content(tmp_path) as content:
        peers = {"content": f"ipv4:127.0.0.1:{content.port}"}
        async with served_conversations(tmp_path, peers=peers) as talks:
            stage = Stage(content, talks)
            await stage.build()
            yield stage


def _struct(**values: Any) -> Struct:
    struct = Struct()
    struct.update(values)
    return struct


async def test_an_instance_is_answered_as_it_was_made(stage: Stage) -> None:
    talk = await stage.talks.create(screenplay_id=stage.play)
    made = await stage.place(
        instance_id="left-1",
        conversation_id=talk.id,
        position=Position(x=1.5, y=-2),
        status=Instance.STATUS_QUEUED,
        config=_struct(**{"a.b": {"$set": [1, 2.5, None, True, "x"]}}),
        emoji="🪶",
        display_order=-1,
        mcp_configs=["web"],
        is_system_default=True,
        is_hidden=True,
    )

    assert made.screenplay_id == stage.play
    assert made.position == Position(x=1.5, y=-2)
    assert made.config == _struct(**{"a.b": {"$set": [1, 2.5, None, True, "x"]}})
    assert (made.status, made.is_hidden, made.etag) == (Instance.STATUS_QUEUED, True, "1")
    assert not made.statistics.HasField("success_rate")
    assert await stage.get("left-1") == made


async def test_what_was_read_can_be_sent_back_and_a_mask_clears_what_it_names(
    stage: Stage,
) -> None:
    made = await stage.place(cwd="/w", config=_struct(a=1), mcp_configs=["web"])
    made.cwd = "/x"

    request = pb.UpdateInstanceRequest(instance=made)
    changed = await stage.stub.UpdateInstance(request, timeout=PATIENCE)
    assert (changed.cwd, changed.etag) == ("/x", "2")

    paths = ("cwd", "config", "mcp_configs", "status", "position")
    cleared = await stage.update(made.instance_id, *paths)
    assert (cleared.cwd, len(cleared.config), list(cleared.mcp_configs)) == ("", 0, [])
    assert cleared.status == Instance.STATUS_PENDING
    refused = await refusal(stage.update(made.instance_id, "agent_id", agent_id="default"))
    assert refused.fields == ["update_mask"]


async def test_a_directory_is_set_by_update_and_by_itself(stage: Stage) -> None:
    made = await stage.place()

    assert (await stage.update(made.instance_id, cwd="/a")).cwd == "/a"
    request = pb.SetInstanceCwdRequest(instance_id=made.instance_id, cwd="/b")
    assert (await stage.stub.SetInstanceCwd(request, timeout=PATIENCE)).cwd == "/b"
    for wrong in ("relative", "/a\nb"):
        request = pb.SetInstanceCwdRequest(instance_id=made.instance_id, cwd=wrong)
        refused = await refusal(stage.stub.SetInstanceCwd(request))
        assert refused.fields == ["cwd"]


async def test_pages_follow_one_another_in_either_order(stage: Stage) -> None:
    made = [(await stage.place(display_order=-number)).instance_id for number in range(5)]

    for order in (
        pb.ListInstancesRequest.ORDER_CREATE_TIME,
        pb.ListInstancesRequest.ORDER_DISPLAY,
    ):
        found: list[str] = []
        token = ""
        while True:
            request = pb.ListInstancesRequest(page_size=2, page_token=token, order=order)
            page = await stage.stub.ListInstances(request, timeout=PATIENCE)
            found += [one.instance_id for one in page.instances]
            token = page.next_page_token
            if not token:
                break
        assert found == made[::-1]


async def test_places_tools_and_deletion_by_the_wire(stage: Stage) -> None:
    first, second = await stage.place(), await stage.place()
    places = [
        pb.ReorderInstancesRequest.Place(instance_id=one.instance_id, display_order=order)
        for one, order in ((first, 2), (second, 1))
    ]
    moved = await stage.stub.ReorderInstances(
        pb.ReorderInstancesRequest(order_updates=places), timeout=PATIENCE
    )
    assert moved.updated_count == 2

    tools = await stage.stub.SetInstanceMcpConfigs(
        pb.SetInstanceMcpConfigsRequest(
            instance_id=first.instance_id, mcp_configs=["web", "files"]
        ),
        timeout=PATIENCE,
    )
    assert (list(tools.template_mcps), list(tools.combined)) == (["files"], ["files", "web"])
    same = pb.GetInstanceMcpConfigsRequest(instance_id=first.instance_id)
    assert await stage.stub.GetInstanceMcpConfigs(same, timeout=PATIENCE) == tools

    await stage.stub.DeleteInstance(
        pb.DeleteInstanceRequest(instance_id=first.instance_id), timeout=PATIENCE
    )
    refused = await refusal(stage.get(first.instance_id))
    assert refused.reason == "INSTANCE_NOT_FOUND"
    back = await stage.stub.UndeleteInstance(
        pb.UndeleteInstanceRequest(instance_id=first.instance_id), timeout=PATIENCE
    )
    assert not back.HasField("delete_time")


async def test_context_and_history_tell_what_runs_begin_with_and_did(stage: Stage) -> None:
    made = await stage.place(screenplay_id=stage.play)
    for number in range(3):
        await stage.ran(made, number)
    await stage.ran(made, 2)

    request = pb.GetInstanceContextRequest(instance_id=made.instance_id)
    begun = await stage.stub.GetInstanceContext(request, timeout=PATIENCE)
    # Production is what runs use.
    assert (begun.persona, begun.persona_version) == ("# One", 1)
    assert (begun.operating_procedure, begun.cwd) == ("Write.", "/srv/play")
    assert [one.user_input for one in begun.history] == ["q0", "q1", "q2"]

    whose = {"instance_id": made.instance_id}
    page = await stage.stub.ListHistory(
        pb.ListHistoryRequest(page_size=2, **whose), timeout=PATIENCE
    )
    rest = await stage.stub.ListHistory(
        pb.ListHistoryRequest(page_size=2, page_token=page.next_page_token, **whose),
        timeout=PATIENCE,
    )
    assert [one.ai_response for one in (*page.entries, *rest.entries)] == ["a2", "a1", "a0"]
    cleared = await stage.stub.ClearHistory(pb.ClearHistoryRequest(**whose), timeout=PATIENCE)
    assert cleared.cleared_count == 3
    counted = (await stage.get(made.instance_id)).statistics
    assert (counted.task_count, counted.success_rate) == (3, 100)
    assert (counted.total_execution_time_ms, counted.average_execution_time_ms) == (6000, 2000)
    refused = await refusal(stage.stub.ListHistory(pb.ListHistoryRequest(instance_id="nobody")))
    assert refused.reason == "INSTANCE_NOT_FOUND"


async def test_what_is_wrong_is_named(stage: Stage) -> None:
    cases: tuple[tuple[dict[str, Any], str], ...] = (
        ({"agent_id": ""}, "instance.agent_id"),
        ({"cwd": "x"}, "instance.cwd"),
        ({"position": Position(x=float("nan"))}, "instance.position.x"),
        ({"display_order": float("inf")}, "instance.display_order"),
        ({"config": _struct(a=float("nan"))}, "instance.config"),
        ({"config": _struct(a="x" * 20_000)}, "instance.config"),
        ({"config": _struct(a="x" * 300_000)}, "instance.config"),
        ({"instance_id": "reorder"}, "instance.instance_id"),
        ({"instance_id": "a/b"}, "instance.instance_id"),
        ({"status": 77}, "instance.status"),
    )
    for fields, field in cases:
        refused = await refusal(stage.place(**fields))
        assert (refused.code, refused.fields) == (grpc.StatusCode.INVALID_ARGUMENT, [field]), fields


async def test_what_an_instance_cannot_be_placed_in_is_named(stage: Stage) -> None:
    for kind in ("agent", "conversation", "screenplay"):
        refused = await refusal(stage.place(**{f"{kind}_id": "nowhere"}))
        assert refused.reason == f"{kind.upper()}_NOT_FOUND"
        assert refused.fields == [f"instance.{kind}_id"]
