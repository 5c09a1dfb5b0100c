"""`conductor models`: which models there are, for people and for programs."""

from __future__ import annotations

import json

import grpc
import pytest

from conductor.execution.v1.model_pb2 import Circuit, Model, Price
from tests.rpc.scripted import Failure, Scripted
from tests.rpc.terminal import COLOUR, Outcome, Terminal, unstyled

KNOWN = Model(
    id="big",
    ai_provider="acme",
    is_default=True,
    context_tokens=128_000,
    max_output_tokens=4_096,
    price=Price(input_usd=0.15, output_usd=2),
    circuit=Circuit(state=Circuit.STATE_OPEN, failures=5),
)
UNKNOWN = Model(id="meta-llama/x", ai_provider="openrouter")
FREE = Model(
    id="mock", ai_provider="mock", price=Price(), circuit=Circuit(state=Circuit.STATE_CLOSED)
)


@pytest.fixture(autouse=True)
def _models(scripted: Scripted) -> None:
    scripted.models = [KNOWN, UNKNOWN, FREE]


def cells(line: str) -> list[str]:
    return line.split()


async def test_a_pipe_gets_columns_without_colours(terminal: Terminal) -> None:
    outcome = await terminal.run("models", "list")

    assert (outcome.status, outcome.err) == (0, "")
    assert COLOUR not in outcome.out
    assert "\t" not in outcome.out
    _, big, _, mock = outcome.out.splitlines()
    assert cells(big) == [
        *("big", "acme", "default", "128,000", "4,096", "$0.15", "$2.00", "open", "(5", "failed)"),
    ]
    assert cells(mock)[-3:] == ["$0.00", "$0.00", "closed"]


async def test_what_is_not_known_is_a_dash_and_not_zero(terminal: Terminal) -> None:
    line = (await terminal.run("models", "list")).out.splitlines()[2]

    assert cells(line) == ["meta-llama/x", "openrouter", "-", "-", "-", "-", "-", "unknown"]


async def test_the_models_of_a_provider_are_picked(terminal: Terminal) -> None:
    outcome = await terminal.run("models", "list", "--provider", "acme")

    assert [cells(line)[0] for line in outcome.out.splitlines()] == ["model", "big"]


async def test_no_models_are_told_on_stderr(terminal: Terminal) -> None:
    outcome = await terminal.run("models", "list", "--provider", "nobody")

    assert outcome == Outcome(0, "", "no models of provider nobody\n")


async def test_json_is_one_line_for_each_model(terminal: Terminal) -> None:
    outcome = await terminal.run("models", "list", "--json")

    lines = [json.loads(line) for line in outcome.out.splitlines()]
    assert [line["id"] for line in lines] == ["big", "meta-llama/x", "mock"]
    assert lines[0]["price"] == {"input_usd": 0.15, "output_usd": 2.0}
    assert "price" not in lines[1]


@pytest.mark.parametrize("columns", ["140", "30"])
async def test_a_terminal_gets_colours_and_every_value_at_any_width(
    terminal: Terminal, columns: str
) -> None:
    terminal.env["COLUMNS"] = columns

    outcome = await terminal.show("models", "list")

    assert f"{COLOUR}31mopen" in outcome.out
    words = unstyled(outcome.out).replace(",", " ").split()
    assert {"big", "acme", "128", "$0.15", "$2.00", "meta-llama/x", "unknown"} <= {*words}


async def test_names_cannot_command_the_terminal(scripted: Scripted, terminal: Terminal) -> None:
    scripted.models = [Model(id="\x1b]0;title\x07[red]\x9b2J\nx", ai_provider="a\u202eb\ttail")]

    shown = unstyled((await terminal.show("models", "list")).out)

    assert "]0;title[red]2J x" in shown
    assert "ab tail" in shown
    assert shown.replace("\n", "").isprintable()


async def test_an_error_is_explained(scripted: Scripted, terminal: Terminal) -> None:
    scripted.failure = Failure(grpc.StatusCode.INTERNAL, "It broke.", "INTERNAL")

    assert await terminal.run("models", "list") == Outcome(1, "", "error: It broke. (INTERNAL)\n")


async def test_a_port_that_is_none_is_refused(terminal: Terminal) -> None:
    terminal.env |= {"CONDUCTOR_ADDRESS": "", "CONDUCTOR_HTTP_PORT": "http"}

    outcome = await terminal.run("models", "list")

    assert outcome.status == 2
    assert "CONDUCTOR_HTTP_PORT" in outcome.err
