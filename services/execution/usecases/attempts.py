"""One attempt to get an answer of a model, within the limits of its run and the model's circuit."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from services.execution import domain
from services.execution.domain import (
    Admission,
    Choice,
    Meter,
    ModelError,
    Order,
    Persistence,
    Spend,
    Tally,
    Told,
)
from services.execution.ports import (
    Contexts,
    Executions,
    Metrics,
    Outcome,
    Prompt,
    Report,
    Traces,
    Wakeups,
    WorkQueue,
)
from services.execution.usecases.calls import Call, Patience
from services.execution.usecases.catalogue import Catalogue
from services.execution.usecases.circuits import Circuits
from services.execution.usecases.recorder import Recorder
from services.execution.usecases.talks import Talks
from services.kit.errors import DomainError, Reason, reason_name

_LENGTH = "length"
_MAX_PENDING = 1024 * 1024
"""Characters of unrecorded answer at which the model has to wait for the store."""


@dataclass(frozen=True, slots=True)
class Tools:
    """What every run of a worker works with."""

    executions: Executions
    contexts: Contexts
    catalogue: Catalogue
    circuits: Circuits
    queue: WorkQueue
    wakeups: Wakeups
    metrics: Metrics
    traces: Traces
    talks: Talks
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
    is_away: Callable[[str], bool]
    """Whether nobody answered just now who knows what the runs of a channel are told."""
    missed: Callable[[str], None]
    """Takes the channel of a run for which nobody answered."""
    reached: Callable[[str], None]
    """Takes the channel of a run for which somebody did."""


@dataclass(frozen=True, slots=True)
class Spoken:
    """What came of an attempt."""

    answer: str
    rest: str
    """The end of the answer, which is not stored yet."""
    spend: Spend
    tally: Tally
    """What this attempt and those before it count against the limits."""
    finish_reason: str
    failure: ModelError | DomainError | None


class Attempt:
    """One attempt.

    Args:
        told: what the model is told.
        before: what the attempts before it count against the limits.
        recorder: takes the answer as it comes; it is closed with the attempt.
    """

    def __init__(
        self,
        tools: Tools,
        order: Order,
        choice: Choice,
        told: Told,
        before: Tally,
        recorder: Recorder,
    ) -> None:
        self._tools = tools
        self._order = order
        self._choice = choice
        self._told = told
        self._recorder = recorder
        self._meter = Meter(order.max_output_tokens, order.max_cost, before, choice)
        self._admission = Admission.CALL
        self._finish_reason = ""
        self._listens = False
        """Whether the model was called at all."""
        self._whole = False
        """Whether its answer came to its end."""

    async def make(self, step: int, attempt: int, deadline: float) -> Spoken:
        """Call the model once.

        Args:
            deadline: of the run, in the loop's time.
        """
        failure: ModelError | DomainError | None = None
        limit = asyncio.timeout_at(deadline)
        try:
            async with limit:
                told, allowance = self._told, self._meter.allowance
                prompt = Prompt(
                    told.text,
                    step,
                    attempt,
                    allowance,
                    told.system,
                    told.history,
                    self._order.goes_on,
                )
                await self._call(prompt)
            self._whole = True
            self._meter.close(cut=self._finish_reason == _LENGTH)
        except TimeoutError:
            if not limit.expired():
                raise
            failure = domain.timed_out(self._order.timeout_ms)
        except (ModelError, DomainError) as error:
            failure = error
        finally:
            rest = await self._recorder.close()
        maybe = not isinstance(failure, ModelError) or failure.reason in domain.BILLED
        return Spoken(
            self._recorder.answer,
            rest,
            self._meter.spend(whole=self._whole, billed=self._listens and maybe),
            self._meter.tally(),
            self._finish_reason,
            failure,
        )

    async def _call(self, prompt: Prompt) -> None:
        """Call the model if its circuit lets calls through, and tell the circuit how it went."""
        choice, circuits, metrics = self._choice, self._tools.circuits, self._tools.metrics
        try:
            provider = self._tools.catalogue.provider(choice.ai_provider)
        except DomainError as error:
            # It was there when the run was accepted; a fallback may still be.
            raise ModelError(error.message, error.reason) from error
        admission = circuits.admit(choice.ai_provider, choice.model)
        if admission is None:
            metrics.refused(choice)
            raise self._refused(circuits.opens_in(choice.ai_provider, choice.model))
        self._admission = admission
        note, outcome, reason = circuits.left, Outcome.STOPPED, ""
        loop = asyncio.get_running_loop()
        began, began_at = loop.time(), self._tools.clock()
        try:
            self._listens = True
            answer = provider.stream(choice.model, prompt)
            patience, leave = self._tools.patience, self._tools.leave
            call = Call(answer, self._hear, patience, leave, self._begun, self._recorder.hold)
            await call.finish()
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
            note(choice.ai_provider, choice.model, self._admission)
            spend = self._meter.spend(whole=self._whole, billed=False)
            metrics.called(choice, outcome, reason, loop.time() - began, spend)
            self._tools.traces.called(
                choice, prompt.attempt, began_at, outcome, reason, spend, self._finish_reason
            )

    def _refused(self, seconds: float) -> ModelError:
        """Make the fault of a call that the circuit does not let through."""
        if seconds > 0:
            sentence = f"is not asked for {seconds:.0f} s, because its last calls failed"
        else:
            sentence = "is not asked while another call finds out whether it works again"
        return ModelError(
            f"{self._choice.model} {sentence}.",
            Reason.REASON_MODEL_CIRCUIT_OPEN,
            retry_after=seconds or None,
        )

    def _begun(self, seconds: float) -> None:
        """Note the first word of the model."""
        choice = self._choice
        self._tools.metrics.answering(choice, seconds)
        if self._admission is Admission.PROBE:
            # It works; nobody has to wait until it has said everything.
            self._tools.circuits.succeeded(choice.ai_provider, choice.model, Admission.PROBE)
            self._admission = Admission.CALL

    def _hear(self, piece: str | Report) -> Awaitable[None] | None:
        """Take a piece; what is returned has to be awaited before the next.

        Raises:
            DomainError: a limit of the run is reached.
        """
        if isinstance(piece, Report):
            self._finish_reason = piece.finish_reason or self._finish_reason
            if piece.usage is not None:
                self._meter.reported(piece.usage)
        elif piece:
            self._meter.said(piece)
            if self._meter.size > self._order.most_result_bytes:
                raise domain.result_too_large(self._order.most_result_bytes)
            if self._recorder.add(piece) > _MAX_PENDING:
                return self._recorder.flushed()
        else:
            self._meter.thought()
        return None
