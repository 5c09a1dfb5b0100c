"""Whether the parts of the mesh work."""

from __future__ import annotations

from collections.abc import Sequence

from services.execution.domain import PartHealth
from services.execution.ports import Executions, Others
from services.execution.usecases.worker import Worker
from services.kit.errors import DomainError, Reason, Resource


class Health:
    """Checks every part each time it is asked."""

    def __init__(self, executions: Executions, worker: Worker, others: Others) -> None:
        self._executions = executions
        self._worker = worker
        self._others = others

    async def check(self) -> Sequence[PartHealth]:
        """Return the parts, all healthy.

        Raises:
            DomainError: UNHEALTHY, with one resource for each part that is down.
        """
        parts = [await self._store(), self._runs(), *await self._services()]
        down = [part for part in parts if part.trouble]
        if down:
            raise DomainError(
                Reason.REASON_UNHEALTHY,
                "; ".join(f"{part.name}: {part.trouble}" for part in down),
                resources=[Resource("part", part.name, part.trouble) for part in down],
                retry_after=2.0,
            )
        return parts

    async def _store(self) -> PartHealth:
        try:
            await self._executions.version("", "")
        except DomainError as error:
            return PartHealth("store", error.message)
        return PartHealth("store")

    async def _services(self) -> Sequence[PartHealth]:
        found = await self._others.health()
        return [PartHealth(name, trouble) for name, trouble in found.items()]

    def _runs(self) -> PartHealth:
        if self._worker.healthy:
            return PartHealth("worker")
        return PartHealth("worker", "The worker cannot renew its lease, so no run goes on.")
