"""One run in the hands of a worker: claim it, call the model, record what it says, end it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from enum import Enum, auto
from functools import partial

from services.execution import domain
from services.execution.domain import Event, Execution, ModelError, State
from services.execution.ports import Executions, FencedError, Prompt, Wakeups
from services.execution.usecases.catalogue import Catalogue
from services.execution.usecases.channels import events_channel, stop_channel
from services.execution.usecases.executions import whole_log
from services.kit.errors import DomainError, Reason

_LOG = logging.getLogger(__name__)
_TRIES = 20
_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 1.0
_MAX_PENDING = 1024 * 1024
"""Characters of unrecorded answer at which the model has to wait for the store."""


class End(Enum):
    """Why a run is taken from its worker before its end."""

    STOPPED = auto()
    """Somebody else ended it; there is nothing left to write."""
    FENCED = auto()
    """The worker may not write any more; another one goes on."""
    HAND_BACK = auto()
    """The worker stops; another one goes on at once."""
    FAULT = auto()
    """What it says cannot be recorded, for a reason that will not pass."""


class _ResultTooLargeError(Exception):
    """The model said more than is kept."""


@dataclass(frozen=True, slots=True)
class _Claim:
    """A run this worker may write, and the model call it is at."""

    execution: Execution
    step: int
    attempt: int


class Run:
    """One run in the hands of a worker.

    Args:
        worker: who writes.
        clock: microseconds since the epoch.
        flush_every: seconds between two pieces of the answer, at least.
        is_gone: whether another worker was found to be gone.
        may_write: whether this worker's own lease is.
    """

    def __init__(
        self,
        executions: Executions,
        catalogue: Catalogue,
        wakeups: Wakeups,
        org: str,
        execution_id: str,
        worker: str,
        *,
        clock: Callable[[], int],
        flush_every: float,
        is_gone: Callable[[str], bool],
        may_write: Callable[[], bool],
    ) -> None:
        self._executions = executions
        self._catalogue = catalogue
        self._wakeups = wakeups
        self._org = org
        self._id = execution_id
        self._worker = worker
        self._clock = clock
        self._flush_every = flush_every
        self._is_gone = is_gone
        self._may_write = may_write
        self._task: asyncio.Task[None] | None = None
        self._end: End | None = None
        self._execution: Execution | None = None
        self._head = 0

    def begin(self, ended: Callable[[], None]) -> None:
        """Work on the run in a task of its own; calls `ended` when it is over."""
        self._task = asyncio.create_task(self._work(), name=f"run {self._id}")
        self._task.add_done_callback(lambda _: ended())

    def end(self, why: End) -> None:
        """Take the run from its worker."""
        if self._end is None and self._task is not None:
            self._end = why
            self._task.cancel()

    @property
    def claimed(self) -> bool:
        """Whether it was begun or taken over, so that the store knows it as running."""
        return self._execution is not None

    async def ended(self) -> None:
        """Wait until nothing is written any more."""
        if self._task is not None:
            await asyncio.wait([self._task])

    async def _work(self) -> None:
        unsubscribe = self._wakeups.subscribe(
            stop_channel(self._org, self._id), lambda: self.end(End.STOPPED)
        )
        try:
            claim = await self._claim()
            if claim is not None:
                await self._answer(claim)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if self._end is End.HAND_BACK:
                await self._hand_back()
            elif self._end is End.FAULT or (task is not None and not task.cancelling()):
                # Cancelled by nobody: something of the provider's was, and nobody caught it.
                await self._fail_internally()
            elif self._end is None:
                raise
        except FencedError:
            _LOG.info("run %s was taken over or ended by somebody else", self._id)
        except DomainError as error:
            _LOG.warning("run %s waits for the store: %s", self._id, error)
        except Exception:  # noqa: BLE001 whatever a provider does, the run has to end
            _LOG.exception("run %s met a fault of the worker", self._id)
            await self._fail_internally()
        finally:
            unsubscribe()

    # Claiming

    async def _claim(self) -> _Claim | None:
        """Begin the run, or go on where its log ends; None when it is not ours to run."""
        for _ in range(_TRIES):
            execution = await self._executions.get(self._org, self._id)
            if execution is None or execution.finished:
                return None
            if execution.state is State.QUEUED:
                claimed, events = domain.claim(execution, self._worker, self._clock())
                with suppress(FencedError):
                    return await self._commit_claim(claimed, 1, events, step=1, attempt=1)
            log = await whole_log(self._executions, self._org, self._id)
            if not log:
                with suppress(FencedError):
                    await self._executions.append(execution, 0, [domain.opening(execution)])
                continue
            projected, progress = domain.repair(execution, log)
            if projected.finished:
                with suppress(FencedError):
                    await self._executions.save(projected)
                return None
            if projected.state is State.QUEUED:
                continue
            if self._is_another_s(projected):
                return None
            taken, events = domain.take_over(projected, progress, self._worker, self._clock())
            with suppress(FencedError):
                return await self._commit_claim(
                    taken, progress.head, events, max(progress.step, 1), progress.attempt + 1
                )
        raise FencedError

    def _is_another_s(self, execution: Execution) -> bool:
        """Tell whether another worker has the run, and is not gone."""
        return execution.owner not in ("", self._worker) and not self._is_gone(execution.owner)

    async def _commit_claim(
        self, claimed: Execution, after: int, events: Sequence[Event], step: int, attempt: int
    ) -> _Claim | None:
        if not self._may_write():
            raise FencedError
        self._execution = await self._executions.commit(claimed, after, events)
        await self._wakeups.publish(events_channel(self._org, self._id))
        if self._execution.finished:
            return None
        self._head = events[-1].sequence
        return _Claim(self._execution, step, attempt)

    # Answering

    async def _answer(self, claim: _Claim) -> None:
        """Call the model to its end, within the run's time, and store how it ended."""
        order = claim.execution.order
        began = claim.execution.start_time or self._clock()
        remaining = (began - self._clock()) / 1e6 + order.timeout_ms / 1000
        recorder = Recorder(
            lambda text: self._record(claim, text), self._flush_every, self._recording_failed
        )
        failure: DomainError | None = None
        limit = asyncio.timeout(remaining)
        try:
            async with limit:
                await self._call_model(claim, recorder)
        except TimeoutError:
            if not limit.expired():
                raise
            failure = domain.timed_out(order.timeout_ms)
        except ModelError as error:
            failure = DomainError(Reason.REASON_MODEL_FAILED, str(error))
        except _ResultTooLargeError:
            failure = domain.result_too_large()
        except DomainError as error:
            # The provider is not there any more, and will not be however often the run is resumed.
            failure = error
        finally:
            rest = await recorder.close()
        if self._end is not None:
            # The provider made something else of the cancellation.
            raise asyncio.CancelledError
        await self._finish(claim, recorder.answer, rest, failure)

    async def _call_model(self, claim: _Claim, recorder: Recorder) -> None:
        order = claim.execution.order
        provider = self._catalogue.provider(order.ai_provider)
        prompt = Prompt(order.input, claim.step, claim.attempt)
        size = 0
        async with aclosing(provider.stream(order.model, prompt)) as answer:
            async for token in answer:
                if not token or not isinstance(token, str):
                    continue
                size += len(token.encode())
                if size > domain.MAX_RESULT_BYTES:
                    raise _ResultTooLargeError
                if recorder.add(token) > _MAX_PENDING:
                    await recorder.flushed()

    async def _record(self, claim: _Claim, text: str) -> None:
        events = self._tokens(claim, text, self._clock())
        head = self._head
        await self._insist(events, partial(self._executions.append, claim.execution, head, events))
        self._head += len(events)
        await self._wakeups.publish(events_channel(self._org, self._id))

    async def _insist(
        self, events: Sequence[Event], write: Callable[[], Awaitable[object]]
    ) -> None:
        """Write while this worker may, however often the store is away meanwhile.

        What a model said is dear: it is not asked again for a store that comes back in time.
        """
        pause = _FIRST_PAUSE
        while True:
            if not self._may_write():
                raise FencedError
            try:
                await write()
            except DomainError as error:
                if error.retry_after is None:
                    raise
                _LOG.info("run %s waits for the store: %s", self._id, error)
            else:
                return
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
            with suppress(DomainError):
                last = await self._executions.last_event(self._org, self._id)
                if last == events[-1]:
                    # It was written; only the answer was lost.
                    return

    def _tokens(self, claim: _Claim, text: str, now: int) -> list[Event]:
        return domain.tokens(self._head, claim.step, claim.attempt, text, self._worker, now)

    def _recording_failed(self, error: Exception) -> None:
        """Stop the model: what it says cannot be recorded."""
        passing = isinstance(error, (FencedError, DomainError))
        level = logging.INFO if passing else logging.ERROR
        _LOG.log(level, "run %s stops, its answer cannot be recorded: %r", self._id, error)
        self.end(End.FENCED if passing else End.FAULT)

    async def _finish(
        self, claim: _Claim, answer: str, rest: str, failure: DomainError | None
    ) -> None:
        """Store what is left of the answer, the terminal event and the projection together."""
        now = self._clock()
        last = self._tokens(claim, rest, now) if rest else []
        end = self._head + len(last)
        if failure is None:
            finished, events = domain.succeed(
                claim.execution, end, claim.step, claim.attempt, answer, self._worker, now
            )
        else:
            finished, events = domain.fail(claim.execution, end, failure, self._worker, now)
        await self._commit_end(finished, self._head, [*last, *events])

    async def _commit_end(self, finished: Execution, head: int, events: Sequence[Event]) -> None:
        for _ in range(_TRIES):
            try:
                await self._insist(events, partial(self._executions.commit, finished, head, events))
            except FencedError:
                # Only the document may have moved, by somebody who repaired it.
                last = await self._executions.last_event(self._org, self._id)
                fresh = await self._executions.get(self._org, self._id)
                if last is None or fresh is None or last.sequence != head:
                    raise
                finished = replace(finished, version=fresh.version)
                continue
            await self._wakeups.publish(events_channel(self._org, self._id))
            return
        raise FencedError

    # Giving up

    async def _hand_back(self) -> None:
        if self._execution is None:
            return
        try:
            await self._executions.save(domain.release(self._execution))
        except (FencedError, DomainError) as error:
            _LOG.info("run %s was not handed back, its lease will run out: %r", self._id, error)

    async def _fail_internally(self) -> None:
        """End a run that no worker could see through."""
        error = DomainError(Reason.REASON_INTERNAL, "The worker met an unexpected fault.")
        try:
            execution = await self._executions.get(self._org, self._id)
            log = await whole_log(self._executions, self._org, self._id)
            if execution is None or not log:
                return
            projected, progress = domain.repair(execution, log)
            if projected.finished or self._is_another_s(projected):
                return
            failed, events = domain.fail(
                projected, progress.head, error, self._worker, self._clock()
            )
            await self._commit_end(failed, progress.head, events)
        except (FencedError, DomainError) as trouble:
            _LOG.warning("run %s could not be ended: %r", self._id, trouble)


class Recorder:
    """Gathers an answer and has it stored in pieces: the first at once, then one at a time.

    Args:
        store: stores a piece; called again only after it returned.
        every: seconds between two pieces, at least.
        failed: called once when a piece could not be stored; nothing is stored after that.
    """

    def __init__(
        self,
        store: Callable[[str], Awaitable[None]],
        every: float,
        failed: Callable[[Exception], None],
    ) -> None:
        self._store = store
        self._every = every
        self._failed = failed
        self._loop = asyncio.get_running_loop()
        self._said: list[str] = []
        self._pending: list[str] = []
        self._size = 0
        self._next = 0.0
        self._timer: asyncio.Handle | None = None
        self._storing: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def answer(self) -> str:
        """All that was added."""
        return "".join(self._said)

    def add(self, text: str) -> int:
        """Add a piece of the answer; returns how many characters are not stored yet."""
        self._said.append(text)
        self._pending.append(text)
        self._size += len(text)
        if self._timer is None and self._storing is None:
            # Not at once: a model that has its whole answer ready gets it into one write.
            self._timer = self._loop.call_at(self._next, self._begin)
        return self._size

    async def flushed(self) -> None:
        """Wait until what was added is stored, or cannot be."""
        if self._timer is not None:
            self._timer.cancel()
            self._begin()
        if self._storing is not None:
            await asyncio.wait([self._storing])

    async def close(self) -> str:
        """Stop storing and return what is not stored yet."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        if self._storing is not None:
            await asyncio.wait([self._storing])
        return "".join(self._pending)

    def _begin(self) -> None:
        self._timer = None
        text = "".join(self._pending)
        self._pending.clear()
        self._size = 0
        self._next = self._loop.time() + self._every
        self._storing = asyncio.create_task(self._store_piece(text), name="store a piece")

    async def _store_piece(self, text: str) -> None:
        try:
            await self._store(text)
        except Exception as error:  # noqa: BLE001 a lost piece must not go unnoticed
            self._failed(error)
            return
        self._storing = None
        if self._pending and not self._closed:
            self._timer = self._loop.call_at(self._next, self._begin)
