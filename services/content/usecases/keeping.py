"""Bringing imports to their end, whoever began them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace

from services.content.ports.archives import Claim, Imports
from services.kit.errors import DomainError, Reason
from services.kit.resources.ports import FencedError

_LOG = logging.getLogger(__name__)
_SWEEP_SECONDS = 3.0
SILENT_SECONDS = 15.0
"""After how long without a sign of life an import is in nobody's hands."""


class ImportKeeper:
    """Rolls imports forward that are committed, and removes those that are not.

    One that somebody works on says so, by the version of its document, which is judged by the clock
    here. Two who work on one do no harm: who is late is fenced.

    Args:
        monotonic: seconds.
    """

    def __init__(self, imports: Imports, *, monotonic: Callable[[], float]) -> None:
        self._imports = imports
        self._monotonic = monotonic
        self._seen: dict[str, tuple[int, float]] = {}
        self._tasks: set[asyncio.Task[object]] = set()

    async def start(self, *, alone: bool) -> None:
        """Finish what is committed, before anything is served.

        On a full disk that has to wait for the sweep: who is to make room has to be served.

        Args:
            alone: whether no other process can be at work on an import.
        """
        try:
            for claim in await self._imports.unfinished():
                if claim.committed:
                    await self.finish(claim)
                elif alone or claim.dropped:
                    await self.drop(claim)
        except DomainError as error:
            if error.reason != Reason.REASON_STORE_FULL:
                raise
            _LOG.warning("an import cannot be finished yet: %s", error)

    async def serve(self) -> None:
        """Sweep until cancelled."""
        while True:
            try:
                await self.sweep()
            except DomainError as error:
                _LOG.warning("imports could not be looked after, trying again: %s", error)
            await asyncio.sleep(_SWEEP_SECONDS)

    async def sweep(self) -> None:
        """Take over the imports that nobody has worked on for a while."""
        claims = await self._imports.unfinished()
        now = self._monotonic()
        seen: dict[str, tuple[int, float]] = {}
        for claim in claims:
            version, since = self._seen.get(claim.id, (0, now))
            seen[claim.id] = (claim.version, since if version == claim.version else now)
        self._seen = seen
        for claim in claims:
            if now - seen[claim.id][1] >= SILENT_SECONDS:
                _LOG.info("import %s is taken over, %d batches applied", claim.id, claim.applied)
                await (self.finish(claim) if claim.committed else self.drop(claim))

    async def finish(self, claim: Claim, told: Callable[[int], None] | None = None) -> list[str]:
        """Apply the rest of a committed import, and remove it.

        Args:
            told: hears how many batches are applied.

        Returns:
            A sentence about each thing that could not be stored as it was wanted.
        """
        notes: list[str] = []
        while claim.applied < claim.batches:
            notes += await self._imports.apply(claim)
            try:
                claim = await self._imports.save(replace(claim, applied=claim.applied + 1))
            except FencedError:
                # Somebody else applies it too, and may be further.
                current = await self._imports.get(claim.org, claim.id)
                if current is None:
                    return notes
                claim = current
            if told is not None:
                told(claim.applied)
        await self._imports.remove(claim)
        return notes

    async def drop(self, claim: Claim) -> None:
        """Remove an import that is not committed, unless it gets committed meanwhile."""
        if not claim.dropped:
            try:
                claim = await self._imports.save(replace(claim, dropped=True))
            except FencedError:
                return
        await self._imports.remove(claim)

    def finishing(self, claim: Claim, told: Callable[[int], None]) -> asyncio.Task[list[str]]:
        """Finish an import whether or not anybody waits for it."""
        task = asyncio.create_task(self.finish(claim, told))
        self._own(task)
        return task

    def dropping(self, claim: Claim) -> asyncio.Task[None]:
        """Drop an import whether or not anybody waits for it."""
        task = asyncio.create_task(self.drop(claim))
        self._own(task)
        return task

    async def idle(self) -> None:
        """Wait until nothing is under way here."""
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def stop(self) -> None:
        """Leave what is under way to whoever comes next."""
        for task in self._tasks:
            task.cancel()
        await self.idle()

    def _own(self, task: asyncio.Task[object]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[object]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _LOG.warning("an import stopped, and goes on by itself later: %s", error)
