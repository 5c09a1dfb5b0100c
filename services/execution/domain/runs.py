"""Executions: the states of a run, the events of its log, and the rules of each transition.

The log is the run. An `Execution` is a projection of it: `project` folds events into it, and every
transition here answers the events to append together with the projection they lead to. Times are
microseconds since the epoch and come in as arguments.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

import orjson

from services.execution.domain.events import (
    INLINE_RESULT_BYTES,
    MAX_ERROR_BYTES,
    MAX_RESULT_BYTES,
    TERMINAL_KINDS,
    Event,
    Kind,
    cut,
    make,
    numbered,
    pieces,
)
from services.kit.errors import (
    DomainError,
    Reason,
    Resource,
    Violation,
    reason_name,
    reason_value,
)

PREVIEW_CHARACTERS = 200

_RUNNING = "STATE_RUNNING"
_CANCELLED = reason_name(Reason.REASON_EXECUTION_CANCELLED)


class State(StrEnum):
    """The state of a run."""

    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    WAITING_APPROVAL = "WAITING_APPROVAL"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


TERMINAL_STATES = frozenset({State.SUCCEEDED, State.FAILED, State.CANCELLED})


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a run did not succeed."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Asked:
    """What a caller asks to run, as given. Empty means the default."""

    input: str
    agent_id: str = ""
    ai_provider: str = ""
    model: str = ""
    cwd: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    request_id: str = ""
    timeout_ms: int | None = None
    conversation_id: str = ""
    instance_id: str = ""

    def content(self) -> dict[str, Any]:
        """Gather what was given, for telling a repetition from another request."""
        return {name: value for name in self.__slots__ if (value := getattr(self, name))}


@dataclass(frozen=True, slots=True)
class Filter:
    """Which executions of an organisation to list."""

    state: State | None = None
    agent_id: str = ""
    conversation_id: str = ""
    instance_id: str = ""
    from_time: int | None = None
    before_time: int | None = None

    def content(self) -> list[Any]:
        """Name the filter, so that a page token can be bound to it."""
        return [getattr(self, name) for name in self.__slots__]


@dataclass(frozen=True, slots=True)
class PartHealth:
    """One part of the mesh and what is wrong with it; nothing when `trouble` is empty."""

    name: str
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class Order:
    """What a caller asks to run, checked and with its defaults filled in."""

    input: str
    agent_id: str
    ai_provider: str
    model: str
    timeout_ms: int
    cwd: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    request_id: str = ""
    conversation_id: str = ""
    instance_id: str = ""


@dataclass(frozen=True, slots=True)
class Execution:
    """One run of one agent, as far as its log has been projected."""

    org: str
    id: str
    order: Order
    digest: str
    """Of what the caller asked; the same request_id with another digest is refused."""
    create_time: int
    update_time: int
    state: State = State.QUEUED
    owner: str = ""
    """The worker that runs it; empty when nobody does."""
    result: str = ""
    failure: Failure | None = None
    start_time: int | None = None
    end_time: int | None = None
    version: int = 1
    """The version of the stored document."""

    @property
    def finished(self) -> bool:
        """Whether the state is terminal."""
        return self.state in TERMINAL_STATES


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a log has come."""

    head: int = 0
    """The sequence of its last event."""
    step: int = 0
    """The model call it is at; 0 before the first."""
    attempt: int = 0
    """The try of that call."""
    step_done: bool = False
    """Whether that call ended well."""
    answer: str = ""
    """The tokens of each step's last attempt."""


def accept(org: str, id_: str, order: Order, asked: Asked, now: int) -> tuple[Execution, Event]:
    """Begin a run: queued, with its first event.

    Args:
        asked: the request as the caller gave it, which its request_id stands for.
    """
    execution = Execution(org, id_, order, digest(asked), create_time=now, update_time=now)
    return execution, opening(execution)


def opening(execution: Execution) -> Event:
    """Make the first event of a run; the same one however often it is made."""
    order = execution.order
    payload = {
        "message": f"Agent {order.agent_id} accepted the job.",
        "agent_id": order.agent_id,
        "ai_provider": order.ai_provider,
        "model": order.model,
    }
    return make(1, execution.create_time, Kind.JOB_STARTED, payload, "")


def digest(asked: Asked) -> str:
    """Digest a request, so that a repetition can be told from another request."""
    content = orjson.dumps(asked.content(), option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(content).hexdigest()


def same_request(execution: Execution, asked: Asked) -> None:
    """Check that a repeated request_id came with the same request.

    Raises:
        DomainError: REQUEST_ID_REUSED.
    """
    if execution.digest != digest(asked):
        description = "was used before with another request; use a new id"
        raise DomainError(
            Reason.REASON_REQUEST_ID_REUSED,
            f"request_id: {description}",
            violations=[Violation("request_id", description)],
            resources=[Resource("execution", execution.id)],
        )


def claim(execution: Execution, worker: str, now: int) -> tuple[Execution, list[Event]]:
    """Let a worker begin a queued run whose log holds its first event alone."""
    events = numbered(1, now, worker, (Kind.STATUS_UPDATE, _running(execution)), _llm_start(1, 1))
    return project(execution, events), events


def take_over(
    execution: Execution, progress: Progress, worker: str, now: int
) -> tuple[Execution, list[Event]]:
    """Let a worker go on with a run that another began.

    The model call in flight is repeated as the next attempt; one that ended well is not, and then the
    run ends here with its answer.
    """
    resumed = (Kind.JOB_RESUMED, {"message": "The run goes on with another worker."})
    if progress.step_done:
        following = [_result(progress.answer)]
    else:
        following = [_llm_start(max(progress.step, 1), progress.attempt + 1)]
    opening = [] if execution.start_time else [(Kind.STATUS_UPDATE, _running(execution))]
    events = numbered(progress.head, now, worker, resumed, *opening, *following)
    return project(execution, events, progress.answer), events


def tokens(head: int, step: int, attempt: int, text: str, worker: str, now: int) -> list[Event]:
    """Record a piece of the answer, as one event unless it is too large for one."""
    payloads = [
        (Kind.LLM_NEW_TOKEN, {"step": step, "attempt": attempt, "chunk": chunk})
        for chunk in pieces(text)
    ]
    return numbered(head, now, worker, *payloads)


def succeed(
    execution: Execution, head: int, step: int, attempt: int, answer: str, worker: str, now: int
) -> tuple[Execution, list[Event]]:
    """End a run with its answer."""
    llm_end = (Kind.LLM_END, {"step": step, "attempt": attempt})
    events = numbered(head, now, worker, llm_end, _result(answer))
    return project(execution, events, answer), events


def fail(
    execution: Execution, head: int, error: DomainError, writer: str, now: int
) -> tuple[Execution, list[Event]]:
    """End a run with an error; that of a cancel makes it CANCELLED, any other FAILED."""
    message = cut(error.message, MAX_ERROR_BYTES)
    payload = {"error": message, "reason": reason_name(error.reason)}
    events = numbered(head, now, writer, (Kind.ERROR, payload))
    return project(execution, events), events


def release(execution: Execution) -> Execution:
    """Hand a run back so that any worker may take it over at once."""
    return replace(execution, owner="")


def project(execution: Execution, events: Iterable[Event], answer: str | None = None) -> Execution:
    """Fold events into the summary of the run.

    Args:
        answer: the whole answer, where a `result` event may have had to cut it.
    """
    changes: dict[str, Any] = {}
    for event in events:
        match event.kind:
            case Kind.STATUS_UPDATE if orjson.loads(event.payload).get("state") == _RUNNING:
                started = execution.start_time or changes.get("start_time") or event.time
                changes |= {"state": State.RUNNING, "owner": event.writer, "start_time": started}
            case Kind.JOB_RESUMED:
                changes["owner"] = event.writer
            case Kind.RESULT:
                shown = orjson.loads(event.payload)["result"]
                changes |= {"state": State.SUCCEEDED, "owner": "", "end_time": event.time}
                changes["result"] = shown if answer is None else answer
            case Kind.ERROR:
                payload = orjson.loads(event.payload)
                cancelled = payload["reason"] == _CANCELLED
                changes |= {"owner": "", "end_time": event.time}
                changes["state"] = State.CANCELLED if cancelled else State.FAILED
                changes["failure"] = Failure(payload["reason"], payload["error"])
            case _:
                continue
        changes["update_time"] = event.time
    return replace(execution, **changes)


def repair(execution: Execution, events: Sequence[Event]) -> tuple[Execution, Progress]:
    """Project a whole log, with the answer its tokens make.

    That a run was handed back is written in the summary alone, so a summary that is as new as the log
    keeps its owner.
    """
    progress = follow(events)
    projected = project(execution, events, progress.answer)
    if (projected.state, projected.update_time) == (execution.state, execution.update_time):
        projected = replace(projected, owner=execution.owner)
    return projected, progress


def is_behind(execution: Execution, last: Event) -> bool:
    """Tell whether a summary misses a change of state that its log, which ends so, has made."""
    if execution.state is State.QUEUED:
        return last.sequence > 1
    return last.kind in TERMINAL_KINDS and not execution.finished


def follow(events: Iterable[Event]) -> Progress:
    """Read from a whole log how far the run has come."""
    head = step = attempt = 0
    step_done = False
    answers: dict[int, list[str]] = {}
    for event in events:
        head = event.sequence
        match event.kind:
            case Kind.LLM_START:
                payload = orjson.loads(event.payload)
                step, attempt, step_done = payload["step"], payload["attempt"], False
                answers[step] = []
            case Kind.LLM_NEW_TOKEN:
                payload = orjson.loads(event.payload)
                answers.setdefault(payload["step"], []).append(payload["chunk"])
            case Kind.LLM_END:
                step_done = True
            case _:
                pass
    answer = "".join("".join(answers[number]) for number in sorted(answers))
    return Progress(head, step, attempt, step_done, answer)


def outcome(execution: Execution) -> DomainError | None:
    """Name the error a finished run ended with; None for a run that succeeded."""
    if execution.failure is None:
        return None
    return DomainError(
        reason_value(execution.failure.reason),
        f"Execution {execution.id} did not succeed: {execution.failure.message}",
        resources=[Resource("execution", execution.id)],
        metadata={"execution_id": execution.id},
    )


def unavailable_feature(field_name: str, why: str) -> DomainError:
    """Make the error for a field that cannot be honoured yet."""
    return DomainError(
        Reason.REASON_FEATURE_UNAVAILABLE,
        f"{field_name}: {why}",
        violations=[Violation(field_name, why)],
    )


def about(error: DomainError, execution_id: str) -> DomainError:
    """Name the run that an error met after its start is about, so that nobody starts it again."""
    if error.resources:
        return error
    return DomainError(
        error.reason,
        f"{error.message} Execution {execution_id} goes on; watch it rather than start another.",
        violations=error.violations,
        resources=[Resource("execution", execution_id)],
        retry_after=error.retry_after,
        metadata={**error.metadata, "execution_id": execution_id},
    )


def not_found(execution_id: str) -> DomainError:
    """Make the error for an id nothing in the organisation has."""
    return DomainError(
        Reason.REASON_EXECUTION_NOT_FOUND,
        f"No execution has the id {execution_id}.",
        resources=[Resource("execution", execution_id)],
    )


def cancelled() -> DomainError:
    """Make the error a cancelled run ends with."""
    return DomainError(Reason.REASON_EXECUTION_CANCELLED, "The run was cancelled.")


def timed_out(timeout_ms: int) -> DomainError:
    """Make the error of a run that took too long."""
    return DomainError(
        Reason.REASON_EXECUTION_TIMEOUT, f"The run took longer than {timeout_ms / 1000:g} s."
    )


def result_too_large() -> DomainError:
    """Make the error of a run whose answer is larger than what is kept."""
    return DomainError(
        Reason.REASON_RESULT_TOO_LARGE,
        f"The answer grew beyond {MAX_RESULT_BYTES} bytes.",
    )


def _running(execution: Execution) -> dict[str, Any]:
    order = execution.order
    return {
        "message": f"Agent {order.agent_id} runs on {order.model}.",
        "state": _RUNNING,
    }


def _llm_start(step: int, attempt: int) -> tuple[Kind, dict[str, Any]]:
    return Kind.LLM_START, {"step": step, "attempt": attempt}


def _result(answer: str) -> tuple[Kind, dict[str, Any]]:
    shown = cut(answer, INLINE_RESULT_BYTES)
    payload: dict[str, Any] = {"result": shown, "message": "The run succeeded."}
    if len(shown) < len(answer):
        payload["truncated"] = True
    return Kind.RESULT, payload
