"""`conductor executions cancel` and `delete`: several at once, each with its outcome."""

from __future__ import annotations

import json

import grpc
import pytest

from tests.rpc.scripted import Failure, Scripted
from tests.rpc.terminal import Outcome, Terminal

CANCEL = ("executions", "cancel")
DELETE = ("executions", "delete")
SCREEN = ("stdin", "stdout", "stderr")


async def test_each_run_is_cancelled_once(scripted: Scripted, terminal: Terminal) -> None:
    outcome = await terminal.run(*CANCEL, "a", "b", "a")

    assert outcome == Outcome(0, "a cancelled\nb cancelled\n", "")
    assert [request.execution_id for request in scripted.requests] == ["a", "b"]


async def test_one_that_fails_is_told_and_does_not_stop_the_others(
    scripted: Scripted, terminal: Terminal
) -> None:
    scripted.failures["b"] = Failure(
        grpc.StatusCode.FAILED_PRECONDITION, "It has ended.", "EXECUTION_FINISHED"
    )

    outcome = await terminal.run(*CANCEL, "a", "b", "c")

    assert outcome.status == 2
    assert outcome.out == "a cancelled\nc cancelled\n"
    assert outcome.err == "error: b: It has ended. (EXECUTION_FINISHED)\n"


async def test_the_cancelled_run_as_json_is_the_proto(terminal: Terminal) -> None:
    outcome = await terminal.run(*CANCEL, "a", "--json")

    assert json.loads(outcome.out) == {"id": "a", "state": "STATE_CANCELLED"}


async def test_without_a_mesh_the_rest_is_not_tried() -> None:
    outcome = await Terminal("127.0.0.1:1").run(*CANCEL, "a", "b", "c")

    assert outcome.status == 3
    assert outcome.err.startswith("error: a: no mesh answers at 127.0.0.1:1")
    assert outcome.err.endswith("\nnot tried: b c\n")


async def test_runs_are_deleted_when_yes_was_said(scripted: Scripted, terminal: Terminal) -> None:
    assert await terminal.run(*DELETE, "a", "b", "--yes") == Outcome(
        0, "a deleted\nb deleted\n", ""
    )
    assert [request.execution_id for request in scripted.requests] == ["a", "b"]


async def test_deleting_where_nobody_can_be_asked_needs_yes(
    scripted: Scripted, terminal: Terminal
) -> None:
    outcome = await terminal.run(*DELETE, "a", stdin=b"y\n")

    assert (outcome.status, outcome.out) == (2, "")
    assert "--yes" in outcome.err
    assert scripted.requests == []


async def test_a_person_is_asked_before_runs_are_deleted(
    scripted: Scripted, terminal: Terminal
) -> None:
    outcome = await terminal.show(*DELETE, "a", "b", screen=SCREEN, typed=b"y\n")

    assert outcome.status == 0
    assert "Delete 2 executions for good? [y/N]" in outcome.out
    assert "a deleted\nb deleted\n" in outcome.out


@pytest.mark.parametrize("typed", [b"n\n", b"\n", b"\x04"])
async def test_anything_but_yes_deletes_nothing(
    scripted: Scripted, terminal: Terminal, typed: bytes
) -> None:
    outcome = await terminal.show(*DELETE, "a", screen=SCREEN, typed=typed)

    assert outcome.status == 1
    assert "nothing was deleted" in outcome.out
    assert scripted.requests == []


async def test_a_run_that_goes_on_is_not_deleted(scripted: Scripted, terminal: Terminal) -> None:
    scripted.failures["a"] = Failure(
        grpc.StatusCode.FAILED_PRECONDITION, "It goes on.", "EXECUTION_NOT_FINISHED"
    )

    outcome = await terminal.run(*DELETE, "a", "b", "--yes", "--json")

    assert outcome.status == 2
    assert json.loads(outcome.out) == {"id": "b"}
    assert outcome.err == "error: a: It goes on. (EXECUTION_NOT_FINISHED)\n"
