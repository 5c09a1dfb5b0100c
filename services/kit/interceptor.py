"""What happens around every rpc, in one fixed order.

Telemetry, call id and log, errors, principal, validation, audit, then the handler. One wrapper is made
for each method, once; a chain of seven interceptors would cost as much as the work they guard.
Requests are parsed here rather than by grpc, so that one that cannot be parsed is an error of ours, and
so that nothing is made of what strangers send: 4 MiB can take 150 MiB and a fifth of a second to parse.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing, suppress
from functools import partial
from math import ceil
from time import perf_counter
from typing import Any, NoReturn, TypeVar, cast

import grpc
from google.protobuf.message import DecodeError, Message

from conductor.errors.v1.reason_pb2 import Reason
from services.kit import call
from services.kit.audit import Auditor
from services.kit.calls import Calls, Method
from services.kit.errors import (
    DETAILS,
    DomainError,
    code_of,
    reason_name,
    to_status,
)
from services.kit.guard import Access, Guard, access_of
from services.kit.principals import NOBODY, Scope
from services.kit.validation import Validation

_LOG = logging.getLogger(__name__)
_FOREIGN = {
    "grpc.health.v1.Health": Access(),
    "grpc.reflection.v1alpha.ServerReflection": Access(Scope.READ),
    # It tells of the connections of every organisation.
    "grpc.channelz.v1.Channelz": Access(Scope.OPERATOR),
}
"""What services ask of their callers that are not ours and do not say it in their protos."""
_RATE_LIMITED = reason_name(Reason.REASON_RATE_LIMITED)

Context = grpc.aio.ServicerContext[Any, Any]
M = TypeVar("M", bound=Message)

Parse = Callable[[bytes], Message]


def serialized(kind: type[M], message: bytes) -> M:  # noqa: ARG001 it is there for its type
    """Let a handler answer with a message of a kind that is serialized already."""
    return cast("M", message)


class Interceptor:
    """Wraps every method.

    Methods are wrapped when they are registered: as a grpc.aio interceptor the same work costs a
    chain of coroutines a call.

    Args:
        calls: tells of them.
        guard: judges callers; None lets everyone in, as `ANYONE`.
        auditor: keeps records of calls that change something, when there is one.
    """

    def __init__(
        self, calls: Calls, guard: Guard | None = None, auditor: Auditor | None = None
    ) -> None:
        self._calls = calls
        self._guard = guard
        self._auditor = auditor
        self._check = Validation().check

    def around(self, server: grpc.aio.Server) -> grpc.aio.Server:
        """Return what generated code registers a servicer on, so that its methods get wrapped."""
        return cast("grpc.aio.Server", _Registration(self, server))

    def wrapped(
        self, service: str, handlers: Mapping[str, grpc.RpcMethodHandler[Any, Any]]
    ) -> dict[str, grpc.RpcMethodHandler[Any, Any]]:
        """Wrap the methods of a proto service."""
        return {
            name: self._wrap(f"/{service}/{name}", handler, self._access(service, name))
            for name, handler in handlers.items()
        }

    @staticmethod
    def _access(service: str, name: str) -> Access:
        known = _FOREIGN.get(service)
        return access_of(service, name) if known is None else known

    def _wrap(
        self, method: str, handler: grpc.RpcMethodHandler[Any, Any], access: Access
    ) -> grpc.RpcMethodHandler[Any, Any]:
        if handler.request_streaming:
            if not handler.response_streaming:
                raise ValueError(f"{method} answers a stream of requests once; nothing here does")
            return grpc.stream_stream_rpc_method_handler(
                self._dialogue(method, handler.stream_stream, handler.request_deserializer, access),
                None,
                handler.response_serializer,
            )
        if handler.response_streaming:
            return grpc.unary_stream_rpc_method_handler(
                self._stream(method, handler.unary_stream, handler.request_deserializer, access)
            )
        return grpc.unary_unary_rpc_method_handler(
            self._unary(method, handler.unary_unary, handler.request_deserializer, access)
        )

    def _unary(
        self, method: str, behavior: Any, parse: Any, access: Access
    ) -> Callable[[bytes, Context], Awaitable[bytes]]:
        guard = None if access.scope is None else self._guard
        auditor = self._auditor if access.changes else None
        told = self._calls.of(method)

        async def answer(raw: bytes, context: Context) -> bytes:
            began = perf_counter()
            served = _begun(told, context)
            code, reason = "OK", ""
            request: Message | None = None
            response: Any = None
            try:
                request = await _admitted(guard, served, access, parse, raw)
                self._check(request, len(raw))
                response = await behavior(request, context)
                return response if type(response) is bytes else response.SerializeToString()
            except asyncio.CancelledError:
                code = "CANCELLED"
                raise
            except grpc.aio.AbortError:
                code = context.code().name
                raise
            except Exception as error:  # noqa: BLE001 whatever it is ends the call
                refused = _as_domain_error(served, error)
                code, reason = code_of(refused.reason).name, reason_name(refused.reason)
            finally:
                # Before the caller hears of it, whichever way the call went.
                if auditor is not None and _leaves_a_record(served, reason):
                    asked = request or _readable(parse, raw)
                    if asked is not None:
                        await auditor.record(served, asked, response, code, reason)
                told.end(served, code, reason, began)
            return await _abort(context, refused)

        return answer

    def _stream(
        self, method: str, behavior: Any, parse: Any, access: Access
    ) -> Callable[[bytes, Context], AsyncIterator[bytes]]:
        guard = None if access.scope is None else self._guard
        auditor = self._auditor if access.changes else None
        told = self._calls.of(method)

        async def answer(raw: bytes, context: Context) -> AsyncIterator[bytes]:
            began = perf_counter()
            served = _begun(told, context)
            code, reason = "CANCELLED", ""
            request: Message | None = None
            begun = False
            refused: DomainError | None = None
            try:
                request = await _admitted(guard, served, access, parse, raw)
                self._check(request, len(raw))
                async with aclosing(behavior(request, context)) as responses:
                    async for response in responses:
                        if not begun and auditor is not None:
                            begun = True
                            await auditor.record(served, request, None, "OK", "")
                        yield (
                            response if type(response) is bytes else response.SerializeToString()
                        )
                code = "OK"
            except grpc.aio.AbortError:
                code = context.code().name
                raise
            except Exception as error:  # noqa: BLE001 whatever it is ends the call
                refused = _as_domain_error(served, error)
                code, reason = code_of(refused.reason).name, reason_name(refused.reason)
            finally:
                if auditor is not None and not begun and _leaves_a_record(served, reason):
                    asked = request or _readable(parse, raw)
                    if asked is not None:
                        await auditor.record(served, asked, None, code, reason)
                told.end(served, code, reason, began)
            if refused is not None:
                await _abort(context, refused)

        return answer

    def _dialogue(
        self, method: str, behavior: Any, parse: Any, access: Access
    ) -> Callable[[AsyncIterator[bytes], Context], AsyncIterator[Message]]:
        """Wrap a method that answers requests as they come."""
        guard = None if access.scope is None else self._guard
        auditor = self._auditor if access.changes else None
        told = self._calls.of(method)

        async def answer(
            requests: AsyncIterator[bytes], context: Context
        ) -> AsyncIterator[Message]:
            began = perf_counter()
            served = _begun(told, context)
            code, reason = "CANCELLED", ""
            read = _Requests(requests, parse, self._check)
            if guard is not None and access.counts_requests:
                read.pace = partial(guard.pace, served)
            begun = False
            refused: DomainError | None = None
            try:
                if guard is not None:
                    await guard.admit(served, access, None)
                async with aclosing(behavior(aiter(read), context)) as responses:
                    async for response in responses:
                        if not begun and auditor is not None and read.first is not None:
                            begun = True
                            await auditor.record(served, read.first, None, "OK", "")
                        yield response
                code = "OK"
            except grpc.aio.AbortError:
                code = context.code().name
                raise
            except Exception as error:  # noqa: BLE001 whatever it is ends the call
                refused = _as_domain_error(served, error)
                code, reason = code_of(refused.reason).name, reason_name(refused.reason)
            finally:
                # Of a caller who asked nothing there is nothing to record. What began and then failed
                # has a second record, so that the first does not tell of a success.
                asked = None if auditor is None or (begun and code == "OK") else read.first
                if asked is not None and auditor is not None and _leaves_a_record(served, reason):
                    await auditor.record(served, asked, None, code, reason)
                told.end(served, code, reason, began)
            if refused is not None:
                await _abort(context, refused)

        return answer


class _Requests:
    """The requests of a dialogue, each parsed and checked when it is read.

    Attributes:
        pace: awaited for each request but the first, which came with the call.
        first: the first one, once it was read.
    """

    def __init__(
        self,
        requests: AsyncIterator[bytes],
        parse: Parse,
        check: Callable[[Message, int], None],
    ) -> None:
        self._requests = requests
        self._parse = parse
        self._check = check
        self.pace: Callable[[], Awaitable[None]] | None = None
        self.first: Message | None = None

    async def __aiter__(self) -> AsyncIterator[Message]:
        async for raw in self._requests:
            request = _parsed(self._parse, raw)
            if self.first is None:
                self.first = request
            elif self.pace is not None:
                await self.pace()
            self._check(request, len(raw))
            yield request


class _Registration:
    """The part of a server that generated code calls to register a servicer."""

    def __init__(self, interceptor: Interceptor, server: grpc.aio.Server) -> None:
        self._interceptor = interceptor
        self._server = server

    def add_generic_rpc_handlers(self, handlers: object) -> None:
        """Pass over what older runtimes need: the same methods come registered by name."""

    def add_registered_method_handlers(
        self, service: str, handlers: Mapping[str, grpc.RpcMethodHandler[Any, Any]]
    ) -> None:
        """Register the wrapped methods."""
        wrapped = self._interceptor.wrapped(service, handlers)
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(service, wrapped),)
        )


def _parsed(parse: Parse, raw: bytes) -> Message:
    try:
        return parse(raw)
    except DecodeError:
        raise DomainError(
            Reason.REASON_MALFORMED_REQUEST,
            "The request cannot be read: it is damaged, what it holds lies too deep in one another, or "
            "text in it is not UTF-8.",
        ) from None


async def _admitted(
    guard: Guard | None, served: call.Call, access: Access, parse: Parse, raw: bytes
) -> Message:
    """Parse what is asked, once its caller is let in."""
    if guard is not None and not access.token_for:
        await guard.admit(served, access, None)
    request = _parsed(parse, raw)
    if guard is not None and access.token_for:
        await guard.admit(served, access, request)
    return request


def _readable(parse: Parse, raw: bytes) -> Message | None:
    """Parse what was asked by a caller who was not let in; None when it cannot be."""
    with suppress(DomainError):
        return _parsed(parse, raw)
    return None


def _leaves_a_record(served: call.Call, reason: str) -> bool:
    """Tell whether a call may leave a record: not what anyone can cause as often as they like."""
    return served.principal is not NOBODY and reason != _RATE_LIMITED


def _begun(told: Method, context: Context) -> call.Call:
    pairs: Any = context.invocation_metadata() or ()
    served = told.begin(dict(pairs))
    served.remaining = context.time_remaining
    return served


def _as_domain_error(served: call.Call, error: Exception) -> DomainError:
    """Let through what callers may know; anything else is INTERNAL and goes to the log."""
    if isinstance(error, DomainError):
        return error
    _LOG.error("%s met an unexpected fault", served.method, exc_info=error)
    return DomainError(
        Reason.REASON_INTERNAL,
        f"An unexpected fault; the operator finds it in the logs as trace {served.trace_id}.",
        metadata={"trace_id": served.trace_id},
    )


async def _abort(context: Context, error: DomainError) -> NoReturn:
    """End the call with the status an error stands for; raises."""
    status = to_status(error)
    trailers: list[tuple[str, str | bytes]] = [(DETAILS, status.SerializeToString())]
    if error.retry_after is not None:
        trailers.append(("retry-after", str(max(1, ceil(error.retry_after)))))
    if error.reason == Reason.REASON_UNAUTHENTICATED:
        trailers.append(("www-authenticate", "Bearer"))
    await context.abort(code_of(error.reason), status.message, tuple(trailers))
