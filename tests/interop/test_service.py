"""The execution service with LiteLLM's proxy as its only server of models."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from conductor.execution.v1.execution_pb2 import Execution
from tests.interop.serving import CANNED, KEY, Proxy
from tests.rpc.serving import Mesh, served

PRICES = """
house:
  canned: {input: 1, output: 10}
"""


@pytest.fixture
async def mesh(tmp_path: Path, proxy: Proxy) -> AsyncIterator[Mesh]:
    """A mesh whose `house` speaks Chat Completions and whose `guest` speaks Messages."""
    prices = tmp_path / "prices.yaml"
    prices.write_text(PRICES)
    house = {"base_url": f"{proxy.url}/v1", "models": ["canned", "limited", "too-long"]}
    guest = {"base_url": proxy.url, "protocol": "anthropic", "models": ["relayed-canned"]}
    settings: dict[str, Any] = {
        "execution_providers": {
            "house": {**house, "api_key": KEY},
            "guest": {**guest, "api_key": KEY},
        },
        "execution_fallbacks": [{"ai_provider": "guest", "model": "relayed-canned"}],
        "execution_default_model": "limited",
        "execution_default_provider": "house",
        "execution_price_file": prices,
        "execution_attempts": 1,
    }
    async with served(tmp_path / "data", **settings) as mesh:
        yield mesh


async def test_a_run_has_the_answer_its_usage_and_its_cost(mesh: Mesh) -> None:
    run = await mesh.finished(ai_provider="house", model="canned")

    assert run.state == Execution.STATE_SUCCEEDED
    assert run.result == CANNED
    assert run.usage.input_tokens > 0
    assert run.usage.output_tokens > 0
    cost = run.usage.input_tokens * 1e-6 + run.usage.output_tokens * 10e-6
    assert run.usage.cost_usd == pytest.approx(cost, abs=1e-9)


async def test_a_run_on_messages_has_the_answer_and_no_cost_without_a_price(mesh: Mesh) -> None:
    run = await mesh.finished(ai_provider="guest", model="relayed-canned")

    assert run.state == Execution.STATE_SUCCEEDED
    assert run.result == CANNED
    assert run.usage.output_tokens > 0
    assert not run.usage.HasField("cost_usd")


async def test_a_model_that_is_called_too_often_gives_way_to_the_next(mesh: Mesh) -> None:
    run = await mesh.finished()

    assert run.state == Execution.STATE_SUCCEEDED
    assert run.result == CANNED
    assert (run.served_by.ai_provider, run.served_by.model) == ("guest", "relayed-canned")


async def test_an_input_that_is_too_long_fails_the_run_for_this_reason(mesh: Mesh) -> None:
    run = await mesh.finished(ai_provider="house", model="too-long")

    assert run.state == Execution.STATE_FAILED
    assert run.error.reason == "MODEL_CONTEXT_TOO_LONG"
