"""One run in the hands of a worker: claim it, call the model, record what it says, end it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from functools import partial
from typing import TypeVar

from services.execution import domain
from services.execution.domain import (
    Context,
    Errand,
    Event,
    Execution,
    Following,
    ModelError,
    Progress,
    Tally,
    Turn,
)
from services.execution.ports import AwayError, FencedError, SlotTakenError
from services.execution.usecases.attempts import Attempt, Spoken, Tools
from services.execution.usecases.briefings import Briefing, most_room
from services.execution.usecases.channels import (
    context_channel,
    events_channel,
    resumed_item,
    stop_channel,
    turn_channel,
    work_item,
)
from services.execution.usecases.logs import whole_log
from services.execution.usecases.recorder import Recorder
from services.kit.errors import DomainError, Reason

_LOG = logging.getLogger(__name__)
_TRIES = 20
_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 1.0
_PLACE_SECONDS = 2.0
"""How long a run that is about to begin waits to hear whether it is its turn."""
_CONTEXT_SECONDS = 10.0
"""How long it waits to hear what it is told."""

T = TypeVar("T")


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
    SET_ASIDE = auto()
    """Its end waits for its conversation; the sweep tells it."""


@dataclass(slots=True)
class _Course:
    """The model call a run is at."""

    step: int = 1
    attempt: int = 1
    choice: int = 0
    failures: int = 0
    shown: bool = False
    announced: bool = False
    """Whether the log says already that this attempt begins."""
    not_before: int = 0
    tally: Tally = field(default_factory=Tally)
    """What the attempts before this one count against the limits of the run."""


class Run:
    """One run in the hands of a worker.

    Args:
        worker: who writes.
        turn: whose it is.
    """

    def __init__(self, tools: Tools, turn: Turn, worker: str) -> None:
        self._tools = tools
        self._executions = tools.executions
        self._turn = turn
        self._org = turn.waiting.org
        self._id = turn.waiting.id
        self._worker = worker
        self._task: asyncio.Task[None] | None = None
        self._looking: asyncio.Task[None] | None = None
        self._look_again = False
        self._stop_listening: Callable[[], None] | None = None
        self._end: End | None = None
        self._claimed: Execution | None = None
        self._context: Context | None = None
        """What it is to be told, once that was read."""
        self._fault: DomainError | None = None
        """Why that can never be read."""
        self._head = 0
        self.slot_was_taken = False
        """Whether it could not begin because another run holds the slot."""
        self.met_trouble = False
        """Whether it could not begin because the store is in trouble."""
        self.waits_for = ""
        """The channel that wakes it when it could not begin because others answer first."""
        self.may_go_on = False
        """Whether that was woken since."""
        self.place = 0
        """How many answer first."""
        self._said = ""
        """The answer, or what was heard of one that is cut off."""

    def begin(self, ended: Callable[[], None]) -> None:
        """Work on the run in a task of its own; calls `ended` when it is over."""
        self._task = asyncio.create_task(self._work(), name=f"run {self._id}")
        self._task.add_done_callback(lambda _: ended())

    def end(self, why: End) -> None:
        """Take the run from its worker."""
        if self._end is None and self._task is not None:
            self._end = why
            self._task.cancel()

    def look(self) -> None:
        """See whether somebody else ended it: something says so, and may be wrong."""
        self._look_again = True
        if self._claimed is not None and (self._looking is None or self._looking.done()):
            self._looking = asyncio.create_task(self._look(), name=f"look at {self._id}")

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
        unsubscribe = self._tools.wakeups.subscribe(stop_channel(self._org, self._id), self.look)
        try:
            await self._see_through()
        finally:
            unsubscribe()
            if self._stop_listening is not None:
                self._stop_listening()
            if self._looking is not None:
                self._looking.cancel()
                await asyncio.wait([self._looking])
            if self._claimed is not None:
                is_aside = self._claimed.errand is Errand.FILL
                why = self._end or (End.SET_ASIDE if is_aside else End.FENCED)
                self._tools.traces.left(self._claimed, why.name.lower())

    async def _see_through(self) -> None:
        try:
            await self._go_through()
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
            self.met_trouble = True
            _LOG.warning("run %s waits for the store: %s", self._id, error)
        except Exception:  # noqa: BLE001 whatever a provider does, the run has to end
            _LOG.exception("run %s met a fault of the worker", self._id)
            await self._fail_internally()

    async def _go_through(self) -> None:
        course = await self._claim()
        if course is not None:
            await self._answer(course)
        elif self._claimed is not None and self._claimed.ending is not None:
            await self._conclude()

    async def _look(self) -> None:
        while self._look_again:
            self._look_again = False
            try:
                last = await self._executions.last_event(self._org, self._id)
            except DomainError as error:
                _LOG.info("run %s cannot be looked at, a sweep will: %s", self._id, error)
                return
            if last is None or (last.kind in domain.TERMINAL_KINDS and last.writer != self._worker):
                self.end(End.STOPPED)

    # Claiming

    async def _claim(self) -> _Course | None:
        """Begin the run, or go on where its log ends; None when it is not ours to run."""
        for _ in range(_TRIES):
            execution = await self._executions.get(self._org, self._id)
            if execution is None or execution.finished or execution.held:
                return None
            if execution.waiting and not await self._may_begin(execution):
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
            if projected.finished or self._is_another_s(projected):
                await self._leave(execution, projected)
                return None
            if projected.owner != self._worker and self._is_another_s(execution):
                return None
            with suppress(FencedError):
                if projected.waiting:
                    return await self._begin(projected, progress.head)
                if not (self._turn.resumed or execution.waiting):
                    # It is not waiting any more, and has a slot of its own: the next sweep knows.
                    return None
                return await self._take_over(projected, progress)
        raise FencedError

    async def _leave(self, execution: Execution, projected: Execution) -> None:
        """Leave a run that ended, or whose log has gone to another worker.

        A summary that names this one would keep the other from going on.
        """
        if projected.finished or execution.owner == self._worker:
            with suppress(FencedError):
                await self._executions.save(projected)

    async def _may_begin(self, execution: Execution) -> bool:
        """Find out whether it is its turn in its conversation, and what it is to be told.

        While those who know do not answer it waits without a slot, and one asks for all.
        """
        talk, order = execution.talk, execution.order
        if not (order.has_context or (talk is not None and talk.place)):
            return True
        channel = context_channel(execution)
        if not self._tools.is_away(channel):
            try:
                may = await self._has_its_turn(execution) and await self._is_briefed(execution)
            except (AwayError, TimeoutError) as error:
                _LOG.info("run %s waits for what it is told: %r", self._id, error)
                self._tools.missed(channel)
            else:
                self._tools.reached(channel)
                return may
        # Those that were asked for longest ago come first.
        self.waits_for, self.place = channel, round(1000 * asyncio.get_running_loop().time())
        return False

    async def _is_briefed(self, execution: Execution) -> bool:
        """Read what it is to be told; True when that is known, or can never be.

        Raises:
            TimeoutError: nobody answers now.
        """
        if execution.order.has_context and self._context is None:
            try:
                async with asyncio.timeout(_CONTEXT_SECONDS):
                    self._context = await self._tools.contexts.read(execution, most_room(execution))
            except DomainError as error:
                if error.retry_after is not None:
                    raise TimeoutError(error.message) from error
                self._fault = error
        return True

    async def _has_its_turn(self, execution: Execution) -> bool:
        """Find out whether nobody answers before it; tell its place when somebody does.

        Raises:
            AwayError, TimeoutError: nobody can tell now.
        """
        talk, conversation_id = execution.talk, execution.order.conversation_id
        if talk is None or not conversation_id or not talk.place:
            return True
        if self._stop_listening is None:
            channel = turn_channel(self._org, conversation_id)
            self._stop_listening = self._tools.wakeups.subscribe(channel, self._go_on)
        async with asyncio.timeout(_PLACE_SECONDS):
            self.place = await self._tools.talks.place(execution)
        if self.place:
            self.waits_for = turn_channel(self._org, conversation_id)
            await self._tell_turn()
        return not self.place

    def _go_on(self) -> None:
        self.may_go_on = True

    async def _tell_turn(self) -> None:
        last = await self._executions.last_event(self._org, self._id)
        if last is None or last.kind not in domain.WAITING_KINDS:
            return
        if domain.told_turn(last) == self.place:
            return
        events = domain.turn_place(last.sequence, self.place, self._worker, self._tools.clock())
        with suppress(FencedError):
            await self._executions.append(self._org, self._id, last.sequence, events)
            await self._tools.wakeups.publish(events_channel(self._org, self._id))

    def _is_another_s(self, execution: Execution) -> bool:
        """Tell whether another worker has the run, and is not gone."""
        return execution.owner not in ("", self._worker) and not self._tools.is_gone(
            execution.owner
        )

    async def _begin(self, execution: Execution, head: int) -> _Course | None:
        slot = execution.slot if self._turn.slot is None else self._turn.slot
        claimed, events = domain.claim(execution, head, self._worker, slot, self._tools.clock())
        course = _Course(announced=not execution.order.has_context)
        self._may_write()
        return await self._claimed_as(
            await self._executions.claim(claimed, head, events), events, course, resumed=False
        )

    async def _take_over(self, execution: Execution, progress: Progress) -> _Course | None:
        taken, events = domain.take_over(execution, progress, self._worker, self._tools.clock())
        self._said = domain.said(taken, progress)
        if taken.finished and execution.talk is not None:
            taken, events = domain.put_off(execution, events)
        course = _Course(
            max(progress.step, 1),
            progress.attempt + 1,
            progress.choice,
            progress.failures,
            progress.shown,
            not_before=progress.not_before,
            tally=domain.tally(
                execution.spend, progress.said, execution.order.choices[progress.choice]
            ),
        )
        self._may_write()
        stored = await self._executions.commit(taken, progress.head, events)
        self._tools.metrics.taken_over()
        return await self._claimed_as(stored, events, course, resumed=True)

    async def _claimed_as(
        self, execution: Execution, events: Sequence[Event], course: _Course, *, resumed: bool
    ) -> _Course | None:
        self._claimed, self._head = execution, events[-1].sequence
        self._tools.traces.begun(execution, resumed=resumed)
        if execution.finished:
            self._tools.metrics.ended(execution)
        await self._tools.wakeups.publish(events_channel(self._org, self._id))
        return None if execution.finished or execution.ending is not None else course

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
        try:
            briefing = await self._brief(deadline)
        except DomainError as failure:
            await self._end_with(failure)
            return
        pause = (course.not_before - self._tools.clock()) / 1e6
        while True:
            if pause > 0:
                await asyncio.sleep(min(pause, deadline - loop.time()))
            if not course.announced:
                if loop.time() >= deadline:
                    await self._end_with(domain.timed_out(order.timeout_ms))
                    return
                await self._announce(course, briefing)
            spoken = await self._attempt(course, briefing, deadline)
            if not isinstance(spoken.failure, ModelError):
                await self._finish(course, spoken, spoken.failure)
                return
            following = self._following(course, spoken.failure, deadline - loop.time())
            await self._record_failure(course, spoken, spoken.failure, following)
            if following is None:
                return
            pause = following.pause

    async def _brief(self, deadline: float) -> Briefing:
        """Find out what the run is to be told; of one that was taken over however often that takes.

        Raises:
            DomainError: what the run has to end with.
        """
        if self._fault is not None:
            raise self._fault
        if self._context is not None or not self._execution.order.has_context:
            return Briefing(self._execution, self._context)
        loop = asyncio.get_running_loop()
        most, pause = most_room(self._execution), 0.0
        while loop.time() < deadline:
            limit = asyncio.timeout_at(deadline)
            try:
                async with limit:
                    context = await self._tools.contexts.read(self._execution, most)
                    return Briefing(self._execution, context)
            except TimeoutError:
                if not limit.expired():
                    raise
                break
            except DomainError as error:
                if error.retry_after is None:
                    raise
                trouble = error
            if not pause:
                await self._wait_for_context(trouble)
            pause = min(2 * pause, _LONGEST_PAUSE) or _FIRST_PAUSE
            await asyncio.sleep(min(pause, max(deadline - loop.time(), 0.0)))
        raise domain.timed_out(self._execution.order.timeout_ms)

    async def _wait_for_context(self, trouble: DomainError) -> None:
        """Store that the run has to wait for what it is to be told."""
        now = self._tools.clock()
        waits, events = domain.waits_for_context(
            self._execution, self._head, trouble, self._worker, now
        )
        await self._commit(waits, events)

    async def _announce(self, course: _Course, briefing: Briefing) -> None:
        """Store that an attempt begins, and what the model is told when that is news."""
        news = await briefing.news(course.choice)
        begun, events = domain.call(
            self._execution,
            self._head,
            course.step,
            course.attempt,
            course.choice,
            self._worker,
            self._tools.clock(),
            news,
        )
        await self._commit(begun, events)

    async def _end_with(self, failure: DomainError) -> None:
        """End the run between two attempts."""
        now = self._tools.clock()
        ended, events = domain.fail(self._execution, self._head, failure, self._worker, now)
        await self._commit_end(self._execution, ended, events)

    async def _attempt(self, course: _Course, briefing: Briefing, deadline: float) -> Spoken:
        """Call the model once."""
        order, told = self._execution.order, await briefing.told(course.choice)
        recorder = Recorder(
            lambda text: self._record(course, text),
            self._tools.flush_every,
            self._recording_failed,
        )
        choice = order.choices[course.choice]
        attempt = Attempt(self._tools, order, choice, told, course.tally, recorder)
        spoken = await attempt.make(course.step, course.attempt, deadline)
        if self._end is not None:
            # The provider made something else of the cancellation.
            raise asyncio.CancelledError
        self._said = spoken.answer or self._said
        course.shown = course.shown or bool(spoken.answer)
        course.tally = spoken.tally
        return spoken

    def _following(self, course: _Course, fault: ModelError, left: float) -> Following | None:
        """Decide what follows a failed attempt, with so many seconds left; None ends the run."""
        another = course.choice + 1 < len(self._execution.order.choices)
        another = another and not course.shown and fault.reason not in domain.FINAL
        if another and fault.reason == Reason.REASON_MODEL_CIRCUIT_OPEN:
            return Following(0.0, falls_back=True)
        persistence = self._tools.persistence
        pause = persistence.pause(fault, course.failures + 1, self._tools.chance())
        if pause is not None and pause < left:
            return Following(pause)
        return Following(0.0, falls_back=True) if another else None

    async def _record_failure(
        self, course: _Course, spoken: Spoken, fault: ModelError, following: Following | None
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
        if following is None:
            await self._commit_end(self._execution, failed, [*last, *events])
        else:
            await self._commit(failed, [*last, *events])
            course.failures = 0 if following.falls_back else course.failures + 1
            course.choice += following.falls_back
            course.attempt += 1
            course.announced = False

    async def _record(self, course: _Course, text: str) -> None:
        events = self._tokens(course, text, self._tools.clock())
        await self._insist(partial(self._append, events))
        self._head += len(events)
        await self._tools.wakeups.publish(events_channel(self._org, self._id))

    async def _append(self, events: Sequence[Event]) -> None:
        try:
            await self._executions.append(self._org, self._id, self._head, events)
        except FencedError:
            # An earlier try may have done it, and only its answer was lost.
            if await self._executions.last_event(self._org, self._id) != events[-1]:
                raise

    async def _insist(self, write: Callable[[], Awaitable[T]]) -> T:
        """Write while this worker may, however often the store is away meanwhile.

        What a model said is dear: it is not asked again for a store that comes back in time.
        """
        pause = _FIRST_PAUSE
        while True:
            self._may_write()
            try:
                return await write()
            except DomainError as error:
                if error.retry_after is None:
                    raise
                _LOG.info("run %s waits for the store: %s", self._id, error)
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _tokens(self, course: _Course, text: str, now: int) -> list[Event]:
        return domain.tokens(self._head, course.step, course.attempt, text, self._worker, now)

    def _recording_failed(self, error: Exception) -> None:
        """Stop the model: what it says cannot be recorded."""
        passing = isinstance(error, (FencedError, DomainError))
        level = logging.INFO if passing else logging.ERROR
        _LOG.log(level, "run %s stops, its answer cannot be recorded: %r", self._id, error)
        self.end(End.FENCED if passing else End.FAULT)

    async def _finish(self, course: _Course, spoken: Spoken, failure: DomainError | None) -> None:
        """Store what is left of the answer, the terminal event and the projection together."""
        now = self._tools.clock()
        last = self._tokens(course, spoken.rest, now) if spoken.rest else []
        end = self._head + len(last)
        if failure is None:
            self._said = spoken.answer
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
        await self._commit_end(self._execution, finished, [*last, *events])

    async def _commit_end(
        self, before: Execution, finished: Execution, events: Sequence[Event]
    ) -> None:
        """Store how a run ends; of one in a conversation once that knows it, too.

        Args:
            events: what the log gets from `before` to the end.
        """
        if before.talk is None:
            await self._commit(finished, events)
            return
        await self._commit(*domain.put_off(before, events))
        await self._conclude()

    async def _conclude(self) -> None:
        """Write the answer into the conversation and tell the end, or set the run aside for both.

        The end is decided, so whoever goes on after a crash writes the same.
        """
        self._may_write()
        try:
            await self._tools.talks.tell(domain.filling(self._execution, self._said))
        except AwayError as away:
            # Others need its slot, and conversations may be away for long.
            _LOG.info("the answer of run %s waits: %s", self._id, away)
            now = self._tools.clock()
            await self._commit(*domain.set_aside(self._execution, self._head, self._worker, now))
            return
        now = self._tools.clock()
        ended, events = domain.conclude(self._execution, self._head, self._said, self._worker, now)
        await self._commit(ended, events)

    async def _commit(self, changed: Execution, events: Sequence[Event]) -> None:
        """Append events and store the projection they lead to."""
        self._claimed = await self._insist(partial(self._store, changed, events))
        self._head = events[-1].sequence
        if changed.finished:
            self._tools.metrics.ended(changed)
        await self._tools.wakeups.publish(events_channel(self._org, self._id))

    async def _store(self, changed: Execution, events: Sequence[Event]) -> Execution:
        """Append and project, or do what is left of it.

        A store without transactions may have done the first without the second, the answer of an
        earlier try may have been lost, and somebody may have repaired the document meanwhile.
        """
        for _ in range(_TRIES):
            with suppress(FencedError):
                return await self._executions.commit(changed, self._head, events)
            last = await self._executions.last_event(self._org, self._id)
            fresh = await self._executions.get(self._org, self._id)
            if last is None or fresh is None:
                break
            changed = replace(changed, version=fresh.version)
            if last == events[-1]:
                with suppress(FencedError):
                    return await self._executions.save(changed)
            elif last.sequence != self._head:
                break
        raise FencedError

    # Giving up

    async def _hand_back(self) -> None:
        """Let go of the run, and tell whoever has room that it may go on."""
        waiting, slot = self._turn.waiting, self._turn.slot
        item = resumed_item(waiting, slot) if self._turn.resumed else work_item(waiting)
        if self._claimed is not None:
            item = resumed_item(waiting, self._claimed.slot)
            try:
                await self._executions.save(domain.release(self._claimed))
            except (FencedError, DomainError) as error:
                _LOG.info("run %s was not handed back, its lease will run out: %r", self._id, error)
                return
        await self._tools.queue.put(item)

    async def _fail_internally(self) -> None:
        """End a run that no worker could see through."""
        error = DomainError(Reason.REASON_INTERNAL, "The worker met an unexpected fault.")
        try:
            execution = await self._executions.get(self._org, self._id)
            log = await whole_log(self._executions, self._org, self._id)
            if execution is None or not log:
                return
            projected, progress = domain.repair(execution, log)
            if projected.finished or progress.ending or self._is_another_s(projected):
                return
            self._head, self._said = progress.head, progress.heard
            now, lost = self._tools.clock(), domain.LOST if progress.calling else domain.NOTHING
            failed, events = domain.fail(projected, progress.head, error, self._worker, now, lost)
            await self._commit_end(projected, failed, events)
        except (FencedError, DomainError) as trouble:
            _LOG.warning("run %s could not be ended: %r", self._id, trouble)
