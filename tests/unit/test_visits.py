"""How often somebody without a name may come."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.conversations.domain import visits
from services.conversations.domain.visits import MOST, WINDOW


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
