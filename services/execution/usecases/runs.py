"""One run in the hands of a worker: claim it, call the model, record what it says, end it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import Enum, auto
from functools import partial

from services.execution import domain
from services.execution.domain import (
    Choice,
    Event,
    Execution,
    Following,
    Meter,
    ModelError,
    Persistence,
    Progress,
    Spend,
)
from services.execution.ports import (
    Executions,
    FencedError,
    Metrics,
    Outcome,
    Prompt,
    Report,
    SlotTakenError,
    Wakeups,
)
from services.execution.usecases.calls import Call, Patience
from services.execution.usecases.catalogue import Catalogue
from services.execution.usecases.channels import events_channel, stop_channel
from services.execution.usecases.circuits import Circuits
from services.execution.usecases.executions import whole_log
from services.execution.usecases.recorder import Recorder
from services.kit.errors import DomainError, Reason, reason_name

_LOG = logging.getLogger(__name__)
_TRIES = 20
_LENGTH = "length"
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


@dataclass(frozen=True, slots=True)
class Tools:
    """What every run of a worker works with."""

    executions: Executions
    catalogue: Catalogue
    circuits: Circuits
    wakeups: Wakeups
    metrics: Metrics
    clock: Callable[[], int]
    """Microseconds since the epoch."""
    flush_every: float
    """Seconds between two pieces of an answer, at least."""
    patience: Patience
    persistence: Persistence
    chance: Callable[[], float]
    """Random numbers from 0 to 1."""
    is_gone: Callable[[str], bool]
    """Whether another worker was found to be gone."""
    may_write: Callable[[], bool]
    """Whether this worker's own lease is fresh."""
    leave: Callable[[asyncio.Task[None]], None]
    """Takes the task of a provider that does not let go of its connection."""


@dataclass(slots=True)
class _Course:
    """The model call a run is at."""

    step: int = 1
    attempt: int = 1
    choice: int = 0
    failures: int = 0
    shown: bool = False
    announced: bool = True
    """Whether the log says already that this attempt begins."""
    not_before: int = 0


@dataclass(slots=True)
class _Spoken:
    """What came of one attempt."""

    answer: str
    rest: str
    """The end of the answer, which is not stored yet."""
    spend: Spend
    finish_reason: str
    failure: ModelError | DomainError | None


class _Ear:
    """Takes what a model says to where it belongs."""

    def __init__(self, meter: Meter, recorder: Recorder) -> None:
        self._meter = meter
        self._recorder = recorder
        self.finish_reason = ""
        self.listens = False
        """Whether the model was called at all."""

    @property
    def spend(self) -> Spend:
        """What the provider has reported so far."""
        return self._meter.spend(billed=False)

    def hear(self, piece: str | Report) -> Awaitable[None] | None:
        """Take a piece; what is returned has to be awaited before the next.

        Raises:
            DomainError: a limit of the run is reached.
        """
        if isinstance(piece, Report):
            self.finish_reason = piece.finish_reason or self.finish_reason
            if piece.usage is not None:
                self._meter.reported(piece.usage)
        elif piece:
            self._meter.said(piece)
            if self._meter.size > domain.MAX_RESULT_BYTES:
                raise domain.result_too_large()
            if self._recorder.add(piece) > _MAX_PENDING:
                return self._recorder.flushed()
        return None

    def heard_all(self) -> None:
        """Leave what is not stored yet to the write that ends the call, which is about to come."""
        self._recorder.hold()


class Run:
    """One run in the hands of a worker.

    Args:
        worker: who writes.
        slot: the slot it takes when it begins.
    """

    def __init__(self, tools: Tools, org: str, id_: str, worker: str, slot: int | None) -> None:
        self._tools = tools
        self._executions = tools.executions
        self._org = org
        self._id = id_
        self._worker = worker
        self._slot = slot
        self._task: asyncio.Task[None] | None = None
        self._end: End | None = None
        self._claimed: Execution | None = None
        self._head = 0
        self.slot_was_taken = False
        """Whether it could not begin because another run holds the slot."""

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
        return self._claimed is not None

    @property
    def _execution(self) -> Execution:
        assert self._claimed is not None
        return self._claimed

    async def ended(self) -> None:
        """Wait until nothing is written any more."""
        if self._task is not None:
            await asyncio.wait([self._task])

    async def _work(self) -> None:
        unsubscribe = self._tools.wakeups.subscribe(
            stop_channel(self._org, self._id), lambda: self.end(End.STOPPED)
        )
        try:
            course = await self._claim()
            if course is not None:
                await self._answer(course)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if self._end is End.HAND_BACK:
                await self._hand_back()
            elif self._end is End.FAULT or (task is not None and not task.cancelling()):
                # Cancelled by nobody: something of the provider's was, and nobody caught it.
                await self._fail_internally()
            elif self._end is None:
                raise
        except SlotTakenError:
            self.slot_was_taken = True
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

    async def _claim(self) -> _Course | None:
        """Begin the run, or go on where its log ends; None when it is not ours to run."""
        for _ in range(_TRIES):
            execution = await self._executions.get(self._org, self._id)
            if execution is None or execution.finished:
                return None
            if execution.waiting:
                # Most runs begin before anything else was said to them.
                with suppress(FencedError):
                    return await self._begin(execution, 1)
            log = await whole_log(self._executions, self._org, self._id)
            if not log:
                with suppress(FencedError):
                    opening = domain.opening(execution)
                    await self._executions.append(self._org, self._id, 0, [opening])
                continue
            projected, progress = domain.repair(execution, log)
            if projected.finished:
                with suppress(FencedError):
                    await self._executions.save(projected)
                return None
            if self._is_another_s(execution) or self._is_another_s(projected):
                return None
            with suppress(FencedError):
                if projected.waiting:
                    return await self._begin(projected, progress.head)
                return await self._take_over(projected, progress)
        raise FencedError

    def _is_another_s(self, execution: Execution) -> bool:
        """Tell whether another worker has the run, and is not gone."""
        return execution.owner not in ("", self._worker) and not self._tools.is_gone(
            execution.owner
        )

    async def _begin(self, execution: Execution, head: int) -> _Course | None:
        slot = execution.slot if self._slot is None else self._slot
        claimed, events = domain.claim(execution, head, self._worker, slot, self._tools.clock())
        self._may_write()
        return await self._claimed_as(
            await self._executions.claim(claimed, head, events), events, _Course()
        )

    async def _take_over(self, execution: Execution, progress: Progress) -> _Course | None:
        taken, events = domain.take_over(execution, progress, self._worker, self._tools.clock())
        course = _Course(
            max(progress.step, 1),
            progress.attempt + 1,
            progress.choice,
            progress.failures,
            progress.shown,
            announced=False,
            not_before=progress.not_before,
        )
        self._may_write()
        stored = await self._executions.commit(taken, progress.head, events)
        self._tools.metrics.taken_over()
        return await self._claimed_as(stored, events, course)

    async def _claimed_as(
        self, execution: Execution, events: Sequence[Event], course: _Course
    ) -> _Course | None:
        self._claimed, self._head = execution, events[-1].sequence
        if execution.finished:
            self._tools.metrics.ended(execution)
        await self._tools.wakeups.publish(events_channel(self._org, self._id))
        return None if execution.finished else course

    def _may_write(self) -> None:
        if not self._tools.may_write():
            raise FencedError

    # Answering

    async def _answer(self, course: _Course) -> None:
        """Call models until one answers or the run has to end, and store how it ended."""
        order, now = self._execution.order, self._tools.clock()
        began = self._execution.start_time or now
        loop = asyncio.get_running_loop()
        deadline = loop.time() + (began - now) / 1e6 + order.timeout_ms / 1000
        pause = (course.not_before - now) / 1e6
        while True:
            if pause > 0:
                await asyncio.sleep(min(pause, deadline - loop.time()))
            if not course.announced:
                await self._announce(course)
            spoken = await self._attempt(course, deadline)
            if not isinstance(spoken.failure, ModelError):
                await self._finish(course, spoken, spoken.failure)
                return
            following = self._following(course, spoken.failure, deadline - loop.time())
            await self._record_failure(course, spoken, spoken.failure, following)
            if following is None:
                return
            pause = following.pause

    async def _announce(self, course: _Course) -> None:
        """Store that an attempt begins."""
        begun, events = domain.call(
            self._execution,
            self._head,
            course.step,
            course.attempt,
            course.choice,
            self._worker,
            self._tools.clock(),
        )
        head = self._head
        await self._insist(
            events, partial(self._executions.append, self._org, self._id, head, events)
        )
        self._claimed, self._head = begun, events[-1].sequence
        await self._tools.wakeups.publish(events_channel(self._org, self._id))

    async def _attempt(self, course: _Course, deadline: float) -> _Spoken:
        """Call the model once."""
        execution = self._execution
        order = execution.order
        choice = order.choices[course.choice]
        meter = Meter(order.max_output_tokens, order.max_cost, execution.spend, choice)
        recorder = Recorder(
            lambda text: self._record(course, text),
            self._tools.flush_every,
            self._recording_failed,
        )
        ear = _Ear(meter, recorder)
        failure: ModelError | DomainError | None = None
        limit = asyncio.timeout_at(deadline)
        try:
            async with limit:
                prompt = Prompt(order.input, course.step, course.attempt, meter.allowance)
                await self._call_model(choice, prompt, ear)
            meter.close(cut=ear.finish_reason == _LENGTH)
        except TimeoutError:
            if not limit.expired():
                raise
            failure = domain.timed_out(order.timeout_ms)
        except (ModelError, DomainError) as error:
            failure = error
        finally:
            rest = await recorder.close()
        if self._end is not None:
            # The provider made something else of the cancellation.
            raise asyncio.CancelledError
        course.shown = course.shown or meter.size > 0
        answered = not isinstance(failure, ModelError) or failure.reason in domain.BILLED
        spend = meter.spend(billed=ear.listens and answered)
        return _Spoken(recorder.answer, rest, spend, ear.finish_reason, failure)

    async def _call_model(self, choice: Choice, prompt: Prompt, ear: _Ear) -> None:
        provider = self._tools.catalogue.provider(choice.ai_provider)
        circuits, metrics = self._tools.circuits, self._tools.metrics
        admission = circuits.admit(choice.ai_provider, choice.model)
        if admission is None:
            metrics.refused(choice)
            seconds = circuits.opens_in(choice.ai_provider, choice.model)
            raise ModelError(
                f"{choice.model} is not asked for {seconds:.0f} s, because its last calls failed.",
                Reason.REASON_MODEL_CIRCUIT_OPEN,
            )
        note, outcome, reason = circuits.left, Outcome.STOPPED, ""
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            ear.listens = True
            answer = provider.stream(choice.model, prompt)
            answering = partial(metrics.answering, choice)
            await Call(
                answer,
                ear.hear,
                self._tools.patience,
                self._tools.leave,
                answering,
                ear.heard_all,
            ).finish()
            note, outcome = circuits.succeeded, Outcome.SUCCEEDED
        except ModelError as fault:
            outcome, reason = Outcome.FAILED, reason_name(fault.reason)
            if fault.reason in domain.BREAKING:
                note = circuits.failed
            elif fault.reason not in domain.RETRIED:
                note = circuits.succeeded
            raise
        except DomainError as limit:
            # A limit of the run; the model spoke.
            note, reason = circuits.succeeded, reason_name(limit.reason)
            raise
        except Exception:
            outcome, reason = Outcome.FAILED, reason_name(Reason.REASON_INTERNAL)
            raise
        finally:
            note(choice.ai_provider, choice.model, admission)
            metrics.called(choice, outcome, reason, loop.time() - began, ear.spend)

    def _following(self, course: _Course, fault: ModelError, left: float) -> Following | None:
        """Decide what follows a failed attempt, with so many seconds left; None ends the run."""
        persistence = self._tools.persistence
        pause = persistence.pause(fault, course.failures + 1, self._tools.chance())
        if pause is not None and pause < left:
            return Following(pause)
        another = course.choice + 1 < len(self._execution.order.choices)
        if another and not course.shown and fault.reason not in domain.FINAL:
            return Following(0.0, falls_back=True)
        return None

    async def _record_failure(
        self, course: _Course, spoken: _Spoken, fault: ModelError, following: Following | None
    ) -> None:
        """Store that an attempt failed, with what it had said, and what follows."""
        now = self._tools.clock()
        last = self._tokens(course, spoken.rest, now) if spoken.rest else []
        failed, events = domain.call_failed(
            self._execution,
            self._head + len(last),
            course.step,
            course.attempt,
            fault,
            spoken.spend,
            following,
            self._worker,
            now,
        )
        await self._commit(failed, [*last, *events])
        if following is not None:
            course.failures = 0 if following.falls_back else course.failures + 1
            course.choice += following.falls_back
            course.attempt += 1
            course.announced = False

    async def _record(self, course: _Course, text: str) -> None:
        events = self._tokens(course, text, self._tools.clock())
        head = self._head
        await self._insist(
            events, partial(self._executions.append, self._org, self._id, head, events)
        )
        self._head += len(events)
        await self._tools.wakeups.publish(events_channel(self._org, self._id))

    async def _insist(
        self, events: Sequence[Event], write: Callable[[], Awaitable[object]]
    ) -> None:
        """Write while this worker may, however often the store is away meanwhile.

        What a model said is dear: it is not asked again for a store that comes back in time.
        """
        pause = _FIRST_PAUSE
        while True:
            self._may_write()
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

    def _tokens(self, course: _Course, text: str, now: int) -> list[Event]:
        return domain.tokens(self._head, course.step, course.attempt, text, self._worker, now)

    def _recording_failed(self, error: Exception) -> None:
        """Stop the model: what it says cannot be recorded."""
        passing = isinstance(error, (FencedError, DomainError))
        level = logging.INFO if passing else logging.ERROR
        _LOG.log(level, "run %s stops, its answer cannot be recorded: %r", self._id, error)
        self.end(End.FENCED if passing else End.FAULT)

    async def _finish(self, course: _Course, spoken: _Spoken, failure: DomainError | None) -> None:
        """Store what is left of the answer, the terminal event and the projection together."""
        now = self._tools.clock()
        last = self._tokens(course, spoken.rest, now) if spoken.rest else []
        end = self._head + len(last)
        if failure is None:
            finished, events = domain.succeed(
                self._execution,
                end,
                course.step,
                course.attempt,
                spoken.answer,
                spoken.spend,
                spoken.finish_reason,
                self._worker,
                now,
            )
        else:
            finished, events = domain.fail(
                self._execution, end, failure, self._worker, now, spoken.spend
            )
        await self._commit(finished, [*last, *events])

    async def _commit(self, changed: Execution, events: Sequence[Event]) -> None:
        """Append events and store the projection they lead to."""
        head = self._head
        for _ in range(_TRIES):
            write = partial(self._executions.commit, changed, head, events)
            try:
                await self._insist(events, write)
            except FencedError:
                # Only the document may have moved, by somebody who repaired it.
                last = await self._executions.last_event(self._org, self._id)
                fresh = await self._executions.get(self._org, self._id)
                if last is None or fresh is None or last.sequence != head:
                    raise
                changed = replace(changed, version=fresh.version)
                continue
            self._claimed = replace(changed, version=changed.version + 1)
            self._head = events[-1].sequence
            if changed.finished:
                self._tools.metrics.ended(changed)
            await self._tools.wakeups.publish(events_channel(self._org, self._id))
            return
        raise FencedError

    # Giving up

    async def _hand_back(self) -> None:
        if self._claimed is None:
            return
        try:
            await self._executions.save(domain.release(self._claimed))
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
            self._head = progress.head
            failed, events = domain.fail(
                projected, progress.head, error, self._worker, self._tools.clock()
            )
            await self._commit(failed, events)
        except (FencedError, DomainError) as trouble:
            _LOG.warning("run %s could not be ended: %r", self._id, trouble)
