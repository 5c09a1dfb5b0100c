"""A server of models over HTTP that says what a test wants, in the protocols of both SDKs.

    async with ModelServer() as server:
        server.says("gpt-x", failed(), failed(), Answer(pieces=("Hello",)))
        ...  # OpenAI below f"{server.url}/v1", Anthropic at server.url

An answer is the same in both protocols. Bytes are written by hand, so that they can be wrong.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from types import TracebackType
from typing import Any, Self

_DRAIN_EVERY = 64
_PHRASES = {200: "OK"}


class Then(Enum):
    """What follows the pieces and the garbage of an answer."""

    WHOLE = auto()
    """The end of the answer, as the protocol wants it."""
    END = auto()
    """The end of the body, and none of the answer."""
    CUT = auto()
    """The connection is reset."""
    STALL = auto()
    """Nothing, until the caller goes away."""
    FAULT = auto()
    """The `fault`, as an event of the stream."""


@dataclass(frozen=True)
class Tokens:
    """What an answer says it used."""

    input: int = 12
    """With the cached and the written ones."""
    output: int = 7
    cached: int | None = None
    written: int | None = None
    reasoning: int | None = None


@dataclass(frozen=True)
class Fault:
    """An error as each protocol writes it."""

    message: str
    openai: Mapping[str, object]
    """Its `type`, `code` and whatever else."""
    anthropic: str
    """Its `type`."""


@dataclass(frozen=True)
class Answer:
    """How one request is answered."""

    pieces: Sequence[str] = ("Hello", ",", " world", ".")
    thoughts: Sequence[str] = ()
    """Before the pieces."""
    usage: Tokens | None = field(default_factory=Tokens)
    usage_each_chunk: bool = False
    """OpenAI's only: with each chunk, and none of its own."""
    finish: str = "stop"
    """`stop`, `length` or `refusal`, in the protocol's word; another as it is; empty for none."""
    garbage: bytes = b""
    """Written after the pieces."""
    then: Then = Then.WHOLE
    status: int = 200
    """Another than 200 answers with `fault` and nothing else."""
    fault: Fault | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    """Instead of everything else, with `content-type` from `headers`."""
    every: float = 0.0
    """Seconds before each piece."""
    packet_bytes: int | None = None
    """Cuts what is written into packets of this size, wherever that is."""


def long(pieces: int = 20_000) -> Answer:
    """An answer of many words."""
    words = tuple(f"word{number} " for number in range(pieces))
    return Answer(words, usage=Tokens(output=pieces))


def failed(status: int = 500, **headers: str) -> Answer:
    """The server has trouble of its own."""
    return _fault(status, "It broke.", {"type": "server_error"}, "api_error", headers)


def overloaded(status: int = 529, **headers: str) -> Answer:
    """The server has too much to do."""
    return _fault(status, "Overloaded.", {"code": "overloaded"}, "overloaded_error", headers)


def rate_limited(**headers: str) -> Answer:
    """The caller is to call less often; name `retry_after` or `retry_after_ms`."""
    named = {"type": "requests", "code": "rate_limit_exceeded"}
    return _fault(429, "Slow down.", named, "rate_limit_error", headers)


def key_rejected(key: str = "sk-wrong") -> Answer:
    """The key is wrong, and is repeated."""
    named = {"type": "invalid_request_error", "code": "invalid_api_key"}
    message = f"Incorrect API key provided: {key}. Sent as Bearer {key}."
    return _fault(401, message, named, "authentication_error", {})


def quota_exhausted() -> Answer:
    """The account has no credit: the two providers say so in ways that have nothing in common."""
    named = {"type": "insufficient_quota", "code": "insufficient_quota"}
    return _fault(429, "You exceeded your current quota.", named, "billing_error", {})


def context_too_long() -> Answer:
    """The input is too long."""
    named = {"type": "invalid_request_error", "code": "context_length_exceeded"}
    message = "prompt is too long: 210000 tokens > 200000 maximum"
    return _fault(400, message, named, "invalid_request_error", {})


def model_missing() -> Answer:
    """The server has no such model."""
    named = {"type": "invalid_request_error", "code": "model_not_found"}
    return _fault(404, "The model does not exist.", named, "not_found_error", {})


def midway(answer: Answer, *pieces: str) -> Answer:
    """Say some pieces before a fault, which then comes as an event of the stream."""
    return replace(answer, status=200, headers={}, pieces=pieces, then=Then.FAULT)


def _fault(
    status: int,
    message: str,
    openai: Mapping[str, object],
    anthropic: str,
    headers: Mapping[str, str],
) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(status=status, fault=Fault(message, openai, anthropic), headers=named)


@dataclass
class Request:
    """A request the server got."""

    path: str
    headers: Mapping[str, str]
    """By names in lower case."""
    body: Mapping[str, Any]
    answered: asyncio.Event = field(default_factory=asyncio.Event)
    """Everything the script has was written."""
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    """The caller closed the connection before that."""

    @property
    def model(self) -> str:
        return str(self.body.get("model", ""))


class ModelServer:
    """Speaks `POST /v1/chat/completions` and `POST /v1/messages`, always as a stream.

    A model that was given nothing to say is one it does not have.

    Args:
        port: 0 for a free one.
        key: the only one it takes; None takes all.
    """

    def __init__(self, port: int = 0, *, key: str | None = None) -> None:
        self._port = port
        self._key = key
        self._answers: dict[str, list[Answer]] = {}
        self._connections: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.accepted = 0
        """Connections, the closed ones too."""
        self.requests: list[Request] = []
        self.arrived = asyncio.Condition()
        """Notified of each request."""

    def says(self, model: str, *answers: Answer) -> None:
        """Give a model answers to give in turn; the last repeats."""
        self._answers[model] = list(answers)

    @property
    def url(self) -> str:
        assert self._server is not None, "it is not started"
        port = self._server.sockets[0].getsockname()[1]
        return f"http://127.0.0.1:{port}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", self._port)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._server is not None
        self._server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        await self._server.wait_closed()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = asyncio.current_task()
        assert connection is not None
        self._connections.add(connection)
        self.accepted += 1
        try:
            while (request := await _request(reader)) is not None:
                self.requests.append(request)
                async with self.arrived:
                    self.arrived.notify_all()
                await self._answer(request, reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass  # The caller went away.
        except asyncio.CancelledError:
            # The server stops. A cancelled task is an error in the log of asyncio's streams.
            writer.transport.abort()
        finally:
            self._connections.discard(connection)
            writer.close()
            with suppress(OSError, asyncio.CancelledError):
                await writer.wait_closed()

    async def _answer(
        self, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            await _write(request, self._script(request), reader, writer)
        except OSError:
            request.gone.set()
            raise
        request.answered.set()

    def _script(self, request: Request) -> Answer:
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        if self._key is not None and self._key not in {given, request.headers.get("x-api-key")}:
            return key_rejected(given)
        answers = self._answers.get(request.model)
        if not answers:
            return model_missing()
        return answers.pop(0) if len(answers) > 1 else answers[0]


async def _request(reader: asyncio.StreamReader) -> Request | None:
    """Read a request; None when the caller has no more."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise
        return None
    first, *lines = head.decode("latin-1").strip().split("\r\n")
    parted = (line.partition(":") for line in lines)
    headers = {name.strip().lower(): value.strip() for name, _, value in parted}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Request(first.split(" ")[1], headers, json.loads(body or b"{}"))


class _Sender:
    """Writes one response."""

    def __init__(self, writer: asyncio.StreamWriter, packet_bytes: int | None) -> None:
        self._writer = writer
        self._packet_bytes = packet_bytes
        self._written = 0

    async def head(self, status: int, headers: Mapping[str, str]) -> None:
        phrase = _PHRASES.get(status, "Trouble")
        lines = [f"HTTP/1.1 {status} {phrase}", *(f"{name}: {headers[name]}" for name in headers)]
        await self._write("\r\n".join([*lines, "", ""]).encode())

    async def whole(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        await self.head(status, {**headers, "content-length": str(len(body))})
        await self._write(body)

    async def chunk(self, data: bytes) -> None:
        """Write a chunk of a chunked body; an empty one is its end."""
        await self._write(b"%x\r\n%b\r\n" % (len(data), data))

    async def _write(self, data: bytes) -> None:
        size = self._packet_bytes or len(data)
        for place in range(0, len(data), size):
            self._writer.write(data[place : place + size])
            self._written += 1
            if self._packet_bytes or self._written % _DRAIN_EVERY == 1:
                await self._writer.drain()


async def _write(
    request: Request, answer: Answer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    says = _Messages(answer) if request.path.endswith("/messages") else _Chat(answer)
    sender = _Sender(writer, answer.packet_bytes)
    if answer.body is not None:
        await sender.whole(answer.status, answer.headers, answer.body)
        return
    if answer.status != 200:
        assert answer.fault is not None, "what is the matter?"
        headers = {"content-type": "application/json", **answer.headers}
        await sender.whole(answer.status, headers, _json(says.error(answer.fault)))
        return
    headers = {"content-type": "text/event-stream", "transfer-encoding": "chunked"}
    await sender.head(200, {**headers, **answer.headers})
    for frame in says.first():
        await sender.chunk(frame)
    for piece in answer.pieces:
        if answer.every:
            await asyncio.sleep(answer.every)
        await sender.chunk(says.piece(piece))
    if answer.garbage:
        await sender.chunk(answer.garbage)
    await writer.drain()
    if answer.then is Then.CUT:
        writer.transport.abort()
    elif answer.then is Then.STALL:
        await reader.read(1)
        raise ConnectionResetError
    else:
        for frame in _end(answer, says):
            await sender.chunk(frame)
        await sender.chunk(b"")
        await writer.drain()


def _end(answer: Answer, says: _Chat | _Messages) -> Iterator[bytes]:
    match answer.then:
        case Then.FAULT:
            assert answer.fault is not None, "what is the matter?"
            yield says.fault(answer.fault)
        case Then.WHOLE:
            yield from says.last()


class _Chat:
    """Chat Completions, https://platform.openai.com/docs/api-reference/chat-streaming."""

    _finish: Mapping[str, str] = {"refusal": "content_filter"}

    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    def first(self) -> Iterator[bytes]:
        yield self._delta({"role": "assistant", "content": ""})
        for thought in self._answer.thoughts:
            yield self._delta({"reasoning_content": thought, "content": None})

    def piece(self, text: str) -> bytes:
        return self._delta({"content": text})

    def last(self) -> Iterator[bytes]:
        finish = self._answer.finish
        if finish:
            yield self._delta({}, self._finish.get(finish, finish))
        if self._answer.usage is not None and not self._answer.usage_each_chunk:
            yield self._frame({"choices": [], "usage": self._usage(self._answer.usage)})
        yield b"data: [DONE]\n\n"

    def error(self, fault: Fault) -> dict[str, Any]:
        return {"error": {"message": fault.message, "param": None, "code": None, **fault.openai}}

    def fault(self, fault: Fault) -> bytes:
        return _frame(self.error(fault))

    def _delta(self, delta: Mapping[str, Any], finish: str | None = None) -> bytes:
        chunk: dict[str, Any] = {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}
        if self._answer.usage is not None and self._answer.usage_each_chunk:
            chunk["usage"] = self._usage(self._answer.usage)
        return self._frame(chunk)

    def _frame(self, chunk: Mapping[str, Any]) -> bytes:
        known = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
        return _frame({**known, **chunk})

    def _usage(self, tokens: Tokens) -> dict[str, Any]:
        usage: dict[str, Any] = {
            "prompt_tokens": tokens.input,
            "completion_tokens": tokens.output,
            "total_tokens": tokens.input + tokens.output,
        }
        given = {"cached_tokens": tokens.cached, "cache_write_tokens": tokens.written}
        given = {name: value for name, value in given.items() if value is not None}
        if given:
            usage["prompt_tokens_details"] = given
        if tokens.reasoning is not None:
            usage["completion_tokens_details"] = {"reasoning_tokens": tokens.reasoning}
        return usage


class _Messages:
    """Messages, https://docs.anthropic.com/en/api/messages-streaming."""

    _finish: Mapping[str, str] = {"stop": "end_turn", "length": "max_tokens"}

    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    def first(self) -> Iterator[bytes]:
        message: dict[str, Any] = {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": "m",
            "content": [],
            "stop_reason": None,
            "usage": self._given(),
        }
        yield self._event("message_start", message=message)
        yield self._event("ping")
        if self._answer.thoughts:
            block = {"type": "thinking", "thinking": "", "signature": ""}
            yield self._event("content_block_start", index=0, content_block=block)
            for thought in self._answer.thoughts:
                yield self._delta({"type": "thinking_delta", "thinking": thought})
            yield self._event("content_block_stop", index=0)
        block = {"type": "text", "text": ""}
        yield self._event("content_block_start", index=self._place, content_block=block)

    def piece(self, text: str) -> bytes:
        return self._delta({"type": "text_delta", "text": text}, self._place)

    def last(self) -> Iterator[bytes]:
        yield self._event("content_block_stop", index=self._place)
        finish = self._answer.finish
        if finish:
            delta = {"stop_reason": self._finish.get(finish, finish), "stop_sequence": None}
            yield self._event("message_delta", delta=delta, usage=self._said())
            yield self._event("message_stop")

    def error(self, fault: Fault) -> dict[str, Any]:
        error = {"type": fault.anthropic, "message": fault.message}
        return {"type": "error", "error": error, "request_id": "req_1"}

    def fault(self, fault: Fault) -> bytes:
        return b"event: error\n" + _frame(self.error(fault))

    @property
    def _place(self) -> int:
        return 1 if self._answer.thoughts else 0

    def _given(self) -> dict[str, Any]:
        tokens = self._answer.usage
        if tokens is None:
            return {}
        apart = (tokens.cached or 0) + (tokens.written or 0)
        usage = {"input_tokens": tokens.input - apart, "output_tokens": 1}
        if tokens.cached is not None:
            usage["cache_read_input_tokens"] = tokens.cached
        if tokens.written is not None:
            usage["cache_creation_input_tokens"] = tokens.written
        return usage

    def _said(self) -> dict[str, Any]:
        tokens = self._answer.usage
        if tokens is None:
            return {}
        usage: dict[str, Any] = {"output_tokens": tokens.output}
        if tokens.reasoning is not None:
            usage["output_tokens_details"] = {"thinking_tokens": tokens.reasoning}
        return usage

    def _delta(self, delta: Mapping[str, Any], place: int = 0) -> bytes:
        return self._event("content_block_delta", index=place, delta=delta)

    def _event(self, kind: str, **content: Any) -> bytes:
        return f"event: {kind}\n".encode() + _frame({"type": kind, **content})


def _frame(content: Mapping[str, Any]) -> bytes:
    return b"data: " + _json(content) + b"\n\n"


def _json(content: Mapping[str, Any]) -> bytes:
    try:
        return json.dumps(content, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        # Half of a surrogate pair: bytes cannot say it, an escape can.
        return json.dumps(content).encode()
