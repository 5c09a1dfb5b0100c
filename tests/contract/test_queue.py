"""What `services.kit.storage.ports.WorkQueue` promises, over every adapter."""

from __future__ import annotations

import asyncio

from services.kit.storage.ports import WorkQueue
from tests.patience import PATIENCE


async def take(queue: WorkQueue) -> str:
    async with asyncio.timeout(PATIENCE):
        return await queue.take()


async def test_items_are_taken_in_the_order_they_came(queue: WorkQueue) -> None:
    for item in ("one", "two", "three"):
        await queue.put(item)
    assert [await take(queue) for _ in range(3)] == ["one", "two", "three"]


async def test_an_item_that_waits_already_is_not_added_again(queue: WorkQueue) -> None:
    for item in ("one", "two", "one", "two", "one"):
        await queue.put(item)
    await queue.put("last")
    assert [await take(queue) for _ in range(3)] == ["one", "two", "last"]


async def test_an_item_that_was_taken_may_come_again(queue: WorkQueue) -> None:
    await queue.put("one")
    assert await take(queue) == "one"
    await queue.put("one")
    assert await take(queue) == "one"


async def test_who_waits_gets_what_comes(queue: WorkQueue) -> None:
    taking = asyncio.create_task(take(queue))
    await asyncio.sleep(0)
    assert not taking.done()
    await queue.put("one")
    assert await taking == "one"


async def test_every_item_goes_to_exactly_one_of_many_takers(queue: WorkQueue) -> None:
    takers = [asyncio.create_task(take(queue)) for _ in range(50)]
    await asyncio.sleep(0)
    for number in range(50):
        await queue.put(f"item {number}")
    taken = await asyncio.gather(*takers)
    assert sorted(taken) == sorted(f"item {number}" for number in range(50))


async def test_a_taker_who_gives_up_loses_no_item(queue: WorkQueue) -> None:
    giving_up = asyncio.create_task(queue.take())
    await asyncio.sleep(0)
    giving_up.cancel()
    await asyncio.wait([giving_up])
    await queue.put("one")
    assert await take(queue) == "one"


async def test_a_taker_who_gives_up_as_an_item_comes_loses_no_item(queue: WorkQueue) -> None:
    giving_up = asyncio.create_task(queue.take())
    await asyncio.sleep(0)
    await queue.put("one")
    giving_up.cancel()
    await asyncio.wait([giving_up])
    if giving_up.cancelled():
        assert await take(queue) == "one"
    else:
        assert giving_up.result() == "one"


async def test_items_hold_any_text(queue: WorkQueue) -> None:
    await queue.put("org/π 𝄞/ \n")
    assert await take(queue) == "org/π 𝄞/ \n"


async def test_an_item_that_is_done_may_come_again(queue: WorkQueue) -> None:
    for _ in range(3):
        await queue.put("one")
        assert await take(queue) == "one"
        await queue.done("one")


async def test_what_nobody_took_may_be_called_done(queue: WorkQueue) -> None:
    await queue.done("one")
    await queue.put("one")
    assert await take(queue) == "one"
