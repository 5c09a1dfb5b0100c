"""The same calls over many things and over few, in turn."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any, Protocol

from tests.bench.figures import Pace, printed_time
from tests.bench.generator import LoadGenerator
from tests.bench.stand import Stand
from tests.bench.table import Row, Target
from tests.bench.told import FailedError

SCALE_TARGET = Target(3, at_least=False)


class Place(Protocol):
    """A mesh that runs over so many things, and a generator that calls it."""

    @property
    def stand(self) -> Stand:
        """What runs."""

    @property
    def load(self) -> LoadGenerator:
        """What calls it."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Calls a mesh over many things and one over few, in turn."""

    many: Place
    few: Place
    pace: Pace
    of: str
    rows: str
    """What the rows of a page are called."""

    async def one(self, what: str, path: str) -> Row:
        """Read one thing."""
        return await self._called(what, path, path, None)

    async def page(self, what: str, size: int, of_many: str, of_few: str) -> Row:
        """Read a page that both have as many rows on."""
        for side, path in ((self.many, of_many), (self.few, of_few)):
            page = await side.stand.read(path)
            if len(page[self.rows]) != size:
                raise FailedError(f"{what}: {len(page[self.rows])} rows on a page of {size}")
        return await self._called(what, of_many, of_few, None)

    async def post(self, what: str, path: str, body: Mapping[str, Any]) -> Row:
        """Post one body again and again."""
        return await self._called(what, path, path, body)

    async def compared(
        self,
        what: str,
        of_many: Callable[[], Awaitable[float]],
        of_few: Callable[[], Awaitable[float]],
    ) -> Row:
        """Compare what answers how many seconds something takes."""
        taken: list[tuple[float, float]] = []
        for number in range(-1, self.pace.rounds):
            few = await of_few()
            many = await of_many()
            if number >= 0:
                taken.append((many, few))
        return compared(f"{self.of}: {what}", taken, SCALE_TARGET)

    async def _called(
        self, what: str, of_many: str, of_few: str, body: Mapping[str, Any] | None
    ) -> Row:
        return await self.compared(
            what,
            lambda: self._calls(self.many, of_many, body),
            lambda: self._calls(self.few, of_few, body),
        )

    async def _calls(self, side: Place, path: str, body: Mapping[str, Any] | None) -> float:
        seconds = self.pace.read_seconds
        sent = None if body is None else dict(body)
        return (await calls_of_one(side.load, path, seconds, seconds / 5, sent))[0]


async def calls_of_one(
    load: LoadGenerator, path: str, seconds: float, warm_up: float, body: dict[str, Any] | None
) -> tuple[float, int]:
    """Let one caller call, and longer when that was too short for an answer.

    Returns:
        The median, in seconds, and how many answers there were in all.
    """
    answers = 0
    for times in (1, 5, 25):
        calls = await load.calls(path, 1, seconds * times, warm_up, body)
        answers += calls.answers
        if calls.median:
            return calls.median, answers
    raise FailedError(f"{path}: no answer in {seconds * times:.0f} s")


def compared(figure: str, taken: list[tuple[float, float]], target: Target | None) -> Row:
    """Make the row of times that were taken in turn, in seconds: ours, and those beside it."""
    ours, others = map(median, zip(*taken, strict=True))
    ratios = [one / other for one, other in taken]
    return Row(figure, printed_time(ours), printed_time(others), ratios, None, target)
