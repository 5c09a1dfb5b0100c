"""Both adapters through the real SDKs against a real server: what comes out, whatever goes in."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
import pytest_asyncio

from services.execution.adapters.anthropic_messages import AnthropicProvider
from services.execution.adapters.faults import Refusal, Wording, retry_after
from services.execution.adapters.openai_chat import OpenAIProvider
from services.execution.domain import Model, ModelError, Usage
from services.execution.ports import Prompt, Provider, Report
from services.kit.errors import Reason, reason_name
from tests.fakes import models
from tests.fakes.models import Answer, Fault, ModelServer, Request, Then, Tokens
from tests.patience import PATIENCE

KEY = "sk-test-0123456789abcdef"
PROMPT = Prompt("Say hello.", step=1, attempt=1)


@dataclass
class Heard:
    """What a call of a model gave."""

    pieces: list[str]
    usage: Usage
    finish_reason: str
    error: ModelError | None

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    @property
    def reason(self) -> str:
        return "" if self.error is None else reason_name(self.error.reason)


async def heard(stream: AsyncGenerator[str | Report, None]) -> Heard:
    """Listen to the end; anything but a ModelError fails the test."""
    whole = Heard([], Usage(), "", None)
    try:
        async with asyncio.timeout(PATIENCE), aclosing(stream):
            async for one in stream:
                if isinstance(one, str):
                    one.encode()
                    whole.pieces.append(one)
                    continue
                whole.finish_reason = one.finish_reason or whole.finish_reason
                whole.usage = whole.usage.updated(one.usage or Usage())
    except ModelError as error:
        whole.error = error
    return whole


@pytest_asyncio.fixture
async def server() -> AsyncIterator[ModelServer]:
    async with ModelServer() as server:
        yield server


@pytest.fixture(params=["chat", "messages"])
def protocol(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest_asyncio.fixture
async def provider(protocol: str, server: ModelServer) -> AsyncIterator[Provider]:
    provider = chat(server) if protocol == "chat" else messages(server)
    yield provider
    await provider.close()


def chat(server: ModelServer) -> OpenAIProvider:
    return OpenAIProvider(
        "acme",
        {"m": Model("m", "acme")},
        base_url=f"{server.url}/v1",
        api_key=KEY,
        serves_any=True,
        output_limit_field="max_completion_tokens",
        headers={"x-team": "secret-team-token"},
    )


def messages(server: ModelServer, model: Model | None = None) -> AnthropicProvider:
    return AnthropicProvider(
        "acme",
        {"m": model or Model("m", "acme")},
        base_url=server.url,
        api_key=KEY,
        serves_any=True,
        headers={"x-team": "secret-team-token"},
    )


async def the_request(server: ModelServer) -> Request:
    """Wait for the first request."""
    async with asyncio.timeout(PATIENCE), server.arrived:
        await server.arrived.wait_for(lambda: server.requests)
    return server.requests[0]


@pytest.mark.parametrize(
    ("answer", "reason", "wish", "text"),
    [
        pytest.param(models.rate_limited(retry_after="7"), "MODEL_RATE_LIMITED", 7, "", id="429"),
        pytest.param(
            models.rate_limited(retry_after="9", retry_after_ms="250"),
            "MODEL_RATE_LIMITED",
            0.25,
            "",
            id="429-ms",
        ),
        pytest.param(models.rate_limited(), "MODEL_RATE_LIMITED", None, "", id="429-silent"),
        pytest.param(models.failed(), "MODEL_FAILED", None, "", id="500"),
        pytest.param(models.failed(408), "MODEL_FAILED", None, "", id="408"),
        pytest.param(models.failed(409), "MODEL_FAILED", None, "", id="409"),
        pytest.param(models.failed(502), "MODEL_FAILED", None, "", id="502"),
        pytest.param(models.failed(503, retry_after="3"), "MODEL_OVERLOADED", 3, "", id="503"),
        pytest.param(models.overloaded(), "MODEL_OVERLOADED", None, "", id="529"),
        pytest.param(models.overloaded(500), "MODEL_OVERLOADED", None, "", id="overloaded-500"),
        pytest.param(models.key_rejected(KEY), "MODEL_KEY_REJECTED", None, "", id="401"),
        pytest.param(models.failed(403), "MODEL_KEY_REJECTED", None, "", id="403"),
        pytest.param(models.failed(402), "MODEL_QUOTA_EXHAUSTED", None, "", id="402"),
        pytest.param(models.quota_exhausted(), "MODEL_QUOTA_EXHAUSTED", None, "", id="quota"),
        pytest.param(models.context_too_long(), "MODEL_CONTEXT_TOO_LONG", None, "", id="too-long"),
        pytest.param(models.failed(413), "MODEL_CONTEXT_TOO_LONG", None, "", id="413"),
        pytest.param(models.model_missing(), "MODEL_CALL_REJECTED", None, "", id="404"),
        pytest.param(models.failed(400), "MODEL_CALL_REJECTED", None, "", id="400"),
        pytest.param(models.failed(422), "MODEL_CALL_REJECTED", None, "", id="422"),
        pytest.param(models.failed(418), "MODEL_CALL_REJECTED", None, "", id="418"),
        pytest.param(Answer(finish="refusal"), "MODEL_CONTENT_REFUSED", None, "all", id="refusal"),
        pytest.param(Answer(then=Then.CUT), "MODEL_UNREACHABLE", None, "all", id="cut"),
        pytest.param(Answer((), then=Then.CUT), "MODEL_UNREACHABLE", None, "", id="cut-at-once"),
        pytest.param(Answer(then=Then.END), "MODEL_UNREACHABLE", None, "all", id="ended"),
        pytest.param(
            Answer(garbage=b"event: message_stop\ndata: {\n\n"),
            "MODEL_RESPONSE_INVALID",
            None,
            "all",
            id="broken-json",
        ),
        pytest.param(
            Answer(garbage=b"event: message_stop\ndata: \xff\xfe\n\n"),
            "MODEL_RESPONSE_INVALID",
            None,
            "all",
            id="no-utf-8",
        ),
        pytest.param(
            Answer(garbage=b'event: message_stop\ndata: ["a"]\n\n'),
            "MODEL_RESPONSE_INVALID",
            None,
            "all",
            id="another-shape",
        ),
        pytest.param(
            Answer(body=b"<html>Hi</html>", headers={"content-type": "text/html"}),
            "MODEL_RESPONSE_INVALID",
            None,
            "",
            id="page",
        ),
        pytest.param(
            Answer(body=b"x", headers={"content-encoding": "gzip"}),
            "MODEL_RESPONSE_INVALID",
            None,
            "",
            id="no-gzip",
        ),
        pytest.param(
            Answer(status=502, body=b"<html>Bad gateway</html>"),
            "MODEL_FAILED",
            None,
            "",
            id="html",
        ),
        pytest.param(
            models.midway(models.overloaded(), "a"), "MODEL_OVERLOADED", None, "a", id="mid-529"
        ),
        pytest.param(
            models.midway(models.rate_limited(), "a"), "MODEL_RATE_LIMITED", None, "a", id="mid-429"
        ),
        pytest.param(models.midway(models.failed(), "a"), "MODEL_FAILED", None, "a", id="mid-500"),
        pytest.param(
            models.midway(models.quota_exhausted(), "a"),
            "MODEL_QUOTA_EXHAUSTED",
            None,
            "a",
            id="mid-quota",
        ),
    ],
)
async def test_a_fault_has_its_reason_and_what_came_before_it(
    server: ModelServer,
    provider: Provider,
    answer: Answer,
    reason: str,
    wish: float | None,
    text: str,
) -> None:
    server.says("m", answer)

    one = await heard(provider.stream("m", PROMPT))

    assert one.error is not None
    assert (one.reason, one.error.retry_after) == (reason, wish)
    assert one.text == ("Hello, world." if text == "all" else text)
    assert "acme" in one.error.message
    assert len(server.requests) == 1, "retries are the mesh's"
    if answer.status != 200:
        assert f"(HTTP {answer.status})" in one.error.message


@pytest.mark.parametrize(
    ("answer", "finish_reason"),
    [
        pytest.param(Answer(), "stop", id="stop"),
        pytest.param(Answer(finish="length"), "length", id="length"),
        pytest.param(Answer(finish="pause_turn"), "pause_turn", id="unknown"),
        pytest.param(Answer(finish="sk-secret\n" + "x" * 99), "other", id="odd"),
        pytest.param(Answer(packet_bytes=1), "stop", id="byte-by-byte"),
        pytest.param(Answer(usage_each_chunk=True), "stop", id="usage-each-chunk"),
    ],
)
async def test_an_answer_comes_piece_by_piece(
    server: ModelServer, provider: Provider, answer: Answer, finish_reason: str
) -> None:
    server.says("m", answer)

    one = await heard(provider.stream("m", PROMPT))

    assert one == Heard([*answer.pieces], Usage(12, 7), finish_reason, None)


async def test_cached_written_and_reasoning_tokens_are_counted(
    server: ModelServer, provider: Provider
) -> None:
    server.says("m", Answer(usage=Tokens(2000, 300, cached=1500, written=200, reasoning=250)))

    one = await heard(provider.stream("m", PROMPT))

    assert one.usage == Usage(2000, 300, 1500, 200, 250)


async def test_an_answer_without_usage_reports_none(
    server: ModelServer, provider: Provider
) -> None:
    server.says("m", Answer(usage=None))

    one = await heard(provider.stream("m", PROMPT))

    assert one == Heard(["Hello", ",", " world", "."], Usage(), "stop", None)


async def test_nonsense_instead_of_usage_is_no_usage(
    server: ModelServer, provider: Provider
) -> None:
    server.says("m", Answer(usage=Tokens(-5, -7, cached=-1, reasoning=2**80)))

    one = await heard(provider.stream("m", PROMPT))

    assert one.error is None
    assert one.usage in {Usage(), Usage(output_tokens=1)}


async def test_an_empty_answer_is_whole(server: ModelServer, provider: Provider) -> None:
    server.says("m", Answer(()))

    one = await heard(provider.stream("m", PROMPT))

    assert one == Heard([], Usage(12, 7), "stop", None)


async def test_thinking_is_a_sign_of_life_and_no_text(
    server: ModelServer, provider: Provider
) -> None:
    server.says("m", Answer(("Yes.",), thoughts=("Hm.", "Well.")))

    one = await heard(provider.stream("m", PROMPT))

    assert one.pieces == ["", "", "Yes."]


async def test_a_long_answer_is_whole(server: ModelServer, provider: Provider) -> None:
    answer = models.long()
    server.says("m", answer)

    one = await heard(provider.stream("m", PROMPT))

    assert one.pieces == [*answer.pieces]


@pytest.mark.parametrize(
    ("pieces", "text"),
    [
        pytest.param(("a😀", "é"), "a😀é", id="whole"),
        pytest.param(("a\ud83d", "\ude00b"), "a😀b", id="halves"),
        pytest.param(("\ud83d", "b"), "\ufffdb", id="first-half"),
        pytest.param(("a\ude00b",), "a\ufffdb", id="second-half"),
        pytest.param(("a", "\ud83d"), "a\ufffd", id="half-at-the-end"),
    ],
)
async def test_an_emoji_is_whole_wherever_it_is_cut(
    server: ModelServer, provider: Provider, pieces: tuple[str, ...], text: str
) -> None:
    server.says("m", Answer(pieces, packet_bytes=1))

    one = await heard(provider.stream("m", PROMPT))

    assert (one.text, one.error) == (text, None)


async def test_answers_come_in_turn_and_the_last_repeats(
    server: ModelServer, provider: Provider
) -> None:
    server.says("m", models.failed(), models.failed(), Answer())

    reasons = [(await heard(provider.stream("m", PROMPT))).reason for _ in range(4)]

    assert reasons == ["MODEL_FAILED", "MODEL_FAILED", "", ""]


async def test_nothing_secret_and_nothing_of_the_provider_is_shown(
    server: ModelServer, provider: Provider, caplog: pytest.LogCaptureFixture
) -> None:
    told = f"{KEY} and Bearer abcdef123456 and sk-proj-****abcd at secret-team-token \ud83d "
    server.says("m", replace(models.key_rejected(), fault=Fault(told + "x" * 9999, {}, "odd")))
    with caplog.at_level(logging.DEBUG, "services"):
        one = await heard(provider.stream("m", PROMPT))

    assert one.error is not None
    assert one.error.message == "acme does not accept its key for m (HTTP 401)."
    assert one.error.__suppress_context__, "or a traceback would show what the provider wrote"
    (record,) = caplog.records
    logged = record.getMessage()
    logged.encode()
    assert record.levelno == logging.WARNING
    assert "…" in logged
    assert len(logged) < 600
    for secret in (KEY, "abcdef123456", "sk-proj", "secret-team-token"):
        assert secret not in logged


@pytest.mark.parametrize("pieces", [(), ("Hello",)], ids=["before", "after"])
async def test_closing_a_stalled_stream_closes_its_connection(
    server: ModelServer, provider: Provider, pieces: tuple[str, ...]
) -> None:
    server.says("m", Answer(pieces, thoughts=("Hm.",), then=Then.STALL))
    stream = provider.stream("m", PROMPT)
    async with asyncio.timeout(PATIENCE):
        while await anext(stream) != "".join(pieces):
            pass
        await stream.aclose()

        await (await the_request(server)).gone.wait()


async def test_cancelling_a_call_closes_its_connection(
    server: ModelServer, provider: Provider
) -> None:
    server.says("m", Answer((), then=Then.STALL))
    call = asyncio.create_task(heard(provider.stream("m", PROMPT)))
    request = await the_request(server)
    call.cancel()
    async with asyncio.timeout(PATIENCE):
        with pytest.raises(asyncio.CancelledError):
            await call
        await request.gone.wait()


async def test_fifty_streams_run_at_once(server: ModelServer, provider: Provider) -> None:
    server.says("m", models.long(100))

    all_of_them = await asyncio.gather(*(heard(provider.stream("m", PROMPT)) for _ in range(50)))

    assert {one.text for one in all_of_them} == {"".join(models.long(100).pieces)}


async def test_a_connection_serves_one_call_after_another(
    server: ModelServer, provider: Provider
) -> None:
    server.says("m", Answer(), models.failed(), Answer())

    for _ in range(3):
        await heard(provider.stream("m", PROMPT))

    assert server.accepted == 1


async def test_a_server_that_is_not_there_is_unreachable(protocol: str) -> None:
    async with ModelServer() as server:
        provider: Provider = chat(server) if protocol == "chat" else messages(server)

    one = await heard(provider.stream("m", PROMPT))
    await provider.close()

    assert (one.reason, one.error and one.error.message) == (
        "MODEL_UNREACHABLE",
        "acme cannot be reached to run m.",
    )


async def test_the_environment_adds_nothing_to_a_call(
    monkeypatch: pytest.MonkeyPatch, server: ModelServer
) -> None:
    monkeypatch.setenv("OPENAI_ORG_ID", "org-of-somebody")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "project-of-somebody")
    monkeypatch.setenv("OPENAI_API_KEY", "key-of-somebody")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "key-of-somebody")
    monkeypatch.setenv("ANTHROPIC_AUTH_TOKEN", "key-of-somebody")
    server.says("m", Answer())
    for provider in (chat(server), messages(server)):
        await heard(provider.stream("m", PROMPT))
        await provider.close()

    assert len(server.requests) == 2
    for request in server.requests:
        assert "somebody" not in str(request.headers)
        assert request.headers["authorization"] == f"Bearer {KEY}"
        assert request.headers["x-team"] == "secret-team-token"
        assert "traceparent" not in request.headers


async def test_chat_names_the_limit_as_its_server_does(server: ModelServer) -> None:
    server.says("m", Answer())
    provider = chat(server)
    await heard(provider.stream("m", PROMPT))
    await heard(provider.stream("m", replace(PROMPT, max_output_tokens=99)))
    await provider.close()

    asked = {
        "model": "m",
        "messages": [{"role": "user", "content": "Say hello."}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    assert [one.body for one in server.requests] == [asked, asked | {"max_completion_tokens": 99}]
    assert {one.path for one in server.requests} == {"/v1/chat/completions"}


@pytest.mark.parametrize(
    ("asked", "known", "sent"),
    [(99, 64_000, 99), (None, 64_000, 32_000), (None, 4096, 4096), (None, None, 8192)],
)
async def test_messages_always_have_a_limit(
    server: ModelServer, asked: int | None, known: int | None, sent: int
) -> None:
    server.says("m", Answer())
    provider = messages(server, Model("m", "acme", max_output_tokens=known))
    await heard(provider.stream("m", replace(PROMPT, max_output_tokens=asked)))
    await provider.close()

    assert server.requests[0].body["max_tokens"] == sent
    assert server.requests[0].path == "/v1/messages"


CHUNK = 'data: {"id": "1", "choices": [{"index": 0, "delta": {%s}, "finish_reason": %s}]%s}\n\n'
SAID, DONE = CHUNK % ('"content": "Hi"', "null", ""), "data: [DONE]\n\n"
STOPPED = CHUNK % ("", '"stop"', "")


@pytest.mark.parametrize(
    ("frames", "expected"),
    [
        pytest.param(SAID + STOPPED, Heard(["Hi"], Usage(), "stop", None), id="no-done"),
        pytest.param(SAID + DONE, Heard(["Hi"], Usage(), "", None), id="done-alone"),
        pytest.param(
            ": hello\n\nretry: 9\n\nid: 1\n\n\n" + SAID + "event: ping\n\n" + STOPPED,
            Heard(["Hi"], Usage(), "stop", None),
            id="frames-without-data",
        ),
        pytest.param(
            'data: {"choices": []}\n\ndata: {"choices": null}\n\n'
            'data: {"choices": [{"delta": null, "finish_reason": null}]}\n\n' + SAID + DONE,
            Heard(["Hi"], Usage(), "", None),
            id="empty-chunks",
        ),
        pytest.param(
            SAID.replace("]}\n", '], "usage": {"prompt_tokens": 3, "completion_tokens": 1}}\n')
            + CHUNK
            % (
                '"content": "!"',
                '"length"',
                ', "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 9}',
            ),
            Heard(["Hi", "!"], Usage(3, 6), "length", None),
            id="usage-each-chunk-and-thoughts-in-the-total",
        ),
        pytest.param(
            CHUNK % ('"content": "Hi"', '"stop"', ', "usage": "12"')
            + 'data: {"choices": [], "usage": {"prompt_tokens": "12", "completion_tokens": 1.5,'
            + ' "prompt_tokens_details": [], "completion_tokens_details": "x"}}\n\n',
            Heard(["Hi"], Usage(), "stop", None),
            id="usage-of-other-shapes",
        ),
        pytest.param(
            CHUNK % ('"reasoning": "Hm."', "null", "")
            + CHUNK % ('"reasoning_details": [{"data": "x"}]', "null", "")
            + SAID
            + DONE,
            Heard(["", "", "Hi"], Usage(), "", None),
            id="other-names-of-reasoning",
        ),
    ],
)
async def test_chat_of_other_servers_is_understood(
    server: ModelServer, frames: str, expected: Heard
) -> None:
    headers = {"content-type": "text/event-stream"}
    server.says("m", Answer(body=frames.encode(), headers=headers))
    provider = chat(server)

    one = await heard(provider.stream("m", PROMPT))
    await provider.close()

    assert one == expected


async def test_a_cut_after_the_last_word_costs_only_the_usage(server: ModelServer) -> None:
    server.says("m", Answer(garbage=STOPPED.encode(), then=Then.CUT))
    provider = chat(server)

    one = await heard(provider.stream("m", PROMPT))
    await provider.close()

    assert one == Heard(["Hello", ",", " world", "."], Usage(), "stop", None)


@pytest.mark.parametrize(
    ("frames", "reason"),
    [
        pytest.param(
            CHUNK % ('"refusal": "I"', "null", "")
            + CHUNK % ('"refusal": " won\'t"', "null", "")
            + STOPPED
            + 'data: {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}\n\n'
            + DONE,
            "MODEL_CONTENT_REFUSED",
            id="refusal",
        ),
        pytest.param(
            'data: {"error": {"code": 502, "message": "Upstream."}}\n\n', "MODEL_FAILED", id="502"
        ),
        pytest.param(
            'data: {"error": {"code": "429", "message": "Upstream."}}\n\n',
            "MODEL_RATE_LIMITED",
            id="429",
        ),
        pytest.param('data: {"error": "It broke."}\n\n', "MODEL_FAILED", id="word"),
        pytest.param('data: "error"\n\n', "MODEL_RESPONSE_INVALID", id="text"),
        pytest.param("data: null\n\n", "MODEL_RESPONSE_INVALID", id="null"),
        pytest.param(
            'data: {"object": "error", "message": "No."}\n\n' + DONE,
            "MODEL_RESPONSE_INVALID",
            id="object",
        ),
        pytest.param('data: {"choices": "x"}\n\n', "MODEL_RESPONSE_INVALID", id="choices"),
        pytest.param(
            CHUNK % ('"content": ["x"]', "null", ""), "MODEL_RESPONSE_INVALID", id="content"
        ),
        pytest.param("data: " + "[" * 99_999 + "\n\n", "MODEL_RESPONSE_INVALID", id="deep"),
    ],
)
async def test_chat_of_other_servers_fails_with_a_reason(
    server: ModelServer, frames: str, reason: str
) -> None:
    headers = {"content-type": "text/event-stream"}
    server.says("m", Answer(body=frames.encode(), headers=headers))
    provider = chat(server)

    one = await heard(provider.stream("m", PROMPT))
    await provider.close()

    assert one.reason == reason
    if reason == "MODEL_CONTENT_REFUSED":
        assert one.usage == Usage(3, 2), "what a refusal cost is reported before it"


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        (400, [{"error": {"status": "INVALID_ARGUMENT"}}], Reason.REASON_MODEL_CALL_REJECTED),
        (
            400,
            {"error": {"message": "Your credit balance is too low to call."}},
            Reason.REASON_MODEL_QUOTA_EXHAUSTED,
        ),
        (
            400,
            {"error": {"message": "This model's maximum context length is 8192 tokens."}},
            Reason.REASON_MODEL_CONTEXT_TOO_LONG,
        ),
        (
            400,
            {"code": "content_filter", "innererror": {"code": "ResponsibleAIPolicyViolation"}},
            Reason.REASON_MODEL_CONTENT_REFUSED,
        ),
        (
            400,
            {"error": {"details": {"error_code": "credit_balance_too_low"}}},
            Reason.REASON_MODEL_QUOTA_EXHAUSTED,
        ),
        (429, {"error": {"code": 429}}, Reason.REASON_MODEL_RATE_LIMITED),
        (429, {"error": {"message": "context length"}}, Reason.REASON_MODEL_RATE_LIMITED),
        (200, {"error": {"type": "timeout_error"}}, Reason.REASON_MODEL_FAILED),
        (200, {"error": {"code": 9**99}}, Reason.REASON_MODEL_FAILED),
        (599, "", Reason.REASON_MODEL_FAILED),
        (404, None, Reason.REASON_MODEL_CALL_REJECTED),
        (404, [], Reason.REASON_MODEL_CALL_REJECTED),
        (
            400,
            {"error": {"code": {}, "type": 3, "details": "x"}},
            Reason.REASON_MODEL_CALL_REJECTED,
        ),
    ],
)
def test_a_refusal_is_read_by_name_then_words_then_status(
    status: int, body: object, reason: Reason.ValueType
) -> None:
    assert reason_name(Refusal.read(status, body).reason) == reason_name(reason)


NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "12"}, 12),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"retry-after-ms": "x", "retry-after": "9"}, 9),
        ({"retry-after": format_datetime(NOW + timedelta(seconds=90), usegmt=True)}, 90),
        ({"retry-after": format_datetime(NOW - timedelta(seconds=90), usegmt=True)}, 0),
        ({"retry-after": "Thu, 01 Jan 2026 00:00:30 -0000"}, 30),
        ({"retry-after": "Thu, 99 Foo 2026 00:00:30 GMT"}, None),
    ],
)
def test_the_time_to_wait_is_seconds_or_a_date(
    headers: dict[str, str], seconds: float | None
) -> None:
    assert retry_after(headers, NOW) == seconds


def test_a_text_of_any_halves_is_fit_for_utf_8() -> None:
    wording = Wording()
    pieces = ["a\ud83d", "", "\ud83d", "\ude00\ude00", "z\udbff"]

    text = "".join([*map(wording.piece, pieces), wording.rest()])

    assert text == "a\ufffd😀\ufffdz\ufffd"
