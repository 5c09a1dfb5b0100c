"""An HTTP/1.1 client that costs little, so that it takes little from what it measures.

Connections are callbacks, not tasks: an answer sends the next request from within `data_received`.
"""

from __future__ import annotations

import asyncio
import itertools
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, field
from time import perf_counter, time
from typing import cast

_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)\r\n", re.IGNORECASE)
_STATUS = slice(9, 12)
_HEAD_END = b"\r\n\r\n"
_LAST_CHUNK = b"\r\n0\r\n\r\n"
_FIRST_EVENT = b"id: 1\n"


def get(path: str) -> bytes:
    """Write a GET request."""
    return f"GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n".encode()


def post(path: str, body: bytes) -> bytes:
    """Write a POST request of JSON."""
    return _with_body("POST", path, body)


def patch(path: str, body: bytes) -> bytes:
    """Write a PATCH request of JSON."""
    return _with_body("PATCH", path, body)


def _with_body(verb: str, path: str, body: bytes) -> bytes:
    return (
        f"{verb} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\n\r\n".encode()
        + body
    )


def body_of(answer: bytes) -> bytes | None:
    """The body of a whole answer that has a length; None while some of it is missing."""
    head = answer.find(_HEAD_END)
    found = _LENGTH.search(answer, 0, head + 2) if head >= 0 else None
    if found is None:
        return None
    body = answer[head + len(_HEAD_END) :]
    return body if len(body) >= int(found[1]) else None


def unchunked(answer: bytes) -> bytes:
    """The body of a whole answer in chunks."""
    return Unchunker().feed(answer)


class Unchunker:
    """Takes a chunked answer in pieces and gives its body in pieces."""

    def __init__(self) -> None:
        self._rest = b""
        self._left = -1
        self._begun = False

    def feed(self, data: bytes) -> bytes:
        """Take a piece of the answer, give what it adds to the body."""
        data = self._rest + data
        at = 0
        if not self._begun:
            head = data.find(_HEAD_END)
            if head < 0:
                self._rest = data
                return b""
            self._begun, at = True, head + len(_HEAD_END)
        body: list[bytes] = []
        while at < len(data):
            if self._left < 0:
                line = data.find(b"\r\n", at)
                if line < 0:
                    break
                # Two more for the line end behind the chunk.
                self._left, at = int(data[at:line], 16) + 2, line + 2
            piece = data[at : at + self._left]
            body.append(piece[: max(0, self._left - 2)])
            at += len(piece)
            self._left -= len(piece)
            if self._left == 0:
                self._left = -1
        self._rest = data[at:]
        return b"".join(body)


@dataclass(slots=True)
class Tally:
    """What connections saw in a span of time."""

    latencies: list[float] = field(default_factory=list)
    first_frames: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Load:
    """What connections share while they send one request after another."""

    keep_bodies: bool = False
    tally: Tally = field(default_factory=Tally)
    bodies: list[bytes] = field(default_factory=list)
    answers: int = 0
    """How many callers got, before and after the span that is measured, too."""
    more: bool = True


class Connection(asyncio.Protocol, ABC):
    """One connection that begins anew after each answer, as long as there is to be more."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._transport: asyncio.Transport | None = None
        self._sent = 0.0
        self._rest = b""
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @abstractmethod
    def begin(self) -> None:
        """Send the first request."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is a class of its own

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ended.done():
            self._fail(f"the connection was closed: {exc}; {self._rest[:300]!r}")

    def _send(self, request: bytes) -> None:
        assert self._transport is not None
        self._rest = b""
        self._sent = perf_counter()
        self._transport.write(request)

    def _again(self) -> None:
        if self._load.more:
            self.begin()
        else:
            self._end()

    def _fail(self, why: str) -> None:
        self._load.tally.failures.append(why)
        self._end()

    def _end(self) -> None:
        if not self.ended.done():
            self.ended.set_result(None)
        if self._transport is not None:
            self._transport.close()


class Caller(Connection):
    """Sends requests in turn, over and over, whose answers have a length."""

    def __init__(self, load: Load, requests: Iterable[bytes]) -> None:
        super().__init__(load)
        self._requests = itertools.cycle(requests)

    def begin(self) -> None:
        self._send(next(self._requests))

    def data_received(self, data: bytes) -> None:
        answer = self._rest + data if self._rest else data
        body = body_of(answer)
        if body is None:
            self._rest = answer
            return
        if answer[_STATUS] != b"200":
            self._fail(repr(answer[:500]))
            return
        self._load.tally.latencies.append(perf_counter() - self._sent)
        self._load.answers += 1
        if self._load.keep_bodies:
            self._load.bodies.append(body)
        self._again()


class Replayer(Connection):
    """Reads streams to their end, one of the given ones after the other."""

    def __init__(self, load: Load, requests: list[bytes], times: int) -> None:
        super().__init__(load)
        self._requests = requests
        self._left = times
        self._pieces: list[bytes] = []

    def begin(self) -> None:
        self._pieces = []
        request = self._requests[self._left % len(self._requests)]
        self._left -= 1
        self._send(request)

    def data_received(self, data: bytes) -> None:
        self._pieces.append(data)
        if not ended_by(data, self._pieces):
            return
        self._load.tally.latencies.append(perf_counter() - self._sent)
        answer = b"".join(self._pieces)
        if answer[_STATUS] != b"200":
            self._fail(repr(answer[:500]))
            return
        self._load.bodies.append(answer)
        if self._left:
            self.begin()
        else:
            self._end()


class Starter(Connection):
    """Starts a run, then reads its stream to the end; notes when the first event came."""

    def __init__(self, load: Load, request: bytes) -> None:
        super().__init__(load)
        self._request = request
        self._streaming = False
        self._seen = False

    def begin(self) -> None:
        self._streaming = self._seen = False
        self._send(self._request)

    def data_received(self, data: bytes) -> None:
        answer = self._rest = self._rest + data
        if len(answer) >= _STATUS.stop and answer[_STATUS] != b"200":
            self._fail(repr(answer[:500]))
        elif self._streaming:
            self._read_stream(answer)
        else:
            self._read_job(answer)

    def _read_job(self, answer: bytes) -> None:
        body = body_of(answer)
        if body is None:
            return
        self._streaming, self._rest = True, b""
        job = re.search(rb'"stream_url":"([^"]+)"', body)
        assert job is not None, body
        assert self._transport is not None
        self._transport.write(get(job[1].decode()))

    def _read_stream(self, answer: bytes) -> None:
        if not self._seen and _FIRST_EVENT in answer:
            self._seen = True
            self._load.tally.first_frames.append(perf_counter() - self._sent)
        if not answer.endswith(_LAST_CHUNK):
            return
        if not self._seen or answer.count(b"event: end_of_stream\n") != 1:
            self._fail(f"a stream ended early: {answer[-500:]!r}")
        else:
            self._again()


class Watcher(Connection):
    """Reads one stream and notes when each piece came; what was in it is judged later."""

    def __init__(self, load: Load, request: bytes) -> None:
        super().__init__(load)
        self._request = request
        self.pieces: list[tuple[float, bytes]] = []
        self.begun: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def begin(self) -> None:
        self._send(self._request)

    def data_received(self, data: bytes) -> None:
        self.pieces.append((time(), data))
        if len(self.pieces) == 1:
            if data[_STATUS] != b"200":
                self._fail(repr(data[:500]))
            if not self.begun.done():
                self.begun.set_result(None)
        if ended_by(data, [data for _, data in self.pieces[-2:]]):
            self._end()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if not self.begun.done():
            self.begun.set_result(None)

    def release(self) -> None:
        """Go away before the end of the stream."""
        self._end()


def ended_by(data: bytes, pieces: list[bytes]) -> bool:
    """Whether a chunked answer, or one of an error, ends with this piece."""
    if data.endswith(_LAST_CHUNK):
        return True
    if len(data) < len(_LAST_CHUNK):
        return b"".join(pieces[-len(_LAST_CHUNK) :]).endswith(_LAST_CHUNK)
    return len(pieces) == 1 and body_of(data) is not None
