"""Instances, and what was heard of what they belong to, over every store."""

from __future__ import annotations

import asyncio

import pytest

from services.conversations.domain.instances import Order, Position, Status, Wanted
from services.conversations.domain.parents import Kind
from services.kit.errors import DomainError, Reason
from tests.contract.conftest import OpenStore
from tests.fakes.placing import COLLECTIONS, ORG, Placing

PLAY = "play_a"


async def test_an_instance_is_read_as_it_was_written(open_store: OpenStore) -> None:
    placing = Placing(await open_store(COLLECTIONS, ()))
    config = {"$set": {"a.b": [1, 2.5, None]}, "": "x", "a\x00b": "y", "é\U0001f600": {}}

    made = await placing.place(
        config=config,
        position=Position(0, -1.5),
        screenplay_id=PLAY,
        mcp_configs=("web",),
        is_hidden=True,
    )

    assert await placing.get(made.id) == made
    assert made.config == config
    (listed,) = await placing.instances.list(ORG, Wanted(), None, 10)
    assert (listed.position, listed.config) == (Position(0, -1.5), {})


async def test_lists_are_narrowed_and_in_the_order_that_is_asked_for(open_store: OpenStore) -> None:
    placing = Placing(await open_store(COLLECTIONS, ()))
    home = await placing.talk(PLAY)
    made = [
        await placing.place(conversation_id=home.id, display_order=order)
        for order in (3.0, -2.0, -1e9, 0.5)
    ]
    ids = [one.id for one in made]
    await placing.place(agent_id="editor", status=Status.ERROR)
    by_hand = Wanted(conversation_id=home.id, order=Order.DISPLAY)

    assert await placing.listed(conversation_id=home.id, agent_id="writer") == ids[::-1]
    found = await placing.instances.list(ORG, by_hand, None, 2)
    place = placing.instances.place(found[-1], by_hand)
    found = [*found, *await placing.instances.list(ORG, by_hand, place, 2)]
    assert [one.id for one in found] == [ids[2], ids[1], ids[3], ids[0]]
    assert len(await placing.listed(status=Status.ERROR)) == 1


async def test_an_id_and_a_request_are_taken_once_by_many_at_once(open_store: OpenStore) -> None:
    store = await open_store(COLLECTIONS, ())
    processes = [Placing(store, prefix=str(number)) for number in range(4)]

    placing = (one.place("left") for one in processes)
    found = await asyncio.gather(*placing, return_exceptions=True)
    refused = [one.reason for one in found if isinstance(one, DomainError)]
    assert refused == [Reason.REASON_INSTANCE_ALREADY_EXISTS] * 3
    made = await asyncio.gather(*(one.place(request_id="r") for one in processes))
    assert len({one.id for one in made}) == 1


@pytest.mark.parametrize("last", ["deleted", "back"])
async def test_what_belongs_to_a_thing_follows_the_newest_that_is_heard_of_it(
    open_store: OpenStore, last: str
) -> None:
    store = await open_store(COLLECTIONS, ())
    processes = [Placing(store, prefix=str(number)) for number in range(3)]
    one = processes[0]
    home = await one.talk(PLAY)
    placed = await one.place(conversation_id=home.id)
    told = [(1, True), (1, False), (2, True), (2, False)]

    async def tell(process: Placing, number: int, gone: bool) -> None:
        await (process.mark if gone else process.unmark)(PLAY, f"del_{number}")

    messages = told if last == "back" else told[:-1]
    await asyncio.gather(
        *(tell(process, *message) for process in processes for message in messages[::-1])
    )

    shown = ([home.id], [placed.id]) if last == "back" else ([], [])
    assert (await one.talks(), await one.listed()) == shown
    await one.purge(PLAY, "del_3")
    assert await one.placed.get(ORG, placed.id) is None
    heard = await one.parents.get(ORG, Kind.SCREENPLAY, PLAY)
    assert heard is not None
    assert (heard.deletion, heard.gone) == ("del_3", False)


async def test_places_are_given_whoever_else_changes_the_instances(open_store: OpenStore) -> None:
    store = await open_store(COLLECTIONS, ())
    processes = [Placing(store, prefix=str(number)) for number in range(3)]
    ids = [(await processes[0].place()).id for _ in range(5)]
    wanted = [list(zip(ids, order, strict=True)) for order in (range(5), range(5, 0, -1))]

    await asyncio.gather(
        processes[0].instances.reorder(ORG, wanted[0]),
        processes[1].instances.reorder(ORG, wanted[1]),
        *(processes[2].update(id_, emoji="x") for id_ in ids),
    )

    found = await processes[0].instances.list(ORG, Wanted(order=Order.DISPLAY), None, 10)
    assert {one.emoji for one in found} == {"x"}
    await processes[0].instances.reorder(ORG, wanted[0])
    assert await processes[0].listed(order=Order.DISPLAY) == ids
