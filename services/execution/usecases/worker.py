"""The worker: holds a lease, finds the runs that are due, and sees them through.

One lease stands for the worker and all its runs. Whoever sees the lease stand still for its time to
live takes the runs over, by appending to their logs; the log's fence, not the lease, is what keeps two
workers from writing the same run.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from services.execution import domain
from services.execution.domain import (
    WAITING_KINDS,
    Persistence,
    State,
    Turn,
    Turns,
    Waiting,
)
from services.execution.ports import (
    Contexts,
    Due,
    Executions,
    FencedError,
    Leases,
    Metrics,
    Renewal,
    Traces,
    Wakeups,
    WorkQueue,
)
from services.execution.usecases.attempts import Tools
from services.execution.usecases.calls import Patience
from services.execution.usecases.catalogue import Catalogue
from services.execution.usecases.channels import events_channel, read_work_item
from services.execution.usecases.circuits import Circuits
from services.execution.usecases.runs import End, Run
from services.execution.usecases.talks import Talks
from services.kit.errors import DomainError

_LOG = logging.getLogger(__name__)
_HAND_BACK_SECONDS = 3.0
_READING_SHARE = 20
"""How many times as long as it took to read what waits it is not read again."""
_LONGEST_REST = 5.0
"""Seconds for which it is not read again, at most."""
_HASTE = 4
"""How many times as soon is tried again what the store was away for."""
_TOLD_IN_A_SWEEP = 500
_TOLD_AT_ONCE = 50
"""What else goes to the store, renewals above all, waits for no more than these."""


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
        turns: what waits and whose turn it is; the worker keeps it up to date.
        clock: microseconds since the epoch.
        monotonic: seconds that never go back; leases are judged by it alone.
        new_id: makes the id of a worker.
        chance: random numbers from 0 to 1.
    """

    def __init__(
        self,
        executions: Executions,
        leases: Leases,
        contexts: Contexts,
        catalogue: Catalogue,
        circuits: Circuits,
        queue: WorkQueue,
        wakeups: Wakeups,
        turns: Turns,
        metrics: Metrics,
        traces: Traces,
        talks: Talks,
        *,
        clock: Callable[[], int],
        monotonic: Callable[[], float],
        new_id: Callable[[], str],
        chance: Callable[[], float],
        pace: Pace,
        patience: Patience,
        persistence: Persistence,
    ) -> None:
        self._executions = executions
        self._leases = leases
        self._queue = queue
        self._wakeups = wakeups
        self._turns = turns
        self._clock = clock
        self._monotonic = monotonic
        self._new_id = new_id
        self._pace = pace
        self._tools = Tools(
            executions,
            contexts,
            catalogue,
            circuits,
            queue,
            wakeups,
            metrics,
            traces,
            talks,
            clock,
            pace.flush_every,
            patience,
            persistence,
            chance,
            self._is_gone,
            self._lease_is_fresh,
            self._leave,
            self._is_away,
            self._missed,
            self._reached,
        )
        self._away_until: dict[str, float] = {}
        """Until when nobody is asked, by the channel of those that wait for the answer."""
        self._active: dict[Waiting, Run] = {}
        self._left: set[asyncio.Task[None]] = set()
        self._told: dict[Waiting, int] = {}
        self._next_reading = 0.0
        self._stopping = False
        self._put_off: list[Waiting] = []
        """What could not begin because the store was in trouble."""
        self._behind = Behind(wakeups, self._go_on)
        self._lease: Renewal | None = None
        self._renewed_at = monotonic()
        self._seen: dict[str, tuple[int, float]] = {}
        self._gone: set[str] = set()
        self._doubted: set[str] = set()

    @property
    def healthy(self) -> bool:
        """Whether the worker holds a lease, so that its runs can be written."""
        return self._lease is not None and self._lease_is_fresh()

    def running(self) -> int:
        """Count the runs in its hands; may be called from any thread."""
        return len(self._active)

    async def start(self) -> None:
        """Take a lease, so that `serve` may write."""
        await self._renew()

    async def serve(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._repeat(self._renew, self._pace.renew_every), name="renew")
            tasks.create_task(self._repeat(self._sweep, self._pace.sweep_every), name="sweep")
            tasks.create_task(self._listen(), name="listen")

    async def stop(self) -> None:
        """Hand every run back, so that another worker goes on at once, and give up the lease.

        To be called once `serve` was cancelled.
        """
        self._stopping = True
        runs = list(self._active.values())
        for run in runs:
            run.end(End.HAND_BACK)
        # A model that does not let go must not keep the lease: its run is taken over without it.
        if runs:
            ending = [asyncio.create_task(run.ended()) for run in runs]
            await asyncio.wait(ending, timeout=_HAND_BACK_SECONDS)
            for task in ending:
                task.cancel()
        self._behind.clear()
        for task in self._left:
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
            pause = every
            try:
                await work()
            except DomainError as error:
                _LOG.warning("the store is in trouble, trying again: %s", error)
                pause = every / _HASTE
            await asyncio.sleep(pause)

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
        claimed = {waiting for waiting, run in self._active.items() if run.claimed}
        running = [due async for due in self._all(State.RUNNING) if not due.held]
        for waiting in claimed - {_waiting(due) for due in running}:
            # Whoever ends a run tells its worker; this is for when that was lost.
            if waiting in self._active:
                self._active[waiting].look()
        owners = {due.owner for due in running} | self._doubted
        self._doubted = set()
        began = self._monotonic()
        alive, still = self._judge(await self._leases.all(), began)
        self._gone = owners - alive
        me = self._lease.worker if self._lease is not None else ""
        self._turns.observe(
            (due.org, due.slot) for due in running if due.slot is not None and due.owner != me
        )
        needed: set[str] = set()
        for due in running:
            if due.owner in alive and due.owner != me:
                continue
            needed.add(due.owner)
            if _waiting(due) not in self._active:
                self._turns.resume(_waiting(due), due.slot)
        self._begin_due()
        await self._read_what_waits()
        self._begin_due()
        for lease in still:
            if lease.worker not in needed:
                await self._leases.remove(lease)
        await self._tell_places()

    async def _read_what_waits(self) -> None:
        """Read the waiting runs of the store, which knows those that other processes accepted.

        A long queue is read less often, so that reading it never takes more than a small part of
        the time.
        """
        for waiting in self._put_off:
            self._turns.add(waiting)
        self._put_off.clear()
        began = self._monotonic()
        if began < self._next_reading:
            return
        mark = self._turns.mark()
        found = {_waiting(due) async for due in self._all(State.QUEUED) if not due.held}
        self._turns.forget(found, mark)
        self._behind.forget(found)
        for waiting in found - self._active.keys() - self._behind.patient():
            self._turns.add(waiting)
        ended = self._monotonic()
        self._next_reading = ended + min(_READING_SHARE * (ended - began), _LONGEST_REST)

    async def _tell_places(self) -> None:
        """Tell runs that wait their place, when they begin to and whenever it has halved.

        Those for whom a slow store leaves no time are told after the next sweep.
        """
        places = dict(self._turns.places())
        told = {waiting: self._told[waiting] for waiting in self._told.keys() & places.keys()}
        self._told = told
        news = [
            (position, waiting)
            for waiting, position in places.items()
            if waiting not in told or 2 * position <= told[waiting]
        ]
        until = self._monotonic() + self._pace.sweep_every
        nearest = heapq.nsmallest(_TOLD_IN_A_SWEEP, news)
        while nearest and self._monotonic() < until:
            tellings = (self._tell_place(*one) for one in nearest[:_TOLD_AT_ONCE])
            for outcome in await asyncio.gather(*tellings, return_exceptions=True):
                if isinstance(outcome, BaseException):
                    raise outcome
            del nearest[:_TOLD_AT_ONCE]

    async def _tell_place(self, position: int, waiting: Waiting) -> None:
        org, id_ = waiting.org, waiting.id
        last = await self._executions.last_event(org, id_)
        if last is None or last.kind not in WAITING_KINDS:
            return
        earlier = domain.told_place(last)
        if earlier is not None and 2 * position > earlier:
            # Another process has told it, or this one before it was started anew.
            self._told[waiting] = earlier
            return
        me = self._lease.worker if self._lease is not None else ""
        events = domain.place(last.sequence, position, me, self._clock())
        with suppress(FencedError):
            await self._executions.append(org, id_, last.sequence, events)
            self._told[waiting] = position
            await self._wakeups.publish(events_channel(org, id_))

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

    async def _all(self, state: State) -> AsyncIterator[Due]:
        """Yield every run in a state."""
        after = None
        while page := await self._executions.due(state, after):
            for place, due in page:
                after = place
                yield due

    # Working

    async def _listen(self) -> None:
        """Let every run that was accepted wait for its turn, and begin it if that is now.

        One that another worker handed back goes on before all that wait. Where every place here is
        taken, other processes learn of it with their next sweep.
        """
        while True:
            item = await self._queue.take()
            turn = read_work_item(item)
            if turn is None:
                _LOG.warning("the queue holds what is no work of this release: %r", item)
            elif turn.waiting not in self._active:
                if turn.resumed:
                    self._turns.resume(turn.waiting, turn.slot)
                else:
                    self._turns.add(turn.waiting)
                self._begin_due()
            await self._queue.done(item)

    def _go_on(self, runs: Iterable[Waiting]) -> None:
        """Let runs wait for their turn here that waited for theirs in a conversation."""
        for waiting in runs:
            if waiting not in self._active:
                self._turns.add(waiting)
        self._begin_due()

    def _is_away(self, channel: str) -> bool:
        return self._monotonic() < self._away_until.get(channel, 0.0)

    def _missed(self, channel: str) -> None:
        """Let those of a channel wait until one of them has asked again, with the next sweep."""
        self._away_until[channel] = self._monotonic() + self._pace.sweep_every / 2

    def _reached(self, channel: str) -> None:
        """Let those of a channel go on."""
        self._away_until.pop(channel, None)
        self._behind.wake(channel)

    def _begin_due(self) -> None:
        """Begin the runs whose turn it is, as many as this worker takes."""
        while (
            len(self._active) < self._pace.concurrency
            and not self._stopping
            and self._lease is not None
            and self._lease_is_fresh()
        ):
            turn = self._turns.next()
            if turn is None:
                return
            waiting = turn.waiting
            self._behind.drop(waiting)
            if waiting in self._active:
                # It went on here already when the store was read.
                if not turn.resumed:
                    self._turns.waste(turn)
                continue
            run = Run(self._tools, turn, self._lease.worker)
            self._active[waiting] = run
            run.begin(partial(self._ended, turn))

    def _ended(self, turn: Turn) -> None:
        run = self._active.pop(turn.waiting)
        if run.slot_was_taken:
            self._turns.give_back(turn)
        elif run.claimed:
            self._turns.end(turn)
        else:
            self._turns.waste(turn)
            if run.waits_for and run.may_go_on:
                self._turns.add(turn.waiting)
            elif run.waits_for and not self._stopping:
                self._behind.add(run.waits_for, turn.waiting, run.place)
            if run.met_trouble and not turn.resumed:
                self._put_off.append(turn.waiting)
        self._begin_due()

    def _leave(self, task: asyncio.Task[None]) -> None:
        """Keep the task of a provider that does not let go, until it does."""
        self._left.add(task)
        task.add_done_callback(self._let_go_at_last)

    def _let_go_at_last(self, task: asyncio.Task[None]) -> None:
        self._left.discard(task)
        if not task.cancelled():
            task.exception()


class Behind:
    """The runs that wait until others have answered in their conversation, or until anybody answers.

    Args:
        go_on: called with those of a conversation when one before them has ended.
    """

    def __init__(self, wakeups: Wakeups, go_on: Callable[[Iterable[Waiting]], None]) -> None:
        self._wakeups = wakeups
        self._go_on = go_on
        self._runs: dict[str, dict[Waiting, int]] = {}
        """The place of each when it was last asked for, by the channel that wakes them."""
        self._channels: dict[Waiting, str] = {}
        self._unsubscribe: dict[str, Callable[[], None]] = {}

    def add(self, channel: str, waiting: Waiting, place: int) -> None:
        """Let a run wait."""
        self.drop(waiting)
        if channel not in self._runs:
            self._runs[channel] = {}
            wake = partial(self.wake, channel)
            self._unsubscribe[channel] = self._wakeups.subscribe(channel, wake)
        self._runs[channel][waiting] = place
        self._channels[waiting] = channel

    def drop(self, waiting: Waiting) -> None:
        """Let a run wait no more."""
        channel = self._channels.pop(waiting, None)
        if channel is None:
            return
        del self._runs[channel][waiting]
        if not self._runs[channel]:
            del self._runs[channel]
            self._unsubscribe.pop(channel)()

    def forget(self, found: Collection[Waiting]) -> None:
        """Drop what is not among the runs that wait."""
        for waiting in [one for one in self._channels if one not in found]:
            self.drop(waiting)

    def patient(self) -> set[Waiting]:
        """All but the first of each conversation, which is asked for with each sweep."""
        first = {min(runs, key=lambda one: (runs[one], one)) for runs in self._runs.values()}
        return self._channels.keys() - first

    def clear(self) -> None:
        """Drop all."""
        for waiting in list(self._channels):
            self.drop(waiting)

    def wake(self, channel: str) -> None:
        """Let those of a channel go on."""
        runs = list(self._runs.get(channel, ()))
        for waiting in runs:
            self.drop(waiting)
        if runs:
            self._go_on(runs)


def _waiting(due: Due) -> Waiting:
    return Waiting(due.org, due.priority, due.id)
