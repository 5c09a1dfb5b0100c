"""Whose turn it is: the runs that wait, and the slots of those that run.

Runs of one organisation begin by priority and then in the order they were accepted; organisations take
turns, each as often as its weight. What is known here is a view of the store that may be a moment old:
the store's unique keys decide, and this decides only what is tried.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Iterable, Iterator
from heapq import heappop, heappush
from itertools import count
from typing import NamedTuple

_REMEMBERED = 100


class Waiting(NamedTuple):
    """A run that waits."""

    org: str
    priority: int
    id: str


class Turn(NamedTuple):
    """A run that may begin, or go on, now."""

    waiting: Waiting
    slot: int | None
    """The slot it may take, or already has; None for one that goes on without."""
    resumed: bool = False
    """Whether another worker began it."""


class Turns:
    """Who begins next.

    Args:
        weight: of an organisation; one with 2 gets two turns where one with 1 gets one.
        limit: of an organisation: how many of its runs may go on at a time.
    """

    def __init__(self, weight: Callable[[str], float], limit: Callable[[str], int]) -> None:
        self._weight = weight
        self._limit = limit
        self._lines: dict[str, list[tuple[int, str]]] = {}
        """Priority and id of what waits, by organisation, in the order they begin."""
        self._passed: dict[str, float] = {}
        """How far an organisation has come: each turn adds the inverse of its weight."""
        self._added: dict[Waiting, int] = {}
        self._count = 0
        self._heap: list[tuple[float, str]] = []
        """How far organisations that wait have come; what is not so any more is passed over."""
        self._remembered = _REMEMBERED
        self._resumed: dict[Waiting, Turn] = {}
        self._now = 0.0
        self._mine: dict[str, set[int]] = {}
        self._others: dict[str, set[int]] = {}

    def __len__(self) -> int:
        """How many runs wait."""
        return len(self._added)

    # Waiting

    def add(self, waiting: Waiting) -> None:
        """Let a run wait; one that waits already keeps its place."""
        if waiting in self._added:
            return
        line = self._lines.setdefault(waiting.org, [])
        if not line:
            # Whoever comes back after a while has its turn next, and not all those it did not need.
            self._move(waiting.org, max(self._passed.get(waiting.org, 0.0), self._now))
        insort(line, (waiting.priority, waiting.id))
        self._count += 1
        self._added[waiting] = self._count

    def resume(self, waiting: Waiting, slot: int | None) -> None:
        """Let a run that had its turn go on before all that wait."""
        if waiting in self._added:
            self._remove(waiting)
        self._resumed[waiting] = Turn(waiting, slot, resumed=True)

    def mark(self) -> int:
        """Note the moment at which reading what waits began, for `forget`."""
        return self._count

    def forget(self, found: Iterable[Waiting], mark: int) -> None:
        """Drop the runs that waited at a mark and were not found to wait since."""
        kept = set(found)
        gone = [one for one, count in self._added.items() if count <= mark and one not in kept]
        for waiting in gone:
            self._remove(waiting)

    def position(self, waiting: Waiting) -> int | None:
        """Say which place a run has among those of its organisation, from 1."""
        if waiting not in self._added:
            return None
        return bisect_left(self._lines[waiting.org], (waiting.priority, waiting.id)) + 1

    def places(self) -> Iterator[tuple[Waiting, int]]:
        """Every run that waits, with its place."""
        for org, line in self._lines.items():
            for position, (priority, id_) in enumerate(line, 1):
                yield Waiting(org, priority, id_), position

    # Turns

    def next(self) -> Turn | None:
        """Take the run whose turn it is, and a slot for it; None when none may begin."""
        if self._resumed:
            waiting = next(iter(self._resumed))
            turn = self._resumed.pop(waiting)
            if turn.slot is not None:
                self._mine.setdefault(waiting.org, set()).add(turn.slot)
            return turn
        org = self._next_org()
        if org is None:
            return None
        self._now = self._passed[org]
        mine, others = self._mine.setdefault(org, set()), self._others.get(org, ())
        slot = next(number for number in count() if number not in mine and number not in others)
        mine.add(slot)
        waiting = Waiting(org, *self._lines[org][0])
        self._move(org, self._now + 1 / self._weight(org))
        self._remove(waiting)
        return Turn(waiting, slot)

    def _next_org(self) -> str | None:
        """Find the organisation that has come least far, of those that wait and have a slot."""
        found = None
        without_slot = []
        while self._heap and found is None:
            passed, org = heappop(self._heap)
            if org in self._lines and passed == self._passed[org]:
                if self._has_slot(org):
                    found = org
                else:
                    without_slot.append(org)
        for org in without_slot:
            # Turns it could not take are not kept for it.
            self._move(org, max(self._passed[org], self._now))
        return found

    def _move(self, org: str, passed: float) -> None:
        self._passed[org] = passed
        heappush(self._heap, (passed, org))

    def end(self, turn: Turn) -> None:
        """Note that a run does not go on here any more; its slot is free."""
        org = turn.waiting.org
        mine = self._mine.get(org)
        if mine is not None and turn.slot is not None:
            mine.discard(turn.slot)
            if not mine:
                del self._mine[org]

    def give_back(self, turn: Turn) -> None:
        """Undo a turn whose slot another process has taken: the run has its place again."""
        org, slot = turn.waiting.org, turn.slot
        self.waste(turn)
        if slot is not None:
            self._others.setdefault(org, set()).add(slot)
        self.add(turn.waiting)

    def waste(self, turn: Turn) -> None:
        """Undo a turn of a run that did not begin, because another process was faster."""
        self.end(turn)
        org = turn.waiting.org
        if not turn.resumed and org in self._passed:
            self._move(org, self._passed[org] - 1 / self._weight(org))

    def observe(self, taken: Iterable[tuple[str, int]]) -> None:
        """Take over which slots the runs of other processes hold."""
        self._others = {}
        for org, slot in taken:
            self._others.setdefault(org, set()).add(slot)

    def _has_slot(self, org: str) -> bool:
        taken = len(self._mine.get(org, ())) + len(self._others.get(org, ()))
        return taken < self._limit(org)

    def _remove(self, waiting: Waiting) -> None:
        del self._added[waiting]
        line = self._lines[waiting.org]
        del line[bisect_left(line, (waiting.priority, waiting.id))]
        if not line:
            del self._lines[waiting.org]
            self._forget_who_is_behind()

    def _forget_who_is_behind(self) -> None:
        """Forget how far those have come who wait for nothing, where that makes no difference.

        Whoever is behind begins anew where the others are.
        """
        if not self._lines:
            self._passed.clear()
            self._heap.clear()
            self._now = 0.0
        elif len(self._passed) > self._remembered:
            self._passed = {
                org: passed
                for org, passed in self._passed.items()
                if passed > self._now or org in self._lines
            }
            self._remembered = 2 * len(self._passed) + _REMEMBERED
