"""Doing what was left to be done at conversations: by those who crashed, or while these were away."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable

from services.execution.domain import Errand
from services.execution.ports import AwayError, Executions, Left
from services.execution.usecases.executions import ExecutionService
from services.execution.usecases.talks import Talks
from services.kit.errors import DomainError

_LOG = logging.getLogger(__name__)
_SWEEP_SECONDS = 1.0
_PATIENCE_SECONDS = 6.0


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
            except AwayError as away:
                _LOG.info("what is left to be done waits for conversations: %s", away)
            except DomainError as error:
                _LOG.warning("what is left to be done waits for the store: %s", error)
            await asyncio.sleep(_SWEEP_SECONDS)

    async def sweep(self) -> None:
        """Do what is left, of all organisations.

        Raises:
            AwayError: conversations do not answer, so that the rest waits.
        """
        async for left in self._all(Errand.FILL):
            ended = await self._executions.get(left.org, left.id)
            if ended is not None:
                await self._talks.finish(ended)
        async for left in self._all(Errand.WITHDRAW):
            await self._talks.withdraw(left)
        held = [left async for left in self._all(Errand.APPEND)]
        now, earlier = self._monotonic(), self._seen
        self._seen = {(one.org, one.id): self._since(earlier, one, now) for one in held}
        for left in held:
            _, since = self._seen[left.org, left.id]
            if now - since >= self._patience:
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
