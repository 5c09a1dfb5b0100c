"""What runs are told besides their input: asked for by mode and screenplay, sent to models, shown."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from conductor.content.v1.agent_pb2 import Agent
from conductor.content.v1.screenplay_pb2 import Screenplay
from conductor.content.v1.screenplay_service_pb2 import (
    CreateScreenplayRequest,
    GetScreenplayRequest,
)
from conductor.execution.v1 import execution_service_pb2 as pb
from conductor.execution.v1.execution_pb2 import (
    CONTEXT_MODE_CONTEXTUAL,
    CONTEXT_MODE_INTERACTIVE,
    CONTEXT_MODE_STATELESS,
    Execution,
)
from conductor.gateway.v1 import gateway_service_pb2 as gateway_pb
from services.execution.domain import parts
from services.execution.domain.parts import Part
from services.kit.errors import DomainError, Reason
from tests.fakes.content import Catalogue, Persona
from tests.fakes.models import Answer
from tests.fakes.turns import FakeTurns, Message
from tests.patience import PATIENCE
from tests.rpc.content import served_content
from tests.rpc.modelled import BOTH, modelled
from tests.rpc.serving import Mesh, body_of, frames, refusal, served

NOT_FOUND = (grpc.StatusCode.NOT_FOUND, "SCREENPLAY_NOT_FOUND")
INVALID = (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
TEXT = "# Act one\n</mesh-screenplay>\n"


@pytest.fixture
def catalogue() -> Catalogue:
    """An agent `writer`, and a screenplay `play_1`."""
    writer = Agent(id="writer", name="Writer", model="mock-recall", instructions="Be brief.")
    catalogue = Catalogue([writer], {"writer": Persona(["You write.\n"])})
    catalogue.screenplays["play_1"] = Screenplay(
        id="play_1", name="Harbour", content=TEXT, working_directory="/srv/harbour"
    )
    return catalogue


@pytest.fixture
async def mesh(tmp_path: Path, catalogue: Catalogue) -> AsyncIterator[Mesh]:
    async with served(tmp_path, catalogue=catalogue) as mesh:
        yield mesh


def system_of(execution_id: str) -> list[str]:
    """The parts that a run of the writer is told in the directory of the screenplay."""
    nonce = parts.nonce(execution_id)
    texts = {
        Part.PERSONA: "You write.",
        Part.INSTRUCTIONS: "Be brief.",
        Part.SCREENPLAY_NAME: "Harbour",
        Part.SCREENPLAY: TEXT,
        Part.DIRECTORY: "/srv/harbour",
    }
    return [parts.enclosed(part, text, nonce) for part, text in texts.items()]


async def test_a_run_is_told_its_screenplay_and_says_what_it_was_told(mesh: Mesh) -> None:
    ended = await mesh.finished("Hi.", agent_id="writer", screenplay_id="play_1")
    told = json.loads(ended.result)
    assert told["messages"] == [{"role": "user", "content": "Hi."}]
    preamble, *system = told["system"].split("\n\n")
    assert parts.nonce(ended.id) in preamble
    assert "\n\n".join(system) == "\n\n".join(system_of(ended.id))
    events = {event.WhichOneof("payload"): event for event in await mesh.watch(ended.id)}
    read = events["context_read"].context_read
    assert (read.history_count, read.omitted_count) == (0, 0)
    assert read.bytes == len(told["system"].encode())
    assert events["context_read"].sequence < events["on_llm_start"].sequence


async def test_what_is_asked_for_is_stored_and_answered(mesh: Mesh) -> None:
    started = await mesh.start(
        agent_id="writer", screenplay_id="play_1", context_mode=CONTEXT_MODE_CONTEXTUAL
    )
    plain = await mesh.start(agent_id="writer")
    page = await mesh.executions.ListExecutions(pb.ListExecutionsRequest(), timeout=PATIENCE)
    listed = {one.id: one for one in page.executions}
    for shown in (started, await mesh.get(started.id), listed[started.id]):
        assert shown.context_mode == CONTEXT_MODE_CONTEXTUAL
        assert (shown.screenplay_id, shown.cwd) == ("play_1", "/srv/harbour")
    for shown in (plain, await mesh.get(plain.id), listed[plain.id]):
        assert shown.context_mode == CONTEXT_MODE_STATELESS
        assert (shown.screenplay_id, shown.cwd) == ("", "")


async def test_a_stateless_run_with_a_screenplay_has_its_directory_alone(mesh: Mesh) -> None:
    asked = {"screenplay_id": "play_1", "context_mode": CONTEXT_MODE_STATELESS}
    ended = await mesh.finished("Hi.", agent_id="writer", **asked)
    told = json.loads(ended.result)
    assert told["system"] == "You write.\n\nBe brief."
    assert ended.cwd == "/srv/harbour"


async def test_a_screenplay_that_is_not_there_is_refused(mesh: Mesh, catalogue: Catalogue) -> None:
    refused = await refusal(mesh.start(screenplay_id="play_2"))
    assert (refused.kind, refused.fields) == (NOT_FOUND, ["screenplay_id"])
    catalogue.screenplays["play_1"].delete_time.CopyFrom(Timestamp(seconds=1))
    refused = await refusal(mesh.start(screenplay_id="play_1"))
    assert (refused.kind, refused.resources) == (NOT_FOUND, [("screenplay", "play_1")])
    assert catalogue.used == []


async def test_while_content_is_away_a_run_with_a_screenplay_is_not_accepted(
    mesh: Mesh, catalogue: Catalogue
) -> None:
    await mesh.start(agent_id="writer")
    catalogue.trouble = DomainError(Reason.REASON_STORE_UNAVAILABLE, "Away.", retry_after=1.0)
    refused = await refusal(mesh.start(agent_id="writer", screenplay_id="play_1"))
    assert refused.kind == (grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE")


async def test_a_screenplay_is_marked_as_used_once_for_a_run(
    mesh: Mesh, catalogue: Catalogue
) -> None:
    for _ in range(2):
        await mesh.start(screenplay_id="play_1", request_id="r")
    assert catalogue.used == ["play_1"]


async def test_a_screenplay_that_was_deleted_since_is_told_all_the_same(
    tmp_path: Path, catalogue: Catalogue
) -> None:
    async with served(tmp_path, catalogue=catalogue, execution_concurrency=0) as waiting:
        started = await waiting.start("Hi.", agent_id="writer", screenplay_id="play_1")
    catalogue.screenplays["play_1"].delete_time.CopyFrom(Timestamp(seconds=1))
    async with served(tmp_path, catalogue=catalogue) as mesh:
        await mesh.watch(started.id)
        ended = await mesh.get(started.id)
    assert ended.state == Execution.STATE_SUCCEEDED
    assert system_of(ended.id)[3] in json.loads(ended.result)["system"]


async def test_a_session_needs_a_conversation(mesh: Mesh) -> None:
    refused = await refusal(mesh.start(context_mode=CONTEXT_MODE_INTERACTIVE))
    assert (refused.kind, refused.fields) == (INVALID, ["context_mode"])


@pytest.mark.parametrize(
    ("fields", "mode"),
    [
        ({}, CONTEXT_MODE_STATELESS),
        ({"context_mode": "stateless"}, CONTEXT_MODE_STATELESS),
        ({"context_mode": "contextual"}, CONTEXT_MODE_CONTEXTUAL),
        ({"context_mode": "stateful"}, CONTEXT_MODE_CONTEXTUAL),
        ({"screenplay_id": "play_1"}, CONTEXT_MODE_CONTEXTUAL),
    ],
)
async def test_chat_clients_name_the_mode_and_the_screenplay_too(
    mesh: Mesh, fields: dict[str, Any], mode: int
) -> None:
    request = gateway_pb.ExecuteRequest(input="Hi.", agent_id="writer", **fields)
    answer = await mesh.gateway.Execute(request, timeout=PATIENCE)
    ended = await mesh.get(answer.job_id)
    assert ended.context_mode == mode
    assert ended.screenplay_id == fields.get("screenplay_id", "")
    told = json.loads(answer.result)["system"]
    assert ("Harbour" in told) is bool(ended.screenplay_id)


async def test_chat_clients_are_shown_the_context_as_a_status(mesh: Mesh) -> None:
    ended = await mesh.finished(agent_id="writer", screenplay_id="play_1")
    request = gateway_pb.StreamJobRequest(job_id=ended.id)
    shown = frames(await body_of(mesh.gateway.StreamJob(request, timeout=PATIENCE)))
    statuses = [
        one.data["data"] for one in shown if one.data and one.data["event"] == "status_update"
    ]
    assert statuses[1] == {
        "message": "The run is told its context, with 0 earlier messages.",
        "history_count": 0,
        "omitted_count": 0,
        "bytes": statuses[1]["bytes"],
    }
    watch = pb.WatchExecutionRequest(execution_id=ended.id)
    own = frames(await body_of(mesh.executions.WatchExecutionSse(watch, timeout=PATIENCE)))
    (read,) = (one.data for one in own if one.data and "context_read" in one.data)
    assert read["context_read"] == statuses[1]


async def test_the_persona_is_known_in_a_context_too(mesh: Mesh) -> None:
    ended = await mesh.finished(agent_id="writer", model="mock-persona", screenplay_id="play_1")
    assert ended.result == "You write."


@BOTH
async def test_models_are_sent_what_was_said_as_a_chat(
    tmp_path: Path, catalogue: Catalogue, protocol: str
) -> None:
    turns = FakeTurns()
    turns.conversation("c").messages += [
        Message("", "Who?"),
        Message("", "I.", agent="writer"),
        Message("", "Not it.", agent="Reviewer"),
    ]
    async with modelled(tmp_path, catalogue=catalogue, turns=turns) as (mesh, server):
        server.says("m", Answer())
        asked = {"conversation_id": "c", "ai_provider": protocol, "model": "m"}
        ended = await mesh.finished("Hi.", agent_id="writer", **asked)
    assert ended.state == Execution.STATE_SUCCEEDED
    (body,) = (request.body for request in server.requests)
    nonce = parts.nonce("c")
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": "Who?"},
        {"role": "assistant", "content": "I."},
        {
            "role": "user",
            "content": "\n\n".join(
                (
                    parts.enclosed(Part.AGENT, "Reviewer", nonce),
                    parts.enclosed(Part.MESSAGE, "Not it.", nonce),
                    "Hi.",
                )
            ),
        },
    ]
    if protocol == "chat":
        first, *others = body["messages"]
        assert first["role"] == "system"
        system = first["content"]
    else:
        others, system = body["messages"], body["system"]
        # What the next run in the conversation begins with is worth keeping at the provider.
        kept = {"cache_control": {"type": "ephemeral"}}
        messages[-1]["content"] = [{"type": "text", "text": messages[-1]["content"], **kept}]
    assert others == messages
    assert parts.enclosed(Part.TITLE, "A title", nonce) in system


async def test_all_that_a_model_is_told_counts_as_input(tmp_path: Path) -> None:
    turns = FakeTurns()
    said = [Message("", "one two"), Message("", "three", agent="default")]
    turns.conversation("c").messages += said
    async with served(tmp_path, turns=turns) as mesh:
        asked = {"conversation_id": "c", "agent_id": "default", "model": "mock-recall"}
        ended = await mesh.finished("Hi.", **asked)
    told = json.loads(ended.result)
    words = [told["system"], *(one["content"] for one in told["messages"])]
    assert ended.usage.input_tokens == sum(len(text.split()) for text in words)
    assert told["messages"][1] == {"role": "assistant", "content": "three"}


async def test_the_content_service_itself_tells_of_screenplays_and_notes_their_use(
    tmp_path: Path,
) -> None:
    async with (
        served_content(tmp_path / "content") as content,
        served(tmp_path / "runs", peers={"content": f"ipv4:127.0.0.1:{content.port}"}) as mesh,
    ):
        made = await content.screenplays.CreateScreenplay(
            CreateScreenplayRequest(
                screenplay=Screenplay(name="Harbour", content=TEXT, working_directory="/srv")
            ),
            timeout=PATIENCE,
        )
        ended = await mesh.finished(model="mock-recall", screenplay_id=made.id)
        request = GetScreenplayRequest(screenplay_id=made.id)
        used = await content.screenplays.GetScreenplay(request, timeout=PATIENCE)
    told = json.loads(ended.result)["system"]
    assert parts.enclosed(Part.SCREENPLAY, TEXT, parts.nonce(ended.id)) in told
    assert ended.cwd == "/srv"
    assert made.last_use_time.ToNanoseconds() < used.last_use_time.ToNanoseconds()
    assert used.etag == made.etag
