"""Doing what was left to be done at conversations: by those who crashed, or while these were away."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

from services.execution.domain import Errand
from services.execution.ports import AwayError, Executions, Left
from services.execution.usecases.executions import ExecutionService
from services.execution.usecases.talks import Talks
from services.kit.errors import DomainError

_LOG = logging.getLogger(__name__)
_SWEEP_SECONDS = 1.0
_PATIENCE_SECONDS = 6.0
_AT_ONCE = 10


class Errands:
    """Does what runs have left to be done.

    Args:
        monotonic: seconds, of a clock that only goes forward.
        patience: for how many seconds a run that is held has to stay as it is until whoever holds it
            counts as gone.
    """

    def __init__(
        self,
        executions: Executions,
        talks: Talks,
        service: ExecutionService,
        *,
        monotonic: Callable[[], float],
        patience: float = _PATIENCE_SECONDS,
    ) -> None:
        self._executions = executions
        self._talks = talks
        self._service = service
        self._monotonic = monotonic
        self._patience = patience
        self._seen: dict[tuple[str, str], tuple[int, float]] = {}
        """The version of a run that is held, and since when it has it."""

    async def serve(self) -> None:
        """Sweep every second until cancelled."""
        while True:
            try:
                await self.sweep()
            except DomainError as error:
                _LOG.warning("what is left to be done waits for the store: %s", error)
            await asyncio.sleep(_SWEEP_SECONDS)

    async def sweep(self) -> None:
        """Do what is left, of all organisations."""
        await self._do([left async for left in self._all(Errand.FILL)], self._fill)
        await self._do([left async for left in self._all(Errand.WITHDRAW)], self._talks.withdraw)
        held = [left async for left in self._all(Errand.APPEND)]
        now, earlier = self._monotonic(), self._seen
        self._seen = {(one.org, one.id): self._since(earlier, one, now) for one in held}
        alone = [one for one in held if now - self._seen[one.org, one.id][1] >= self._patience]
        await self._do(alone, self._resume)

    async def _do(self, every: Sequence[Left], work: Callable[[Left], Awaitable[None]]) -> None:
        """Do some at a time, oldest first; the rest waits when nobody answers for any of them.

        One alone that nobody ever answers for keeps none of the others waiting.
        """
        for first in range(0, len(every), _AT_ONCE):
            some = every[first : first + _AT_ONCE]
            outcomes = await asyncio.gather(*map(work, some), return_exceptions=True)
            faults = [one for one in outcomes if one is not None]
            for fault in faults:
                if not isinstance(fault, AwayError):
                    raise fault
            if len(faults) == len(some):
                _LOG.info("what is left to be done waits for conversations: %s", faults[0])
                return

    async def _fill(self, left: Left) -> None:
        found = await self._executions.get(left.org, left.id)
        if found is None or found.errand is not Errand.FILL:
            return
        await (self._talks.finish(found) if found.finished else self._service.conclude(found))

    async def _resume(self, left: Left) -> None:
        await self._talks.resume(left, self._service.stop)

    @staticmethod
    def _since(
        earlier: dict[tuple[str, str], tuple[int, float]], left: Left, now: float
    ) -> tuple[int, float]:
        version, since = earlier.get((left.org, left.id), (0, now))
        return left.version, since if version == left.version else now

    async def _all(self, errand: Errand) -> AsyncIterator[Left]:
        after = None
        while page := await self._executions.left(errand, after):
            for place, left in page:
                after = place
                yield left
