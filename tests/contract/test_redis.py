"""What is only so of work and wake-ups that a Redis carries, which may be away at any moment."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Protocol

import pytest

from services.kit.settings import SettingsError
from services.kit.storage.redis import RedisQueue, RedisWakeups, connect
from tests.patience import PATIENCE
from tests.processes import until
from tests.servers.redis import RedisServer


class OpenQueue(Protocol):
    """Opens the queue of another process."""

    def __call__(self, *, idle_seconds: float = 3600, gone_seconds: float = 3600) -> RedisQueue: ...


OpenWakeups = Callable[..., RedisWakeups]


@pytest.fixture
async def open_queue(redis_server: RedisServer) -> AsyncIterator[OpenQueue]:
    opened: list[RedisQueue] = []

    def open_(*, idle_seconds: float = 3600, gone_seconds: float = 3600) -> RedisQueue:
        url = redis_server.url()
        queue = RedisQueue(url, "test", idle_seconds=idle_seconds, gone_seconds=gone_seconds)
        opened.append(queue)
        return queue

    yield open_
    redis_server.stop()
    await asyncio.gather(*(queue.close() for queue in opened))


@pytest.fixture
async def open_wakeups(redis_server: RedisServer) -> AsyncIterator[OpenWakeups]:
    opened: list[RedisWakeups] = []

    def open_(database: int = 0) -> RedisWakeups:
        wakeups = RedisWakeups(redis_server.url(database), "test")
        opened.append(wakeups)
        return wakeups

    yield open_
    redis_server.stop()
    await asyncio.gather(*(wakeups.close() for wakeups in opened))


async def within(awaitable: Awaitable[str], seconds: float = PATIENCE) -> str:
    async with asyncio.timeout(seconds):
        return await awaitable


async def nothing_comes(queue: RedisQueue) -> None:
    with pytest.raises(TimeoutError):
        await within(queue.take(), 0.3)


def entries(server: RedisServer) -> int:
    return int(server.ask("XLEN conductor:test:work").strip(b":\r\n"))


def consumers(server: RedisServer) -> int:
    return server.ask("XINFO CONSUMERS conductor:test:work workers").count(b"pending")


# Work


async def test_each_item_goes_to_one_of_two_processes(open_queue: OpenQueue) -> None:
    one, two = open_queue(), open_queue()
    takers = [asyncio.create_task(within(queue.take())) for queue in (one, two) * 20]
    for number in range(40):
        await (one, two)[number % 2].put(f"item {number}")
    assert sorted(await asyncio.gather(*takers)) == sorted(f"item {n}" for n in range(40))


async def test_what_waits_already_is_not_added_again_by_another_process(
    open_queue: OpenQueue,
) -> None:
    one, two = open_queue(), open_queue()
    await one.put("a")
    assert await within(two.take()) == "a"
    await one.put("b")
    await one.put("last")
    await until(one._added._emptied.is_set)
    await two.put("b")
    await until(two._added._emptied.is_set)
    assert [await within(two.take()) for _ in range(2)] == ["b", "last"]
    await nothing_comes(two)


async def test_what_is_done_is_gone_from_redis(
    open_queue: OpenQueue, redis_server: RedisServer
) -> None:
    queue = open_queue()
    for number in range(5):
        await queue.put(f"item {number}")
    for _ in range(5):
        await queue.done(await within(queue.take()))
    await until(lambda: entries(redis_server) == 0)
    assert redis_server.ask("HLEN conductor:test:waiting") == b":0\r\n"


async def test_what_a_dead_process_took_goes_to_another_one(open_queue: OpenQueue) -> None:
    dead, living = open_queue(), open_queue(idle_seconds=0.2)
    await dead.put("one")
    assert await within(dead.take()) == "one"
    assert await within(living.take()) == "one"
    await living.done("one")
    await nothing_comes(living)


async def test_what_is_in_good_hands_goes_to_nobody_else(open_queue: OpenQueue) -> None:
    one, two = open_queue(), open_queue(idle_seconds=0.1)
    await one.put("one")
    await one.done(await within(one.take()))
    await until(one._finished._emptied.is_set)
    await nothing_comes(two)


async def test_a_process_that_stops_puts_back_what_it_did_not_see_through(
    open_queue: OpenQueue, redis_server: RedisServer
) -> None:
    stopping, other = open_queue(), open_queue()
    await stopping.put("one")
    assert await within(stopping.take()) == "one"
    await stopping.close()
    assert await within(other.take()) == "one"
    assert consumers(redis_server) == 1


async def test_what_a_process_adds_as_it_stops_listening_goes_to_another_at_once(
    open_queue: OpenQueue,
) -> None:
    stopping, other = open_queue(), open_queue()
    # Both wait at Redis, and the first one has waited longer, so that it is served first.
    listening = asyncio.create_task(stopping.take())
    await asyncio.sleep(0.2)
    taking = asyncio.create_task(within(other.take()))
    await asyncio.sleep(0.2)
    listening.cancel()
    await asyncio.wait([listening])
    await stopping.put("one")
    assert await taking == "one"


async def test_consumers_of_dead_processes_are_forgotten(
    open_queue: OpenQueue, redis_server: RedisServer
) -> None:
    dead = [open_queue() for _ in range(3)]
    for queue in dead:
        await queue.put("one")
        await queue.done(await within(queue.take()))
        await until(lambda: entries(redis_server) == 0)
    assert consumers(redis_server) == 3
    living = open_queue(idle_seconds=0.1, gone_seconds=0.1)
    taking = asyncio.create_task(living.take())
    await until(lambda: consumers(redis_server) == 0)
    taking.cancel()


async def test_an_entry_that_is_not_there_any_more_does_not_hold_its_item_up(
    open_queue: OpenQueue, redis_server: RedisServer
) -> None:
    queue = open_queue()
    await queue.put("one")
    await until(lambda: entries(redis_server) == 1)
    redis_server.ask("XTRIM conductor:test:work MAXLEN 0")
    await queue.put("one")
    assert await within(queue.take()) == "one"


async def test_an_entry_that_was_cut_off_while_somebody_had_it_is_forgotten(
    open_queue: OpenQueue, redis_server: RedisServer
) -> None:
    dead, living = open_queue(), open_queue(idle_seconds=0.1)
    await dead.put("cut off")
    await within(dead.take())
    redis_server.ask("XTRIM conductor:test:work MAXLEN 0")
    await living.put("next")
    assert await within(living.take()) == "next"
    await asyncio.sleep(0.2)
    taking = asyncio.create_task(living.take())
    summary = "XPENDING conductor:test:work workers"
    await until(lambda: redis_server.ask(summary).startswith((b"*4\r\n:0", b"*4\r\n:1")))
    taking.cancel()


@pytest.mark.parametrize("befall", [RedisServer.flush, RedisServer.restart])
async def test_a_flush_or_restart_while_somebody_waits_loses_no_later_item(
    open_queue: OpenQueue, redis_server: RedisServer, befall: Callable[[RedisServer], None]
) -> None:
    queue = open_queue()
    await queue.put("before")
    assert await within(queue.take()) == "before"
    taking = asyncio.create_task(within(queue.take()))
    await asyncio.sleep(0.1)
    befall(redis_server)
    await queue.put("after")
    assert await taking == "after"


async def test_a_redis_that_comes_late_is_used_from_then_on(
    open_queue: OpenQueue, open_wakeups: OpenWakeups, redis_server: RedisServer
) -> None:
    redis_server.stop()
    queue, wakeups = open_queue(), open_wakeups()
    woken = asyncio.Event()
    wakeups.subscribe("events/a", woken.set)
    taking = asyncio.create_task(within(queue.take()))
    await queue.put("one")
    await asyncio.sleep(0.2)
    assert not woken.is_set()
    redis_server.start()
    assert await taking == "one"
    await until(woken.is_set)


async def test_nobody_waits_for_a_redis_that_answers_nothing(
    open_queue: OpenQueue, open_wakeups: OpenWakeups, redis_server: RedisServer
) -> None:
    queue, wakeups = open_queue(), open_wakeups()
    woken = asyncio.Event()
    wakeups.subscribe("events/a", woken.set)
    await queue.put("one")
    item = await within(queue.take())
    redis_server.freeze()
    woken.clear()
    async with asyncio.timeout(PATIENCE):
        for number in range(1000):
            await queue.put(f"item {number}")
            await wakeups.publish("events/a")
        await queue.done(item)
    assert woken.is_set()
    redis_server.resume()
    assert await within(queue.take()) == "item 0"


async def test_an_outage_is_told_once_and_its_end_too(
    open_queue: OpenQueue, redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    queue = open_queue()
    await queue.put("one")
    await within(queue.take())
    redis_server.stop()
    taking = asyncio.create_task(within(queue.take()))
    for number in range(20):
        await queue.put(f"item {number}")
        await asyncio.sleep(0.02)
    redis_server.start()
    await taking
    told = [record.getMessage() for record in caplog.records if "Redis" in record.getMessage()]
    assert [message.split(",")[0] for message in told] == [
        "Redis cannot be used",
        "Redis can be used again",
    ]


# Wake-ups


async def test_who_is_subscribed_in_another_process_is_woken(open_wakeups: OpenWakeups) -> None:
    here, there = open_wakeups(), open_wakeups()
    woken = asyncio.Event()
    stop = there.subscribe("events/a", woken.set)
    for _ in range(3):
        await until(woken.is_set)
        woken.clear()
        await here.publish("events/a")
    await until(woken.is_set)
    stop()


async def test_what_is_published_as_a_subscription_begins_is_not_missed(
    open_wakeups: OpenWakeups,
) -> None:
    here, there = open_wakeups(), open_wakeups()
    # Until the subscription holds nothing is heard, so whoever subscribed is woken when it does.
    for number in range(20):
        woken = asyncio.Event()
        there.subscribe(f"events/{number}", woken.set)
        await here.publish(f"events/{number}")
        await until(woken.is_set)


async def test_one_s_own_wake_ups_are_not_doubled(open_wakeups: OpenWakeups) -> None:
    here, there = open_wakeups(), open_wakeups()
    mine: list[str] = []
    heard = asyncio.Event()
    here.subscribe("events/a", lambda: mine.append("a"))
    there.subscribe("events/a", heard.set)
    await until(lambda: len(mine) == 1)
    for _ in range(10):
        heard.clear()
        await here.publish("events/a")
        await until(heard.is_set)
    assert len(mine) == 11


async def test_all_are_woken_after_a_restart_and_hear_what_comes_then(
    open_wakeups: OpenWakeups, redis_server: RedisServer
) -> None:
    here, there = open_wakeups(), open_wakeups()
    woken = [asyncio.Event() for _ in range(3)]
    for number, event in enumerate(woken):
        there.subscribe(f"events/{number}", event.set)
    for event in woken:
        await until(event.is_set)
        event.clear()
    redis_server.restart()
    for event in woken:
        await until(event.is_set)
        event.clear()
    for number, event in enumerate(woken):
        await here.publish(f"events/{number}")
        await until(event.is_set)


async def test_what_was_published_during_an_outage_wakes_after_it(
    open_wakeups: OpenWakeups, redis_server: RedisServer
) -> None:
    here, there = open_wakeups(), open_wakeups()
    woken = asyncio.Event()
    there.subscribe("events/a", woken.set)
    await until(woken.is_set)
    redis_server.stop()
    woken.clear()
    await here.publish("events/a")
    await asyncio.sleep(0.1)
    assert not woken.is_set()
    redis_server.start()
    await until(woken.is_set)


async def test_only_channels_with_subscribers_are_listened_to(
    open_wakeups: OpenWakeups, redis_server: RedisServer
) -> None:
    wakeups = open_wakeups()

    def channels() -> int:
        return redis_server.ask("PUBSUB CHANNELS conductor:test:*").count(b"$")

    stops = [
        wakeups.subscribe(f"events/{number % 50}", asyncio.Event().set) for number in range(100)
    ]
    await until(lambda: channels() == 51)
    for stop in stops[:50]:
        stop()
        stop()
    await asyncio.sleep(0.1)
    assert channels() == 51
    for stop in stops[50:]:
        stop()
    await until(lambda: channels() == 1)


async def test_meshes_on_two_databases_of_one_redis_do_not_hear_each_other(
    open_wakeups: OpenWakeups,
) -> None:
    here, elsewhere = open_wakeups(), open_wakeups(1)
    woken: list[str] = []
    here.subscribe("events/a", lambda: woken.append("here"))
    await until(lambda: woken)
    heard = asyncio.Event()
    neighbour = open_wakeups(1)
    neighbour.subscribe("events/a", heard.set)
    for _ in range(5):
        await until(heard.is_set)
        heard.clear()
        await elsewhere.publish("events/a")
    await until(heard.is_set)
    assert woken == ["here"]


# Settings


@pytest.mark.parametrize(
    "url",
    [
        "mongodb://localhost",
        "localhost:6379",
        "redis://",
        "redis://:hunter2@localhost:port/0",
        "redis://:hunter2@localhost/first",
        "redis://:hunter2@localhost/0?socket_timeout=nan",
        "rediss://:hunter2@localhost/0?ssl_nonsense=1",
    ],
)
def test_an_address_that_cannot_be_used_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(SettingsError, match="CONDUCTOR_QUEUE_URL") as refused:
        connect(url)
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    "url",
    ["redis://localhost", "rediss://user:hunter2@[::1]:6380/3?ssl_ca_certs=/ca.pem"],
)
def test_addresses_of_both_kinds_are_taken(url: str) -> None:
    connect(url)


async def test_a_password_that_is_wrong_is_not_in_the_logs(
    redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    queue = RedisQueue(f"redis://:hunter2@127.0.0.1:{redis_server.port}/0", "test")
    await queue.put("one")
    await until(lambda: caplog.records)
    await queue.close()
    assert "Redis cannot be used" in caplog.text
    assert "hunter2" not in caplog.text
