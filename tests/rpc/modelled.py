"""The real service in front of a real server of models, and what a run's events tell of its calls."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from conductor.execution.v1 import execution_service_pb2 as pb
from conductor.execution.v1.event_pb2 import ExecutionEvent
from conductor.execution.v1.model_pb2 import Circuit, Model
from tests.fakes.models import ModelServer
from tests.patience import PATIENCE
from tests.rpc.serving import Mesh, served

KEY = "sk-test-0123456789abcdef"
KEY_VARIABLES = (
    "OPENAI_API_KEY",
    "ANTHROPIC_API_KEY",
    "GEMINI_API_KEY",
    "OPENROUTER_API_KEY",
    "GROQ_API_KEY",
    "FIREWORKS_API_KEY",
)
BOTH = pytest.mark.parametrize("protocol", ["chat", "messages"])


def rows(server: ModelServer, *models: str) -> dict[str, dict[str, Any]]:
    """Rows of `execution_providers`: one server under two names, each of which is a protocol."""
    same = {"api_key": KEY, "models": models or ("m",)}
    return {
        "chat": {"protocol": "openai", "base_url": f"{server.url}/v1", **same},
        "messages": {"protocol": "anthropic", "base_url": server.url, **same},
    }


@asynccontextmanager
async def modelled(
    data_dir: Path, *models: str, **settings: Any
) -> AsyncIterator[tuple[Mesh, ModelServer]]:
    """Serve a mesh whose providers `chat` and `messages` are one server with some models."""
    async with ModelServer() as server:
        ours: dict[str, Any] = {
            "execution_providers": rows(server, *models),
            "execution_retry_pause_seconds": 0.01,
        }
        async with served(data_dir, **(ours | settings)) as mesh:
            yield mesh, server


def without_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the keys away that the environment of the tests may have."""
    for name in KEY_VARIABLES:
        monkeypatch.delenv(name, raising=False)


async def followed(mesh: Mesh, execution_id: str, until: str = "") -> list[ExecutionEvent]:
    """Every event to the end, or to the first of a kind; each wait for the next one is bounded."""
    request = pb.WatchExecutionRequest(execution_id=execution_id)
    stream = mesh.executions.WatchExecution(request)
    events: list[ExecutionEvent] = []
    while not (until and events and events[-1].WhichOneof("payload") == until):
        async with asyncio.timeout(PATIENCE):
            one = await stream.read()
        if one is grpc.aio.EOF:
            assert not until, f"no {until} in {story(events)}"
            return events
        assert isinstance(one, pb.WatchExecutionResponse)
        if one.HasField("event"):
            events.append(one.event)
    stream.cancel()
    return events


async def asked(server: ModelServer, count: int) -> None:
    """Wait until a server has got so many requests."""
    async with asyncio.timeout(PATIENCE), server.arrived:
        await server.arrived.wait_for(lambda: len(server.requests) >= count)


@asynccontextmanager
async def held_back(server: ModelServer) -> AsyncIterator[None]:
    """Let a server take requests and answer none while the block runs."""
    async with server.arrived:
        yield


async def circuit(mesh: Mesh, ai_provider: str, model: str) -> Circuit:
    """The circuit of a model as ListModels shows it."""
    return (await listed(mesh, ai_provider, model)).circuit


async def listed(mesh: Mesh, ai_provider: str, model: str) -> Model:
    """The row of a model in ListModels."""
    answer = await mesh.executions.ListModels(pb.ListModelsRequest(), timeout=PATIENCE)
    (row,) = (one for one in answer.models if (one.ai_provider, one.id) == (ai_provider, model))
    return row


def story(events: Sequence[ExecutionEvent]) -> list[str]:
    """Events in short, in their order; pieces of one attempt that follow each other as one text."""
    told: list[str] = []
    for kind, group in itertools.groupby(events, lambda event: event.WhichOneof("payload")):
        if kind == "on_llm_new_token":
            tokens = [event.on_llm_new_token for event in group]
            (attempt,) = {(token.step, token.attempt) for token in tokens}
            told.append(f"said {attempt[1]}: {''.join(token.chunk for token in tokens)}")
        else:
            told += map(_short, group)
    return told


def _short(event: ExecutionEvent) -> str:
    match event.WhichOneof("payload"):
        case "on_llm_start":
            start = event.on_llm_start
            return f"start {start.attempt}: {start.ai_provider}/{start.model}"
        case "on_llm_end":
            return f"end {event.on_llm_end.attempt}: {event.on_llm_end.finish_reason}"
        case "on_llm_failed":
            failed = event.on_llm_failed
            another = " and again" if failed.HasField("retry_delay") else ""
            another = " and another" if failed.falls_back else another
            return f"failed {failed.attempt}: {failed.reason}{another}"
        case "error":
            return f"error: {event.error.reason}"
        case kind:
            return str(kind)


def last_answer(events: Sequence[ExecutionEvent]) -> str:
    """The tokens of the last attempt; those of the attempts before it are void."""
    attempt = max(event.on_llm_start.attempt for event in events)
    tokens = (event.on_llm_new_token for event in events if event.HasField("on_llm_new_token"))
    return "".join(token.chunk for token in tokens if token.attempt == attempt)
