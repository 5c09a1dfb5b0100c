"""`conductor executions watch`: like run, but the run is somebody else's."""

from __future__ import annotations

import asyncio
import json
import signal

import grpc

from conductor.execution.v1.event_pb2 import Error, JobStarted, Result
from tests.patience import PATIENCE
from tests.rpc.scripted import ID, Failure, Scripted, events, tokens
from tests.rpc.terminal import Outcome, Terminal

WHOLE = events(JobStarted(), *tokens("Grüße, ", "мир"), Result(result="Grüße, мир"))
WATCH = ("executions", "watch", ID)


async def test_the_answer_is_on_stdout_and_nothing_else_anywhere(
    scripted: Scripted, terminal: Terminal
) -> None:
    scripted.streams.append([*WHOLE])

    assert await terminal.run(*WATCH) == Outcome(0, "Grüße, мир\n", "")
    (request,) = scripted.requests
    assert (request.execution_id, request.after_sequence) == (ID, 0)


async def test_watching_begins_after_an_event(scripted: Scripted, terminal: Terminal) -> None:
    scripted.streams.append([*WHOLE[3:]])

    outcome = await terminal.run(*WATCH, "--after", "3", "--json")

    assert scripted.requests[0].after_sequence == 3
    assert [json.loads(line)["sequence"] for line in outcome.out.splitlines()] == [4, 5]


async def test_a_failed_run_is_status_1(scripted: Scripted, terminal: Terminal) -> None:
    scripted.streams.append([*events(JobStarted(), Error(reason="MODEL_FAILED", error="It died."))])

    assert await terminal.run(*WATCH) == Outcome(1, "", f"{ID} failed: MODEL_FAILED: It died.\n")


async def test_a_cancelled_run_is_status_130(scripted: Scripted, terminal: Terminal) -> None:
    cancelled = Error(reason="EXECUTION_CANCELLED", error="Cancelled by a caller.")
    scripted.streams.append([*events(JobStarted(), cancelled)])

    assert (await terminal.run(*WATCH)).status == 130


async def test_ctrl_c_stops_watching_and_cancels_nothing(
    scripted: Scripted, terminal: Terminal
) -> None:
    scripted.streams.append([*WHOLE[:-1], None])
    process = await terminal.start(*WATCH)
    assert process.stdout is not None
    await asyncio.wait_for(process.stdout.readexactly(len("Grüße, мир".encode())), PATIENCE)

    process.send_signal(signal.SIGINT)
    out, err = await asyncio.wait_for(process.communicate(), PATIENCE)

    assert process.returncode == 130
    assert (out, err.decode()) == (b"\n", f"stopped watching; {ID} was not cancelled\n")
    assert not scripted.cancelled.is_set()
    assert len(scripted.requests) == 1


async def test_an_unknown_run_is_status_2(scripted: Scripted, terminal: Terminal) -> None:
    scripted.failure = Failure(grpc.StatusCode.NOT_FOUND, "No run is x.", "EXECUTION_NOT_FOUND")

    outcome = await terminal.run(*WATCH)

    assert outcome == Outcome(2, "", "error: No run is x. (EXECUTION_NOT_FOUND)\n")


async def test_an_answer_that_is_cut_says_where_the_whole_is(
    scripted: Scripted, terminal: Terminal
) -> None:
    scripted.streams.append([*events(Result(result="the beginn", truncated=True), first=9)])

    outcome = await terminal.run(*WATCH, "--after", "8")

    assert outcome.out == "the beginn\n"
    assert outcome.err == f"cut here; `conductor executions get {ID}` has the whole answer\n"
