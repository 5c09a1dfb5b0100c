"""The way to a mesh: one channel, the caller's key on every call, errors with a reason."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from copy import deepcopy
from typing import Final, Protocol, TypeAlias, TypeVar

import grpc

from conductor_ai.errors import ConductorError

LONGEST_PAUSE: Final = 2.0
"""Seconds between two tries to reach a mesh, at most."""

_CONNECT_SECONDS: Final = 10.0
"""How long an attempt to connect may take at least: from afar, with TLS, some take seconds."""

_MAX_MESSAGE: Final = 16 * 1024 * 1024
_LOOPBACK: Final = ("localhost", "127.", "[::1]")

Metadata: TypeAlias = tuple[tuple[str, str], ...]


class _Listing(Protocol):
    page_token: str


class _Page(Protocol):
    next_page_token: str


Q = TypeVar("Q")
A = TypeVar("A")
T = TypeVar("T")
L = TypeVar("L", bound=_Listing)
P = TypeVar("P", bound=_Page)


class Transport:
    """A channel to a mesh, and how its rpcs are called.

    Args:
        address: `host:port` or `http://host:port`; `https://host:port` for TLS.
        api_key: the key to show; empty shows none.

    Raises:
        ValueError: the address is none, or the key cannot be sent.
    """

    def __init__(self, address: str, api_key: str) -> None:
        self.metadata = _metadata(api_key)
        self.channel = _channel(address)

    async def answer(self, rpc: grpc.aio.UnaryUnaryMultiCallable[Q, A], request: Q) -> A:
        """Call an rpc."""
        try:
            return await rpc(request, metadata=self.metadata)
        except grpc.aio.AioRpcError as error:
            raise ConductorError.decode(error) from None

    async def listed(
        self,
        rpc: grpc.aio.UnaryUnaryMultiCallable[L, P],
        filters: L,
        rows: Callable[[P], Iterable[T]],
    ) -> AsyncGenerator[T, None]:
        """Yield the rows of one page after another.

        Raises:
            ConductorError: the mesh refuses, or does not answer.
            TypeError: `filters` is no request, such as an id alone.
        """
        if not hasattr(filters, "page_token"):
            # gRPC would send an empty request in its place, which all there is answers.
            raise TypeError(f"the filters of a list are the fields of its request, not {filters!r}")
        request = deepcopy(filters)
        while True:
            page = await self.answer(rpc, request)
            for row in rows(page):
                yield row
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def streamed(
        self, rpc: grpc.aio.UnaryStreamMultiCallable[Q, A], request: Q
    ) -> AsyncGenerator[A, None]:
        """Yield what an rpc streams; leaving the loop ends the call."""
        call = rpc(request, metadata=self.metadata)
        try:
            async for answer in call:
                yield answer
        except grpc.aio.AioRpcError as error:
            raise ConductorError.decode(error) from None
        finally:
            call.cancel()

    async def exchanged(
        self, rpc: grpc.aio.StreamStreamMultiCallable[Q, A], requests: AsyncIterator[Q]
    ) -> AsyncGenerator[A, None]:
        """Yield what an rpc streams while it is streamed to; leaving the loop ends the call."""
        call = rpc(requests, metadata=self.metadata)
        try:
            async for answer in call:
                yield answer
        except grpc.aio.AioRpcError as error:
            raise ConductorError.decode(error) from None
        finally:
            call.cancel()


def _metadata(api_key: str) -> Metadata:
    key = api_key.strip()
    if not (key.isascii() and key.isprintable()):
        # It is a secret, so it is not repeated.
        raise ValueError("the API key holds characters that cannot be sent, such as a line break")
    return (("x-api-key", key),) if key else ()


def _channel(address: str) -> grpc.aio.Channel:
    scheme, _, rest = address.rpartition("://")
    target = rest.rstrip("/")
    if scheme not in ("", "http", "https") or not target:
        raise ValueError(f"{address!r} is not an address; write host:port, or https://host:port")
    options: list[tuple[str, int]] = [
        ("grpc.max_receive_message_length", _MAX_MESSAGE),
        ("grpc.max_reconnect_backoff_ms", int(LONGEST_PAUSE * 1000)),
        ("grpc.initial_reconnect_backoff_ms", 100),
        # In spite of its name: the time that an attempt has.
        ("grpc.min_reconnect_backoff_ms", int(_CONNECT_SECONDS * 1000)),
    ]
    if target.startswith(_LOOPBACK):
        options.append(("grpc.enable_http_proxy", 0))
    if scheme == "https":
        return grpc.aio.secure_channel(target, grpc.ssl_channel_credentials(), options=options)
    return grpc.aio.insecure_channel(target, options=options)
