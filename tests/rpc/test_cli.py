"""`conductor run` as a person or a script uses it: its output, its exit status, its Ctrl-C."""

from __future__ import annotations

import asyncio
import json
import os
import signal

import grpc
import pytest
from google.rpc import error_details_pb2

from conductor.conversations.v1.busy_policy_pb2 import BusyPolicy
from conductor.execution.v1.event_pb2 import Error, JobQueued, JobStarted, LlmFailed, Result
from conductor.execution.v1.execution_pb2 import ContextMode
from conductor.execution.v1.usage_pb2 import Usage
from tests.patience import PATIENCE
from tests.processes import until
from tests.rpc.scripted import ID, Failure, Scripted, Step, events, serving, tokens
from tests.rpc.terminal import COLOUR, Outcome, Terminal, unstyled

ANSWER = events(JobStarted(agent_id="default", model="mock"), *tokens("Grüße, ", "мир 🌍"))
CANCELLED = Error(reason="EXECUTION_CANCELLED", error="Cancelled by a caller.")


async def test_the_answer_is_on_stdout_and_nothing_else_anywhere(
    scripted: Scripted, terminal: Terminal
) -> None:
    scripted.streams.append([*ANSWER, *events(Result(result="…"), first=5)])

    outcome = await terminal.run("run", "hello")

    assert outcome == Outcome(0, "Grüße, мир 🌍\n", "")


async def test_tokens_are_written_as_they_come(scripted: Scripted, terminal: Terminal) -> None:
    scripted.streams.append([*ANSWER, None, *events(Result(), first=5)])

    process = await terminal.start("run", "hello")
    assert process.stdout is not None
    live = await asyncio.wait_for(
        process.stdout.readexactly(len("Grüße, мир 🌍".encode())), PATIENCE
    )
    scripted.cancelled.set()

    await process.communicate()
    assert live.decode() == "Grüße, мир 🌍"
    assert process.returncode == 0


async def test_an_answer_without_tokens_is_the_result(
    scripted: Scripted, terminal: Terminal
) -> None:
    scripted.streams.append([*events(JobStarted(), Result(result="whole\n"))])

    assert (await terminal.run("run", "hello")).out == "whole\n"


async def test_a_higher_attempt_starts_the_text_anew_and_says_so(
    scripted: Scripted, terminal: Terminal
) -> None:
    steps = events(
        JobStarted(),
        *tokens("first. ", step=1),
        *tokens("half of the sec", step=2),
        *tokens("second.", step=2, attempt=2),
        Result(),
    )
    scripted.streams.append([*steps])

    scripted.streams.append([*steps])

    outcome = await terminal.run("run", "hello")
    final = await terminal.run("run", "hello", "--final")

    assert outcome.out == "first. half of the sec\nsecond.\n"
    assert outcome.err == "the model is asked again (attempt 2); the text above is void\n"
    assert (final.out, final.err) == ("first. second.\n", "")


async def test_a_failed_run_is_status_1_and_named(scripted: Scripted, terminal: Terminal) -> None:
    scripted.streams.append(
        [*events(JobStarted(), *tokens("so f"), Error(reason="MODEL_FAILED", error="It died."))]
    )

    outcome = await terminal.run("run", "hello")

    assert outcome == Outcome(1, "so f\n", f"{ID} failed: MODEL_FAILED: It died.\n")


async def test_a_run_somebody_else_cancelled_is_status_130(
    scripted: Scripted, terminal: Terminal
) -> None:
    scripted.streams.append([*events(JobStarted(), CANCELLED)])

    assert (await terminal.run("run", "hello")).status == 130


async def test_ctrl_c_cancels_the_run_and_waits_for_its_end(
    scripted: Scripted, terminal: Terminal
) -> None:
    scripted.streams.append([*ANSWER, None, *events(CANCELLED, first=5)])
    process = await terminal.start("run", "hello")
    assert process.stdout is not None
    await process.stdout.read(1)

    process.send_signal(signal.SIGINT)
    _, err = await asyncio.wait_for(process.communicate(), PATIENCE)

    assert process.returncode == 130
    assert scripted.cancelled.is_set()
    assert f"{ID} cancelled" in err.decode()


async def test_a_second_ctrl_c_leaves_at_once(scripted: Scripted, terminal: Terminal) -> None:
    forever: list[Step] = [*ANSWER, None]
    scripted.streams.append(forever)
    process = await terminal.start("run", "hello")
    assert process.stdout is not None
    await process.stdout.read(1)
    scripted.failure = Failure(grpc.StatusCode.UNAVAILABLE, "not now", "STORE_UNAVAILABLE")

    process.send_signal(signal.SIGINT)
    await until(lambda: len(scripted.requests) > 1)
    process.send_signal(signal.SIGINT)
    await asyncio.wait_for(process.communicate(), PATIENCE)

    assert process.returncode == 4  # nobody knows how it ended


async def test_a_bad_request_is_status_2_with_field_and_fix(
    scripted: Scripted, terminal: Terminal
) -> None:
    violation = error_details_pb2.BadRequest.FieldViolation(
        field="model", description="must be at most 128 characters"
    )
    scripted.failure = Failure(
        grpc.StatusCode.INVALID_ARGUMENT,
        "The request is wrong.",
        "INVALID_REQUEST",
        error_details_pb2.BadRequest(field_violations=[violation]),
    )

    outcome = await terminal.run("run", "hello", "--model", "x")

    assert outcome.status == 2
    assert outcome.err == (
        "error: The request is wrong. (INVALID_REQUEST)\n  model: must be at most 128 characters\n"
    )


async def test_an_unknown_model_is_status_2(scripted: Scripted, terminal: Terminal) -> None:
    scripted.failure = Failure(grpc.StatusCode.NOT_FOUND, "No model is x.", "MODEL_NOT_FOUND")

    outcome = await terminal.run("run", "hello", "--model", "x")

    assert (outcome.status, outcome.err) == (2, "error: No model is x. (MODEL_NOT_FOUND)\n")


async def test_no_mesh_is_status_3_and_says_how_to_start_one() -> None:
    outcome = await Terminal("127.0.0.1:1").run("run", "hello")

    assert outcome.status == 3
    assert "no mesh answers at 127.0.0.1:1" in outcome.err
    assert "make run" in outcome.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["run"],
        ["run", "hello", "--timeout", "-1"],
        ["run", "hello", "--no-such-option"],
        ["run", "hello", "--priority", "0"],
        ["run", "hello", "--max-output-tokens", "4294967296"],
        ["run", "hello", "--fallback", "/"],
        ["run", "hello", "--address", "ftp://somewhere"],
        ["no-such-command"],
    ],
)
async def test_wrong_usage_is_status_2(terminal: Terminal, arguments: list[str]) -> None:
    assert (await terminal.run(*arguments)).status == 2


async def test_the_options_reach_the_mesh(scripted: Scripted, terminal: Terminal) -> None:
    scripted.streams.append([*events(Result())])

    await terminal.run(
        *("run", "hello", "--agent", "a", "--model", "m", "--provider", "p"),
        *("--timeout", "1.5", "--request-id", "r", "--persona-version", "canary"),
    )

    (request,) = scripted.requests
    assert (request.input, request.agent_id, request.model, request.ai_provider) == (
        *("hello", "a", "m", "p"),
    )
    assert (request.timeout.ToTimedelta().total_seconds(), request.request_id) == (1.5, "r")
    assert request.persona_version == "canary"


async def test_limits_priority_and_fallbacks_reach_the_mesh(
    scripted: Scripted, terminal: Terminal
) -> None:
    scripted.streams.append([*events(Result())])

    await terminal.run(
        *("run", "hello", "--priority", "1", "--max-output-tokens", "500", "--max-cost", "0.25"),
        *("--fallback", "openrouter/meta-llama/x", "--fallback", "mock-slow"),
        *("--fallback", "/meta-llama/y", "--fallback", "openai/"),
    )

    (request,) = scripted.requests
    assert (request.priority, request.max_output_tokens, request.max_cost_usd) == (1, 500, 0.25)
    assert [(choice.ai_provider, choice.model) for choice in request.fallbacks] == [
        ("openrouter", "meta-llama/x"),
        ("", "mock-slow"),
        ("", "meta-llama/y"),
        ("openai", ""),
    ]


async def test_where_a_run_answers_and_what_it_is_told_reach_the_mesh(
    scripted: Scripted, terminal: Terminal
) -> None:
    scripted.streams.append([*events(Result())])

    await terminal.run(
        *("run", "hello", "--conversation", "conv_1", "--instance", "desk", "--screenplay", "sp_1"),
        *("--context-mode", "stateless", "--busy", "reject", "--cwd", "/srv"),
    )

    (request,) = scripted.requests
    assert (request.conversation_id, request.instance_id) == ("conv_1", "desk")
    assert (request.screenplay_id, request.cwd) == ("sp_1", "/srv")
    assert request.context_mode == ContextMode.CONTEXT_MODE_STATELESS
    assert request.busy_policy == BusyPolicy.BUSY_POLICY_REJECT


async def test_limits_nobody_asked_for_are_not_sent(scripted: Scripted, terminal: Terminal) -> None:
    scripted.streams.append([*events(Result())])

    await terminal.run("run", "hello")

    (request,) = scripted.requests
    request.ClearField("request_id")
    assert [field.name for field, _ in request.ListFields()] == ["input"]


async def test_a_dash_reads_the_text_from_stdin(scripted: Scripted, terminal: Terminal) -> None:
    scripted.streams.append([*events(Result())])

    await terminal.run("run", "-", stdin="viel Text\nüber Zeilen".encode())

    assert scripted.requests[0].input == "viel Text\nüber Zeilen"


async def test_text_that_is_no_utf_8_is_refused(scripted: Scripted, terminal: Terminal) -> None:
    outcome = await terminal.run("run", "-", stdin=b"\xff")

    assert (outcome.status, outcome.err) == (2, "error: the text is not UTF-8\n")
    assert scripted.requests == []


async def test_an_argument_that_is_no_utf_8_is_refused(
    scripted: Scripted, terminal: Terminal
) -> None:
    outcome = await terminal.run("run", "hello", "--model", os.fsdecode(b"\xff"))

    assert (outcome.status, outcome.err) == (2, "error: an argument is not UTF-8\n")
    assert scripted.requests == []


async def test_json_is_one_line_for_each_event(scripted: Scripted, terminal: Terminal) -> None:
    scripted.streams.append([*ANSWER, *events(Result(result="x"), first=5)])

    outcome = await terminal.run("run", "hello", "--json")

    lines = [json.loads(line) for line in outcome.out.splitlines()]
    assert [line["sequence"] for line in lines] == [1, 2, 3, 4, 5]
    assert lines[2]["on_llm_new_token"]["chunk"] == "Grüße, "


async def test_a_reader_that_goes_away_ends_it_quietly(
    scripted: Scripted, terminal: Terminal
) -> None:
    scripted.streams.append([*ANSWER[:3], None, *events(*tokens("more")[1:], Result(), first=4)])
    reader, writer = os.pipe()
    process = await terminal.start("run", "hello", stdout=writer)
    os.close(writer)
    assert await asyncio.to_thread(os.read, reader, 1)
    os.close(reader)

    scripted.cancelled.set()
    _, err = await asyncio.wait_for(process.communicate(), PATIENCE)

    assert (process.returncode, err) == (141, b"")


async def test_a_terminal_sees_the_status_and_no_control_characters(
    scripted: Scripted, terminal: Terminal
) -> None:
    steps = events(
        JobStarted(agent_id="default", model="mock"),
        *tokens("\x1b[2Jboo\x07\n"),
        Result(),
    )
    scripted.streams.append([*steps])
    shown = (await terminal.show("run", "hello")).out

    assert "agent default, model mock" in shown
    assert "[2Jboo" in shown
    assert "succeeded" in shown
    assert "\x1b" not in shown
    assert "\x07" not in shown


async def test_a_terminal_is_told_about_the_queue_and_about_calls_that_failed(
    scripted: Scripted, terminal: Terminal
) -> None:
    queued = JobQueued(message="Waiting at place 3.", position=3)
    failed = LlmFailed(message="The model is overloaded; asked again in 1 s.", step=1, attempt=1)
    scripted.streams.append([*events(JobStarted(), queued, failed, Result(result="yes"))])

    outcome = await terminal.show("run", "hello", screen=("stderr",))

    assert outcome.out == "yes\n"
    assert "Waiting at place 3.\n" in outcome.err
    assert "The model is overloaded; asked again in 1 s.\n" in outcome.err


async def test_a_pipe_is_not_told_what_goes_on(scripted: Scripted, terminal: Terminal) -> None:
    queued = JobQueued(message="Waiting at place 3.", position=3)
    scripted.streams.append(
        [*events(JobStarted(), queued, Result(result="yes", usage=Usage(cost_usd=1.0)))]
    )

    assert await terminal.run("run", "hello") == Outcome(0, "yes\n", "")


USED = Usage(
    input_tokens=1200,
    cached_input_tokens=200,
    output_tokens=30,
    reasoning_tokens=10,
    cost_usd=0.000123,
    unreported_calls=1,
)


async def test_a_terminal_sees_last_what_the_run_used_and_cost(
    scripted: Scripted, terminal: Terminal
) -> None:
    scripted.streams.append([*events(JobStarted(), Result(result="yes", usage=USED))])

    outcome = await terminal.show("run", "hello", screen=("stderr",))

    assert outcome.out == "yes\n"
    last = outcome.err.splitlines()[-1]
    assert last.startswith(COLOUR)
    assert unstyled(last) == (
        "1,200 tokens in (200 cached), 30 tokens out (10 thought), $0.000123, 1 call not reported"
    )


async def test_what_is_not_known_about_use_and_cost_is_not_told_as_zero(
    scripted: Scripted, terminal: Terminal
) -> None:
    scripted.streams.append(
        [*events(JobStarted(), Result(result="yes", usage=Usage(output_tokens=0)))]
    )

    outcome = await terminal.show("run", "hello", screen=("stderr",))

    assert unstyled(outcome.err).splitlines()[-1] == "0 tokens out"


@pytest.mark.parametrize("choice", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
async def test_who_wants_no_colours_gets_none(
    scripted: Scripted, terminal: Terminal, choice: dict[str, str]
) -> None:
    scripted.streams.append([*events(JobStarted(), Result(result="yes", usage=USED))])
    terminal.env |= choice

    outcome = await terminal.show("run", "hello")

    assert "$0.000123" in outcome.out
    # NO_COLOR is about colours alone: dim is none.
    assert unstyled(outcome.out) == outcome.out.replace("\x1b[2m", "").replace("\x1b[0m", "")


async def test_a_terminal_without_unicode_gets_question_marks(
    scripted: Scripted, terminal: Terminal
) -> None:
    scripted.streams.append([*ANSWER, *events(Result(), first=5)])
    terminal.env |= {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}

    assert await terminal.run("run", "hello") == Outcome(0, "Gr??e, ??? ?\n", "")


async def test_a_run_that_is_not_taken_yet_says_what_it_waits_for(
    scripted: Scripted, terminal: Terminal
) -> None:
    away = Failure(grpc.StatusCode.UNAVAILABLE, "Conversations are away.", "SERVICE_UNAVAILABLE")
    scripted.streams.extend([[away], [away], [*ANSWER, *events(Result(), first=5)]])

    outcome = await terminal.run("run", "hello")

    waited = "waiting for the mesh: Conversations are away.\n"
    assert outcome == Outcome(0, "Grüße, мир 🌍\n", waited)


async def test_the_port_of_a_local_mesh_is_the_default(scripted: Scripted) -> None:
    scripted.streams.append([*events(JobStarted(), Result(result="here"))])
    async with serving(scripted) as address:
        terminal = Terminal("")
        terminal.env |= {"CONDUCTOR_HTTP_PORT": address.rpartition(":")[2]}

        assert (await terminal.run("run", "hello")).out == "here\n"


async def test_the_version_is_that_of_the_release(terminal: Terminal) -> None:
    outcome = await terminal.run("--version")

    assert outcome.status == 0
    assert outcome.out.startswith("conductor 0.")


async def test_help_names_the_commands_that_other_packages_add(terminal: Terminal) -> None:
    outcome = await terminal.run("--help")

    assert "run " in outcome.out
    assert "up " in outcome.out
