"""Deleting finished runs once they are older than they have to be kept."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from services.execution.domain import TERMINAL_STATES
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
            while page := await self._executions.due(state, None):
                old = [due for (time, _), due in page if time < oldest_kept]
                for due in old:
                    await self._delete(due)
                deleted += len(old)
                if len(old) < len(page):
                    break
        return deleted

    async def _delete(self, due: Due) -> None:
        try:
            await self._service.delete(due.org, due.id)
        except DomainError as error:
            # Somebody else deleted it at the same time.
            if error.reason != Reason.REASON_EXECUTION_NOT_FOUND:
                raise
