from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.execution import domain
from services.execution.domain import (
    MAX_EVENT_BYTES,
    NOTHING,
    Asked,
    Choice,
    Event,
    Execution,
    Failure,
    Kind,
    Order,
    Spend,
    State,
)
from services.kit.errors import DomainError, Reason

HOSTILE = {
    "control characters": "\u0001",
    "quotes": '"',
    "four bytes": "𝄞",
    "three bytes": "☃",
    "newlines": "\n",
    "letters": "x",
}


def accepted() -> tuple[Execution, Event]:
    order = Order(
        "Hello", "default", (Choice("mock", "mock"), Choice("mock", "other")), timeout_ms=1000
    )
    return domain.accept("acme", "exec_1", order, Asked("Hello"), 100)


def running() -> tuple[Execution, list[Event]]:
    execution, first = accepted()
    claimed, events = domain.claim(execution, 1, "w1", 7, 200)
    return claimed, [first, *events]


def said(log: list[Event], text: str, attempt: int = 1, writer: str = "w1") -> list[Event]:
    return [*log, *domain.tokens(len(log), 1, attempt, text, writer, 300)]


def succeed(
    execution: Execution,
    log: list[Event],
    answer: str,
    attempt: int = 1,
    spend: Spend = NOTHING,
    finish_reason: str = "",
) -> tuple[Execution, list[Event]]:
    return domain.succeed(execution, len(log), 1, attempt, answer, spend, finish_reason, "w1", 400)


def go_on(execution: Execution, log: list[Event]) -> tuple[Execution, list[Event]]:
    """Another worker takes the run over and calls the model again."""
    progress = domain.follow(log)
    taken, resumed = domain.take_over(execution, progress, "w2", 500)
    head, attempt = resumed[-1].sequence, progress.attempt + 1
    called, begun = domain.call(taken, head, 1, attempt, progress.choice, "w2", 500)
    return called, resumed + begun


def payloads(log: list[Event]) -> list[tuple[str, dict[str, Any]]]:
    return [(event.kind, json.loads(event.payload)) for event in log]


def refold(execution: Execution, log: list[Event]) -> Execution:
    """Project a log from the very beginning."""
    begun, _ = accepted()
    return domain.repair(replace(begun, version=execution.version, slot=execution.slot), log)[0]


def test_an_accepted_run_is_queued_with_its_first_event() -> None:
    execution, first = accepted()
    assert execution.state is State.QUEUED
    assert not execution.finished
    assert execution.owner == ""
    assert (first.sequence, first.time, first.kind, first.writer) == (1, 100, "job_started", "")
    assert json.loads(first.payload) == {
        "message": "Agent default accepted the job.",
        "agent_id": "default",
        "ai_provider": "mock",
        "model": "mock",
    }
    assert domain.opening(execution) == first


def test_a_claimed_run_is_running_and_calls_its_model_for_the_first_time() -> None:
    execution, log = running()
    assert (execution.state, execution.owner) == (State.RUNNING, "w1")
    assert (execution.start_time, execution.update_time) == (200, 200)
    assert [event.sequence for event in log] == [1, 2, 3]
    assert payloads(log)[1:] == [
        ("status_update", {"message": "Agent default runs on mock.", "state": "STATE_RUNNING"}),
        ("on_llm_start", {"step": 1, "attempt": 1, "ai_provider": "mock", "model": "mock"}),
    ]
    assert execution.slot == 7
    assert refold(execution, log) == execution


def test_a_run_that_succeeds_keeps_its_answer_and_has_no_owner() -> None:
    execution, log = running()
    log = said(log, "An answer")
    ended, events = succeed(execution, log, "An answer", 1)
    assert payloads(events) == [
        ("on_llm_end", {"step": 1, "attempt": 1}),
        ("result", {"result": "An answer", "message": "The run succeeded."}),
    ]
    assert (ended.state, ended.result, ended.owner) == (State.SUCCEEDED, "An answer", "")
    assert (ended.start_time, ended.end_time, ended.update_time) == (200, 400, 400)
    assert ended.finished
    assert domain.outcome(ended) is None
    assert refold(ended, log + events) == ended


def test_a_run_that_fails_says_why() -> None:
    execution, log = running()
    ended, events = domain.fail(execution, len(log), domain.timed_out(1500), "w1", 400)
    assert payloads(events) == [
        ("error", {"error": "The run took longer than 1.5 s.", "reason": "EXECUTION_TIMEOUT"})
    ]
    assert ended.state is State.FAILED
    assert ended.failure == Failure("EXECUTION_TIMEOUT", "The run took longer than 1.5 s.")
    assert refold(ended, log + events) == ended


def test_a_queued_run_can_be_cancelled() -> None:
    execution, first = accepted()
    ended, events = domain.cancel(execution, first, "call:1", 400)
    assert ended.state is State.CANCELLED
    assert ended.start_time is None
    assert ended.end_time == 400
    assert refold(ended, [first, *events]) == ended


def test_the_outcome_of_a_failed_run_is_an_error_that_names_it() -> None:
    execution, first = accepted()
    ended, _ = domain.cancel(execution, first, "call:1", 400)
    error = domain.outcome(ended)
    assert error is not None
    assert error.reason == Reason.REASON_EXECUTION_CANCELLED
    assert [(one.type, one.name) for one in error.resources] == [("execution", "exec_1")]


def test_the_reason_of_a_newer_release_is_read_as_internal() -> None:
    execution, _ = accepted()
    error = domain.outcome(replace(execution, failure=Failure("MADE_UP_LATER", "Oh.")))
    assert error is not None
    assert error.reason == Reason.REASON_INTERNAL


def test_a_take_over_repeats_the_call_in_flight_and_voids_its_tokens() -> None:
    execution, log = running()
    log = said(log, "lost")
    taken, events = go_on(execution, log)
    assert payloads(events) == [
        ("job_resumed", {"message": "The run goes on with another worker.", "call_lost": True}),
        ("on_llm_start", {"step": 1, "attempt": 2, "ai_provider": "mock", "model": "mock"}),
    ]
    assert taken.spend == Spend(unreported=1)
    assert (taken.state, taken.owner, taken.start_time) == (State.RUNNING, "w2", 200)
    log = said(log + events, "kept", attempt=2, writer="w2")
    assert domain.follow(log).answer == "kept"
    assert domain.follow(log).attempt == 2
    ended, events = succeed(taken, log, "kept", 2)
    assert refold(ended, log + events) == ended


def test_a_take_over_does_not_repeat_a_call_that_ended_well() -> None:
    execution, log = running()
    log = said(log, "done")
    ended_call = succeed(execution, log, "done", 1)[1][0]
    log.append(ended_call)
    taken, events = domain.take_over(execution, domain.follow(log), "w2", 500)
    assert [event.kind for event in events] == [Kind.JOB_RESUMED, Kind.RESULT]
    assert (taken.state, taken.result, taken.owner) == (State.SUCCEEDED, "done", "")
    assert refold(taken, log + events) == taken


def test_a_handed_back_run_has_no_owner_and_goes_on_running() -> None:
    execution, _ = running()
    released = domain.release(execution)
    assert released == replace(execution, owner="")


def test_repairing_knows_that_a_run_was_handed_back() -> None:
    """The log does not say so; the document, which is as new as the log, does."""
    execution, log = running()
    repaired, _ = domain.repair(domain.release(execution), said(log, "more"))
    assert repaired.owner == ""


def test_repairing_believes_the_log_when_the_document_fell_behind() -> None:
    execution, log = running()
    log = said(log, "lost")
    taken, events = go_on(execution, log)
    repaired, progress = domain.repair(domain.release(execution), log + events)
    assert repaired == taken
    assert (progress.head, progress.attempt) == (len(log) + len(events), 2)


def test_repairing_from_any_older_projection_leads_to_the_same() -> None:
    begun, first = accepted()
    execution, log = running()
    log = said(log, "answer")
    ended, events = succeed(execution, log, "answer", 1)
    log += events
    for older in (begun, execution, domain.release(execution), ended):
        assert domain.repair(older, log)[0] == ended
    assert log[0] == first


def test_following_an_empty_log_is_the_beginning() -> None:
    assert domain.follow([]) == domain.Progress()


def test_a_short_text_is_one_event() -> None:
    events = domain.tokens(3, 1, 2, "π", "w1", 300)
    assert payloads(events) == [("on_llm_new_token", {"step": 1, "attempt": 2, "chunk": "π"})]
    assert events[0].sequence == 4


@pytest.mark.parametrize("size", [40_000, 43_520, 43_690, 87_040, 255 * 1024, 262_144, 2 * 1024**2])
@pytest.mark.parametrize("character", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_long_text_is_cut_into_events_that_each_fit(character: str, size: int) -> None:
    text = character * (size // len(character.encode()))
    events = domain.tokens(3, 1, 1, text, "w1", 300)
    assert max(len(event.payload) for event in events) <= MAX_EVENT_BYTES
    assert [event.sequence for event in events] == list(range(4, 4 + len(events)))
    assert "".join(json.loads(event.payload)["chunk"] for event in events) == text


@pytest.mark.parametrize("character", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_long_answer_is_cut_in_its_event_and_whole_in_the_run(character: str) -> None:
    answer = character * (200 * 1024 // len(character.encode()))
    execution, log = running()
    log = said(log, answer)
    ended, events = succeed(execution, log, answer, 1)
    payload = json.loads(events[-1].payload)
    assert payload["truncated"] is True
    assert answer.startswith(payload["result"])
    assert 0 < len(payload["result"].encode()) <= domain.INLINE_RESULT_BYTES
    assert len(events[-1].payload) <= MAX_EVENT_BYTES
    assert ended.result == answer
    assert refold(ended, log + events) == ended


@pytest.mark.parametrize("character", HOSTILE.values(), ids=HOSTILE.keys())
def test_an_answer_that_just_fits_is_not_cut(character: str) -> None:
    answer = character * (10_000 // len(character.encode()))
    execution, log = running()
    _, events = succeed(execution, log, answer, 1)
    assert json.loads(events[-1].payload) == {"result": answer, "message": "The run succeeded."}


@pytest.mark.parametrize("character", HOSTILE.values(), ids=HOSTILE.keys())
def test_an_error_that_says_too_much_still_fits_an_event(character: str) -> None:
    execution, log = running()
    error = DomainError(Reason.REASON_MODEL_FAILED, character * 1_000_000)
    ended, events = domain.fail(execution, len(log), error, "w1", 400)
    assert len(events[0].payload) <= MAX_EVENT_BYTES
    assert ended.failure is not None
    assert ended.failure.message == json.loads(events[0].payload)["error"] != ""
    assert refold(ended, log + events) == ended


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.text(), st.booleans()), max_size=20))
def test_the_answer_is_the_tokens_of_the_last_attempt(pieces: list[tuple[str, bool]]) -> None:
    """Each piece is said, perhaps after another worker took over."""
    execution, log = running()
    attempt, answer = 1, ""
    for text, taken_over in pieces:
        if taken_over:
            execution, events = go_on(execution, log)
            log, attempt, answer = log + events, attempt + 1, ""
        log, answer = said(log, text, attempt), answer + text
    assert [event.sequence for event in log] == list(range(1, len(log) + 1))
    progress = domain.follow(log)
    assert (progress.answer, progress.attempt, progress.head) == (answer, attempt, len(log))
    ended, events = succeed(execution, log, answer, attempt)
    assert refold(ended, log + events) == ended


def test_the_same_request_has_the_same_digest_however_its_labels_are_ordered() -> None:
    one = Asked("Hello", metadata={"a": "1", "b": "2"}, request_id="r")
    two = Asked("Hello", metadata={"b": "2", "a": "1"}, request_id="r")
    assert domain.digest(one) == domain.digest(two)


@pytest.mark.parametrize(
    "other",
    [
        Asked("Hello!"),
        Asked("Hello", agent_id="default"),
        Asked("Hello", model="mock"),
        Asked("Hello", ai_provider="mock"),
        Asked("Hello", cwd="/"),
        Asked("Hello", metadata={"a": ""}),
        Asked("Hello", timeout_ms=1),
    ],
)
def test_another_request_under_the_same_id_is_refused(other: Asked) -> None:
    execution, _ = accepted()
    domain.same_request(execution, Asked("Hello"))
    with pytest.raises(DomainError) as caught:
        domain.same_request(execution, other)
    assert caught.value.reason == Reason.REASON_REQUEST_ID_REUSED
    assert [one.field for one in caught.value.violations] == ["request_id"]
    assert [one.name for one in caught.value.resources] == ["exec_1"]
