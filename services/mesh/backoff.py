"""When to start a program again that has died."""

from __future__ import annotations

from collections.abc import Callable

DELAYS = (0.0, 0.2, 0.4, 0.8, 1.6, 2.0)
"""Seconds to wait after the first, second, … death in a row; the last one goes on for ever."""

STEADY = 5.0
"""Seconds of health after which the deaths before no longer count."""


class Backoff:
    """Counts the deaths of one program in a row and says how long to wait after each."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._healthy_since: float | None = None
        self.deaths = 0
        """Deaths in a row, each less than `STEADY` seconds after the program became healthy."""

    def healthy(self) -> None:
        """The program answers."""
        self._healthy_since = self._clock()

    def died(self) -> float:
        """The program is dead: count it, and answer the seconds to wait before a new start."""
        since, self._healthy_since = self._healthy_since, None
        if since is not None and self._clock() - since >= STEADY:
            self.deaths = 0
        self.deaths += 1
        return DELAYS[min(self.deaths, len(DELAYS)) - 1]
