"""The worker: holds a lease, finds the runs that are due, and sees them through.

One lease stands for the worker and all its runs. Whoever sees the lease stand still for its time to
live takes the runs over, by appending to their logs; the log's fence, not the lease, is what keeps two
workers from writing the same run.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial

from services.execution.domain import State
from services.execution.ports import (
    Executions,
    FencedError,
    Leases,
    Renewal,
    Wakeups,
    WorkQueue,
)
from services.execution.usecases.catalogue import Catalogue
from services.execution.usecases.channels import read_work_item, work_item
from services.execution.usecases.runs import End, Run
from services.kit.errors import DomainError

_LOG = logging.getLogger(__name__)
_HAND_BACK_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class Pace:
    """How a worker spends its time, in seconds, and how many runs it takes."""

    concurrency: int = 100
    lease_ttl: float = 6.0
    renew_every: float = 2.0
    sweep_every: float = 1.0
    flush_every: float = 0.03
    """The least time between two pieces of one answer."""


class Worker:
    """Runs what is due until it is stopped.

    Args:
        clock: microseconds since the epoch.
        monotonic: seconds that never go back; leases are judged by it alone.
        new_id: makes the id of a worker.
    """

    def __init__(
        self,
        executions: Executions,
        leases: Leases,
        catalogue: Catalogue,
        queue: WorkQueue,
        wakeups: Wakeups,
        *,
        clock: Callable[[], int],
        monotonic: Callable[[], float],
        new_id: Callable[[], str],
        pace: Pace,
    ) -> None:
        self._executions = executions
        self._leases = leases
        self._catalogue = catalogue
        self._queue = queue
        self._wakeups = wakeups
        self._clock = clock
        self._monotonic = monotonic
        self._new_id = new_id
        self._pace = pace
        self._slots = asyncio.Semaphore(pace.concurrency)
        self._active: dict[str, Run] = {}
        self._lease: Renewal | None = None
        self._renewed_at = monotonic()
        self._seen: dict[str, tuple[int, float]] = {}
        self._gone: set[str] = set()
        self._doubted: set[str] = set()
        self._missing: set[str] = set()

    @property
    def healthy(self) -> bool:
        """Whether the worker holds a lease, so that its runs can be written."""
        return self._lease is not None and self._lease_is_fresh()

    async def start(self) -> None:
        """Take a lease, so that `serve` may write."""
        await self._renew()

    async def serve(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._repeat(self._renew, self._pace.renew_every), name="renew")
            tasks.create_task(self._repeat(self._sweep, self._pace.sweep_every), name="sweep")
            tasks.create_task(self._dispatch(), name="dispatch")

    async def stop(self) -> None:
        """Hand every run back, so that another worker goes on at once, and give up the lease.

        To be called once `serve` was cancelled.
        """
        runs = list(self._active.values())
        for run in runs:
            run.end(End.HAND_BACK)
        # A model that does not let go must not keep the lease: its run is taken over without it.
        if runs:
            ending = [asyncio.create_task(run.ended()) for run in runs]
            await asyncio.wait(ending, timeout=_HAND_BACK_SECONDS)
            for task in ending:
                task.cancel()
        if self._lease is not None:
            try:
                await self._leases.remove(self._lease)
            except DomainError as error:
                _LOG.warning("the lease could not be given up and will run out: %s", error)
            self._lease = None

    @staticmethod
    async def _repeat(work: Callable[[], Awaitable[None]], every: float) -> None:
        while True:
            try:
                await work()
            except DomainError as error:
                _LOG.warning("the store is in trouble, trying again: %s", error)
            await asyncio.sleep(every)

    # The lease

    def _lease_is_fresh(self) -> bool:
        return self._monotonic() - self._renewed_at < self._pace.lease_ttl

    async def _renew(self) -> None:
        began = self._monotonic()
        if self._lease is not None:
            if not self._lease_is_fresh():
                self._let_go("could not be renewed in time")
            else:
                try:
                    self._lease = await self._leases.renew(self._lease)
                    self._renewed_at = began
                except FencedError:
                    self._let_go("was taken away")
        if self._lease is None:
            self._lease = await self._leases.register(self._new_id(), self._clock())
            self._renewed_at = began

    def _let_go(self, why: str) -> None:
        _LOG.warning("the lease %s: giving up %d runs", why, len(self._active))
        self._lease = None
        for run in self._active.values():
            run.end(End.FENCED)

    # Finding work

    async def _sweep(self) -> None:
        """Queue what the store says is due: waiting runs, and runs whose worker is gone."""
        # Owners are read before leases: a worker has its lease before it has a run, so an owner
        # without a lease is gone and not just new.
        claimed = {item for item, run in self._active.items() if run.claimed}
        running = [found async for found in self._running()]
        self._stop_what_others_ended(claimed - {item for item, _ in running})
        owners = {owner for _, owner in running} | self._doubted
        self._doubted = set()
        began = self._monotonic()
        alive, still = self._judge(await self._leases.all(), began)
        self._gone = owners - alive
        needed: set[str] = set()
        for item, owner in running:
            mine = self._lease is not None and owner == self._lease.worker
            if owner in alive and not mine:
                continue
            needed.add(owner)
            if item not in self._active:
                await self._queue.put(item)
        # One page is enough: these are the oldest, and what comes after them has its turn after them.
        for _, due in await self._executions.due(State.QUEUED, None):
            item = work_item(due.org, due.id)
            if item not in self._active:
                await self._queue.put(item)
        for lease in still:
            if lease.worker not in needed:
                await self._leases.remove(lease)

    def _stop_what_others_ended(self, missing: set[str]) -> None:
        """Stop runs that are not running any more, if this was so before too.

        Whoever ends a run tells its worker; this is for when that was lost.
        """
        for item in missing & self._missing:
            if item in self._active:
                self._active[item].end(End.STOPPED)
        self._missing = missing

    def _judge(self, leases: Sequence[Renewal], began: float) -> tuple[set[str], list[Renewal]]:
        """Tell living workers from those whose lease stood still for its time to live.

        Args:
            began: when reading the leases began; since then they may have been renewed unseen.
        """
        now = self._monotonic()
        earlier, self._seen = self._seen, {}
        alive: set[str] = set()
        still: list[Renewal] = []
        for lease in leases:
            counter, since = earlier.get(lease.worker, (-1, now))
            if counter != lease.counter:
                since = now
            self._seen[lease.worker] = (lease.counter, since)
            if began - since < self._pace.lease_ttl:
                alive.add(lease.worker)
            else:
                still.append(lease)
        return alive, still

    def _is_gone(self, worker: str) -> bool:
        """Tell whether a worker that owns a run was found to be gone; the next sweep looks again."""
        if worker in self._gone:
            return True
        self._doubted.add(worker)
        return False

    async def _running(self) -> AsyncIterator[tuple[str, str]]:
        """Yield work item and owner of every running run."""
        after = None
        while page := await self._executions.due(State.RUNNING, after):
            for place, due in page:
                after = place
                yield work_item(due.org, due.id), due.owner

    # Working

    async def _dispatch(self) -> None:
        while True:
            await self._slots.acquire()
            item = await self._queue.take()
            if item in self._active or self._lease is None or not self._lease_is_fresh():
                # It is being worked on, or nothing may be: the next sweep finds it if it is due.
                self._slots.release()
                continue
            org, execution_id = read_work_item(item)
            run = Run(
                self._executions,
                self._catalogue,
                self._wakeups,
                org,
                execution_id,
                self._lease.worker,
                clock=self._clock,
                flush_every=self._pace.flush_every,
                is_gone=self._is_gone,
                may_write=self._lease_is_fresh,
            )
            self._active[item] = run
            run.begin(partial(self._ended, item))

    def _ended(self, item: str) -> None:
        del self._active[item]
        self._slots.release()
