"""What `services.kit.storage.ports.Wakeups` promises, over every adapter.

A wake-up may be lost, late, doubled or for nothing, so nothing here counts them.
"""

from __future__ import annotations

import asyncio

from services.kit.storage.ports import Wakeups
from tests.patience import PATIENCE


async def test_who_is_subscribed_is_woken(wakeups: Wakeups) -> None:
    one, two = asyncio.Event(), asyncio.Event()
    stops = [wakeups.subscribe("events/a", event.set) for event in (one, two)]
    await wakeups.publish("events/a")
    async with asyncio.timeout(PATIENCE):
        await one.wait()
        await two.wait()
    for stop in stops:
        stop()


async def test_every_later_publication_wakes_again(wakeups: Wakeups) -> None:
    woken = asyncio.Event()
    stop = wakeups.subscribe("events/a", woken.set)
    for _ in range(3):
        woken.clear()
        await wakeups.publish("events/a")
        async with asyncio.timeout(PATIENCE):
            await woken.wait()
    stop()


async def test_what_is_published_to_another_channel_is_not_heard(wakeups: Wakeups) -> None:
    woken: list[str] = []
    heard = asyncio.Event()
    stops = [
        wakeups.subscribe("events/a", lambda: woken.append("a")),
        wakeups.subscribe("events/b", heard.set),
    ]
    for _ in range(20):
        heard.clear()
        await wakeups.publish("events/b")
        async with asyncio.timeout(PATIENCE):
            await heard.wait()
    # Once is for nothing: a subscriber may be told to look when the subscription holds.
    assert len(woken) <= 1
    for stop in stops:
        stop()


async def test_who_unsubscribed_is_left_alone_and_others_are_not(wakeups: Wakeups) -> None:
    woken: list[str] = []
    other = asyncio.Event()
    stop = wakeups.subscribe("events/a", lambda: woken.append("gone"))
    stop_other = wakeups.subscribe("events/a", other.set)
    stop()
    stop()
    await wakeups.publish("events/a")
    async with asyncio.timeout(PATIENCE):
        await other.wait()
    assert woken == []
    stop_other()


async def test_the_same_function_may_be_subscribed_twice(wakeups: Wakeups) -> None:
    woken = asyncio.Event()
    stop, other_stop = (wakeups.subscribe("events/a", woken.set) for _ in range(2))
    stop()
    await wakeups.publish("events/a")
    async with asyncio.timeout(PATIENCE):
        await woken.wait()
    other_stop()


async def test_a_subscriber_may_stop_while_it_is_woken(wakeups: Wakeups) -> None:
    done = asyncio.Event()

    def stop_and_tell() -> None:
        stop()
        done.set()

    stop = wakeups.subscribe("events/a", stop_and_tell)
    await wakeups.publish("events/a")
    async with asyncio.timeout(PATIENCE):
        await done.wait()


async def test_publishing_to_nobody_is_fine(wakeups: Wakeups) -> None:
    await wakeups.publish("events/nobody")
