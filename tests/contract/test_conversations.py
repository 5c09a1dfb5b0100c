"""Conversations and messages over every store."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from services.conversations.domain import conversations, messages, turns
from services.conversations.domain.conversations import Conversation, Order, Wanted
from services.conversations.domain.messages import (
    Change,
    Draft,
    Message,
    Part,
    Reference,
    Showing,
    Span,
    Status,
    Type,
)
from services.conversations.domain.turns import Policy
from services.conversations.stores.conversations import StoredConversations
from services.conversations.stores.messages import StoredMessages
from services.kit.resources.ports import FencedError, TakenError
from services.kit.storage.ports import Store
from tests.contract.conftest import OpenStore
from tests.fakes.parlour import AUTHOR, COLLECTIONS, ORG, Parlour
from tests.patience import PATIENCE

LONG = "Lang 港 " * 2000
WRITER = Reference("writer", "writer-1", "Writer $x", "✍")


@pytest.fixture
async def store(open_store: OpenStore) -> Store:
    return await open_store(COLLECTIONS, ())


async def test_a_message_comes_back_as_it_was_stored(store: Store) -> None:
    house = Parlour(store)
    id_ = (await house.create()).id
    draft = Draft(
        Type.DELEGATION,
        LONG,
        AUTHOR,
        agent=WRITER,
        target=Reference("critic"),
        reply_to="msg_1",
        execution_id="run1",
        part=Part.USER,
        request_id="r/1",
    )

    _, added = await house.transcript.append(ORG, id_, draft, digest="d")

    said = StoredMessages(store)
    assert await said.at(ORG, id_, 1) == added
    assert await said.get(ORG, added.id) == added
    assert await said.of_turn(ORG, "run1", Part.USER) == added
    assert await said.by_request_id(ORG, "r/1") == added
    for missing in (
        said.at(ORG, id_, 2),
        said.get("other", added.id),
        said.of_turn(ORG, "run1", Part.ANSWER),
        said.by_request_id("other", "r/1"),
    ):
        assert await missing is None
    (listed,) = await said.list(ORG, Span(id_), 9)
    assert listed == replace(added, content="")
    assert await said.whole([listed]) == [added]
    failed = replace(
        added,
        status=Status.FAILED,
        error_reason="X",
        error_message="y",
        complete_time=9,
        hidden=True,
    )
    saved = await said.save(failed)
    assert await said.at(ORG, id_, 1) == saved == replace(failed, version=2)
    with pytest.raises(FencedError):
        await said.save(failed)
    await said.remove([added])
    assert await said.get(ORG, added.id) is None


async def test_a_conversation_comes_back_as_it_was_stored(store: Store) -> None:
    house = Parlour(store)
    made = await house.create(
        "r/1", title="Ü 🎈", context="# Rules\n" * 100, display_order=-0.5, screenplay_id="play_1"
    )
    full = replace(
        made,
        auto_delegate=False,
        max_chain_depth=99,
        allowed_agents=("writer",),
        active_agent=WRITER,
        participants=(WRITER, Reference("critic")),
        head=7,
        message_count=6,
        told_count=5,
        preview="p",
        preview_position=4,
        turns=(turns.Turn("run1", Policy.REJECT), turns.Turn("run2", Policy.INTERRUPT)),
        changes=(Change("chg_1", 3, deleted=True, hidden=False, time=11),),
        cloned_from="conv_0",
        visitor=True,
        instance_ids={"a.b": "$c"},
    )
    stored = StoredConversations(store)

    saved = await stored.save(full)

    assert await stored.get(ORG, made.id) == saved == replace(full, version=2)
    assert await stored.by_request_id(ORG, "CreateConversation", "r/1") == saved
    assert await stored.by_request_id(ORG, "CloneConversation", "r/1") is None
    (listed,) = await stored.list(ORG, Wanted(visitors=True), None, 9)
    assert listed == replace(saved, context="")
    assert await stored.list(ORG, Wanted(), None, 9) == []
    assert await stored.of_screenplay(ORG, "play_1", None, 9) == [listed]
    assert await stored.of_screenplay(ORG, "", None, 9) == []
    with pytest.raises(FencedError):
        await stored.save(full)
    with pytest.raises(TakenError):
        await stored.add(replace(made, id="conv_other"))


async def test_a_position_is_taken_once_and_what_is_refused_leaves_nothing(store: Store) -> None:
    house = Parlour(store)
    made = await house.create()
    await house.say(made.id, "one")
    stored, said = StoredConversations(store), StoredMessages(store)
    draft = Draft(Type.USER, "late", AUTHOR)
    late = messages.placed(draft, ORG, "msg_late", made.id, 1, 7)

    with pytest.raises(TakenError) as taken:
        await stored.append(conversations.followed(made, late), late)

    assert taken.value.field == "id"
    assert await said.get(ORG, "msg_late") is None
    assert (await house.check(made.id))["kept"] == ["one"]


async def test_what_is_left_beyond_the_head_is_counted_by_whoever_reads(store: Store) -> None:
    house = Parlour(store)
    id_ = (await house.create()).id
    await house.say(id_, "one")
    said = StoredMessages(store)
    drafts = [Draft(Type.USER, text, AUTHOR) for text in ("two", "three")]
    left = [
        messages.placed(draft, ORG, f"msg_{number}", id_, number, 2**51)
        for number, draft in enumerate(drafts, 2)
    ]
    await said.add(left)

    found = await house.conversations.get(ORG, id_)

    assert (found.head, found.message_count, found.preview) == (3, 3, "three")
    assert (await house.check(id_))["kept"] == ["one", "two", "three"]


async def test_messages_are_listed_by_what_became_of_them(store: Store) -> None:
    house = Parlour(store)
    id_, other = (await house.create()).id, (await house.create()).id
    said: list[Message] = [await house.say(id_, f"text {number}") for number in range(1, 13)]
    await house.say(other, "elsewhere")
    await house.ask(id_, "run1")
    for one in said[2:4]:
        await house.messages.delete(ORG, id_, one.id)
    for one in said[3:5]:
        await house.messages.hide(ORG, id_, one.id, hidden=True)

    async def listed(limit: int = 99, **span: object) -> list[int]:
        found = await house.said.list(ORG, Span(id_, **span), limit)  # type: ignore[arg-type]
        return [one.position for one in found]

    every = list(range(1, 15))
    assert await listed(showing=Showing.ALL) == every
    assert await listed() == [one for one in every if one not in (3, 4)]
    assert await listed(showing=Showing.OPEN) == [one for one in every if one not in (4, 5)]
    assert await listed(showing=Showing.SEEN) == [one for one in every if one not in (3, 4, 5)]
    assert await listed(showing=Showing.TOLD) == [1, 2, *range(6, 14)]
    assert await listed(4, newest_first=True) == [14, 13, 12, 11]
    assert await listed(4, newest_first=True, before=11) == [10, 9, 8, 7]
    assert await listed(4, newest_first=True, before=8, after=5) == [7, 6]
    assert await listed(4, after=6) == [7, 8, 9, 10]
    assert await listed(4, after=6, before=9) == [7, 8]
    assert await listed(after=14) == []
    told = Span(id_, showing=Showing.TOLD)
    assert await house.said.count(ORG, told, 99) == 10
    assert await house.said.count(ORG, told, 7) == 7
    assert await house.said.count(ORG, replace(told, before=9, newest_first=True), 99) == 5
    assert await house.said.is_at(ORG, id_, 14)
    assert not await house.said.is_at(ORG, id_, 15)


async def test_words_find_messages_newest_first(store: Store) -> None:
    house = Parlour(store)
    ids = [(await house.create()).id for _ in range(2)]
    for number in range(6):
        await house.say(ids[number % 2], f"Harbour {number} night" + " long" * (number * 1000))

    async def found(query: str, conversation_id: str = "") -> list[int]:
        numbers: list[int] = []
        after = None
        while page := await house.said.search(ORG, query, conversation_id, after, 2):
            numbers += [int(one.preview.split()[1]) for one in page]
            after = house.said.place(page[-1])
        return numbers

    assert await found("NIGHT harb") == [5, 4, 3, 2, 1, 0]
    assert await found("night 4") == [4]
    assert await found("harbour", ids[1]) == [5, 3, 1]
    assert await found("day") == []


async def test_conversations_are_listed_in_every_order(store: Store) -> None:
    house = Parlour(store)
    places = {"beta": -1e300, "Alpha": 0.5, "gamma": 0.0, "Delta": -0.25, "émile": 1e9}
    for number, (title, place) in enumerate(places.items()):
        await house.create(
            title=title.ljust(3), display_order=place, screenplay_id="play" if number % 2 else ""
        )

    async def listed(wanted: Wanted) -> list[str]:
        titles: list[str] = []
        after = None
        while page := await house.conversations.list(ORG, wanted, after, 2):
            titles += [one.title for one in page]
            after = house.conversations.place(page[-1], wanted)
        return titles

    created = list(places)
    assert await listed(Wanted()) == created[::-1]
    assert await listed(Wanted(order=Order.CREATE_TIME, reverse=True)) == created
    by_title = ["Alpha", "beta", "Delta", "gamma", "émile"]
    assert await listed(Wanted(order=Order.TITLE)) == by_title
    by_hand = sorted(created, key=lambda title: places[title])
    assert await listed(Wanted(order=Order.DISPLAY)) == by_hand
    assert await listed(Wanted(order=Order.DISPLAY, reverse=True)) == by_hand[::-1]
    assert await listed(Wanted(screenplay_id="play", order=Order.TITLE)) == ["Alpha", "Delta"]
    assert await listed(Wanted(query="GAM")) == ["gamma"]
    assert await listed(Wanted(deleted=True)) == []


async def test_talks_of_visitors_are_listed_apart_and_go_once_they_do_not_change(
    open_store: OpenStore,
) -> None:
    house = Parlour(await open_store(COLLECTIONS, ()))
    elsewhere = Parlour(await open_store(COLLECTIONS, ()), "other")
    plain = await house.open()
    silent, lively, deleted = [await house.open(visitor=True) for _ in range(3)]
    abroad = await elsewhere.open(visitor=True)
    await house.say(silent, "hello")
    await house.conversations.delete(ORG, deleted, "", purge=False)

    async def listed(**wanted: Any) -> list[str]:
        found = await house.conversations.list(ORG, Wanted(**wanted), None, 9)
        return [one.id for one in found]

    assert await listed() == [plain]
    assert await listed(visitors=True, reverse=True) == [lively, silent]
    assert await listed(query="talk") == [plain]
    assert await listed(query="talk", visitors=True, order=Order.TITLE) == [silent, lively]
    assert await listed(visitors=True, deleted=True) == [deleted]
    assert await listed(deleted=True) == []
    copy = await house.cloner.clone(ORG, silent, "", "r")
    assert await listed() == [copy.id, plain]

    begun = house.clock()
    house.now += 1_000_000
    await house.say(lively, "again")
    newer = await house.open(visitor=True)
    assert await house.conversations.forget_visitors(begun - 1_000_000) == 0
    assert await house.conversations.forget_visitors(begun) == 3

    assert await listed() == [copy.id, plain]
    assert await listed(visitors=True) == [newer, lively]
    assert await listed(visitors=True, deleted=True) == []
    assert await house.said.list(ORG, Span(silent, showing=Showing.ALL), 9) == []
    assert await elsewhere.stored.get("other", abroad) is None


async def test_what_several_processes_forget_at_once_is_forgotten_once(
    open_store: OpenStore,
) -> None:
    houses = [Parlour(await open_store(COLLECTIONS, ())) for _ in range(3)]
    for _ in range(10):
        await houses[0].say(await houses[0].open(visitor=True), "hello")
    now = houses[0].clock()

    at_once = (house.conversations.forget_visitors(now) for house in houses)
    assert sum(await asyncio.gather(*at_once)) == 10

    assert await houses[0].conversations.list(ORG, Wanted(visitors=True), None, 99) == []


async def test_a_talk_in_which_a_visitor_speaks_just_now_is_not_forgotten(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = Parlour(store)
    id_ = await house.open(visitor=True)
    before = house.clock()
    read = house.stored.of_visitors

    async def late(*asked: Any) -> Sequence[Conversation]:
        page = await read(*asked)
        for one in page:
            await house.say(one.id, "wait")
        return page

    monkeypatch.setattr(house.stored, "of_visitors", late)
    assert await house.conversations.forget_visitors(before) == 0
    assert await house.texts(id_) == ["wait"]


async def test_fifty_writers_of_two_processes_make_one_order(open_store: OpenStore) -> None:
    houses = [Parlour(await open_store(COLLECTIONS, ())) for _ in range(2)]
    id_ = (await houses[0].create()).id
    first = await houses[0].say(id_, "first")

    async def write(number: int) -> None:
        house = houses[number % 2]
        await house.say(id_, f"text {number}", f"request {number}")
        if number % 10 == 0:
            await house.messages.toggle(ORG, id_, first.id)

    async with asyncio.timeout(PATIENCE):
        await asyncio.gather(*(write(number) for number in range(50)))

    for house in houses:
        found = await house.check(id_)
        assert sorted(found["kept"]) == sorted(f"text {number}" for number in range(50))


async def test_a_copy_has_all_and_a_purge_leaves_nothing(store: Store) -> None:
    house = Parlour(store)
    made = await house.create(title="Play")
    for text in ("one", LONG, "three"):
        await house.say(made.id, text)

    copy = await house.cloner.clone(ORG, made.id, "", "r")

    assert await house.texts(copy.id) == ["one", LONG, "three"]
    await house.conversations.delete(ORG, made.id, "", purge=True)
    assert await house.said.list(ORG, Span(made.id, showing=Showing.ALL), 9) == []
    assert (await house.check(copy.id))["positions"] == 3
