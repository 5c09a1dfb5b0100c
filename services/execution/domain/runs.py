"""Executions: the states of a run, the events of its log, and the rules of each transition.

The log is the run. An `Execution` is a projection of it: `project` folds events into it, and every
transition here answers the events to append together with the projection they lead to. Times are
microseconds since the epoch and come in as arguments.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

import orjson

from services.execution.domain.events import (
    INLINE_RESULT_BYTES,
    MAX_ERROR_BYTES,
    TERMINAL_KINDS,
    WAITING_KINDS,
    Event,
    Kind,
    cut,
    make,
    numbered,
    pieces,
)
from services.execution.domain.faults import Following, ModelError
from services.execution.domain.limits import BYTES_PER_TOKEN
from services.execution.domain.models import Choice, Wish
from services.execution.domain.orders import Asked, Order, digest
from services.execution.domain.prompts import Told
from services.execution.domain.spend import LOST, NOTHING, Spend
from services.execution.domain.talks import Appended, Errand, Filling, Talk
from services.kit.errors import (
    DomainError,
    Reason,
    Resource,
    reason_name,
    reason_value,
)
from services.kit.resources import request_ids

PREVIEW_CHARACTERS = 200

_RUNNING = "STATE_RUNNING"
_ENDING = "The answer goes to its conversation."
_SAID_ELSEWHERE = frozenset({"result", "message", "truncated"})
_CANCELLED = reason_name(Reason.REASON_EXECUTION_CANCELLED)
_REFUSED = reason_name(Reason.REASON_MODEL_CONTENT_REFUSED)


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
class Ending:
    """How a run ends whose end is not told yet."""

    time: int
    failure: Failure | None = None


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
    slot: int | None = None
    """Which of the organisation's slots it holds while it goes on."""
    spend: Spend = field(default_factory=Spend)
    served_by: Wish | None = None
    """The model of the newest call."""
    finish_reason: str = ""
    """Why the newest call that ended well ended."""
    traceparent: str = ""
    """The span of the call that started it; empty when nothing was traced then."""
    talk: Talk | None = None
    """Its part in a conversation or as an instance; None for a run of neither."""
    errand: Errand = Errand.NONE
    """What is left to be done at its conversation."""
    ending: Ending | None = None
    """How it ends, from when that is decided until it is told."""
    version: int = 1
    """The version of the stored document."""
    position: int | None = field(default=None, compare=False)
    """The place among what waits, where somebody looked it up; never stored."""

    @property
    def waiting(self) -> bool:
        """Whether no worker has picked it up yet."""
        return self.state is State.QUEUED

    @property
    def finished(self) -> bool:
        """Whether the state is terminal."""
        return self.state in TERMINAL_STATES

    @property
    def held(self) -> bool:
        """Whether it may not begin, because its message is not known to be in its conversation."""
        return self.errand is Errand.APPEND


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a log has come."""

    head: int = 0
    """The sequence of its last event."""
    step: int = 0
    """The model call it is at; 0 before the first."""
    attempt: int = 0
    """The try of that call."""
    calling: bool = False
    """Whether that try has begun and not ended."""
    step_done: bool = False
    """Whether that call ended well."""
    shown: bool = False
    """Whether any try of it has said something."""
    choice: int = 0
    """Which of the order's choices is called."""
    failures: int = 0
    """How often that choice has failed since its turn came."""
    not_before: int = 0
    """When the next try may begin."""
    said: int = 0
    """Bytes of the tries whose tokens nobody reported."""
    answer: str = ""
    """The tokens of each step's last attempt."""
    heard: str = ""
    """The same of each step's last attempt that had any: what there is of a run that is cut off."""
    ending: bool = False
    """Whether it has come to its end, which is not told yet."""


def accept(
    org: str,
    id_: str,
    order: Order,
    asked: Asked,
    now: int,
    traceparent: str = "",
    talk: Talk | None = None,
) -> tuple[Execution, Event]:
    """Begin a run: queued, with its first event; one in a conversation is held at first.

    Args:
        asked: the request as the caller gave it, which its request_id stands for.
        traceparent: the span it begins in.
    """
    execution = Execution(
        org,
        id_,
        order,
        digest(asked),
        create_time=now,
        update_time=now,
        traceparent=traceparent,
        talk=talk,
        errand=Errand.APPEND if order.conversation_id else Errand.NONE,
    )
    return execution, opening(execution)


def admit(execution: Execution, appended: Appended) -> Execution:
    """Let a held run wait for its turn like any other: its message is in its conversation."""
    talk = replace(
        execution.talk or Talk(),
        message_id=appended.message_id,
        answer_id=appended.answer_id,
        place=appended.place,
    )
    return replace(execution, talk=talk, errand=Errand.NONE)


def take_back(execution: Execution) -> Execution:
    """Undo a held run whose message may have been added. Its request_id may be used again."""
    order = replace(execution.order, request_id="")
    return replace(execution, state=State.CANCELLED, errand=Errand.WITHDRAW, order=order)


def filled(execution: Execution) -> Execution:
    """Note that the conversation of a run that ended has its answer."""
    return replace(execution, errand=Errand.NONE)


def filling(execution: Execution, said: str) -> Filling:
    """Say how a run ended, or is about to.

    Args:
        said: its answer; when it was cut off, what was heard of it. What a provider refused to go on with is
            not kept: whoever is told it would be refused, too.
    """
    order, talk, ending = execution.order, execution.talk or Talk(), execution.ending
    failure = execution.failure if ending is None else ending.failure
    end = (execution.end_time if ending is None else ending.time) or 0
    fault = {"error_reason": failure.reason, "error_message": failure.message} if failure else {}
    status = "completed"
    if failure is not None:
        status = "cancelled" if failure.reason == _CANCELLED else "failed"
    is_refused = failure is not None and failure.reason == _REFUSED
    return Filling(
        execution.org,
        execution.id,
        order.conversation_id,
        order.agent_id,
        order.instance_id,
        order.agent.name if order.agent is not None else "",
        talk.emoji,
        order.input,
        status,
        content="" if is_refused else said,
        duration=max(0, end - (execution.start_time or end)),
        **fault,
    )


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


def same_request(execution: Execution, asked: Asked) -> None:
    """Check that a repeated request_id came with the same request.

    Raises:
        DomainError: REQUEST_ID_REUSED.
    """
    what = Resource("execution", execution.id)
    request_ids.same_request(digest(asked), execution.digest, what)


def claim(
    execution: Execution, head: int, worker: str, slot: int | None, now: int
) -> tuple[Execution, list[Event]]:
    """Let a worker begin a queued run: it holds a slot now, and its first model call begins.

    That of a run with a context begins once that is read.
    """
    order = execution.order
    begun: list[tuple[Kind, Mapping[str, Any]]] = [(Kind.STATUS_UPDATE, _running(execution))]
    if not order.has_context:
        begun.append(_llm_start(1, 1, order.choices[0]))
    events = numbered(head, now, worker, *begun)
    return project(replace(execution, slot=slot), events), events


def place(head: int, position: int, worker: str, now: int) -> list[Event]:
    """Tell a run that waits its place."""
    message = f"The run waits; it is number {position} of its organisation's queue."
    return numbered(
        head, now, worker, (Kind.JOB_QUEUED, {"message": message, "position": position})
    )


def told_place(last: Event) -> int | None:
    """Read the place a waiting run was told last."""
    if last.kind != Kind.JOB_QUEUED:
        return None
    position: int = orjson.loads(last.payload)["position"]
    return position


def turn_place(head: int, place_: int, worker: str, now: int) -> list[Event]:
    """Tell a run that waits how many answer before it in its conversation."""
    others = "another run answers" if place_ == 1 else f"{place_} other runs answer"
    payload = {"message": f"The run waits; {others} first in its conversation.", "place": place_}
    return numbered(head, now, worker, (Kind.TURN_QUEUED, payload))


def told_turn(last: Event) -> int | None:
    """Read the place in its conversation that a waiting run was told last."""
    if last.kind != Kind.TURN_QUEUED:
        return None
    told: int = orjson.loads(last.payload)["place"]
    return told


def take_over(
    execution: Execution, progress: Progress, worker: str, now: int
) -> tuple[Execution, list[Event]]:
    """Let a worker go on with a run that another began.

    A model call that ended well is not repeated, and then the run ends here with its answer.
    """
    payload: dict[str, Any] = {"message": "The run goes on with another worker."}
    lost = Spend()
    if progress.calling:
        payload["call_lost"] = True
        lost = LOST
    following: list[tuple[Kind, Mapping[str, Any]]] = [(Kind.JOB_RESUMED, payload)]
    if not (execution.start_time or progress.ending):
        following.append((Kind.STATUS_UPDATE, _running(execution)))
    if progress.step_done and not progress.ending:
        total = execution.spend.plus(lost)
        following.append(_result(progress.answer, total, execution.finish_reason))
    events = numbered(progress.head, now, worker, *following)
    return project(execution, events, progress.answer), events


def call(
    execution: Execution,
    head: int,
    step: int,
    attempt: int,
    choice: int,
    worker: str,
    now: int,
    told: Told | None = None,
) -> tuple[Execution, list[Event]]:
    """Begin another try of a model call.

    Args:
        told: what the model is told, when that is news.
    """
    start = _llm_start(step, attempt, execution.order.choices[choice])
    read = [] if told is None else [_context_read(told)]
    events = numbered(head, now, worker, *read, start)
    return project(execution, events), events


def waits_for_context(
    execution: Execution, head: int, trouble: DomainError, worker: str, now: int
) -> tuple[Execution, list[Event]]:
    """Say that a run cannot go on before it is known what it is to be told."""
    message = f"The run waits for what it is to be told: {trouble.message}"
    update = (Kind.STATUS_UPDATE, {"message": cut(message, MAX_ERROR_BYTES)})
    events = numbered(head, now, worker, update)
    return project(execution, events), events


def call_failed(
    execution: Execution,
    head: int,
    step: int,
    attempt: int,
    fault: ModelError,
    spend: Spend,
    following: Following | None,
    worker: str,
    now: int,
) -> tuple[Execution, list[Event]]:
    """Record that a try failed, and what follows; without anything to follow the run ends."""
    payload: dict[str, Any] = {
        "message": fault.message,
        "step": step,
        "attempt": attempt,
        "reason": reason_name(fault.reason),
    }
    if following is not None:
        payload["message"] += following.sentence
        payload["retry_delay"] = f"{following.pause:.3f}s"
        if following.falls_back:
            payload["falls_back"] = True
    if used := spend.content():
        payload["usage"] = used
    events = numbered(head, now, worker, (Kind.LLM_FAILED, payload))
    failed = project(execution, events)
    if following is not None:
        return failed, events
    ended, last = fail(failed, head + 1, DomainError(fault.reason, fault.message), worker, now)
    return ended, [*events, *last]


def tokens(head: int, step: int, attempt: int, text: str, worker: str, now: int) -> list[Event]:
    """Record a piece of the answer, as one event unless it is too large for one."""
    payloads = [
        (Kind.LLM_NEW_TOKEN, {"step": step, "attempt": attempt, "chunk": chunk})
        for chunk in pieces(text)
    ]
    return numbered(head, now, worker, *payloads)


def succeed(
    execution: Execution,
    head: int,
    step: int,
    attempt: int,
    answer: str,
    spend: Spend,
    finish_reason: str,
    worker: str,
    now: int,
) -> tuple[Execution, list[Event]]:
    """End a run with its answer.

    Args:
        spend: of the model call that ended.
        finish_reason: why it did.
    """
    payload: dict[str, Any] = {"step": step, "attempt": attempt}
    if finish_reason:
        payload["finish_reason"] = finish_reason
    if used := spend.content():
        payload["usage"] = used
    total = execution.spend.plus(spend)
    result = _result(answer, total, finish_reason)
    events = numbered(head, now, worker, (Kind.LLM_END, payload), result)
    return project(execution, events, answer), events


def fail(
    execution: Execution,
    head: int,
    error: DomainError,
    writer: str,
    now: int,
    spend: Spend = NOTHING,
) -> tuple[Execution, list[Event]]:
    """End a run with an error; that of a cancel makes it CANCELLED, any other FAILED.

    Args:
        spend: of the model call that was under way.
    """
    message = cut(error.message, MAX_ERROR_BYTES)
    payload: dict[str, Any] = {"error": message, "reason": reason_name(error.reason)}
    if used := execution.spend.plus(spend).content():
        payload["usage"] = used
    events = numbered(head, now, writer, (Kind.ERROR, payload))
    return project(execution, events), events


def put_off(execution: Execution, events: Sequence[Event]) -> tuple[Execution, list[Event]]:
    """Decide the end of a run that events lead to, and leave telling it to `conclude`.

    Its answer goes to its conversation in between, so nothing else may become of the run by then.

    Args:
        events: the last is terminal.
    """
    *before, last = events
    outcome = orjson.loads(last.payload)
    if last.kind == Kind.RESULT:
        outcome = {name: one for name, one in outcome.items() if name not in _SAID_ELSEWHERE}
    payload = {"message": _ENDING, last.kind: outcome}
    decided = make(last.sequence, last.time, Kind.RUN_ENDING, payload, last.writer)
    put = [*before, decided]
    return project(execution, put), put


def set_aside(
    execution: Execution, head: int, worker: str, now: int
) -> tuple[Execution, list[Event]]:
    """Let a run whose end is decided wait for its conversation: without a worker, or a slot."""
    payload = {"message": "The answer waits for conversations."}
    events = numbered(head, now, worker, (Kind.STATUS_UPDATE, payload))
    waits = project(execution, events)
    return replace(waits, owner="", slot=None, errand=Errand.FILL), events


def conclude(
    execution: Execution, head: int, answer: str, worker: str, now: int
) -> tuple[Execution, list[Event]]:
    """Tell the end of a run as it was decided."""
    assert execution.ending is not None
    failure = execution.ending.failure
    if failure is not None:
        error = DomainError(reason_value(failure.reason), failure.message)
        return fail(execution, head, error, worker, now)
    result = _result(answer, execution.spend, execution.finish_reason)
    events = numbered(head, now, worker, result)
    return project(execution, events, answer), events


def cancel(
    execution: Execution, last: Event, caller: str, now: int
) -> tuple[Execution, list[Event]]:
    """End a run because a caller wants it to.

    Args:
        last: the last event of its log.
    """
    calling = last.kind in {Kind.LLM_START, Kind.LLM_NEW_TOKEN}
    error = DomainError(Reason.REASON_EXECUTION_CANCELLED, "The run was cancelled.")
    spend = LOST if calling else NOTHING
    return fail(execution, last.sequence, error, caller, now, spend)


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
        kind = event.kind
        if kind == Kind.LLM_NEW_TOKEN or kind in WAITING_KINDS:
            continue
        payload = orjson.loads(event.payload)
        if kind in TERMINAL_KINDS and execution.talk is not None:
            # Whose end was decided before is told of it by now.
            is_told = changes.get("ending", execution.ending) is not None
            changes["errand"] = Errand.NONE if is_told else Errand.FILL
        spend = changes.get("spend", execution.spend)
        started = changes.get("start_time", execution.start_time)
        if change := _spending(spend, kind, payload) | _moving(started, kind, event, payload):
            changes |= change
            changes["update_time"] = event.time
    if answer is not None and changes.get("state", execution.state) is State.SUCCEEDED:
        changes["result"] = answer
    return replace(execution, **changes) if changes else execution


def _moving(
    started: int | None, kind: str, event: Event, payload: Mapping[str, Any]
) -> dict[str, Any]:
    """Say what an event changes of the state of a run that had started by then, or not."""
    match kind:
        case Kind.STATUS_UPDATE if payload.get("state") == _RUNNING:
            start_time = started or event.time
            return {"state": State.RUNNING, "owner": event.writer, "start_time": start_time}
        case Kind.JOB_RESUMED | Kind.STATUS_UPDATE | Kind.CONTEXT_READ:
            return {"owner": event.writer}
        case Kind.RUN_ENDING:
            error = payload.get("error")
            failure = None if error is None else Failure(error["reason"], error["error"])
            ending = Ending(event.time, failure)
            return {"state": State.RUNNING, "owner": event.writer, "ending": ending}
        case Kind.RESULT:
            return {**_ending(event), "state": State.SUCCEEDED, "result": payload["result"]}
        case Kind.ERROR:
            cancelled = payload["reason"] == _CANCELLED
            failure = Failure(payload["reason"], payload["error"])
            state = State.CANCELLED if cancelled else State.FAILED
            return {**_ending(event), "state": state, "failure": failure}
        case _:
            return {}


def _ending(event: Event) -> dict[str, Any]:
    return {"owner": "", "slot": None, "ending": None, "end_time": event.time}


def _spending(before: Spend, kind: str, payload: Mapping[str, Any]) -> dict[str, Any]:
    """Say what an event changes of a run's model calls, which had used so much before."""
    match kind:
        case Kind.LLM_START if "model" in payload:
            return {"served_by": Wish(payload["ai_provider"], payload["model"])}
        case Kind.LLM_END:
            finish_reason = payload.get("finish_reason", "")
            return {"spend": before.plus(_spend(payload)), "finish_reason": finish_reason}
        case Kind.LLM_FAILED:
            return {"spend": before.plus(_spend(payload))}
        case Kind.JOB_RESUMED if payload.get("call_lost"):
            return {"spend": before.plus(LOST)}
        case Kind.RUN_ENDING:
            return {"spend": _spend(payload.get("error") or payload.get("result") or {})}
        case Kind.RESULT | Kind.ERROR:
            return {"spend": _spend(payload)}
        case _:
            return {}


def _spend(payload: Mapping[str, Any]) -> Spend:
    return Spend.read(payload["usage"]) if "usage" in payload else NOTHING


def repair(execution: Execution, events: Sequence[Event]) -> tuple[Execution, Progress]:
    """Project a whole log, with the answer its tokens make.

    That a run was handed back or set aside, or its answer completed, is written in the summary alone, so
    a summary that is as new as the log keeps its owner and its errand.
    """
    progress = follow(events)
    begun = replace(
        execution,
        state=State.QUEUED,
        owner="",
        result="",
        failure=None,
        start_time=None,
        end_time=None,
        spend=NOTHING,
        served_by=None,
        finish_reason="",
        ending=None,
        errand=Errand.NONE if execution.errand is Errand.FILL else execution.errand,
        update_time=execution.create_time,
    )
    projected = project(begun, events, progress.answer)
    if (projected.state, projected.update_time) == (execution.state, execution.update_time):
        projected = replace(projected, owner=execution.owner, errand=execution.errand)
    return projected, progress


def is_behind(execution: Execution, last: Event) -> bool:
    """Tell whether a summary misses a change of state that its log, which ends so, has made."""
    if execution.waiting:
        return last.kind not in WAITING_KINDS
    return last.kind in TERMINAL_KINDS and not execution.finished


def is_apart(execution: Execution, last: Event) -> bool:
    """Tell whether a summary and the log of a run that goes on do not agree, as its last event shows.

    Where several writes are no transaction, a worker is between them.
    """
    if execution.waiting or execution.finished or last.kind == Kind.LLM_NEW_TOKEN:
        return False
    if last.kind == Kind.RUN_ENDING:
        return execution.ending is None
    return last.kind in WAITING_KINDS or last.time > execution.update_time


def follow(events: Iterable[Event]) -> Progress:
    """Read from a whole log how far the run has come."""
    progress = Progress()
    head = 0
    answers: dict[int, list[str]] = {}
    void: dict[int, list[str]] = {}
    said = unreported = 0
    for event in events:
        head = event.sequence
        payload = orjson.loads(event.payload)
        kind = event.kind
        if kind == Kind.LLM_NEW_TOKEN:
            answers.setdefault(payload["step"], []).append(payload["chunk"])
            said += len(payload["chunk"].encode())
            if not progress.shown:
                progress = replace(progress, shown=True)
            continue
        if kind == Kind.LLM_START:
            step = payload["step"]
            void[step] = answers.get(step) or void.get(step, [])
            answers[step] = []
        elif kind in {Kind.LLM_FAILED, Kind.LLM_END, Kind.JOB_RESUMED}:
            reported = payload.get("usage", {}).get("output_tokens", 0) * BYTES_PER_TOKEN
            unreported += max(said - reported, 0)
            said = 0
        progress = replace(progress, **_advance(progress, event, payload))
    steps = sorted(answers)
    answer = "".join("".join(answers[step]) for step in steps)
    heard = "".join("".join(answers[step] or void.get(step, [])) for step in steps)
    return replace(progress, head=head, answer=answer, heard=heard, said=unreported + said)


def said(execution: Execution, progress: Progress) -> str:
    """Say what there is of an answer: all of it, or what was heard of one that is, or will be, cut off."""
    ending = execution.ending
    is_whole = execution.state is State.SUCCEEDED if ending is None else ending.failure is None
    return progress.answer if is_whole else progress.heard


def _advance(progress: Progress, event: Event, payload: Mapping[str, Any]) -> dict[str, Any]:
    """Say what an event changes of how far a run has come."""
    match event.kind:
        case Kind.LLM_START:
            call = {"step": payload["step"], "attempt": payload["attempt"]}
            begun = {**call, "calling": True, "step_done": False}
            if payload["step"] == progress.step:
                return begun
            return {**begun, "shown": False, "failures": 0, "choice": 0}
        case Kind.LLM_FAILED:
            pause = float(payload.get("retry_delay", "0s").removesuffix("s"))
            failed = {"calling": False, "not_before": event.time + round(pause * 1e6)}
            if payload.get("falls_back"):
                return {**failed, "failures": 0, "choice": progress.choice + 1}
            return {**failed, "failures": progress.failures + 1}
        case Kind.LLM_END:
            return {"calling": False, "step_done": True}
        case Kind.JOB_RESUMED:
            return {"calling": False}
        case Kind.RUN_ENDING:
            return {"calling": False, "ending": True}
        case _:
            return {}


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


def _running(execution: Execution) -> dict[str, Any]:
    order = execution.order
    return {
        "message": f"Agent {order.agent_id} runs on {order.model}.",
        "state": _RUNNING,
    }


def _llm_start(step: int, attempt: int, choice: Choice) -> tuple[Kind, dict[str, Any]]:
    payload = {
        "step": step,
        "attempt": attempt,
        "ai_provider": choice.ai_provider,
        "model": choice.model,
    }
    return Kind.LLM_START, payload


def _context_read(told: Told) -> tuple[Kind, dict[str, Any]]:
    count, omitted = told.history_count, told.omitted_count
    what = "1 earlier message" if count == 1 else f"{count} earlier messages"
    message = f"The run is told its context, with {what}."
    if omitted:
        older = "1 older one does" if omitted == 1 else f"{omitted} older ones do"
        message += f" {older} not fit what the model takes."
    return Kind.CONTEXT_READ, {
        "message": message,
        "history_count": count,
        "omitted_count": omitted,
        "bytes": told.bytes,
    }


def _result(answer: str, total: Spend, finish_reason: str) -> tuple[Kind, dict[str, Any]]:
    shown = cut(answer, INLINE_RESULT_BYTES)
    payload: dict[str, Any] = {"result": shown, "message": "The run succeeded."}
    if len(shown) < len(answer):
        payload["truncated"] = True
    if used := total.content():
        payload["usage"] = used
    if finish_reason:
        payload["finish_reason"] = finish_reason
    return Kind.RESULT, payload
