"""When a dead program is started again."""

from __future__ import annotations

from services.mesh.backoff import DELAYS, STEADY, Backoff


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_first_death_is_answered_at_once() -> None:
    assert Backoff(Clock()).died() == 0


def test_deaths_in_a_row_wait_longer_but_never_more_than_two_seconds() -> None:
    backoff = Backoff(Clock())

    delays = [backoff.died() for _ in range(20)]

    assert delays == sorted(delays)
    assert delays[1] > 0
    assert delays[-1] == max(DELAYS) == 2


def test_a_program_that_was_steady_begins_anew() -> None:
    clock = Clock()
    backoff = Backoff(clock)
    for _ in range(10):
        backoff.died()

    backoff.healthy()
    clock.now += STEADY

    assert backoff.died() == 0
    assert backoff.deaths == 1


def test_a_short_health_does_not_make_deaths_forgotten() -> None:
    clock = Clock()
    backoff = Backoff(clock)
    for _ in range(10):
        backoff.died()

    backoff.healthy()
    clock.now += STEADY / 2

    assert backoff.died() == 2


def test_time_without_health_is_no_steadiness() -> None:
    clock = Clock()
    backoff = Backoff(clock)
    backoff.died()

    clock.now += 100

    assert backoff.died() > 0
