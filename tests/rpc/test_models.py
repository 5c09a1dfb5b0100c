"""Runs on models of real servers, through the whole service: what each answer and fault leads to."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from google.protobuf import json_format

from conductor.execution.v1.event_pb2 import ExecutionEvent
from conductor.execution.v1.execution_pb2 import Execution
from conductor.gateway.v1 import gateway_service_pb2 as gateway_pb
from services.kit.logs import JsonFormatter
from tests.fakes import models
from tests.fakes.models import Answer, Then, Tokens
from tests.patience import PATIENCE
from tests.rpc.modelled import BOTH, KEY, followed, last_answer, modelled, story
from tests.rpc.serving import CLOSED, Mesh, body_of, frames

HIDDEN = {"job_queued", "job_resumed", "on_llm_failed"}
FINE = Answer()
HALF = ("Hel", "lo")
ILL = b"event: message_stop\ndata: {\n\n"
"""A frame that is broken in either protocol."""
SAID = "Hello, world."


@dataclass(frozen=True)
class Case:
    """Answers a model gives in turn, and what becomes of a run that asks it."""

    answers: tuple[Answer, ...]
    story: tuple[str, ...]
    """After the events with which every run begins."""
    reason: str = ""
    """What the run fails with; empty when it succeeds."""
    settings: dict[str, float] = field(default_factory=dict)

    @property
    def calls(self) -> int:
        """How often the model is asked."""
        return sum(one.startswith("start") for one in self.story)


def fine(attempt: int = 1, said: str = SAID) -> tuple[str, ...]:
    """A last attempt that ends well."""
    words = (f"said {attempt}: {said}",) if said else ()
    return (f"start {attempt}", *words, f"end {attempt}: stop", "result")


def bad(attempt: int, reason: str, said: str = "", then: str = " and again") -> tuple[str, ...]:
    """An attempt that fails."""
    words = (f"said {attempt}: {said}",) if said else ()
    return (f"start {attempt}", *words, f"failed {attempt}: {reason}{then}")


def given_up(attempt: int, reason: str, said: str = "") -> tuple[str, ...]:
    """A last attempt that fails, and the run with it."""
    return (*bad(attempt, reason, said, then=""), f"error: {reason}")


def again(fault: Answer, reason: str, said: str = "", **settings: float) -> Case:
    """A fault that is gone with the next call."""
    return Case((fault, FINE), (*bad(1, reason, said), *fine(2)), settings=settings)


def final(fault: Answer, reason: str, said: str = "") -> Case:
    """A fault after which the model is not asked again."""
    return Case((fault, FINE), given_up(1, reason, said), reason)


def lasting(fault: Answer, reason: str, said: str = "", **settings: float) -> Case:
    """A fault that is there again each time."""
    tries = (*bad(1, reason, said), *bad(2, reason, said), *given_up(3, reason, said))
    return Case((fault,), tries, reason, settings)


CASES = {
    "plain": Case((FINE,), fine()),
    "empty": Case((Answer(()),), fine(said="")),
    "byte-by-byte": Case((Answer(packet_bytes=1),), fine()),
    "thinks-first": Case((Answer(thoughts=("Hm.", "Well.")),), fine()),
    "429-then-fine": again(models.rate_limited(retry_after="0.05"), "MODEL_RATE_LIMITED"),
    "429-for-an-hour": final(models.rate_limited(retry_after="3600"), "MODEL_RATE_LIMITED"),
    "429-always": lasting(models.rate_limited(retry_after_ms="1"), "MODEL_RATE_LIMITED"),
    "500-twice": Case(
        (models.failed(), models.failed(), FINE),
        (*bad(1, "MODEL_FAILED"), *bad(2, "MODEL_FAILED"), *fine(3)),
    ),
    "500-always": lasting(models.failed(), "MODEL_FAILED"),
    "overloaded-then-fine": again(models.overloaded(), "MODEL_OVERLOADED"),
    "overloaded-midway": again(
        models.midway(models.overloaded(), *HALF), "MODEL_OVERLOADED", "Hello"
    ),
    "cut-then-fine": again(Answer(HALF, then=Then.CUT), "MODEL_UNREACHABLE", "Hello"),
    "ended-then-fine": again(Answer(HALF, then=Then.END), "MODEL_UNREACHABLE", "Hello"),
    "cut-always": lasting(Answer(HALF, then=Then.CUT), "MODEL_UNREACHABLE", "Hello"),
    "silent-then-fine": again(
        Answer((), then=Then.STALL), "MODEL_TIMEOUT", execution_first_token_seconds=0.8
    ),
    "stalled-then-fine": again(
        Answer(HALF, then=Then.STALL), "MODEL_TIMEOUT", "Hello", execution_idle_seconds=0.8
    ),
    "silent-always": lasting(
        Answer((), then=Then.STALL), "MODEL_TIMEOUT", execution_first_token_seconds=0.2
    ),
    "malformed-then-fine": again(Answer(HALF, garbage=ILL), "MODEL_RESPONSE_INVALID", "Hello"),
    "malformed-always": lasting(Answer(HALF, garbage=ILL), "MODEL_RESPONSE_INVALID", "Hello"),
    "bad-key": final(models.key_rejected(KEY), "MODEL_KEY_REJECTED"),
    "quota": final(models.quota_exhausted(), "MODEL_QUOTA_EXHAUSTED"),
    "context-too-long": final(models.context_too_long(), "MODEL_CONTEXT_TOO_LONG"),
    "content-refused": final(Answer(HALF, finish="refusal"), "MODEL_CONTENT_REFUSED", "Hello"),
    "unknown-there": final(models.model_missing(), "MODEL_CALL_REJECTED"),
}


@BOTH
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
async def test_a_run_tells_each_call_and_what_came_of_it(
    tmp_path: Path, protocol: str, case: Case, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with modelled(tmp_path, **case.settings) as (mesh, server):
        server.says("m", *case.answers)

        run = await mesh.finished(ai_provider=protocol, model="m")

        events = await mesh.watch(run.id)
        assert [event.sequence for event in events] == list(range(1, len(events) + 1))
        assert story(events[:2]) == ["job_started", "status_update"]
        assert story(events[2:]) == named(case.story, protocol)
        for event in events:
            failed = event.on_llm_failed
            assert failed.HasField("retry_delay") == ("is asked again in" in failed.message)
        assert len(server.requests) == case.calls
        assert all(KEY in str(request.headers) for request in server.requests)
        ends_as_its_events_say(run, events, case.reason)
        assert (run.served_by.ai_provider, run.served_by.model) == (protocol, "m")
        shown = await shown_to_chat_clients(mesh, events)
        written = [one.fault.message for one in case.answers if one.fault is not None]
        for secret in (KEY, *written):
            assert secret not in str(run)
            assert secret not in str(events)
            assert secret.encode() not in shown
    formatter = JsonFormatter()
    assert not [line for line in map(formatter.format, caplog.records) if KEY in line]


@BOTH
async def test_a_server_that_is_not_there_is_asked_again_and_then_given_up(
    tmp_path: Path, protocol: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with modelled(tmp_path) as (mesh, server):
        await server.__aexit__(None, None, None)
        run = await mesh.finished(ai_provider=protocol, model="m")

        events = await mesh.watch(run.id)
        assert story(events[2:]) == named(lasting(FINE, "MODEL_UNREACHABLE").story, protocol)
        ends_as_its_events_say(run, events, "MODEL_UNREACHABLE")
        await shown_to_chat_clients(mesh, events)
    assert KEY not in caplog.text


@BOTH
async def test_a_model_is_left_alone_for_as_long_as_it_asks_and_a_little_longer(
    tmp_path: Path, protocol: str
) -> None:
    async with modelled(tmp_path) as (mesh, server):
        server.says("m", models.rate_limited(retry_after="0.25"), FINE)

        run = await mesh.finished(ai_provider=protocol, model="m")

        events = await mesh.watch(run.id)
        (failed,) = (one.on_llm_failed for one in events if one.HasField("on_llm_failed"))
        assert 250 < failed.retry_delay.ToMilliseconds() <= 260


@BOTH
async def test_a_long_answer_is_whole_in_the_run_and_cut_in_its_last_event(
    tmp_path: Path, protocol: str
) -> None:
    answer = models.long(20_000)
    async with modelled(tmp_path) as (mesh, server):
        server.says("m", answer)

        begun = await mesh.start(ai_provider=protocol, model="m")

        events = await followed(mesh, begun.id)
        run = await mesh.get(begun.id)
        assert run.result == last_answer(events) == "".join(answer.pieces)
        assert run.usage.output_tokens == 20_000
        assert events[-1].result.truncated
        assert run.result.startswith(events[-1].result.result)
        assert len(events[-1].result.result) == 64 * 1024
        await shown_to_chat_clients(mesh, events)


@BOTH
async def test_what_a_call_used_and_cost_is_in_its_events_and_in_the_run(
    tmp_path: Path, protocol: str
) -> None:
    prices = tmp_path / "prices.yaml"
    row = "{input: 3, output: 15, cached_input: 0.3, cache_write_input: 3.75}"
    prices.write_text(f"chat: {{m: {row}}}\nmessages: {{m: {row}}}\n")
    async with modelled(tmp_path, execution_price_file=prices) as (mesh, server):
        server.says("m", Answer(usage=Tokens(2000, 300, cached=1500, written=200, reasoning=250)))

        run = await mesh.finished(ai_provider=protocol, model="m")

        usage = {
            "input_tokens": 2000,
            "output_tokens": 300,
            "cached_input_tokens": 1500,
            "cache_write_input_tokens": 200,
            "reasoning_tokens": 250,
            # (300 · 3 + 1500 · 0.3 + 200 · 3.75 + 300 · 15) / 1,000,000
            "cost_usd": 0.0066,
        }
        *_, end, result = await mesh.watch(run.id)
        for told in (end.on_llm_end.usage, result.result.usage, run.usage):
            found = json_format.MessageToDict(told, preserving_proto_field_name=True)
            assert found == usage
        assert (end.on_llm_end.finish_reason, run.finish_reason) == ("stop", "stop")


@pytest.mark.parametrize(
    ("protocol", "lost"),
    [
        pytest.param("chat", {"unreported_calls": 1}, id="chat"),
        # Messages say at their beginning what the input is.
        pytest.param(
            "messages",
            {"input_tokens": 12, "output_tokens": 1, "unreported_calls": 1},
            id="messages",
        ),
    ],
)
async def test_what_a_call_that_was_cut_is_known_to_have_used_counts_as_well(
    tmp_path: Path, protocol: str, lost: dict[str, int]
) -> None:
    async with modelled(tmp_path) as (mesh, server):
        server.says("m", Answer(HALF, then=Then.CUT), FINE)

        run = await mesh.finished(ai_provider=protocol, model="m")

        events = await mesh.watch(run.id)
        (failed,) = (one.on_llm_failed for one in events if one.HasField("on_llm_failed"))
        told = json_format.MessageToDict(failed.usage, preserving_proto_field_name=True)
        assert told == lost
        assert run.usage.input_tokens == 12 + lost.get("input_tokens", 0)
        assert run.usage.output_tokens == 7 + lost.get("output_tokens", 0)
        assert run.usage.unreported_calls == lost.get("unreported_calls", 0)
        assert not run.usage.HasField("cost_usd"), "the model has no price"


@BOTH
async def test_a_call_without_usage_is_counted_as_unreported(tmp_path: Path, protocol: str) -> None:
    async with modelled(tmp_path) as (mesh, server):
        server.says("m", Answer(usage=None))

        run = await mesh.finished(ai_provider=protocol, model="m")

        assert run.result == SAID
        assert run.usage.unreported_calls == 1
        assert not run.usage.HasField("input_tokens")


def named(told: Sequence[str], ai_provider: str) -> list[str]:
    """Fill in the model each attempt asks."""
    return [f"{one}: {ai_provider}/m" if one.startswith("start") else one for one in told]


def ends_as_its_events_say(run: Execution, events: Sequence[ExecutionEvent], reason: str) -> None:
    """Assert that a run and its terminal event agree, and that it answers what was said last."""
    last = events[-1]
    if reason:
        assert run.state == Execution.STATE_FAILED
        assert (run.error.reason, run.error.message) == (last.error.reason, last.error.error)
        assert run.error.reason == reason
        assert run.result == ""
        assert last.error.usage == run.usage
        failed = events[-2].on_llm_failed
        assert failed.message == last.error.error
        assert not failed.HasField("retry_delay")
    else:
        assert run.state == Execution.STATE_SUCCEEDED
        assert not run.HasField("error")
        assert run.result == last.result.result == last_answer(events)
        assert last.result.usage == run.usage


async def shown_to_chat_clients(mesh: Mesh, events: Sequence[ExecutionEvent]) -> bytes:
    """Assert that chat clients see the same in words they know; answers the bytes they got."""
    id_ = events[0].execution_id
    request = gateway_pb.StreamJobRequest(job_id=id_)
    content = await body_of(mesh.gateway.StreamJob(request, timeout=PATIENCE))
    opening, *shown, end = frames(content)
    assert opening.data is None
    assert end.event == "end_of_stream"
    assert [frame.id for frame in shown] == [event.sequence for event in events]
    for frame, event in zip(shown, events, strict=True):
        kind = str(event.WhichOneof("payload"))
        assert frame.event is None
        assert frame.data["job_id"] == id_
        assert frame.data["event"] in CLOSED
        assert frame.data["event"] == ("status_update" if kind in HIDDEN else kind)
        payload = getattr(event, kind)
        assert json_format.ParseDict(frame.data["data"], type(payload)()) == payload
        if kind in HIDDEN:
            assert frame.data["data"]["message"]
    return content
