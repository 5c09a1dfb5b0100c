"""How often somebody without a name may come."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.conversations.domain import visits
from services.conversations.domain.conversations import Wanted
from services.conversations.domain.visits import MOST, WINDOW, Visitor
from services.conversations.usecases.portfolio import Portfolio
from tests.fakes.parlour import ORG, Parlour


@given(st.lists(st.integers(0, WINDOW // 5), max_size=120))
def test_no_span_of_a_minute_has_more_visits_than_may_be(gaps: list[int]) -> None:
    now = 10 * WINDOW
    kept: tuple[int, ...] = ()
    admitted: list[int] = []
    for gap in gaps:
        now += gap
        times = visits.came(kept, now)
        before = [time for time in admitted if time > now - WINDOW]
        assert (times is None) == (len(before) >= MOST)
        if times is None:
            wait = visits.wait(kept, now)
            later = now + round(wait * 1_000_000)
            assert 0 < wait <= WINDOW / 1_000_000
            assert visits.came(kept, later) is not None
        else:
            kept = times
            admitted.append(now)
    for first, last in zip(admitted, admitted[MOST:], strict=False):
        assert last - first >= WINDOW


def test_visits_of_a_clock_that_is_ahead_count_too() -> None:
    ahead = tuple(range(WINDOW, WINDOW + MOST))

    assert visits.came(ahead, 0) is None
    assert visits.came(ahead[1:], 0) == (0, *ahead[1:])


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("203.0.113.9", "203.0.113.10", False),
        ("203.0.113.9", "::ffff:203.0.113.9", True),
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::2", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("unix:/a", "unix:/b", False),
        ("", "0.0.0.0", False),
    ],
)
def test_whoever_has_a_network_is_one_visitor(one: str, other: str, same: bool) -> None:
    assert (visits.visitor_id(one) == visits.visitor_id(other)) == same
    assert one not in visits.visitor_id(one) or not one


class Nobody:
    """Visitors, of which none came lately."""

    async def page(self, after: Visitor | None, limit: int) -> Sequence[Visitor]:
        return ()


@pytest.mark.parametrize(("keep_days", "left"), [(0, 1), (1, 0), (3, 1)])
async def test_a_session_is_kept_for_the_days_that_are_set(keep_days: float, left: int) -> None:
    house = Parlour()
    await house.open(visitor=True)
    house.now += 2 * 86_400_000_000
    nobody: Any = Nobody()
    portfolio = Portfolio(
        nobody,
        nobody,
        house.conversations,
        "writer",
        keep_days=keep_days,
        clock=house.clock,
        new_session_id=str,
    )

    await portfolio.sweep()

    assert len(await house.conversations.list(ORG, Wanted(visitors=True), None, 9)) == left
