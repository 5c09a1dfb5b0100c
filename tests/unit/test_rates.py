"""Limits of calls a second within one process, by a clock that stands still unless it is moved."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.kit.rates import Limits, LocalRates, open_rates
from services.kit.settings import Settings, SettingsError

ORG = "acme"


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


def passed(rates: Sequence[LocalRates], clock: Clock, moments: Sequence[float]) -> int:
    """Make calls at some moments, in turns at each process, and count those admitted."""
    count = 0
    begin = clock.now
    for number, moment in enumerate(moments):
        clock.now = begin + moment
        count += rates[number % len(rates)].admit_now(ORG) is None
    return count


@pytest.mark.parametrize(("rate", "at_once"), [(20, 20), (1, 1), (2.5, 2), (0.1, 1), (1000, 1000)])
def test_a_second_s_worth_may_come_at_once_and_at_least_one_call(rate: float, at_once: int) -> None:
    clock = Clock()
    assert passed([LocalRates(Limits(rate), 1, clock)], clock, [0.0] * 2000) == at_once


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_after_a_burst_calls_pass_at_the_rate(processes: int) -> None:
    clock = Clock()
    rates = [LocalRates(Limits(20), processes, clock) for _ in range(processes)]
    assert passed(rates, clock, [0.0] * 200) == pytest.approx(20, abs=2)
    steady = [number / 40 for number in range(1, 401)]
    assert passed(rates, clock, steady) == pytest.approx(20 * 10, abs=max(2, processes))


def test_who_waits_as_long_as_told_is_admitted_and_nobody_earlier() -> None:
    clock = Clock()
    rates = LocalRates(Limits(4), 1, clock)
    passed([rates], clock, [0.0] * 4)
    wait = rates.admit_now(ORG)
    assert wait == pytest.approx(0.25)
    clock.now += 0.24
    assert rates.admit_now(ORG) == pytest.approx(0.01)
    clock.now += 0.01
    assert rates.admit_now(ORG) is None


def test_refused_calls_cost_nothing() -> None:
    clock = Clock()
    rates = LocalRates(Limits(2), 1, clock)
    assert passed([rates], clock, [0.0] * 1000) == 2
    clock.now += 1
    assert passed([rates], clock, [0.0] * 1000) == 2


@given(
    rate=st.floats(0.1, 500),
    pauses=st.lists(st.floats(0, 3), min_size=1, max_size=100),
)
def test_no_stretch_of_time_admits_more_than_its_share_and_one_burst(
    rate: float, pauses: Sequence[float]
) -> None:
    clock = Clock()
    rates = LocalRates(Limits(rate), 1, clock)
    times: list[float] = []
    for pause in pauses:
        clock.now += pause
        times.extend(clock.now for _ in range(3) if rates.admit_now(ORG) is None)
    for first, begin in enumerate(times):
        for last in range(first, len(times)):
            most = max(rate, 1) + rate * (times[last] - begin)
            assert last - first + 1 <= most + 1e-3


def test_organisations_have_limits_of_their_own() -> None:
    clock = Clock()
    rates = LocalRates(Limits(2, {"big": 5, "free": 0}), 1, clock)
    for org, expected in (("big", 5), ("small", 2), ("other", 2), ("free", 50)):
        assert sum(rates.admit_now(org) is None for _ in range(50)) == expected, org


def test_organisations_that_fell_silent_are_forgotten() -> None:
    clock = Clock()
    rates = LocalRates(Limits(10), 1, clock)
    for number in range(50_000):
        clock.now += 0.001
        assert rates.admit_now(f"org {number}") is None
    assert len(rates._due) < 5000


@pytest.mark.parametrize(
    ("settings", "limited"),
    [
        ({}, False),
        ({"rate_limits": {"acme": 0}}, False),
        ({"rate_limit": 1}, True),
        ({"rate_limits": {"acme": 1}}, True),
        ({"rate_limit": 1, "rate_limits": {"acme": 0}}, True),
    ],
)
async def test_where_nobody_has_a_limit_nothing_is_counted(
    settings: dict[str, float], limited: bool
) -> None:
    async with AsyncExitStack() as stack:
        rates = await open_rates(Settings.model_validate(settings), "one", 1, stack)
        assert (rates is not None) == limited


@pytest.mark.parametrize("rate", [-1, float("nan"), float("inf")])
async def test_a_limit_that_is_none_is_refused_by_name(rate: float) -> None:
    async with AsyncExitStack() as stack:
        with pytest.raises(SettingsError, match=r"CONDUCTOR_RATE_LIMITS.*acme"):
            await open_rates(Settings(rate_limits={"acme": rate}), "one", 1, stack)
