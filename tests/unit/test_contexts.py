"""Runs with a context: what they need of it, when it is read, and what happens when it cannot be."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import Any

import pytest

from services.execution import domain
from services.execution.domain import (
    Agent,
    Context,
    ContextMode,
    Execution,
    Kind,
    Model,
    ModelError,
    Remark,
    Role,
    Screenplay,
    State,
    Usage,
    Voice,
    Wish,
    parts,
    prompts,
)
from services.execution.domain.parts import Part
from services.execution.ports import Prompt, Report
from services.execution.stores import COLLECTIONS
from services.execution.usecases import briefings
from services.execution.usecases.worker import Pace
from services.kit.errors import DomainError, Reason, reason_name
from tests.fakes.house import ORG, House, Library, Talker, house_at_work, is_sound, silence, words
from tests.fakes.memory import Memory, MemoryStore
from tests.fakes.virtual import clock, in_virtual_time, monotonic

PLAY = Screenplay("play_1", "Harbour", "# Act one", "/srv/harbour")
AWAY = DomainError(Reason.REASON_SERVICE_UNAVAILABLE, "Nobody answers.", retry_after=1.0)
CHAT = Context(history=[Remark(Voice.USER, "Who are you?"), Remark(Voice.SELF, "A clerk.")])


class Listener:
    """A model that keeps what it was told."""

    def __init__(self, faults: int = 0) -> None:
        self.told: list[Prompt] = []
        self.faults = faults

    async def __call__(self, prompt: Prompt) -> AsyncGenerator[str | Report, None]:
        self.told.append(prompt)
        if len(self.told) <= self.faults:
            raise ModelError("It broke.")
        yield "Yes."


def library(**fields: Any) -> Library:
    return Library({PLAY.id: PLAY}, **fields)


async def payloads(house: House, execution: Execution, kind: Kind) -> list[Any]:
    log = await house.log(execution)
    return [json.loads(event.payload) for event in log if event.kind == kind]


def refused(caught: pytest.ExceptionInfo[DomainError]) -> str:
    return reason_name(caught.value.reason)


@in_virtual_time
async def test_a_run_with_a_context_is_told_it_before_its_first_call() -> None:
    model = Listener()
    async with house_at_work({"m": model}, library=library(context=CHAT)) as house:
        house.agents.known["default"] = Agent("default", persona="A.", instructions="B.")
        run = await house.end_of(await house.start("Hello", screenplay_id=PLAY.id))
        log = await house.log(run)
        assert [event.kind for event in log] == [
            Kind.JOB_STARTED,
            Kind.STATUS_UPDATE,
            Kind.CONTEXT_READ,
            Kind.LLM_START,
            Kind.LLM_NEW_TOKEN,
            Kind.LLM_END,
            Kind.RESULT,
        ]
        is_sound(run, log)
        (read,) = await payloads(house, run, Kind.CONTEXT_READ)
    (prompt,) = model.told
    nonce = parts.nonce(run.id)
    for part, text in (
        (Part.PERSONA, "A."),
        (Part.INSTRUCTIONS, "B."),
        (Part.SCREENPLAY_NAME, PLAY.name),
        (Part.SCREENPLAY, PLAY.content),
        (Part.DIRECTORY, PLAY.working_directory),
    ):
        assert parts.enclosed(part, text, nonce) in prompt.system
    assert prompt.history == ((Role.USER, "Who are you?"), (Role.ASSISTANT, "A clerk."))
    assert prompt.text == "Hello"
    said = sum(len(one.text) for one in prompt.history)
    assert (read["history_count"], read["omitted_count"]) == (2, 0)
    assert read["bytes"] == len(prompt.system) + said
    assert "2 earlier messages" in read["message"]


@in_virtual_time
async def test_a_stateless_run_asks_nobody_and_is_told_what_it_always_was() -> None:
    model = Listener()
    async with house_at_work({"m": model}, library=library(trouble=AWAY)) as house:
        house.agents.known["default"] = Agent("default", persona="A.", instructions="B.")
        run = await house.end_of(await house.start("Hello"))
        assert Kind.CONTEXT_READ not in [event.kind for event in await house.log(run)]
    (prompt,) = model.told
    assert (prompt.system, prompt.history, prompt.text) == ("A.\n\nB.", (), "Hello")
    assert (run.order.context_mode, house.library.asked_for) == (ContextMode.STATELESS, [])


@pytest.mark.parametrize(
    ("asked", "mode"),
    [
        ({}, ContextMode.STATELESS),
        ({"screenplay_id": "play_1"}, ContextMode.CONTEXTUAL),
        ({"context_mode": ContextMode.CONTEXTUAL}, ContextMode.CONTEXTUAL),
        (
            {"screenplay_id": "play_1", "context_mode": ContextMode.STATELESS},
            ContextMode.STATELESS,
        ),
    ],
)
@in_virtual_time
async def test_the_mode_is_as_asked_else_what_there_is_to_tell(
    asked: dict[str, Any], mode: ContextMode
) -> None:
    house = House({"m": words("a")}, library=library())
    started = await house.start(**asked)
    stored = await house.service.get(ORG, started.id)
    for run in (started, stored):
        assert run.order.context_mode is mode
        assert run.order.screenplay_id == asked.get("screenplay_id", "")


@in_virtual_time
async def test_a_run_of_a_session_needs_a_conversation() -> None:
    house = House({"m": words("a")})
    with pytest.raises(DomainError) as caught:
        await house.start(context_mode=ContextMode.INTERACTIVE)
    assert [one.field for one in caught.value.violations] == ["context_mode"]


@in_virtual_time
async def test_a_screenplay_that_is_not_there_starts_nothing() -> None:
    house = House({"m": words("a")}, library=library())
    with pytest.raises(DomainError) as caught:
        await house.start(screenplay_id="play_2")
    assert refused(caught) == "SCREENPLAY_NOT_FOUND"
    assert house.library.used == []


@pytest.mark.parametrize("mode", [ContextMode.STATELESS, ContextMode.CONTEXTUAL])
@in_virtual_time
async def test_the_directory_is_the_request_s_else_the_screenplay_s(mode: ContextMode) -> None:
    house = House({"m": words("a")}, library=library())
    asked = {"screenplay_id": PLAY.id, "context_mode": mode}
    assert (await house.start(**asked)).order.cwd == "/srv/harbour"
    assert (await house.start(cwd="/tmp", **asked)).order.cwd == "/tmp"


@in_virtual_time
async def test_a_screenplay_is_noted_as_used_once_for_a_run() -> None:
    house = House({"m": words("a")}, library=library())
    first = await house.start(screenplay_id=PLAY.id, request_id="r")
    assert await house.start(screenplay_id=PLAY.id, request_id="r") == first
    assert house.library.used == [PLAY.id]


@in_virtual_time
async def test_the_same_request_id_with_another_context_is_refused() -> None:
    house = House({"m": words("a")}, library=library())
    await house.start(request_id="r")
    for asked in ({"screenplay_id": PLAY.id}, {"context_mode": ContextMode.CONTEXTUAL}):
        with pytest.raises(DomainError) as caught:
            await house.start(request_id="r", **asked)
        assert refused(caught) == "REQUEST_ID_REUSED"


@in_virtual_time
async def test_runs_wait_for_their_contexts_and_keep_no_other_from_its_turn() -> None:
    away = library(trouble=AWAY)
    async with house_at_work(
        {"m": words("a")}, library=away, org_concurrency=2, pace=Pace(concurrency=2)
    ) as house:
        waiting = [await house.start(screenplay_id=PLAY.id, timeout_ms=3000) for _ in range(20)]
        for _ in range(10):
            other = await house.end_of(await house.start(), within=2)
            assert other.state is State.SUCCEEDED
        await asyncio.sleep(20)
        # One asks for all, and none has begun.
        assert len(away.asked_for) < 30
        assert {(await house.service.get(ORG, run.id)).state for run in waiting} == {State.QUEUED}
        away.trouble = None
        async with asyncio.timeout(3):
            await asyncio.gather(*(house.end_of(run) for run in waiting))
        for run in waiting:
            ended = await house.service.get(ORG, run.id)
            assert ended.state is State.SUCCEEDED
            is_sound(ended, await house.log(ended))


@in_virtual_time
async def test_one_whose_context_nobody_knows_keeps_no_other_waiting() -> None:
    class Partly(Library):
        async def read(self, execution: Execution, max_bytes: int) -> Context:
            if execution.id == first.id:
                raise AWAY
            return await super().read(execution, max_bytes)

    partly = Partly({PLAY.id: PLAY}, trouble=AWAY)
    house = House({"m": words("a")}, library=partly)
    first = await house.start(screenplay_id=PLAY.id)
    others = [await house.start(screenplay_id=PLAY.id) for _ in range(5)]
    async with house.working():
        await asyncio.sleep(5)
        partly.trouble = None
        for run in others:
            assert (await house.end_of(run, within=5)).state is State.SUCCEEDED
        assert (await house.service.get(ORG, first.id)).waiting


async def begun(house: House, **asked: Any) -> Execution:
    """A run whose worker died before it read what the run is told."""
    run = await house.start(**asked)
    claimed, events = domain.claim(run, 1, "worker_9_1", 0, clock())
    return await house.executions.claim(claimed, 1, events)


@in_virtual_time
async def test_a_context_is_waited_for_and_a_run_that_began_says_so_once() -> None:
    model = Listener()
    house = House({"m": model}, library=library(trouble=AWAY))
    execution = await begun(house, screenplay_id=PLAY.id)
    async with house.working():
        await asyncio.sleep(5)
        house.library.trouble = None
        run = await house.end_of(execution)
        assert monotonic() < 7
        is_sound(run, await house.log(run))
        running, waits = await payloads(house, run, Kind.STATUS_UPDATE)
        assert (running["state"], "state" in waits) == ("STATE_RUNNING", False)
        assert "Nobody answers." in waits["message"]
    assert (run.state, len(model.told)) == (State.SUCCEEDED, 1)


@in_virtual_time
async def test_a_context_is_waited_for_no_longer_than_the_run_may_take() -> None:
    house = House({"m": words("a")}, library=library(trouble=AWAY))
    execution = await begun(house, screenplay_id=PLAY.id, timeout_ms=3000)
    async with house.working():
        run = await house.end_of(execution)
        assert run.failure is not None
        assert run.failure.reason == "EXECUTION_TIMEOUT"
        assert round(monotonic()) == 3
        is_sound(run, await house.log(run))


@in_virtual_time
async def test_a_context_that_is_never_told_does_not_keep_a_run_from_its_timeout() -> None:
    class Silent(Library):
        async def read(self, execution: Execution, max_bytes: int) -> Context:
            await asyncio.Event().wait()
            raise AssertionError

    house = House({"m": words("a")}, library=Silent({PLAY.id: PLAY}))
    execution = await begun(house, screenplay_id=PLAY.id, timeout_ms=3000)
    async with house.working():
        run = await house.end_of(execution)
        assert run.failure is not None
        assert run.failure.reason == "EXECUTION_TIMEOUT"


@in_virtual_time
async def test_a_run_whose_screenplay_is_gone_for_good_fails_and_calls_no_model() -> None:
    model = Listener()
    house = House({"m": model}, library=library())
    execution = await house.start(screenplay_id=PLAY.id)
    del house.library.known[PLAY.id]
    async with house.working():
        run = await house.end_of(execution)
    assert run.failure is not None
    assert run.failure.reason == "SCREENPLAY_NOT_FOUND"
    assert model.told == []
    is_sound(run, await house.log(run))


@in_virtual_time
async def test_a_run_that_waits_for_its_context_is_cancelled_at_once() -> None:
    async with house_at_work({"m": words("a")}, library=library(trouble=AWAY)) as house:
        execution = await house.start(screenplay_id=PLAY.id)
        await asyncio.sleep(2)
        cancelled = await house.service.cancel(ORG, execution.id, "call:1")
        assert cancelled.state is State.CANCELLED
        await asyncio.sleep(1)
        assert house.worker.running() == 0
        is_sound(await house.service.get(ORG, execution.id), await house.log(execution))


@in_virtual_time
async def test_what_is_told_is_put_together_anew_when_a_run_is_taken_over() -> None:
    """What was said meanwhile is told; the order keeps what it keeps."""
    first = House({"m": silence}, library=library(context=CHAT))
    first.agents.known["default"] = Agent("default", persona="A.", instructions="B.")
    execution = await first.start(screenplay_id=PLAY.id)
    async with first.working():
        await first.until(execution, Kind.LLM_START)
    model = Listener()
    more = replace(CHAT, history=[*CHAT.history, Remark(Voice.USER, "Still there?")])
    second = first.beside(says={"m": model}, library=library(context=more))
    async with second.working():
        run = await second.end_of(execution)
    (prompt,) = model.told
    assert prompt.text == "Still there?\n\nHello"
    assert "\nA.\n" in prompt.system
    assert "\nB.\n" in prompt.system
    counts = [read["history_count"] for read in await payloads(second, run, Kind.CONTEXT_READ)]
    assert counts == [2, 3]
    assert run.order == execution.order
    is_sound(run, await second.log(run))


@in_virtual_time
async def test_a_run_that_died_before_its_context_was_read_begins_its_first_call() -> None:
    house = House({"m": words("a")}, library=library())
    execution = await begun(house, screenplay_id=PLAY.id)
    async with house.working():
        run = await house.end_of(execution)
    (call,) = await payloads(house, run, Kind.LLM_START)
    assert (call["step"], call["attempt"], run.state) == (1, 1, State.SUCCEEDED)
    is_sound(run, await house.log(run))


class Small(Talker):
    """A provider whose models take different amounts."""

    def __init__(self, says: dict[str, Listener], **windows: int) -> None:
        super().__init__(says)
        self.models = {
            id_: Model(id_, self.name, "", context_tokens=windows[id_], max_output_tokens=100)
            for id_ in says
        }


@in_virtual_time
async def test_each_model_is_told_as_much_as_it_takes_and_only_what_is_new_is_an_event() -> None:
    large, small = Listener(faults=9), Listener()
    provider = Small({"large": large, "small": small}, large=9000, small=1300)
    long = Context(history=[Remark(Voice.USER, f"{n} " + "x" * 2000) for n in range(5)])
    async with house_at_work({}, providers=[provider], library=library(context=long)) as house:
        run = await house.end_of(
            await house.start(context_mode=ContextMode.CONTEXTUAL, fallbacks=(Wish(model="small"),))
        )
        read = await payloads(house, run, Kind.CONTEXT_READ)
        calls = await payloads(house, run, Kind.LLM_START)
        is_sound(run, await house.log(run))
    assert run.state is State.SUCCEEDED
    assert [(one["history_count"], one["omitted_count"]) for one in read] == [(5, 0), (1, 4)]
    assert len(large.told) == len(calls) - 1 > 1
    assert all(prompt.text.startswith("0 ") for prompt in large.told)
    assert "4 older ones do not fit" in read[1]["message"]
    # As much is read as the model takes that takes the most.
    assert house.library.asked_for == [prompts.room_for_history(run.order, 4 * (9000 - 100))]


@in_virtual_time
async def test_a_run_of_an_older_release_is_stateless_and_keeps_its_persona() -> None:
    memory = Memory()
    model = Listener()
    house = House({"m": model}, store=MemoryStore(memory, COLLECTIONS))
    house.agents.known["default"] = Agent("default", persona="A.", instructions="B.")
    started = await house.start()
    ((key, document),) = memory.documents.items()
    body = dict(document.body)
    assert body.pop("persona_characters") == 2
    memory.documents[key] = replace(document, body=body)
    old = await house.service.get(ORG, started.id)
    assert (old.order.persona, old.order.instructions) == ("A.\n\nB.", "")
    assert old.order.context_mode is ContextMode.STATELESS
    async with house.working():
        await house.end_of(old)
    assert [prompt.system for prompt in model.told] == ["A.\n\nB."]


@pytest.mark.parametrize(
    "texts", [("A.", "B."), ("A.", ""), ("", "B."), ("", ""), ("A\n\nC", "B\n\n\nD")]
)
@in_virtual_time
async def test_persona_and_instructions_are_kept_apart(texts: tuple[str, str]) -> None:
    house = House({"m": words("a")})
    persona, instructions = texts
    house.agents.known["default"] = Agent("default", persona=persona, instructions=instructions)
    started = await house.start()
    assert (await house.service.get(ORG, started.id)).order == started.order
    assert (started.order.persona, started.order.instructions) == texts


async def test_much_is_put_together_to_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    house = House({"m": words("a")})
    execution = await house.start(context_mode=ContextMode.CONTEXTUAL)
    here = await briefings.Briefing(execution, CHAT).told(0)
    monkeypatch.setattr(briefings, "_MUCH", 1)
    assert await briefings.Briefing(execution, CHAT).told(0) == here


@in_virtual_time
async def test_usage_of_what_is_told_is_counted() -> None:
    async def count(prompt: Prompt) -> AsyncGenerator[str | Report, None]:
        yield "Yes."
        yield Report(Usage(input_tokens=len(prompt.history), output_tokens=1))

    async with house_at_work({"m": count}, library=library(context=CHAT)) as house:
        run = await house.end_of(await house.start(screenplay_id=PLAY.id))
    assert run.spend.usage.input_tokens == 2
