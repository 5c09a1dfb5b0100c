"""Conversations as callers see them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
from google.api.httpbody_pb2 import HttpBody
from google.protobuf.field_mask_pb2 import FieldMask

from conductor.content.v1 import agent_service_pb2, screenplay_service_pb2
from conductor.content.v1.agent_pb2 import Agent
from conductor.content.v1.screenplay_pb2 import Screenplay
from conductor.conversations.v1 import conversation_service_pb2 as pb
from conductor.conversations.v1.conversation_pb2 import AgentReference, Conversation
from tests.patience import PATIENCE
from tests.rpc.content import Content, served_content
from tests.rpc.conversations import Conversations, served_conversations
from tests.rpc.serving import refusal

NOT_FOUND = (grpc.StatusCode.NOT_FOUND, "CONVERSATION_NOT_FOUND")
INVALID = (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
AWAY = {"content": "ipv4:127.0.0.1:1"}


@pytest_asyncio.fixture
async def content(tmp_path: Path) -> AsyncIterator[Content]:
    async with served_content(tmp_path) as content:
        yield content


@pytest_asyncio.fixture
async def talks(tmp_path: Path, content: Content) -> AsyncIterator[Conversations]:
    peers = {"content": f"ipv4:127.0.0.1:{content.port}"}
    async with served_conversations(tmp_path, peers=peers) as talks:
        yield talks


@pytest_asyncio.fixture
async def alone(tmp_path: Path) -> AsyncIterator[Conversations]:
    """Content is away."""
    async with served_conversations(tmp_path, peers=AWAY) as talks:
        yield talks


async def new_agent(content: Content, id_: str, **fields: Any) -> Agent:
    agent = Agent(id=id_, name=id_.title(), description="What it does, in some words", **fields)
    request = agent_service_pb2.CreateAgentRequest(agent=agent)
    return await content.agents.CreateAgent(request, timeout=PATIENCE)


async def new_screenplay(content: Content) -> str:
    request = screenplay_service_pb2.CreateScreenplayRequest(screenplay=Screenplay(name="Play"))
    return (await content.screenplays.CreateScreenplay(request, timeout=PATIENCE)).id


async def update(
    talks: Conversations, id_: str, mask: str = "", /, *, force: bool = False, **fields: Any
) -> Conversation:
    request = pb.UpdateConversationRequest(
        conversation=Conversation(id=id_, **fields),
        update_mask=FieldMask(paths=mask.split(",") if mask else ()),
        force=force,
    )
    return await talks.conversations.UpdateConversation(request, timeout=PATIENCE)


async def listed(talks: Conversations, **options: Any) -> list[str]:
    """The titles of every page, one after the other."""
    found: list[str] = []
    token = ""
    while True:
        request = pb.ListConversationsRequest(page_token=token, **options)
        page = await talks.conversations.ListConversations(request, timeout=PATIENCE)
        assert not any(one.context for one in page.conversations)
        found += [one.title for one in page.conversations]
        token = page.next_page_token
        if not token:
            return found


async def delete(talks: Conversations, id_: str, **options: Any) -> None:
    request = pb.DeleteConversationRequest(conversation_id=id_, **options)
    await talks.conversations.DeleteConversation(request, timeout=PATIENCE)


async def undelete(talks: Conversations, id_: str) -> Conversation:
    request = pb.UndeleteConversationRequest(conversation_id=id_)
    return await talks.conversations.UndeleteConversation(request, timeout=PATIENCE)


async def test_a_conversation_is_made_changed_deleted_and_taken_back(alone: Conversations) -> None:
    made = await alone.create()
    assert made.id.startswith("conv_")
    assert made.title == f"Conversation {made.create_time.ToDatetime():%Y-%m-%d %H:%M}"
    assert (made.auto_delegate, made.max_chain_depth, made.etag) == (True, 10, "1")
    assert made.display_order == made.create_time.ToMicroseconds() / 1e6
    assert made == await alone.get(made.id)

    changed = await update(
        alone, made.id, etag=made.etag, title="  Hafen 港 ", context="# Rules\n", max_chain_depth=3
    )
    assert (changed.title, changed.context, changed.max_chain_depth) == ("Hafen 港", "# Rules\n", 3)
    assert changed.etag == "2"
    again = await update(alone, made.id, etag=made.etag, title="Hafen 港")
    assert again == changed
    settled = await update(
        alone, made.id, "auto_delegate,max_chain_depth", etag="2", auto_delegate=False
    )
    assert (settled.auto_delegate, settled.max_chain_depth) == (False, 10)

    stale = await refusal(update(alone, made.id, etag="1", title="Other"))
    assert stale.kind == (grpc.StatusCode.ABORTED, "ETAG_MISMATCH")
    assert stale.metadata == {"etag": "3"}
    bare = await refusal(update(alone, made.id, title="Other"))
    assert (bare.kind, bare.fields) == (INVALID, ["etag"])

    await delete(alone, made.id, etag="3")
    assert (await refusal(alone.get(made.id))).kind == NOT_FOUND
    assert (await refusal(alone.say(made.id, "Hello"))).kind == NOT_FOUND
    gone = await alone.get(made.id, include_deleted=True)
    assert gone.purge_time.seconds - gone.delete_time.seconds == 30 * 24 * 3600
    assert (await listed(alone), await listed(alone, deleted=True)) == ([], ["Hafen 港"])

    back = await undelete(alone, made.id)
    assert not back.HasField("delete_time")
    assert await undelete(alone, made.id) == back
    assert (back.context, back.etag) == ("# Rules\n", "3")


async def test_each_part_can_be_set_whatever_the_etag_is(alone: Conversations) -> None:
    id_ = (await alone.create(title="Before")).id
    stub = alone.conversations

    titled = await stub.SetConversationTitle(
        pb.SetConversationTitleRequest(conversation_id=id_, new_title=" After "), timeout=PATIENCE
    )
    assert titled.title == "After"
    told = await stub.SetConversationContext(
        pb.SetConversationContextRequest(conversation_id=id_, context="Be brief."), timeout=PATIENCE
    )
    assert told.context == "Be brief."
    # As of a body whose field is misspelled.
    nothing = pb.SetConversationContextRequest(conversation_id=id_)
    assert (await refusal(stub.SetConversationContext(nothing))).fields == ["context"]
    nobody = pb.SetActiveAgentRequest(conversation_id=id_)
    assert (await refusal(stub.SetActiveAgent(nobody))).fields == ["agent_info"]
    assert (await alone.get(id_)).context == "Be brief."
    limited = await stub.SetConversationSettings(
        pb.SetConversationSettingsRequest(conversation_id=id_, max_chain_depth=100),
        timeout=PATIENCE,
    )
    assert (limited.auto_delegate, limited.max_chain_depth) == (True, 100)
    reset = await stub.SetConversationSettings(
        pb.SetConversationSettingsRequest(
            conversation_id=id_, max_chain_depth=0, auto_delegate=False
        ),
        timeout=PATIENCE,
    )
    assert (reset.auto_delegate, reset.max_chain_depth) == (False, 10)
    file = HttpBody(content_type="text/markdown", data="\ufeff# Ünïcode\n".encode())
    uploaded = await stub.UploadConversationContext(
        pb.UploadConversationContextRequest(conversation_id=id_, file=file), timeout=PATIENCE
    )
    assert uploaded.context == "# Ünïcode\n"


@pytest.mark.parametrize(
    ("fields", "at"),
    [
        ({"title": "  ab  "}, "conversation.title"),
        ({"title": "x" * 101}, "conversation.title"),
        ({"title": "one\ntwo"}, "conversation.title"),
        ({"title": "gnp.\u202eexe"}, "conversation.title"),
        ({"title": "\u200b\u200b\u200b"}, "conversation.title"),
        ({"context": "\x00"}, "conversation.context"),
        ({"context": "x" * 50_001}, "conversation.context"),
        ({"max_chain_depth": 101}, "conversation.max_chain_depth"),
        ({"allowed_agents": ["a", "a"]}, "conversation.allowed_agents"),
        ({"display_order": float("nan")}, "conversation.display_order"),
    ],
)
async def test_what_cannot_be_is_refused_by_the_name_of_its_field(
    alone: Conversations, fields: dict[str, Any], at: str
) -> None:
    refused = await refusal(alone.create(**fields))

    assert (refused.kind, refused.fields) == (INVALID, [at])


@pytest.mark.parametrize("data", [b"\xff\xfe", b"x" * 50_001, b"a\x00"])
async def test_a_file_that_is_no_context_changes_nothing(alone: Conversations, data: bytes) -> None:
    made = await alone.create(context="As it was.")

    request = pb.UploadConversationContextRequest(conversation_id=made.id, file=HttpBody(data=data))
    refused = await refusal(
        alone.conversations.UploadConversationContext(request, timeout=PATIENCE)
    )

    assert (refused.kind, refused.fields) == (INVALID, ["file"])
    assert await alone.get(made.id) == made


async def test_who_is_named_is_looked_up(talks: Conversations, content: Content) -> None:
    await new_agent(content, "writer", emoji="✍")
    await new_agent(content, "critic")
    screenplay = await new_screenplay(content)

    made = await talks.create(
        screenplay_id=screenplay, active_agent=AgentReference(agent_id="writer", name="Nobody")
    )

    assert made.screenplay_id == screenplay
    assert made.active_agent == AgentReference(agent_id="writer", name="Writer", emoji="✍")
    assert list(made.participants) == [made.active_agent]
    switch = pb.SetActiveAgentRequest(
        conversation_id=made.id, agent_info=AgentReference(agent_id="critic")
    )
    switched = await talks.conversations.SetActiveAgent(switch, timeout=PATIENCE)
    assert [one.agent_id for one in switched.participants] == ["writer", "critic"]
    left = pb.SetActiveAgentRequest(conversation_id=made.id, agent_info=AgentReference())
    assert not (await talks.conversations.SetActiveAgent(left, timeout=PATIENCE)).HasField(
        "active_agent"
    )
    back = pb.SetActiveAgentRequest(
        conversation_id=made.id, agent_info=AgentReference(agent_id="critic")
    )
    await talks.conversations.SetActiveAgent(back, timeout=PATIENCE)
    shut_out = await refusal(update(talks, made.id, force=True, allowed_agents=["writer"]))
    assert shut_out.kind == (grpc.StatusCode.FAILED_PRECONDITION, "AGENT_NOT_ALLOWED")
    for fields, reason, named in (
        (
            {"active_agent": AgentReference(agent_id="nobody")},
            "AGENT_NOT_FOUND",
            ["conversation.active_agent.agent_id"],
        ),
        (
            {"allowed_agents": ["writer", "nobody"]},
            "AGENT_NOT_FOUND",
            ["conversation.allowed_agents[1]"],
        ),
        (
            {"active_agent": AgentReference(instance_id="none")},
            "INSTANCE_NOT_FOUND",
            ["conversation.active_agent.instance_id"],
        ),
        ({"screenplay_id": "none"}, "SCREENPLAY_NOT_FOUND", ["conversation.screenplay_id"]),
        (
            {"allowed_agents": ["writer"], "active_agent": AgentReference(agent_id="critic")},
            "AGENT_NOT_ALLOWED",
            [],
        ),
    ):
        refused = await refusal(talks.create(**fields))
        assert (refused.reason, refused.fields) == (reason, named), fields


async def test_what_names_nobody_needs_no_content_service(alone: Conversations) -> None:
    made = await alone.create(title="Alone")

    named = await refusal(
        update(alone, made.id, force=True, active_agent=AgentReference(agent_id="writer"))
    )

    assert named.kind == (grpc.StatusCode.UNAVAILABLE, "SERVICE_UNAVAILABLE")
    assert await alone.get(made.id) == made


async def test_a_repeated_request_makes_one_conversation(alone: Conversations) -> None:
    made = await asyncio.gather(*(alone.create(title="Once", request_id="a/b") for _ in range(8)))

    assert len({one.id for one in made}) == 1
    reused = await refusal(alone.create(title="Twice", request_id="a/b"))
    assert (reused.reason, reused.fields) == ("REQUEST_ID_REUSED", ["request_id"])


async def test_lists_are_in_every_order_and_found_by_words_screenplay_and_agent(
    talks: Conversations, content: Content
) -> None:
    await new_agent(content, "writer")
    await new_agent(content, "WRITER2")
    play = await new_screenplay(content)
    places = {"beta one": -1.5, "Alpha two": 3.0, "gamma one": 0.0, "Delta": -0.25}
    ids = {}
    for title, place in places.items():
        fields: dict[str, Any] = {"title": title, "display_order": place}
        if "one" in title:
            fields |= {"screenplay_id": play}
        if title == "Delta":
            fields |= {"active_agent": AgentReference(agent_id="writer")}
        ids[title] = (await talks.create(**fields)).id
    await talks.say(ids["Alpha two"], "Now the newest")
    order = pb.ListConversationsRequest.Order

    created = list(places)
    assert await listed(talks, order=order.ORDER_CREATE_TIME) == created[::-1]
    for size in (1, 2, 3, 50):
        newest = await listed(talks, page_size=size)
        assert newest == ["Alpha two", "Delta", "gamma one", "beta one"], size
        by_title = await listed(talks, order=order.ORDER_TITLE, page_size=size)
        assert by_title == ["Alpha two", "beta one", "Delta", "gamma one"], size
        by_hand = await listed(talks, order=order.ORDER_DISPLAY, page_size=size)
        assert by_hand == ["beta one", "Delta", "gamma one", "Alpha two"], size
        turned = await listed(talks, order=order.ORDER_DISPLAY, reverse=True, page_size=size)
        assert turned == by_hand[::-1], size
        assert await listed(talks, screenplay_id=play, page_size=size) == created[2::-2], size
    assert await listed(talks, query="ON BET") == ["beta one"]
    assert await listed(talks, agent_id="writer") == ["Delta"]
    assert await listed(talks, agent_id="WRITER") == []
    token = pb.ListConversationsRequest(page_size=1)
    first = await talks.conversations.ListConversations(token, timeout=PATIENCE)
    for other in (
        pb.ListConversationsRequest(page_token=first.next_page_token, reverse=True),
        pb.ListConversationsRequest(page_token=first.next_page_token, visitors=True),
    ):
        refused = await refusal(talks.conversations.ListConversations(other, timeout=PATIENCE))
        assert refused.reason == "PAGE_TOKEN_INVALID"


async def test_all_are_moved_or_none(alone: Conversations) -> None:
    ids = [
        (await alone.create(title=f"Number {number}", display_order=1)).id for number in range(3)
    ]
    places = pb.ReorderConversationsRequest.Place

    def moved(*to: tuple[str, float]) -> pb.ReorderConversationsRequest:
        return pb.ReorderConversationsRequest(
            order_updates=[places(conversation_id=id_, display_order=place) for id_, place in to]
        )

    unknown = moved((ids[0], 9), ("none", 1))
    refused = await refusal(alone.conversations.ReorderConversations(unknown, timeout=PATIENCE))
    assert refused.kind == NOT_FOUND
    twice = moved((ids[0], 9), (ids[0], 1))
    refused = await refusal(alone.conversations.ReorderConversations(twice, timeout=PATIENCE))
    assert (refused.kind, refused.fields) == (INVALID, ["order_updates"])
    assert [(await alone.get(id_)).display_order for id_ in ids] == [1, 1, 1]

    request = moved((ids[0], 3), (ids[1], 2), (ids[2], 1))
    for _ in range(2):
        answer = await alone.conversations.ReorderConversations(request, timeout=PATIENCE)
        assert answer.updated_count == 3
    by_hand = pb.ListConversationsRequest.ORDER_DISPLAY
    assert await listed(alone, order=by_hand) == ["Number 2", "Number 1", "Number 0"]
    assert (await alone.get(ids[0])).etag == "2"


async def test_what_is_purged_is_gone_with_its_messages(alone: Conversations) -> None:
    id_ = (await alone.create(title="Gone")).id
    message = await alone.say(id_, "unforgettable")

    await delete(alone, id_, purge=True)

    assert (await refusal(alone.get(id_, include_deleted=True))).kind == NOT_FOUND
    assert (await refusal(delete(alone, id_))).kind == NOT_FOUND
    other = await alone.create(title="Other")
    again = await alone.say(other.id, "unforgettable", reply_to="")
    assert again.id != message.id


async def test_a_conversation_comes_back_only_beside_its_screenplay(
    talks: Conversations, content: Content
) -> None:
    play = await new_screenplay(content)
    made = await talks.create(title="Scene", screenplay_id=play)
    await delete(talks, made.id)
    await content.screenplays.DeleteScreenplay(
        screenplay_service_pb2.DeleteScreenplayRequest(screenplay_id=play), timeout=PATIENCE
    )

    assert (await refusal(undelete(talks, made.id))).reason == "SCREENPLAY_NOT_FOUND"

    await content.screenplays.UndeleteScreenplay(
        screenplay_service_pb2.UndeleteScreenplayRequest(screenplay_id=play), timeout=PATIENCE
    )
    assert (await undelete(talks, made.id)).id == made.id


async def test_messages_change_no_etag_and_let_the_list_begin_with_their_conversation(
    alone: Conversations,
) -> None:
    first = await alone.create(title="First")
    await alone.create(title="Second")

    await alone.say(first.id, "Hello")

    after = await alone.get(first.id)
    assert (after.etag, after.message_count, after.last_message_preview) == ("1", 1, "Hello")
    assert after.update_time.ToMicroseconds() > first.update_time.ToMicroseconds()
    assert await listed(alone) == ["First", "Second"]
    changed = await update(alone, first.id, etag=first.etag, title="Newer")
    assert (changed.etag, changed.message_count) == ("2", 1)


async def test_what_is_there_is_there_after_a_restart(tmp_path: Path) -> None:
    async with served_conversations(tmp_path, peers=AWAY) as talks:
        made = await talks.create(title="Kept", context="Rules")
        said = await talks.say(made.id, "x" * 10_000)
        before = await talks.get(made.id)

    async with served_conversations(tmp_path, peers=AWAY) as talks:
        assert await talks.get(made.id) == before
        assert await talks.said(made.id) == [said]
