"""`conductor executions list` and `get`: what people read and what programs read."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from conductor.execution.v1 import execution_service_pb2 as pb
from conductor.execution.v1.execution_pb2 import AgentSnapshot, Execution, ExecutionError
from conductor.execution.v1.model_pb2 import ModelChoice
from conductor.execution.v1.usage_pb2 import Usage
from tests.rpc.scripted import Failure, Scripted
from tests.rpc.terminal import COLOUR, Outcome, Terminal, unstyled

LIST = ("executions", "list")
GET = ("executions", "get")
CREATED = Timestamp(seconds=1_780_000_000)  # 2026-05-28T20:26:40Z


def execution_id(number: int) -> str:
    return f"exec_0190000000007000800{number:013}"


def listed(number: int, **fields: object) -> Execution:
    execution = Execution(
        id=execution_id(number),
        state=Execution.STATE_SUCCEEDED,
        agent_id="default",
        model="mock",
        create_time=CREATED,
        start_time=CREATED,
        end_time=Timestamp(seconds=CREATED.seconds + 125),
        usage=Usage(cost_usd=0.0015),
        input_preview="Write a poem",
    )
    execution.MergeFrom(Execution(**fields))  # type: ignore[arg-type]  # any field of it
    return execution


def page(*executions: Execution, following: str = "") -> pb.ListExecutionsResponse:
    return pb.ListExecutionsResponse(executions=executions, next_page_token=following)


async def test_a_pipe_gets_columns_without_colours_or_cuts(
    scripted: Scripted, terminal: Terminal
) -> None:
    preview = "Write a poem about " + "the sea and " * 15
    scripted.pages.append(page(listed(1, input_preview=preview)))
    terminal.env |= {"COLUMNS": "40", "FORCE_COLOR": "1"}

    outcome = await terminal.run(*LIST)

    assert (outcome.status, outcome.err) == (0, "")
    titles, line = outcome.out.splitlines()
    assert titles.split() == ["id", "state", "agent", "model", "created", "took", "cost", "input"]
    assert line.split(maxsplit=7) == [
        *(execution_id(1), "succeeded", "default", "mock", "2026-05-28T20:26:40Z", "2m5s"),
        *("$0.0015", preview.strip()),
    ]
    assert COLOUR not in outcome.out
    assert "\t" not in outcome.out


async def test_what_is_not_known_is_a_dash_and_not_zero(
    scripted: Scripted, terminal: Terminal
) -> None:
    queued = Execution(id="exec_1", state=Execution.STATE_QUEUED, create_time=CREATED)
    scripted.pages.append(page(queued))

    line = (await terminal.run(*LIST)).out.splitlines()[1]

    assert line.split() == ["exec_1", "queued", "-", "-", "2026-05-28T20:26:40Z", "-", "-", "-"]


async def test_pages_are_followed_up_to_the_limit_which_says_how_to_see_more(
    scripted: Scripted, terminal: Terminal
) -> None:
    scripted.pages.append(page(listed(5), listed(4), following="2"))
    scripted.pages.append(page(listed(3), listed(2), following="3"))

    outcome = await terminal.run(*LIST, "--limit", "3", "--json")

    assert [json.loads(line)["id"] for line in outcome.out.splitlines()] == [
        *(execution_id(5), execution_id(4), execution_id(3)),
    ]
    assert "--limit 0" in outcome.err
    assert [request.page_token for request in scripted.requests] == ["", "2"]


async def test_a_limit_of_0_lists_all_and_says_nothing(
    scripted: Scripted, terminal: Terminal
) -> None:
    scripted.pages.append(page(*(listed(number) for number in range(200)), following="2"))
    scripted.pages.append(page(listed(200), following="3"))
    scripted.pages.append(page())

    outcome = await terminal.run(*LIST, "--limit", "0", "--json")

    assert (outcome.out.count("\n"), outcome.err) == (201, "")
    assert [request.page_token for request in scripted.requests] == ["", "2", "3"]


async def test_exactly_as_many_as_the_limit_are_all(scripted: Scripted, terminal: Terminal) -> None:
    scripted.pages.append(page(listed(2), listed(1)))

    outcome = await terminal.run(*LIST, "--limit", "2", "--json")

    assert (outcome.out.count("\n"), outcome.err) == (2, "")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [((), "no executions yet\n"), (("--state", "failed"), "no executions are like that\n")],
)
async def test_an_empty_list_is_told_on_stderr(
    scripted: Scripted, terminal: Terminal, arguments: tuple[str, ...], sentence: str
) -> None:
    scripted.pages.append(page())

    assert await terminal.run(*LIST, *arguments) == Outcome(0, "", sentence)


async def test_the_filters_reach_the_mesh(scripted: Scripted, terminal: Terminal) -> None:
    scripted.pages.append(page())

    await terminal.run(
        *(*LIST, "--state", "Waiting_Approval", "--agent", "writer"),
        *("--since", "1d12h", "--before", "2026-05-31T18:00:00+02:00"),
    )

    (request,) = scripted.requests
    assert (request.state, request.agent_id) == (Execution.STATE_WAITING_APPROVAL, "writer")
    assert request.create_time_before.ToJsonString() == "2026-05-31T16:00:00Z"
    ago = datetime.now(UTC) - request.create_time_from.ToDatetime(UTC)
    assert timedelta(hours=36) <= ago < timedelta(hours=36, minutes=1)


async def test_a_date_is_the_beginning_of_a_local_day(
    scripted: Scripted, terminal: Terminal
) -> None:
    scripted.pages.append(page())
    terminal.env["TZ"] = "UTC-3"

    await terminal.run(*LIST, "--since", "2026-05-31")

    assert scripted.requests[0].create_time_from.ToJsonString() == "2026-05-30T21:00:00Z"


@pytest.mark.parametrize(
    "arguments",
    [
        ["--state", "done"],
        ["--since", "yesterday"],
        ["--since", "999999999w"],
        ["--before", "0001-01-01T00:00+14:00"],
        ["--limit", "-1"],
    ],
)
async def test_a_filter_that_makes_no_sense_is_status_2(
    scripted: Scripted, terminal: Terminal, arguments: list[str]
) -> None:
    assert (await terminal.run(*LIST, *arguments)).status == 2
    assert scripted.requests == []


async def test_a_terminal_gets_one_coloured_line_for_each(
    scripted: Scripted, terminal: Terminal
) -> None:
    scripted.pages.append(
        page(
            listed(2, state=Execution.STATE_FAILED, input_preview="日本語 " * 60),
            listed(1, input_preview="plain"),
        )
    )

    outcome = await terminal.show(*LIST)

    assert f"{COLOUR}31mfailed" in outcome.out
    assert f"{COLOUR}32msucceeded" in outcome.out
    lines = unstyled(outcome.out).splitlines()
    assert len(lines) == 3
    assert lines[1].startswith(execution_id(2))
    assert lines[1].endswith("…")
    assert lines[2].endswith("plain")


async def test_a_narrow_terminal_gets_two_lines_and_whole_ids(
    scripted: Scripted, terminal: Terminal
) -> None:
    scripted.pages.append(page(listed(1)))
    terminal.env["COLUMNS"] = "80"

    _, first, second = unstyled((await terminal.show(*LIST)).out).splitlines()

    assert first.startswith(f"{execution_id(1)}  succeeded")
    assert second == "  agent: default, model: mock, took: 2m5s, input: Write a poem"


@pytest.mark.parametrize("choice", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
async def test_who_wants_no_colours_gets_none(
    scripted: Scripted, terminal: Terminal, choice: dict[str, str]
) -> None:
    scripted.pages.append(page(listed(1)))
    terminal.env |= choice

    outcome = await terminal.show(*LIST)

    assert "succeeded" in outcome.out
    assert f"{COLOUR}3" not in outcome.out


async def test_json_has_no_colours_at_a_terminal_either(
    scripted: Scripted, terminal: Terminal
) -> None:
    scripted.pages.append(page(listed(1, input_preview="\x1b[2J\x9b2J\u2028")))

    shown = (await terminal.show(*LIST, "--json")).out

    assert json.loads(shown)["input_preview"].endswith("\x1b[2J\x9b2J\u2028")
    assert shown.removesuffix("\n").isprintable()


async def test_json_is_lossless_where_stdout_has_no_unicode(
    scripted: Scripted, terminal: Terminal
) -> None:
    scripted.pages.append(page(Execution(input_preview="мир 🌍")))
    terminal.env |= {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}

    assert json.loads((await terminal.run(*LIST, "--json")).out)["input_preview"] == "мир 🌍"


@pytest.mark.parametrize("columns", ["140", "80"])
async def test_texts_of_a_list_cannot_command_the_terminal(
    scripted: Scripted, terminal: Terminal, columns: str
) -> None:
    scripted.pages.append(
        page(listed(1, model="\x1b]0;t\x07[red]", input_preview="a\nb\t\x9bc\u202ed\x00"))
    )
    terminal.env["COLUMNS"] = columns

    shown = unstyled((await terminal.show(*LIST)).out)

    assert "]0;t[red]" in shown
    assert "a b cd" in shown
    assert shown.replace("\n", "").isprintable()


async def test_a_reader_that_goes_away_ends_a_list_quietly(
    scripted: Scripted, terminal: Terminal
) -> None:
    scripted.pages.append(page(*(listed(number) for number in range(200))))
    reader, writer = os.pipe()
    os.close(reader)
    process = await terminal.start(*LIST, "--limit", "0", stdout=writer)
    os.close(writer)

    _, err = await process.communicate()

    assert (process.returncode, err) == (141, b"")


async def test_no_mesh_is_status_3() -> None:
    outcome = await Terminal("127.0.0.1:1").run(*LIST)

    assert outcome.status == 3
    assert "no mesh answers at 127.0.0.1:1" in outcome.err


WHOLE = listed(
    1,
    ai_provider="openrouter",
    model="meta-llama/x",
    input="Write a poem\nabout the sea",
    result="Tide.\n",
    priority=2,
    max_output_tokens=5_000,
    max_cost_usd=0.5,
    fallbacks=[ModelChoice(model="mock")],
    served_by=ModelChoice(ai_provider="mock", model="mock"),
    finish_reason="stop",
    request_id="r-1",
    metadata={"team": "red", "a": "b"},
    usage=Usage(input_tokens=1_234, output_tokens=1, unreported_calls=2),
    agent_id="poet",
    agent=AgentSnapshot(name="The Poet", persona_version=7, persona_alias="production"),
)


async def test_a_run_is_told_whole(scripted: Scripted, terminal: Terminal) -> None:
    WHOLE.timeout.FromSeconds(600)
    scripted.executions[WHOLE.id] = WHOLE

    outcome = await terminal.run(*GET, WHOLE.id)

    assert (outcome.status, outcome.err) == (0, "")
    facts, texts = outcome.out.split("\n\n", 1)
    assert [line[:16].strip() for line in facts.splitlines()] == [
        *("id", "state", "agent", "persona", "model", "fallback", "served by", "finish reason"),
        *(
            "priority",
            "created",
            "started",
            "ended",
            "took",
            "timeout",
            "output limit",
            "cost limit",
            "tokens",
        ),
        *("cost", "unreported", "request id", "metadata", "metadata"),
    ]
    told = {line[:16].strip(): line[16:] for line in facts.splitlines()}
    assert (told["agent"], told["persona"]) == ("poet (The Poet)", "version 7 (production)")
    assert told["model"] == "openrouter/meta-llama/x"
    assert told["created"].startswith("2026-05-28T20:26:40Z (")
    assert (told["took"], told["timeout"]) == ("2m5s", "10m")
    assert (told["output limit"], told["cost limit"]) == ("5,000 tokens", "$0.50")
    assert told["tokens"] == "1,234 tokens in, 1 token out"
    assert told["unreported"] == "2 calls not reported"
    assert texts == "input:\nWrite a poem\nabout the sea\n\nresult:\nTide.\n"


async def test_a_run_that_waits_tells_its_place(scripted: Scripted, terminal: Terminal) -> None:
    scripted.executions["x"] = Execution(id="x", state=Execution.STATE_QUEUED, queue_position=7)

    lines = (await terminal.run(*GET, "x")).out.splitlines()

    assert [line.split() for line in lines] == [
        *(["id", "x"], ["state", "queued"], ["queue", "position", "7"]),
    ]


async def test_a_run_that_failed_tells_why(scripted: Scripted, terminal: Terminal) -> None:
    why = ExecutionError(reason="MODEL_FAILED", message="It\ndied.")
    scripted.executions["x"] = Execution(id="x", state=Execution.STATE_FAILED, error=why)

    assert "MODEL_FAILED: It died.\n" in (await terminal.run(*GET, "x")).out


async def test_a_run_as_json_is_one_line_of_the_proto(
    scripted: Scripted, terminal: Terminal
) -> None:
    scripted.executions[WHOLE.id] = WHOLE

    outcome = await terminal.run(*GET, WHOLE.id, "--json")

    (line,) = outcome.out.splitlines()
    assert json.loads(line)["max_cost_usd"] == 0.5
    assert json.loads(line)["served_by"] == {"ai_provider": "mock", "model": "mock"}


async def test_texts_of_a_run_cannot_command_the_terminal(
    scripted: Scripted, terminal: Terminal
) -> None:
    scripted.executions["x"] = Execution(
        id="x",
        state=Execution.STATE_SUCCEEDED,
        model="m\x1b[2J",
        input="in\x1b]0;t\x07\n\tput",
        result="out\x9b2J\n",
        metadata={"k\nstate": "v\x1bc\u202e[bold]"},
    )

    shown = (await terminal.show(*GET, "x")).out

    assert f"{COLOUR}32msucceeded" in shown
    assert "metadata        k state=vc[bold]" in unstyled(shown)
    assert "in]0;t\n\tput" in unstyled(shown).expandtabs(1).replace("\n ", "\n\t")
    assert unstyled(shown).replace("\n", "").replace("\t", "").isprintable()


async def test_a_pipe_gets_texts_as_they_are(scripted: Scripted, terminal: Terminal) -> None:
    scripted.executions["x"] = Execution(id="x", result="raw\x1b[1m\n")

    assert (await terminal.run(*GET, "x")).out.endswith("\nresult:\nraw\x1b[1m\n")


async def test_an_unknown_run_is_status_2(scripted: Scripted, terminal: Terminal) -> None:
    scripted.failure = Failure(grpc.StatusCode.NOT_FOUND, "No run is x.", "EXECUTION_NOT_FOUND")

    outcome = await terminal.run(*GET, "x")

    assert outcome == Outcome(2, "", "error: No run is x. (EXECUTION_NOT_FOUND)\n")
