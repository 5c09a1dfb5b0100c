"""What is said in conversations, as callers see it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest_asyncio
from google.api.httpbody_pb2 import HttpBody

from conductor.audit.v1.audit_service_pb2 import ListAuditRecordsRequest
from conductor.audit.v1.audit_service_pb2_grpc import AuditServiceStub
from conductor.content.v1 import agent_service_pb2
from conductor.content.v1.agent_pb2 import Agent
from conductor.conversations.v1 import conversation_service_pb2
from conductor.conversations.v1 import message_service_pb2 as pb
from conductor.conversations.v1.conversation_pb2 import AgentReference, Conversation, Message
from tests.patience import PATIENCE
from tests.rpc.content import Content, served_content
from tests.rpc.conversations import Conversations, served_conversations
from tests.rpc.serving import refusal

NOT_FOUND = (grpc.StatusCode.NOT_FOUND, "MESSAGE_NOT_FOUND")
INVALID = (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
AWAY = {"content": "ipv4:127.0.0.1:1"}
MEBIBYTE = 1024 * 1024


@pytest_asyncio.fixture
async def talks(tmp_path: Path) -> AsyncIterator[Conversations]:
    """Content is away."""
    async with served_conversations(tmp_path, peers=AWAY) as talks:
        yield talks


@pytest_asyncio.fixture
async def content(tmp_path: Path) -> AsyncIterator[Content]:
    async with served_content(tmp_path) as content:
        for id_ in ("writer", "critic", "guest"):
            agent = Agent(id=id_, name=id_.title(), description="What it does, in words", emoji="✍")
            request = agent_service_pb2.CreateAgentRequest(agent=agent)
            await content.agents.CreateAgent(request, timeout=PATIENCE)
        yield content


async def delete(talks: Conversations, message: Message) -> Message:
    request = pb.DeleteMessageRequest(
        conversation_id=message.conversation_id, message_id=message.id
    )
    return await talks.messages.DeleteMessage(request, timeout=PATIENCE)


async def undelete(talks: Conversations, message: Message) -> Message:
    request = pb.UndeleteMessageRequest(
        conversation_id=message.conversation_id, message_id=message.id
    )
    return await talks.messages.UndeleteMessage(request, timeout=PATIENCE)


async def toggle(talks: Conversations, message: Message) -> Message:
    request = pb.ToggleMessageRequest(
        conversation_id=message.conversation_id, message_id=message.id
    )
    return await talks.messages.ToggleMessage(request, timeout=PATIENCE)


async def hide(talks: Conversations, message: Message, **how: bool) -> Message:
    request = pb.HideMessageRequest(
        conversation_id=message.conversation_id, message_id=message.id, **how
    )
    return await talks.messages.HideMessage(request, timeout=PATIENCE)


async def found(talks: Conversations, query: str, **options: Any) -> list[str]:
    """The contents of every page, one after the other."""
    contents: list[str] = []
    token = ""
    while True:
        request = pb.SearchMessagesRequest(query=query, page_token=token, **options)
        page = await talks.messages.SearchMessages(request, timeout=PATIENCE)
        contents += [one.content for one in page.messages]
        token = page.next_page_token
        if not token:
            return contents


async def clone(talks: Conversations, id_: str, **options: Any) -> Conversation:
    request = conversation_service_pb2.CloneConversationRequest(conversation_id=id_, **options)
    answer = await talks.conversations.CloneConversation(request, timeout=PATIENCE)
    return answer.conversation


async def counted(talks: Conversations, id_: str) -> tuple[int, str]:
    conversation = await talks.get(id_)
    return conversation.message_count, conversation.last_message_preview


async def test_what_is_said_has_an_author_a_place_and_a_time(talks: Conversations) -> None:
    id_ = (await talks.create()).id

    first = await talks.say(id_, " Hello \n")
    second = await talks.say(id_, "Again", reply_to=first.id, type=Message.TYPE_SYSTEM)

    assert first.id.startswith("msg_")
    assert (first.position, first.type, first.content) == (1, Message.TYPE_USER, " Hello \n")
    assert (first.status, first.author) == (Message.STATUS_COMPLETED, "anonymous")
    assert (second.position, second.type, second.reply_to) == (2, Message.TYPE_SYSTEM, first.id)
    assert await talks.said(id_) == [first, second]
    assert await talks.said(id_, reply_to=first.id) == [second]
    request = pb.GetMessageRequest(conversation_id=id_, message_id=second.id)
    assert await talks.messages.GetMessage(request, timeout=PATIENCE) == second


async def test_fifty_writers_make_one_order_and_lose_nothing(talks: Conversations) -> None:
    id_ = (await talks.create()).id
    seen: list[int] = []

    async def write(number: int) -> Message:
        return await talks.say(id_, f"message {number}")

    async def read() -> None:
        while len(seen) < 50:
            page = await talks.page(id_, after_position=len(seen), page_size=200)
            seen.extend(one.position for one in page.messages)

    async with asyncio.timeout(PATIENCE):
        reading = asyncio.create_task(read())
        written = await asyncio.gather(*(write(number) for number in range(50)))
        await reading

    assert sorted(one.position for one in written) == list(range(1, 51)) == seen
    said = await talks.said(id_)
    assert {one.id: one for one in said} == {one.id: one for one in written}
    times = [one.create_time.ToMicroseconds() for one in said]
    assert times == sorted(times)
    assert await counted(talks, id_) == (50, said[-1].content)


async def test_a_repeated_request_says_it_once(talks: Conversations) -> None:
    id_, other = (await talks.create()).id, (await talks.create()).id

    said = await asyncio.gather(*(talks.say(id_, "Once", request_id="r") for _ in range(8)))

    assert len({one.id for one in said}) == 1
    assert await counted(talks, id_) == (1, "Once")
    for changed in (
        talks.say(id_, "Twice", request_id="r"),
        talks.say(other, "Once", request_id="r"),
    ):
        assert (await refusal(changed)).reason == "REQUEST_ID_REUSED"


async def test_what_agents_say_names_them_as_they_are(tmp_path: Path, content: Content) -> None:
    peers = {"content": f"ipv4:127.0.0.1:{content.port}"}
    async with served_conversations(tmp_path, peers=peers) as talks:
        id_ = (await talks.create(allowed_agents=["writer", "critic"])).id
        writer, critic = AgentReference(agent_id="writer"), AgentReference(agent_id="critic")

        said = await talks.say(id_, "A draft", type=Message.TYPE_AGENT, agent=writer)
        handed = await talks.say(
            id_, "Judge it", type=Message.TYPE_DELEGATION, agent=writer, target=critic
        )

        assert said.agent == AgentReference(agent_id="writer", name="Writer", emoji="✍")
        assert (handed.agent.name, handed.target.name) == ("Writer", "Critic")
        assert [one.agent_id for one in (await talks.get(id_)).participants] == ["writer"]
        guest = AgentReference(agent_id="guest")
        for fields, reason in (
            ({"type": Message.TYPE_AGENT}, "INVALID_REQUEST"),
            ({"agent": writer}, "INVALID_REQUEST"),
            ({"type": Message.TYPE_AGENT, "agent": writer, "target": critic}, "INVALID_REQUEST"),
            ({"type": Message.TYPE_DELEGATION, "agent": writer}, "INVALID_REQUEST"),
            ({"type": Message.TYPE_AGENT, "agent": guest}, "AGENT_NOT_ALLOWED"),
        ):
            refused = await refusal(talks.say(id_, "No", **fields))
            assert refused.reason == reason, fields


async def test_what_cannot_be_said_is_refused(talks: Conversations) -> None:
    id_, other = (await talks.create()).id, (await talks.create()).id
    elsewhere = await talks.say(other, "Elsewhere")

    blank = await refusal(talks.say(id_, " \n\u2003"))
    assert (blank.kind, blank.fields) == (INVALID, ["message.content"])
    long = await refusal(talks.say(id_, "é" * (MEBIBYTE // 2 + 1)))
    assert (long.kind, long.fields) == (INVALID, ["message.content"])
    for reply_to in (elsewhere.id, "none"):
        unknown = await refusal(talks.say(id_, "Yes", reply_to=reply_to))
        assert (unknown.kind, unknown.fields) == (NOT_FOUND, ["message.reply_to"])
    nowhere = await refusal(talks.say("none", "Hello"))
    assert nowhere.reason == "CONVERSATION_NOT_FOUND"
    strange = pb.GetMessageRequest(conversation_id=id_, message_id=elsewhere.id)
    refused = await refusal(talks.messages.GetMessage(strange, timeout=PATIENCE))
    assert refused.kind == NOT_FOUND
    assert await counted(talks, id_) == (0, "")


async def test_pages_go_both_ways_while_others_write(talks: Conversations) -> None:
    id_ = (await talks.create()).id
    for number in range(1, 24):
        await talks.say(id_, f"message {number}")

    async def positions(**options: Any) -> list[int]:
        found: list[int] = []
        token = ""
        while True:
            page = await talks.page(id_, page_token=token, page_size=5, **options)
            found += [one.position for one in page.messages]
            await talks.say(id_, "meanwhile")
            token = page.next_page_token
            if not token:
                return found

    assert await positions(before_position=24) == list(range(1, 24))
    assert (await positions(newest_first=True))[-23:] == list(range(23, 0, -1))
    assert await positions(after_position=7, before_position=15) == list(range(8, 15))
    newest = await positions(after_position=7, before_position=15, newest_first=True)
    assert newest == list(range(14, 7, -1))
    assert await positions(after_position=9, before_position=10) == []
    token = (await talks.page(id_, page_size=1)).next_page_token
    refused = await refusal(talks.page(id_, page_token=token, newest_first=True))
    assert refused.reason == "PAGE_TOKEN_INVALID"


async def test_texts_too_long_for_one_page_are_on_the_next(talks: Conversations) -> None:
    id_ = (await talks.create()).id
    contents = ["a" * MEBIBYTE, "b", "c" * MEBIBYTE, "d" * 5000, "e" * 4096]
    contents.append("港" * (MEBIBYTE // 3))
    for one in contents:
        await talks.say(id_, one)

    first = await talks.page(id_)

    assert [one.content for one in first.messages] == contents[:2]
    assert [one.content for one in await talks.said(id_)] == contents
    newest = await talks.said(id_, newest_first=True)
    assert [one.content for one in newest] == contents[::-1]
    assert (await talks.get(id_)).last_message_preview == "港" * 200


async def test_hidden_and_deleted_messages_are_counted_and_previewed_exactly(
    talks: Conversations,
) -> None:
    id_ = (await talks.create()).id
    first, second, third = [await talks.say(id_, text) for text in ("one", "two", "three")]

    hidden = await hide(talks, third)
    assert hidden.hidden
    assert await counted(talks, id_) == (3, "two")
    deleted = await delete(talks, second)
    assert deleted.HasField("delete_time")
    assert await counted(talks, id_) == (2, "one")
    assert await delete(talks, second) == deleted

    assert [one.position for one in await talks.said(id_)] == [1, 3]
    assert [one.position for one in await talks.said(id_, exclude_hidden=True)] == [1]
    whole = await talks.said(id_, include_deleted=True)
    assert [(one.position, one.content) for one in whole] == [(1, "one"), (2, "two"), (3, "three")]
    both = await talks.said(id_, include_deleted=True, exclude_hidden=True)
    assert [one.position for one in both] == [1, 2]

    assert (await delete(talks, first)).HasField("delete_time")
    assert await counted(talks, id_) == (1, "")
    assert not (await undelete(talks, second)).HasField("delete_time")
    assert await counted(talks, id_) == (2, "two")
    assert not (await hide(talks, third)).hidden
    assert await counted(talks, id_) == (2, "three")
    assert (await hide(talks, third, hidden=False)).hidden is False
    assert (await toggle(talks, third)).HasField("delete_time")
    assert not (await toggle(talks, third)).HasField("delete_time")
    assert not (await undelete(talks, first)).HasField("delete_time")
    assert await counted(talks, id_) == (3, "three")
    assert (await talks.get(id_)).etag == "1"


async def test_many_hands_leave_exact_counts(talks: Conversations) -> None:
    id_ = (await talks.create()).id
    said = [await talks.say(id_, f"text {number}") for number in range(10)]

    work = [toggle(talks, one) for one in said for _ in range(3)]
    work += [hide(talks, one) for one in said]
    await asyncio.gather(*work, *(talks.say(id_, f"more {number}") for number in range(10)))

    kept = await talks.said(id_)
    assert (len(kept), {one.content[:4] for one in kept}) == (10, {"more"})
    assert await counted(talks, id_) == (10, kept[-1].content)


async def test_words_find_messages_in_one_conversation_and_in_all(talks: Conversations) -> None:
    here, there, gone = [(await talks.create()).id for _ in range(3)]
    await talks.say(here, "The harbour at night")
    await talks.say(there, "Nightfall, HARBOURS and Überfahrt")
    await talks.say(gone, "A harbour by night")
    removed = await talks.say(here, "Harbour night, forgotten")
    await delete(talks, removed)
    hidden = await talks.say(here, "hidden harbour night 夜港 " + "and more " * 2000)
    await hide(talks, hidden)
    await talks.conversations.DeleteConversation(
        conversation_service_pb2.DeleteConversationRequest(conversation_id=gone), timeout=PATIENCE
    )

    every = [hidden.content, "Nightfall, HARBOURS and Überfahrt", "The harbour at night"]
    for size in (1, 2, 50):
        assert await found(talks, "night harb", page_size=size) == every, size
    assert await found(talks, "HARBOUR", conversation_id=here) == [every[0], every[2]]
    assert await found(talks, "u\u0308berfahrt") == [every[1]]
    assert await found(talks, "夜") == [hidden.content]
    assert await found(talks, "arbour") == []
    assert (await refusal(found(talks, "?!"))).fields == ["query"]
    assert (await refusal(found(talks, "x", conversation_id=gone))).reason == (
        "CONVERSATION_NOT_FOUND"
    )


async def test_what_is_purged_is_not_found_any_more(talks: Conversations) -> None:
    id_ = (await talks.create()).id
    await talks.say(id_, "unforgettable")

    await talks.conversations.DeleteConversation(
        conversation_service_pb2.DeleteConversationRequest(conversation_id=id_, purge=True),
        timeout=PATIENCE,
    )

    assert await found(talks, "unforgettable") == []


async def test_a_copy_has_what_can_be_seen_under_new_ids(talks: Conversations) -> None:
    made = await talks.create(title="Harbour", context="Rules", max_chain_depth=4)
    first = await talks.say(made.id, "one")
    gone = await talks.say(made.id, "two", reply_to=first.id)
    reply = await talks.say(made.id, "long " * 2000, reply_to=first.id)
    await talks.say(made.id, "four", reply_to=gone.id)
    await hide(talks, reply)
    await delete(talks, gone)
    before = await talks.get(made.id)

    copies = await asyncio.gather(*(clone(talks, made.id, request_id="r") for _ in range(4)))

    assert len({one.id for one in copies}) == 1
    copy = copies[0]
    assert (copy.title, copy.context, copy.max_chain_depth) == ("Harbour (copy)", "Rules", 4)
    assert (copy.cloned_from, copy.etag, copy.message_count) == (made.id, "1", 3)
    assert copy.last_message_preview == "four"
    said = await talks.said(copy.id)
    assert [(one.position, one.content, one.hidden) for one in said] == [
        (1, "one", False),
        (2, reply.content, True),
        (3, "four", False),
    ]
    assert [one.reply_to for one in said] == ["", said[0].id, ""]
    originals = await talks.said(made.id)
    assert not {one.id for one in said} & {one.id for one in originals}
    assert await talks.get(made.id) == before
    assert (await talks.say(copy.id, "five")).position == 4
    again = await clone(talks, made.id, request_id="r")
    assert (again.id, again.message_count) == (copy.id, 4)
    reused = await refusal(clone(talks, made.id, request_id="r", title="Another"))
    assert reused.reason == "REQUEST_ID_REUSED"
    named = await clone(talks, made.id, title="Another")
    assert (named.title, named.id == copy.id) == ("Another", False)
    assert await found(talks, "one") == ["one"] * 3


async def test_records_name_what_was_said_and_written_and_hold_none_of_it(
    talks: Conversations,
) -> None:
    made = await talks.create(context="a whispered context")
    said = await talks.say(made.id, "whispered words")
    again = conversation_service_pb2.SetConversationContextRequest(
        conversation_id=made.id, context="whispered again"
    )
    await talks.conversations.SetConversationContext(again, timeout=PATIENCE)
    file = conversation_service_pb2.UploadConversationContextRequest(
        conversation_id=made.id,
        file=HttpBody(content_type="text/markdown", data=b"a whispered file"),
    )
    await talks.conversations.UploadConversationContext(file, timeout=PATIENCE)

    audit = AuditServiceStub(talks.channel)
    listed = await audit.ListAuditRecords(ListAuditRecordsRequest(), timeout=PATIENCE)
    records = listed.audit_records

    assert [(one.rpc.rpartition("/")[2], one.resource_id) for one in records] == [
        ("UploadConversationContext", made.id),
        ("SetConversationContext", made.id),
        ("AppendMessage", said.id),
        ("CreateConversation", made.id),
    ]
    assert "whispered" not in str(records)
