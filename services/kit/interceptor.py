"""What happens around every rpc, in one fixed order.

Telemetry, call id and log, errors, principal, validation, then the handler. One wrapper is made for
each method, once; a chain of six interceptors would cost as much as the work they guard. Requests are
parsed here rather than by grpc, so that one that cannot be parsed is an error of ours.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from time import perf_counter
from typing import Any, TypeVar, cast

import grpc
import orjson
import protovalidate
from google.protobuf.message import DecodeError, Message

from conductor.errors.v1.reason_pb2 import Reason
from services.kit import call
from services.kit.errors import DomainError, Violation, code_of, to_status
from services.kit.logs import CallLog

_LOG = logging.getLogger(__name__)
_DETAILS = "grpc-status-details-bin"

Context = grpc.aio.ServicerContext[Any, Any]
M = TypeVar("M", bound=Message)

Parse = Callable[[bytes], Message]


def serialized(kind: type[M], message: bytes) -> M:  # noqa: ARG001 it is there for its type
    """Let a handler answer with a message of a kind that is serialized already."""
    return cast("M", message)


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Wraps every method that takes one request.

    Methods with a stream of requests (reflection) pass through untouched.
    """

    def __init__(self, call_log: CallLog) -> None:
        self._log = call_log
        self._validator = protovalidate.Validator()
        self._wrapped: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}

    async def intercept_service(
        self,
        continuation: Callable[
            [grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]
        ],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Find the wrapper of a method, making it at its first call."""
        method = handler_call_details.method
        wrapped = self._wrapped.get(method)
        if wrapped is None:
            handler = await continuation(handler_call_details)
            if handler is None or handler.request_streaming:
                return handler
            wrapped = self._wrapped[method] = self._wrap(method, handler)
        return wrapped

    def _wrap(
        self, method: str, handler: grpc.RpcMethodHandler[Any, Any]
    ) -> grpc.RpcMethodHandler[Any, Any]:
        if handler.response_streaming:
            return grpc.unary_stream_rpc_method_handler(
                self._stream(method, handler.unary_stream, handler.request_deserializer)
            )
        return grpc.unary_unary_rpc_method_handler(
            self._unary(method, handler.unary_unary, handler.request_deserializer)
        )

    def _unary(
        self, method: str, behavior: Any, parse: Any
    ) -> Callable[[bytes, Context], Awaitable[bytes]]:
        async def answer(raw: bytes, context: Context) -> bytes:
            began = perf_counter()
            served = call.begin(method, _metadata(context))
            code = "OK"
            try:
                response = await behavior(self._checked(parse, raw), context)
                return response if type(response) is bytes else response.SerializeToString()
            except asyncio.CancelledError:
                code = "CANCELLED"
                raise
            except grpc.aio.AbortError:
                code = context.code().name
                raise
            except Exception as error:
                known = _as_domain_error(served, error)
                code = code_of(known.reason).name
                await _abort(context, known)
                raise
            finally:
                self._log.write(served, code, perf_counter() - began)

        return answer

    def _stream(
        self, method: str, behavior: Any, parse: Any
    ) -> Callable[[bytes, Context], AsyncIterator[bytes]]:
        async def answer(raw: bytes, context: Context) -> AsyncIterator[bytes]:
            began = perf_counter()
            served = call.begin(method, _metadata(context))
            code = "CANCELLED"
            try:
                async with aclosing(behavior(self._checked(parse, raw), context)) as responses:
                    async for response in responses:
                        yield (
                            response if type(response) is bytes else response.SerializeToString()
                        )
                code = "OK"
            except grpc.aio.AbortError:
                code = context.code().name
                raise
            except Exception as error:
                known = _as_domain_error(served, error)
                code = code_of(known.reason).name
                await _abort(context, known)
                raise
            finally:
                self._log.write(served, code, perf_counter() - began)

        return answer

    def _checked(self, parse: Parse, raw: bytes) -> Message:
        try:
            request = parse(raw)
        except DecodeError:
            raise DomainError(
                Reason.REASON_MALFORMED_REQUEST,
                "The request cannot be read: it is damaged, or text in it is not UTF-8.",
            ) from None
        violations = self._validator.collect_violations(request)
        if violations:
            broken = [_violation(violation.proto) for violation in violations]
            raise DomainError(
                Reason.REASON_INVALID_REQUEST,
                "; ".join(f"{one.field}: {one.description}" for one in broken),
                violations=broken,
            )
        return request


def _metadata(context: Context) -> dict[str, str]:
    pairs: Any = context.invocation_metadata() or ()
    return dict(pairs)


def _violation(violation: Any) -> Violation:
    path = ""
    for element in violation.field.elements if violation.field else ():
        path += f".{element.field_name}" if path else element.field_name
        subscript = element.subscript
        if subscript is not None:
            path += f"[{orjson.dumps(subscript.value).decode()}]"
    return Violation(path, violation.message or violation.rule_id)


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


async def _abort(context: Context, error: DomainError) -> None:
    """End the call with the status an error stands for; raises."""
    status = to_status(error)
    trailers: list[tuple[str, str | bytes]] = [(_DETAILS, status.SerializeToString())]
    if error.retry_after is not None:
        trailers.append(("retry-after", str(max(1, round(error.retry_after)))))
    await context.abort(code_of(error.reason), status.message, tuple(trailers))
