"""Limits of calls a second that processes share by a Redis, which may be away at any moment."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable

import pytest

from services.kit.rates import Limits, LocalRates, Rates, RedisRates
from tests.patience import PATIENCE
from tests.servers.redis import RedisServer

OpenRates = Callable[[Limits], RedisRates]


@pytest.fixture
async def open_rates(redis_server: RedisServer) -> AsyncIterator[OpenRates]:
    opened: list[RedisRates] = []

    def open_(limits: Limits) -> RedisRates:
        opened.append(RedisRates(redis_server.url(), "one", limits, LocalRates(limits, 2)))
        return opened[-1]

    yield open_
    for rates in opened:
        await rates.close()


async def admitted(rates: Rates, count: int, org: str = "acme") -> int:
    """Make calls at once and count those that may be made."""
    answers = await asyncio.gather(*(rates.admit(org) for _ in range(count)))
    return answers.count(None)


async def test_two_processes_share_one_limit(open_rates: OpenRates) -> None:
    one, two = (open_rates(Limits(10)) for _ in range(2))
    began = time.monotonic()
    counts = await asyncio.gather(admitted(one, 300), admitted(two, 300))
    assert 10 <= sum(counts) <= 10 + 10 * (time.monotonic() - began) + 1


async def test_after_a_burst_calls_pass_at_the_rate(open_rates: OpenRates) -> None:
    processes = [open_rates(Limits(50)) for _ in range(2)]
    began = time.monotonic()
    passed = sum([await admitted(rates, 100) for rates in processes])
    while time.monotonic() - began < 1:
        for rates in processes:
            passed += await admitted(rates, 2)
        await asyncio.sleep(0.005)
    assert passed == pytest.approx(50 + 50 * (time.monotonic() - began), abs=3)


async def test_who_waits_as_long_as_told_is_admitted(open_rates: OpenRates) -> None:
    rates = open_rates(Limits(5))
    assert await admitted(rates, 50) == 5
    wait = await rates.admit("acme")
    assert wait is not None
    assert 0 < wait <= 0.2
    await asyncio.sleep(wait + 0.001)
    assert await rates.admit("acme") is None


async def test_organisations_have_limits_of_their_own(open_rates: OpenRates) -> None:
    rates = open_rates(Limits(1, {"big": 5, "free": 0}))
    assert await admitted(rates, 20, "big") == 5
    assert await admitted(rates, 20, "small") == 1
    assert await admitted(rates, 20, "free") == 20


async def test_what_is_kept_of_an_organisation_goes_by_itself(
    open_rates: OpenRates, redis_server: RedisServer
) -> None:
    rates = open_rates(Limits(100))
    await admitted(rates, 10)
    assert redis_server.ask("EXISTS conductor:one:rates:acme") == b":1\r\n"
    await asyncio.sleep(0.15)
    assert redis_server.ask("EXISTS conductor:one:rates:acme") == b":0\r\n"


async def test_a_time_far_ahead_holds_nobody_up_for_long(
    open_rates: OpenRates, redis_server: RedisServer
) -> None:
    rates = open_rates(Limits(10))
    assert await rates.admit("acme") is None
    redis_server.ask("SET conductor:one:rates:acme 9000000000000000")
    wait = await rates.admit("acme")
    assert wait is not None
    assert wait <= 0.1


@pytest.mark.parametrize("away", [RedisServer.stop, RedisServer.freeze])
async def test_while_redis_is_away_each_process_allows_its_share(
    away: Callable[[RedisServer], None],
    open_rates: OpenRates,
    redis_server: RedisServer,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    rates = open_rates(Limits(2))
    assert await admitted(rates, 10) == 2
    away(redis_server)
    # The first ones find out; nobody else waits for anything.
    assert await admitted(rates, 10) == 1
    async with asyncio.timeout(PATIENCE):
        for _ in range(1000):
            await rates.admit("acme")
    redis_server.come_back()
    async with asyncio.timeout(PATIENCE):
        while rates._away:
            await asyncio.sleep(0.02)
    assert await admitted(rates, 10) <= 2
    assert not rates._away
    told = [record.getMessage() for record in caplog.records if "Redis" in record.getMessage()]
    assert len(told) == 2


async def test_a_caller_who_goes_away_while_redis_is_asked_disturbs_nobody(
    open_rates: OpenRates,
) -> None:
    rates = open_rates(Limits(3))
    going = [asyncio.create_task(rates.admit("acme")) for _ in range(2)]
    staying = asyncio.create_task(rates.admit("acme"))
    await asyncio.sleep(0)
    for task in going:
        task.cancel()
    assert await staying is None
