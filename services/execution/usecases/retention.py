"""Deleting finished runs once they are older than they have to be kept."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable

from services.execution.domain import TERMINAL_STATES, Errand, State
from services.execution.ports import Due, Executions
from services.execution.usecases.executions import ExecutionService
from services.kit.errors import DomainError, Reason

_LOG = logging.getLogger(__name__)
_SWEEP_SECONDS = 60.0
_MICROSECONDS = 1_000_000


class Retention:
    """Deletes finished runs by age.

    Args:
        keep_seconds: how long after its creation a finished run is kept.
        clock: microseconds since the epoch.
    """

    def __init__(
        self,
        executions: Executions,
        service: ExecutionService,
        *,
        keep_seconds: float,
        clock: Callable[[], int],
    ) -> None:
        self._executions = executions
        self._service = service
        self._keep_seconds = keep_seconds
        self._clock = clock

    async def serve(self) -> None:
        """Sweep once a minute until cancelled."""
        while True:
            try:
                await self.sweep()
            except DomainError as error:
                _LOG.warning("old runs could not be deleted, trying again: %s", error)
            await asyncio.sleep(_SWEEP_SECONDS)

    async def sweep(self) -> int:
        """Delete every finished run that is old enough; returns how many."""
        oldest_kept = self._clock() - round(self._keep_seconds * _MICROSECONDS)
        deleted = 0
        for state in sorted(TERMINAL_STATES):
            async for due in self._created_before(state, oldest_kept):
                execution = await self._executions.get(due.org, due.id)
                if execution is None or execution.errand is not Errand.NONE:
                    # What its conversation is still to be told stays.
                    continue
                if (execution.end_time or oldest_kept) < oldest_kept:
                    await self._delete(due)
                    deleted += 1
        return deleted

    async def _created_before(self, state: State, time: int) -> AsyncIterator[Due]:
        """Yield runs that are old enough to have ended long ago."""
        after = None
        while page := await self._executions.due(state, after):
            for place, due in page:
                if place[0] >= time:
                    return
                after = place
                yield due

    async def _delete(self, due: Due) -> None:
        try:
            await self._service.delete(due.org, due.id)
        except DomainError as error:
            # Somebody else deleted it at the same time.
            if error.reason != Reason.REASON_EXECUTION_NOT_FOUND:
                raise
