"""Conversations and instances follow agents and screenplays of a real content service."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp

from conductor.audit.v1.audit_service_pb2 import ListAuditRecordsRequest
from conductor.audit.v1.audit_service_pb2_grpc import AuditServiceStub
from conductor.content.v1 import agent_pb2, screenplay_pb2
from conductor.content.v1 import agent_service_pb2 as agents
from conductor.content.v1 import screenplay_service_pb2 as plays
from conductor.conversations.v1 import conversation_service_pb2 as talks
from conductor.conversations.v1 import instance_service_pb2 as pb
from conductor.conversations.v1 import kin_service_pb2 as kin
from conductor.conversations.v1.instance_pb2 import Instance
from conductor.conversations.v1.kin_service_pb2_grpc import KinServiceStub
from services.kit import ids
from services.kit.peers import Peers
from services.kit.signing import Signer
from tests.patience import PATIENCE
from tests.rpc.archiving import export, take_in
from tests.rpc.both import CONTENT, CONVERSATIONS, Both, both_served
from tests.rpc.content import Content
from tests.rpc.conversations import Conversations

SECRET = "s" * 40
BOOTSTRAP = "cmk_bootstrap_" + "0" * 64
NAMES = (CONVERSATIONS, CONTENT)


class Pair:
    """Both services, each told where the other is; each can be stopped and started again."""

    def __init__(self, both: Both) -> None:
        self.both = both
        self.content = Content(both.channel(CONTENT), both.ports[CONTENT])
        self.talks = Conversations(both.channel(CONVERSATIONS), both.ports[CONVERSATIONS])

    async def place(self, **fields: Any) -> str:
        made = await self.talks.instances.CreateInstance(
            pb.CreateInstanceRequest(instance=Instance(**fields)), timeout=PATIENCE
        )
        return made.instance_id

    async def delete_play(self, id_: str, *, purge: bool = False) -> None:
        request = plays.DeleteScreenplayRequest(screenplay_id=id_, purge=purge)
        await self.content.screenplays.DeleteScreenplay(request, timeout=PATIENCE)

    async def undelete_play(self, id_: str) -> None:
        request = plays.UndeleteScreenplayRequest(screenplay_id=id_)
        await self.content.screenplays.UndeleteScreenplay(request, timeout=PATIENCE)

    async def delete_agent(self, id_: str, *, purge: bool = False) -> None:
        request = agents.DeleteAgentRequest(agent_id=id_, purge=purge)
        await self.content.agents.DeleteAgent(request, timeout=PATIENCE)

    async def shown(self, *, deleted: bool = False) -> set[str]:
        """The ids of the conversations and instances that lists show."""
        homes = await self.talks.conversations.ListConversations(
            talks.ListConversationsRequest(deleted=deleted), timeout=PATIENCE
        )
        placed = await self.talks.instances.ListInstances(
            pb.ListInstancesRequest(deleted=deleted), timeout=PATIENCE
        )
        return {one.id for one in homes.conversations} | {
            one.instance_id for one in placed.instances
        }


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[Pair]:
    async with both_served(tmp_path, names=NAMES) as both:
        yield Pair(both)


async def _house(pair: Pair) -> tuple[str, str, set[str], set[str]]:
    """Make a screenplay and an agent, and what belongs to each; answers their ids."""
    play = await pair.content.screenplays.CreateScreenplay(
        plays.CreateScreenplayRequest(screenplay=screenplay_pb2.Screenplay(name="Play")),
        timeout=PATIENCE,
    )
    await pair.content.agents.CreateAgent(
        agents.CreateAgentRequest(agent=agent_pb2.Agent(id="writer", name="Writer")),
        timeout=PATIENCE,
    )
    home = await pair.talks.create(screenplay_id=play.id)
    inside = await pair.place(agent_id="default", conversation_id=home.id)
    both = await pair.place(agent_id="writer", screenplay_id=play.id)
    outside = await pair.place(agent_id="writer")
    return play.id, "writer", {home.id, inside, both}, {both, outside}


async def _until(wanted: set[str], read: Callable[[], Awaitable[set[str]]]) -> None:
    async with asyncio.timeout(PATIENCE):
        while await read() != wanted:
            await asyncio.sleep(0.05)


async def test_conversations_and_instances_go_and_come_with_a_screenplay(pair: Pair) -> None:
    play, _, of_play, of_agent = await _house(pair)

    await pair.delete_play(play)
    assert await pair.shown() == of_agent - of_play
    assert await pair.shown(deleted=True) == of_play

    await pair.undelete_play(play)
    assert await pair.shown() == of_play | of_agent
    assert await pair.shown(deleted=True) == set()

    await pair.delete_play(play, purge=True)
    assert await pair.shown() == of_agent - of_play
    assert await pair.shown(deleted=True) == set()


async def test_instances_go_for_good_with_an_agent_and_not_with_one_made_anew(pair: Pair) -> None:
    _, agent, of_play, of_agent = await _house(pair)

    await pair.delete_agent(agent)
    assert await pair.shown() == of_play - of_agent
    await pair.delete_agent(agent, purge=True)
    assert await pair.shown(deleted=True) == set()

    await pair.content.agents.CreateAgent(
        agents.CreateAgentRequest(agent=agent_pb2.Agent(id=agent, name="Anew")), timeout=PATIENCE
    )
    placed = await pair.place(agent_id=agent)
    assert await pair.shown() == (of_play - of_agent) | {placed}


async def test_content_serves_on_while_conversations_is_away_which_follows_later(
    pair: Pair,
) -> None:
    play, agent, of_play, of_agent = await _house(pair)
    await pair.both.stop("conversations")

    await pair.delete_play(play)
    await pair.delete_agent(agent)
    found = await pair.content.agents.ListAgents(agents.ListAgentsRequest(), timeout=PATIENCE)
    assert agent not in {one.id for one in found.agents}
    await pair.content.agents.UndeleteAgent(
        agents.UndeleteAgentRequest(agent_id=agent), timeout=PATIENCE
    )
    # Content dies, too: the note is in the screenplay.
    await pair.both.stop("content")
    await pair.both.start("conversations")
    assert await pair.shown() == of_play | of_agent
    await pair.both.start("content")

    await _until(of_agent - of_play, pair.shown)
    await pair.undelete_play(play)
    await _until(of_play | of_agent, pair.shown)


async def test_what_an_archive_brings_back_brings_the_others_back(pair: Pair) -> None:
    play, _, of_play, of_agent = await _house(pair)
    raw = await export(pair.content)
    await pair.delete_play(play)
    assert await pair.shown() == of_agent - of_play

    report = await take_in(pair.content, raw, force=True)

    assert report.overwritten == 1
    await _until(of_play | of_agent, pair.shown)


async def test_services_tell_one_another_of_the_organisation_whose_thing_it_is(
    tmp_path: Path,
) -> None:
    signer = Signer(SECRET, ids.now)
    ours, theirs = (Peers("execution", {}, signer).itself(org) for org in ("acme", "other"))
    auth: dict[str, Any] = {"auth": "on", "mesh_secret": SECRET, "bootstrap_key": BOOTSTRAP}
    async with both_served(tmp_path, names=NAMES, **auth) as both:
        pair = Pair(both)
        config = Struct()
        config.update({"secret": "s3"})
        made = []
        for who in (ours, theirs):
            play = await pair.content.screenplays.CreateScreenplay(
                plays.CreateScreenplayRequest(screenplay=screenplay_pb2.Screenplay(name="Play")),
                timeout=PATIENCE,
                metadata=who,
            )
            made.append(play.id)
            placed = Instance(agent_id="default", screenplay_id=play.id, config=config)
            await pair.talks.instances.CreateInstance(
                pb.CreateInstanceRequest(instance=placed), timeout=PATIENCE, metadata=who
            )
        await pair.content.screenplays.DeleteScreenplay(
            plays.DeleteScreenplayRequest(screenplay_id=made[1]), timeout=PATIENCE, metadata=theirs
        )

        for who, count in ((ours, 1), (theirs, 0)):
            found = await pair.talks.instances.ListInstances(
                pb.ListInstancesRequest(), timeout=PATIENCE, metadata=who
            )
            assert len(found.instances) == count
        records = await AuditServiceStub(pair.talks.channel).ListAuditRecords(
            ListAuditRecordsRequest(), timeout=PATIENCE, metadata=theirs
        )
        assert "MarkKin" in str(records)
        assert "s3" not in str(records)


async def test_what_is_no_message_of_a_deletion_is_refused(pair: Pair) -> None:
    stub = KinServiceStub(pair.talks.channel)

    for request in (
        kin.MarkKinRequest(kind=kin.PARENT_KIND_AGENT, parent_id="writer", deletion_id="del_1"),
        kin.MarkKinRequest(parent_id="a", deletion_id="del_1", delete_time=Timestamp(seconds=1)),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.MarkKin(request, timeout=PATIENCE)
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
