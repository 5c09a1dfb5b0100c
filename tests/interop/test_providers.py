"""The providers against LiteLLM's proxy: Chat Completions and Messages as somebody else serves them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from pathlib import Path

import pytest

from services.execution.adapters.anthropic_messages import AnthropicProvider
from services.execution.adapters.openai_chat import OpenAIProvider
from services.execution.domain import ChatMessage, ModelError, Role, Usage
from services.execution.ports import Prompt, Provider, Report
from services.kit.errors import Reason
from tests.interop.serving import CANNED, KEY, Proxy, started

PROMPT = Prompt("Say something.", step=1, attempt=1)


def chat(url: str, key: str = KEY) -> Provider:
    return OpenAIProvider(
        "house",
        {},
        base_url=f"{url}/v1",
        api_key=key,
        serves_any=True,
        output_limit_field="max_tokens",
    )


def messages(url: str, key: str = KEY) -> Provider:
    return AnthropicProvider("house", {}, base_url=url, api_key=key, serves_any=True)


Make = Callable[..., Provider]


@pytest.fixture(params=[chat, messages])
async def provider(request: pytest.FixtureRequest, proxy: Proxy) -> AsyncIterator[Provider]:
    """One provider for each protocol."""
    made: Provider = request.param(proxy.url)
    yield made
    await made.close()


def streamed(provider: Provider, model: str) -> str:
    """Name a model as the route of this provider can stream it."""
    return f"relayed-{model}" if isinstance(provider, AnthropicProvider) else model


async def heard(
    provider: Provider, model: str, prompt: Prompt = PROMPT
) -> tuple[list[str], list[Report]]:
    """Call a model to the end."""
    texts, reports = [], []
    async with aclosing(provider.stream(model, prompt)) as answer:
        async for one in answer:
            if isinstance(one, Report):
                reports.append(one)
            else:
                texts.append(one)
    return texts, reports


async def fault(provider: Provider, model: str) -> ModelError:
    """Call a model that fails before it says anything."""
    with pytest.raises(ModelError) as failed:
        await heard(provider, model)
    return failed.value


async def test_a_canned_answer_streams_in_pieces_to_the_same_text(provider: Provider) -> None:
    texts, _ = await heard(provider, streamed(provider, "canned"))

    assert "".join(texts) == CANNED
    assert len([text for text in texts if text]) > 5


async def test_usage_and_the_finish_are_reported(provider: Provider) -> None:
    _, reports = await heard(provider, streamed(provider, "canned"))

    usage = Usage()
    for report in reports:
        usage = usage.updated(report.usage or Usage())
    assert usage.input_tokens
    assert usage.output_tokens
    assert [report.finish_reason for report in reports if report.finish_reason] == ["stop"]


async def test_a_limit_of_output_is_accepted(provider: Provider) -> None:
    prompt = Prompt("Say something.", step=1, attempt=1, max_output_tokens=100)

    texts, _ = await heard(provider, streamed(provider, "canned"), prompt)

    assert "".join(texts) == CANNED


async def test_a_conversation_that_is_worth_keeping_is_accepted(provider: Provider) -> None:
    said = (ChatMessage(Role.USER, "Who are you?"), ChatMessage(Role.ASSISTANT, "A poet."))
    prompt = Prompt("Say something.", 1, 1, system="Be kind.", history=said, goes_on=True)

    texts, _ = await heard(provider, streamed(provider, "canned"), prompt)

    assert "".join(texts) == CANNED


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        ("limited", Reason.REASON_MODEL_RATE_LIMITED),
        ("too-long", Reason.REASON_MODEL_CONTEXT_TOO_LONG),
        ("broken", Reason.REASON_MODEL_FAILED),
        ("nobody", Reason.REASON_MODEL_CALL_REJECTED),
        ("relayed-limited", Reason.REASON_MODEL_RATE_LIMITED),
        ("relayed-too-long", Reason.REASON_MODEL_CONTEXT_TOO_LONG),
        ("relayed-broken", Reason.REASON_MODEL_FAILED),
        ("relayed-overloaded", Reason.REASON_MODEL_OVERLOADED),
        ("relayed-nobody", Reason.REASON_MODEL_CALL_REJECTED),
    ],
)
async def test_a_fault_has_its_reason_and_none_of_its_words(
    provider: Provider, model: str, reason: Reason.ValueType
) -> None:
    failed = await fault(provider, model)

    assert Reason.Name(failed.reason) == Reason.Name(reason)
    assert "litellm" not in failed.message.lower()


@pytest.mark.parametrize("make", [chat, messages])
async def test_a_wrong_key_is_rejected_and_not_repeated(proxy: Proxy, make: Make) -> None:
    provider = make(proxy.url, "sk-wrong-key-of-somebody")

    failed = await fault(provider, "canned")
    await provider.close()

    assert failed.reason == Reason.REASON_MODEL_KEY_REJECTED
    assert "wrong" not in failed.message


async def test_messages_answered_in_one_piece_are_invalid(proxy: Proxy) -> None:
    provider = messages(proxy.url)

    failed = await fault(provider, "canned")
    await provider.close()

    assert failed.reason == Reason.REASON_MODEL_RESPONSE_INVALID


@pytest.mark.parametrize("make", [chat, messages])
async def test_a_proxy_that_dies_cuts_the_answer_and_is_unreachable_then(
    tmp_path: Path, make: Make
) -> None:
    with started(tmp_path / "log") as proxy:
        provider = make(proxy.url)
        model = streamed(provider, "long")
        answer = provider.stream(model, PROMPT)
        said = ""
        while not said:
            one = await anext(answer)
            said = one if isinstance(one, str) else ""

        proxy.process.kill()
        proxy.process.wait(10)

        with pytest.raises(ModelError) as cut:
            [one async for one in answer]
        gone = await fault(provider, model)
        await provider.close()

    assert cut.value.reason == Reason.REASON_MODEL_UNREACHABLE
    assert gone.reason == Reason.REASON_MODEL_UNREACHABLE
