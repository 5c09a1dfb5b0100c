"""What a run may take and cost: its own limits, those of the settings, and the prices behind them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from conductor.execution.v1.execution_pb2 import Execution
from tests.fakes import models
from tests.fakes.models import Answer, ModelServer, Then, Tokens
from tests.patience import PATIENCE
from tests.rpc.modelled import BOTH, KEY, held_back, listed, modelled, story, without_keys
from tests.rpc.serving import refusal, served

INVALID = (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
PRICE_UNKNOWN = (grpc.StatusCode.FAILED_PRECONDITION, "PRICE_UNKNOWN")
DOLLAR = "{input: 1, output: 1}"
"""Prices: a dollar for a million tokens, a millionth for one."""


def write(file: Path, row: str) -> Path:
    """Write a price file at once, as an editor does that keeps the old one until then."""
    beside = file.with_suffix(".new")
    beside.write_text(f"chat: {{m: {row}}}\nmessages: {{m: {row}}}\n")
    return beside.replace(file)


class TestTime:
    @BOTH
    async def test_a_run_that_takes_longer_than_it_may_ends(
        self, tmp_path: Path, protocol: str
    ) -> None:
        async with modelled(tmp_path) as (mesh, server):
            server.says("m", Answer(("Hel", "lo"), then=Then.STALL))

            timeout = Duration(seconds=1)
            run = await mesh.finished(ai_provider=protocol, model="m", timeout=timeout)

            assert run.error.reason == "EXECUTION_TIMEOUT"
            assert run.error.message == "The run took longer than 1 s."
            assert story((await mesh.watch(run.id))[2:]) == [
                f"start 1: {protocol}/m",
                "said 1: Hello",
                "error: EXECUTION_TIMEOUT",
            ]
            async with asyncio.timeout(PATIENCE):
                await server.requests[0].gone.wait()

    async def test_a_timeout_comes_from_the_settings_and_stays_below_theirs(
        self, tmp_path: Path
    ) -> None:
        async with served(
            tmp_path, execution_timeout_seconds=30, execution_timeout_ceiling_seconds=60
        ) as mesh:
            assert (await mesh.start()).timeout.seconds == 30
            assert (await mesh.start(timeout=Duration(seconds=60))).timeout.seconds == 60
            refused = await refusal(mesh.start(timeout=Duration(seconds=60, nanos=1_000_000)))
            assert (refused.kind, refused.fields) == (INVALID, ["timeout"])
            assert "60 s" in refused.message


class TestTokens:
    @BOTH
    @pytest.mark.parametrize(
        ("answer", "reason"),
        [
            pytest.param(Answer(usage=Tokens(output=10)), "", id="as-many"),
            pytest.param(
                Answer(usage=Tokens(output=10), finish="length"),
                "OUTPUT_LIMIT_REACHED",
                id="cut-by-the-model",
            ),
            pytest.param(Answer(usage=Tokens(output=11)), "OUTPUT_LIMIT_REACHED", id="more"),
            pytest.param(models.long(1000), "OUTPUT_LIMIT_REACHED", id="many-more"),
            pytest.param(
                Answer(usage=Tokens(output=4), finish="length"), "", id="cut-at-its-own-limit"
            ),
        ],
    )
    async def test_a_run_says_no_more_tokens_than_it_may(
        self, tmp_path: Path, protocol: str, answer: Answer, reason: str
    ) -> None:
        async with modelled(tmp_path) as (mesh, server):
            server.says("m", answer)

            run = await mesh.finished(ai_provider=protocol, model="m", max_output_tokens=10)

            assert run.error.reason == reason
            assert (run.state == Execution.STATE_SUCCEEDED) == (not reason)
            assert run.max_output_tokens == 10
            (request,) = server.requests
            assert request.body["max_tokens"] == 10
            if reason:
                assert run.error.message == "The run reached its limit of 10 output tokens."

    async def test_what_failed_attempts_said_counts(self, tmp_path: Path) -> None:
        async with modelled(tmp_path) as (mesh, server):
            used = Answer(("Hel",), usage=Tokens(output=7), usage_each_chunk=True, then=Then.CUT)
            server.says("m", used, Answer(("Hello",), usage=Tokens(output=3)))

            run = await mesh.finished(ai_provider="chat", model="m", max_output_tokens=10)

            assert run.result == "Hello"
            assert run.usage.output_tokens == 10
            assert [one.body["max_tokens"] for one in server.requests] == [10, 3]

    async def test_a_limit_of_tokens_comes_from_the_settings_and_stays_below_theirs(
        self, tmp_path: Path
    ) -> None:
        async with served(
            tmp_path, execution_output_tokens=100, execution_output_tokens_ceiling=200
        ) as mesh:
            assert (await mesh.start()).max_output_tokens == 100
            assert (await mesh.start(max_output_tokens=200)).max_output_tokens == 200
            refused = await refusal(mesh.start(max_output_tokens=201))
            assert (refused.kind, refused.fields) == (INVALID, ["max_output_tokens"])
            assert "200" in refused.message

    async def test_a_ceiling_of_tokens_alone_is_the_default_too(self, tmp_path: Path) -> None:
        async with served(tmp_path, execution_output_tokens_ceiling=5) as mesh:
            run = await mesh.finished(model="mock-long")
            assert (run.max_output_tokens, run.error.reason) == (5, "OUTPUT_LIMIT_REACHED")


class TestCost:
    @BOTH
    @pytest.mark.parametrize(
        ("answer", "reason"),
        [
            # 12 given and 8 made are 20 millionths of a dollar.
            pytest.param(Answer(usage=Tokens(12, 8)), "", id="as-much"),
            pytest.param(Answer(usage=Tokens(12, 9)), "COST_LIMIT_REACHED", id="more"),
            pytest.param(Answer(usage=Tokens(25, 1)), "COST_LIMIT_REACHED", id="input-alone"),
            pytest.param(models.long(1000), "COST_LIMIT_REACHED", id="many-more"),
        ],
    )
    async def test_a_run_costs_no_more_than_it_may(
        self, tmp_path: Path, protocol: str, answer: Answer, reason: str
    ) -> None:
        prices = write(tmp_path / "prices.yaml", DOLLAR)
        async with modelled(tmp_path, execution_price_file=prices) as (mesh, server):
            server.says("m", answer)

            run = await mesh.finished(ai_provider=protocol, model="m", max_cost_usd=0.00002)

            assert run.error.reason == reason
            assert (run.state == Execution.STATE_SUCCEEDED) == (not reason)
            assert run.max_cost_usd == 0.00002
            if reason:
                assert run.error.message == "The run reached its limit of 2e-05 US dollars."
            else:
                assert run.usage.cost_usd == 0.00002

    async def test_a_limit_of_cost_comes_from_the_settings_and_stays_below_theirs(
        self, tmp_path: Path
    ) -> None:
        async with served(tmp_path, execution_cost_usd=0.5, execution_cost_usd_ceiling=2) as mesh:
            assert (await mesh.start()).max_cost_usd == 0.5
            assert (await mesh.start(max_cost_usd=2)).max_cost_usd == 2
            refused = await refusal(mesh.start(max_cost_usd=2.000_001))
            assert (refused.kind, refused.fields) == (INVALID, ["max_cost_usd"])
            assert "2" in refused.message

    @pytest.mark.parametrize(
        ("settings", "fields"),
        [
            ({}, {"max_cost_usd": 1.0}),
            ({"execution_cost_usd": 1}, {}),
            ({"execution_cost_usd_ceiling": 1}, {}),
            (
                {},
                {
                    "max_cost_usd": 1.0,
                    "ai_provider": "mock",
                    "fallbacks": [{"ai_provider": "chat", "model": "m"}],
                },
            ),
        ],
        ids=["asked", "default", "ceiling", "fallback"],
    )
    async def test_a_limit_of_cost_needs_a_price_of_every_model(
        self, tmp_path: Path, settings: dict[str, Any], fields: dict[str, Any]
    ) -> None:
        async with modelled(tmp_path, **settings) as (mesh, server):
            refused = await refusal(mesh.start(**({"ai_provider": "chat"} | fields)))

            assert (refused.kind, refused.fields) == (PRICE_UNKNOWN, ["max_cost_usd"])
            assert refused.resources == [("model", "chat/m")]
            assert not server.requests


class TestPrices:
    @pytest.mark.parametrize(
        ("ai_provider", "model", "cost_usd"),
        [
            # 2,000 tokens given, 1,500 of them from the cache and 200 into it, and 300 made.
            # 300 · 1 + 1,500 · 0.05 + 200 · 1.25 + 300 · 5 = 2,125 millionths
            ("openai", "gpt-6.1-terra", 0.002125),
            # No price of its own for what is written: 500 · 0.15 + 1,500 · 0.075 + 300 · 0.6 = 367.5
            ("openai", "gpt-4o-mini", 0.0003675),
            # 300 · 2 + 1,500 · 0.1 + 200 · 2.5 + 300 · 10 = 4,250
            ("anthropic", "claude-sonnet-5-5", 0.00425),
            # 300 · 1 + 1,500 · 0.1 + 200 · 1.25 + 300 · 5 = 2,200
            ("anthropic", "claude-haiku-4-5", 0.0022),
            # 500 · 1.25 + 1,500 · 0.125 + 300 · 10 = 3,812.5
            ("gemini", "gemini-2.5-pro", 0.0038125),
        ],
    )
    async def test_a_run_on_a_model_of_the_table_costs_what_is_calculated_by_hand(
        self,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        ai_provider: str,
        model: str,
        cost_usd: float,
    ) -> None:
        without_keys(monkeypatch)
        monkeypatch.setenv(f"{ai_provider.upper()}_API_KEY", KEY)
        async with ModelServer() as server:
            server.says(model, Answer(usage=Tokens(2000, 300, cached=1500, written=200)))
            url = server.url if ai_provider == "anthropic" else f"{server.url}/v1"
            providers = {ai_provider: {"base_url": url}}
            async with served(tmp_path, execution_providers=providers) as mesh:
                run = await mesh.finished(model=model)

                assert run.served_by.ai_provider == ai_provider
                assert run.usage.cost_usd == cost_usd
                *_, end, result = await mesh.watch(run.id)
                assert end.on_llm_end.usage == result.result.usage == run.usage

    @BOTH
    async def test_a_price_that_changes_counts_for_the_next_run_and_not_for_one_that_goes_on(
        self, tmp_path: Path, protocol: str
    ) -> None:
        prices = write(tmp_path / "prices.yaml", DOLLAR)
        async with modelled(tmp_path, execution_price_file=prices) as (mesh, server):
            server.says("m", Answer(usage=Tokens(1000, 100)))
            async with held_back(server):
                before = await mesh.start(ai_provider=protocol, model="m")
                write(prices, "{input: 2, output: 10}")
                after = await mesh.start(ai_provider=protocol, model="m")
            for run, cost_usd in ((before, 0.0011), (after, 0.003)):
                await mesh.watch(run.id)
                assert (await mesh.get(run.id)).usage.cost_usd == cost_usd
            assert (await listed(mesh, protocol, "m")).price.output_usd == 10

    async def test_a_price_file_that_breaks_leaves_the_prices_before_in_force(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        prices = write(tmp_path / "prices.yaml", DOLLAR)
        async with modelled(tmp_path, execution_price_file=prices) as (mesh, server):
            server.says("m", Answer(usage=Tokens(1000, 100)))
            write(prices, "{input: dear}")

            run = await mesh.finished(ai_provider="chat", model="m")

            assert run.usage.cost_usd == 0.0011
        (error,) = (record for record in caplog.records if record.levelname == "ERROR")
        assert "the prices before stay in force" in error.getMessage()

    async def test_attempts_cost_together_and_each_at_the_price_of_its_model(
        self, tmp_path: Path
    ) -> None:
        prices = tmp_path / "prices.yaml"
        prices.write_text("chat: {m: {input: 1, output: 1}}\nmessages: {m: {input: 5, output: 5}}")
        async with modelled(tmp_path, execution_price_file=prices) as (mesh, server):
            cut = Answer((), usage=Tokens(10, 0), usage_each_chunk=True, then=Then.CUT)
            server.says("m", cut, cut, cut, Answer(usage=Tokens(100, 10)))

            fallback = {"ai_provider": "messages", "model": "m"}
            run = await mesh.finished(ai_provider="chat", model="m", fallbacks=[fallback])

            assert run.served_by.ai_provider == "messages"
            # 3 · 10 · 1 + 110 · 5 = 580 millionths
            assert run.usage.cost_usd == 0.00058
            assert run.usage.input_tokens == 130
