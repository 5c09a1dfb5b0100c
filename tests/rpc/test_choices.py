"""Which model a run gets, which one goes on for it, and what is refused by name."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import grpc
import pytest

from conductor.content.v1.agent_pb2 import Agent
from tests.fakes import models
from tests.fakes.content import Catalogue
from tests.fakes.models import Answer, ModelServer, Then
from tests.patience import PATIENCE
from tests.rpc.modelled import (
    KEY,
    KEY_VARIABLES,
    listed,
    modelled,
    story,
    without_keys,
)
from tests.rpc.serving import Mesh, refusal, served

NOT_CONFIGURED = (grpc.StatusCode.FAILED_PRECONDITION, "PROVIDER_NOT_CONFIGURED")
INVALID = (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
NO_PROVIDER = (grpc.StatusCode.NOT_FOUND, "PROVIDER_NOT_FOUND")
NO_MODEL = (grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND")


@pytest.fixture(autouse=True)
def no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    without_keys(monkeypatch)


class TestFallbacks:
    @pytest.mark.parametrize(("first", "second"), [("chat", "messages"), ("messages", "chat")])
    async def test_another_provider_answers_when_one_is_down_and_the_run_says_so(
        self, tmp_path: Path, first: str, second: str
    ) -> None:
        async with modelled(tmp_path, "m", "n") as (mesh, server):
            server.says("m", models.overloaded())
            server.says("n", Answer())

            run = await mesh.finished(
                ai_provider=first, model="m", fallbacks=[{"ai_provider": second, "model": "n"}]
            )

            assert story((await mesh.watch(run.id))[2:]) == [
                f"start 1: {first}/m",
                "failed 1: MODEL_OVERLOADED and again",
                f"start 2: {first}/m",
                "failed 2: MODEL_OVERLOADED and again",
                f"start 3: {first}/m",
                "failed 3: MODEL_OVERLOADED and another",
                f"start 4: {second}/n",
                "said 4: Hello, world.",
                "end 4: stop",
                "result",
            ]
            assert (run.ai_provider, run.model) == (first, "m")
            assert (run.served_by.ai_provider, run.served_by.model) == (second, "n")
            assert run.result == "Hello, world."
            paths = [request.path for request in server.requests]
            chat, messages = "/v1/chat/completions", "/v1/messages"
            expected = [chat] * 3 + [messages] if first == "chat" else [messages] * 3 + [chat]
            assert paths == expected

    async def test_a_key_that_is_rejected_leads_to_the_fallback_without_another_try(
        self, tmp_path: Path
    ) -> None:
        async with modelled(tmp_path, "m", "n") as (mesh, server):
            server.says("m", models.key_rejected())
            server.says("n", Answer())

            run = await mesh.finished(
                ai_provider="chat", model="m", fallbacks=[{"ai_provider": "messages", "model": "n"}]
            )

            assert run.served_by.model == "n"
            assert [request.model for request in server.requests] == ["m", "n"]

    async def test_a_refusal_to_answer_is_not_taken_to_another_model(self, tmp_path: Path) -> None:
        async with modelled(tmp_path, "m", "n") as (mesh, server):
            server.says("m", Answer((), finish="refusal"))
            server.says("n", Answer())

            run = await mesh.finished(
                ai_provider="chat", model="m", fallbacks=[{"ai_provider": "messages", "model": "n"}]
            )

            assert run.error.reason == "MODEL_CONTENT_REFUSED"
            assert [request.model for request in server.requests] == ["m"]

    async def test_what_one_model_began_to_say_no_other_one_goes_on_with(
        self, tmp_path: Path
    ) -> None:
        async with modelled(tmp_path, "m", "n") as (mesh, server):
            server.says("m", Answer(("Hel",), then=Then.CUT))
            server.says("n", Answer())

            run = await mesh.finished(
                ai_provider="chat", model="m", fallbacks=[{"ai_provider": "messages", "model": "n"}]
            )

            assert run.error.reason == "MODEL_UNREACHABLE"
            assert [request.model for request in server.requests] == ["m"] * 3

    @pytest.mark.parametrize(
        ("fallbacks", "kind", "named"),
        [
            ([{}], INVALID, "fallbacks[0]"),
            ([{"ai_provider": "nobody"}], NO_PROVIDER, "fallbacks[0].ai_provider"),
            ([{"ai_provider": "groq"}], NOT_CONFIGURED, "fallbacks[0].ai_provider"),
            ([{"model": "nothing"}], NO_MODEL, "fallbacks[0].model"),
            ([{"ai_provider": "chat", "model": "nothing"}], NO_MODEL, "fallbacks[0].model"),
            ([{"model": "claude-opus-5-5"}], NOT_CONFIGURED, "fallbacks[0].model"),
            ([{"model": "m"}, {"model": "nothing"}], NO_MODEL, "fallbacks[1].model"),
            ([{"model": "m"}] * 9, INVALID, "fallbacks"),
        ],
    )
    async def test_a_fallback_that_cannot_be_is_refused_by_its_field(
        self,
        tmp_path: Path,
        fallbacks: list[dict[str, str]],
        kind: Any,
        named: str,
    ) -> None:
        async with modelled(tmp_path) as (mesh, server):
            refused = await refusal(mesh.start(ai_provider="chat", fallbacks=fallbacks))

            assert (refused.kind, refused.fields) == (kind, [named])
            assert named in refused.message
            assert not server.requests


class TestOrder:
    @pytest.mark.parametrize(
        ("request_fields", "chosen"),
        [
            ({"agent_id": "poet", "model": "of-the-request"}, ("chat", "of-the-request")),
            (
                {"agent_id": "poet", "ai_provider": "messages", "model": "of-the-request"},
                ("messages", "of-the-request"),
            ),
            ({"agent_id": "poet", "ai_provider": "messages"}, ("messages", "of-the-agent")),
            ({"agent_id": "poet", "ai_provider": "chat"}, ("chat", "of-the-settings")),
            ({"agent_id": "poet"}, ("messages", "of-the-agent")),
            ({"agent_id": "clerk"}, ("chat", "of-the-settings")),
            ({}, ("chat", "of-the-settings")),
            ({"ai_provider": "messages"}, ("messages", "first")),
        ],
    )
    async def test_the_request_chooses_before_the_agent_and_that_before_the_settings(
        self, tmp_path: Path, request_fields: dict[str, str], chosen: tuple[str, str]
    ) -> None:
        names = ("first", "of-the-request", "of-the-agent", "of-the-settings")
        async with modelled(
            tmp_path,
            *names,
            catalogue=Catalogue(
                [Agent(id="poet", ai_provider="messages", model="of-the-agent"), Agent(id="clerk")]
            ),
            execution_default_provider="chat",
            execution_default_model="of-the-settings",
        ) as (mesh, server):
            for name in names:
                server.says(name, Answer())

            run = await mesh.finished(**request_fields)

            assert run.result == "Hello, world."
            assert (run.ai_provider, run.model) == chosen
            assert (run.served_by.ai_provider, run.served_by.model) == chosen
            (request,) = server.requests
            assert request.model == chosen[1]
            assert request.path.endswith("/messages") == (chosen[0] == "messages")
            assert (await listed(mesh, "chat", "of-the-settings")).is_default

    @pytest.mark.parametrize(
        ("variables", "chosen"),
        [
            ((), ("mock", "mock")),
            (("ANTHROPIC_API_KEY",), ("anthropic", "claude-sonnet-5-5")),
            (("GROQ_API_KEY", "GEMINI_API_KEY"), ("gemini", "gemini-3.8-flash")),
            (KEY_VARIABLES, ("openai", "gpt-6.1-terra")),
        ],
    )
    async def test_without_any_choice_it_is_the_first_provider_with_a_key_else_the_mock(
        self,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        variables: tuple[str, ...],
        chosen: tuple[str, str],
    ) -> None:
        for name in variables:
            monkeypatch.setenv(name, f"{KEY}-{name}")
        async with ModelServer() as server, served(tmp_path, **known(server)) as mesh:
            server.says(chosen[1], Answer())

            run = await mesh.finished()

            assert (run.served_by.ai_provider, run.served_by.model) == chosen
            assert run.result
            headers = [str(request.headers) for request in server.requests]
            assert len(headers) == (chosen[0] != "mock")
            variable = f"{chosen[0].upper()}_API_KEY"
            assert all(f"{KEY}-{variable}" in one for one in headers)


class TestRefusals:
    @pytest.mark.parametrize(
        ("ai_provider", "remedy"),
        [
            ("openai", "set OPENAI_API_KEY"),
            ("anthropic", "set ANTHROPIC_API_KEY"),
            ("gemini", "set GEMINI_API_KEY"),
            ("openrouter", "set OPENROUTER_API_KEY"),
            ("groq", "set GROQ_API_KEY"),
            ("fireworks", "set FIREWORKS_API_KEY"),
            ("ollama", "name it in CONDUCTOR_EXECUTION_PROVIDERS"),
        ],
    )
    async def test_a_provider_without_a_key_is_refused_with_what_it_needs(
        self, mesh: Mesh, ai_provider: str, remedy: str
    ) -> None:
        refused = await refusal(mesh.start(ai_provider=ai_provider))

        assert (refused.kind, refused.fields) == (NOT_CONFIGURED, ["ai_provider"])
        assert refused.resources == [("provider", ai_provider)]
        assert remedy in refused.message

    async def test_a_model_of_a_provider_without_a_key_is_refused_with_what_it_needs(
        self, mesh: Mesh
    ) -> None:
        refused = await refusal(mesh.start(model="claude-opus-5-5"))

        assert (refused.kind, refused.fields) == (NOT_CONFIGURED, ["model"])
        assert refused.resources == [("provider", "anthropic")]
        assert "set ANTHROPIC_API_KEY" in refused.message

    @pytest.mark.parametrize(
        ("fields", "kind", "named"),
        [
            ({"model": "nothing"}, NO_MODEL, "model"),
            ({"ai_provider": "chat", "model": "nothing"}, NO_MODEL, "model"),
            ({"ai_provider": "nobody", "model": "m"}, NO_PROVIDER, "ai_provider"),
            ({"ai_provider": "chat", "model": "mock"}, NO_PROVIDER, "ai_provider"),
        ],
    )
    async def test_a_model_that_nobody_serves_is_refused_before_anybody_is_asked(
        self, tmp_path: Path, fields: dict[str, str], kind: Any, named: str
    ) -> None:
        async with modelled(tmp_path) as (mesh, server):
            refused = await refusal(mesh.start(**fields))

            assert (refused.kind, refused.fields) == (kind, [named])
            assert not server.requests

    async def test_a_provider_may_be_asked_for_models_that_are_not_known(
        self, tmp_path: Path
    ) -> None:
        async with ModelServer() as server:
            server.says("brand-new", Answer())
            row = {
                "base_url": f"{server.url}/v1",
                "keyless": True,
                "any_model": True,
                "models": ["m"],
            }
            async with served(tmp_path, execution_providers={"own": row}) as mesh:
                run = await mesh.finished(ai_provider="own", model="brand-new")
                assert run.result == "Hello, world."
                refused = await refusal(mesh.start(model="brand-new"))
                assert (refused.kind, refused.fields) == (NO_MODEL, ["model"])


IMPORTS = """
import asyncio, json, sys
from contextlib import AsyncExitStack
from pathlib import Path
import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from services.execution.app import compose
from services.execution.settings import ExecutionSettings
from services.kit.server import serving

async def main() -> None:
    async with AsyncExitStack() as stack:
        away = {"content": "ipv4:127.0.0.1:1"}
        settings = ExecutionSettings(data_dir=Path(sys.argv[1]), peers=away)
        app = await compose(settings, stack)
        print(json.dumps([name for name in ("openai", "anthropic") if name in sys.modules]))
        server = await stack.enter_async_context(serving(app, grace_seconds=1))
        channel = grpc.aio.insecure_channel(f"127.0.0.1:{server.port}")
        await stack.enter_async_context(channel)
        health = health_pb2_grpc.HealthStub(channel)
        answer = await health.Check(health_pb2.HealthCheckRequest())
        print(json.dumps(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)))
        print(json.dumps([name for name in ("openai", "anthropic") if name in sys.modules]))

asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("variables", "imported"),
    [
        ((), []),
        (("GROQ_API_KEY",), ["openai"]),
        (("ANTHROPIC_API_KEY",), ["anthropic"]),
    ],
)
async def test_an_sdk_is_imported_before_the_service_serves_and_only_when_a_key_needs_it(
    tmp_path: Path, variables: tuple[str, ...], imported: list[str]
) -> None:
    env = {name: value for name, value in os.environ.items() if name not in KEY_VARIABLES}
    env |= dict.fromkeys(variables, KEY)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        IMPORTS,
        str(tmp_path / "data"),
        env=env | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        cwd=tmp_path,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(PATIENCE):
        output, errors = await process.communicate()

    assert process.returncode == 0, errors.decode()
    assert [json.loads(line) for line in output.splitlines()] == [imported, "SERVING", imported]
    assert KEY not in errors.decode()


def known(server: ModelServer) -> dict[str, Any]:
    """Settings that send the calls of every known provider to one server."""
    chat = {"base_url": f"{server.url}/v1"}
    providers = dict.fromkeys(("openai", "gemini", "openrouter", "groq", "fireworks"), chat)
    return {"execution_providers": providers | {"anthropic": {"base_url": server.url}}}
