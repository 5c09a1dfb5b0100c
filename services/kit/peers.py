"""Calls to the other services of the mesh, over stubs that are used as any others.

A stub is made once and called like any:

    agents = AgentServiceStub(peers.channel("content"))
    agent = await agents.GetAgent(GetAgentRequest(agent_id="writer"))

Such a call is made for the caller of the rpc that is being served: it says who that is, waits no longer
than they do, and goes on with their trace. What a service asks for itself says so:

    record = await keys.ResolveKey(request, metadata=peers.itself())

An error of the other service is raised as it was raised there; one that does not answer is
SERVICE_UNAVAILABLE.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from typing import Any, cast

import grpc
from google.protobuf import descriptor_pool
from google.rpc import status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.kit import call, tracing
from services.kit import conventions as names
from services.kit.errors import DETAILS, DomainError, Reason, Resource, read_status
from services.kit.principals import MESH_ORG, Principal, Scope
from services.kit.settings import PREFIX, Settings, SettingsError
from services.kit.signing import PEER, PRINCIPAL, Signer
from services.kit.telemetry import Tracer
from services.kit.tracing import Kind, SpanContext

Metadata = tuple[tuple[str, str], ...]

ANSWER_SECONDS = 5.0
"""How long an answer is waited for, at most, where the caller of the stub says nothing else."""

_HEALTH_SECONDS = 1.0
_RETRY_SECONDS = 1.0
_NO_SIDE_EFFECTS = 1
_OPTIONS = (
    # Every process of a service gets its part; one that is away gets none.
    ("grpc.lb_policy_name", "round_robin"),
    ("grpc.enable_http_proxy", 0),
    # As a server takes them.
    ("grpc.max_receive_message_length", 4 * 1024 * 1024 + 64 * 1024),
    ("grpc.max_metadata_size", 64 * 1024),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    # A service that was away is found again within a second, wherever it is by then.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.dns_min_time_between_resolutions_ms", 1000),
    # What another one has heard of an address is nothing to this one.
    ("grpc.use_local_subchannel_pool", 1),
)


class Peers:
    """The other services, as one of them reaches them.

    Args:
        service: whose calls these are.
        targets: where each service is, as gRPC writes it: `dns:///content:7000`.
        signer: of this mesh; None while authentication is off.
        tracer: tells of the calls.
    """

    def __init__(
        self,
        service: str,
        targets: Mapping[str, str],
        signer: Signer | None = None,
        tracer: Tracer | None = None,
    ) -> None:
        self._service = service
        self._targets = targets
        self._signer = signer
        self._tracer = tracer
        self._channels: dict[str, grpc.aio.Channel] = {}

    @property
    def others(self) -> Sequence[str]:
        """The names of the services that can be called, this one not among them."""
        return [name for name in self._targets if name != self._service]

    def channel(self, name: str) -> grpc.aio.Channel:
        """Return what the stubs of a service are made of; it opens with the first call.

        Raises:
            SettingsError: nothing says where that service is.
        """
        return cast("grpc.aio.Channel", _Channel(self, name, self._channel(name)))

    def itself(self, org: str = MESH_ORG) -> Metadata:
        """Make the `metadata` of a call that this service makes for itself, as an operator.

        Such calls are not bound to how long anybody waits.

        Args:
            org: the organisation whose things it is about.
        """
        if self._signer is None:
            return ((PEER, self._service),)
        own = Principal(org, f"service:{self._service}", frozenset({Scope.OPERATOR}))
        return ((PRINCIPAL, self._signer.principal(own)),)

    async def health(self) -> Mapping[str, str]:
        """Ask all others whether they serve: what is wrong with each, empty where nothing is.

        Takes a second at most. A process that is about to end still serves.
        """
        others = self.others
        found = await asyncio.gather(*(self._trouble(name) for name in others))
        return dict(zip(others, found, strict=True))

    async def close(self) -> None:
        """End what is open."""
        for channel in self._channels.values():
            await channel.close()

    async def _trouble(self, name: str) -> str:
        check: Any = health_pb2_grpc.HealthStub(self._channel(name)).Check

        async def ask() -> None:
            await check(health_pb2.HealthCheckRequest(), timeout=_HEALTH_SECONDS)

        try:
            async with asyncio.timeout(_HEALTH_SECONDS):
                await _twice(ask)
        except grpc.aio.AioRpcError as error:
            return f"It does not answer ({error.code().name})."
        except TimeoutError:
            return "It does not answer."
        return ""

    def _channel(self, name: str) -> grpc.aio.Channel:
        if name not in self._targets:
            example = f'{{"{name}": "ipv4:127.0.0.1:7000"}}'
            raise SettingsError(
                f"The service {self._service} calls {name}, and {PREFIX}PEERS does not say where "
                f"that is; for example {PREFIX}PEERS='{example}'."
            )
        if name not in self._channels:
            self._channels[name] = grpc.aio.insecure_channel(self._targets[name], _OPTIONS)
        return self._channels[name]

    @contextmanager
    def told(self, name: str, method: str, metadata: Metadata) -> Iterator[Metadata]:
        """Tell of a call while it is made, and say its errors as ours.

        Args:
            name: the service that is called.
            metadata: what the caller of the stub gives; empty for the call that is served.

        Yields:
            The metadata of the call.
        """
        served, above = call.find(), tracing.current()
        span = None
        if above is not None and self._tracer is not None:
            about = {names.RPC_SYSTEM_NAME: names.GRPC, names.RPC_METHOD: method}
            context = above.context
            span = self._tracer.begin(method, Kind.CLIENT, above.trace_id, context, about)
        passed = _context(served) if above is None else above.context
        if span is not None:
            span.local = True
            passed = span.context
        code = grpc.StatusCode.CANCELLED
        try:
            yield (*self._ids(passed, served), *(metadata or self._caller(served)))
            code = grpc.StatusCode.OK
        except grpc.aio.AioRpcError as error:
            code = error.code()
            raise _said(error) or _away(name, code) from error
        finally:
            if span is not None and self._tracer is not None:
                said = {names.RPC_RESPONSE_STATUS_CODE: code.name}
                span.attributes = {**span.attributes, **said}
                span.failed = code is not grpc.StatusCode.OK
                self._tracer.end(span)

    @staticmethod
    def _ids(passed: SpanContext | None, served: call.Call | None) -> Iterator[tuple[str, str]]:
        if passed is not None:
            yield "traceparent", passed.traceparent
        if served is not None:
            yield "x-request-id", served.call_id

    def _caller(self, served: call.Call | None) -> Metadata:
        if served is None or self._signer is None:
            return self.itself()
        return ((PRINCIPAL, self._signer.principal(served.principal)),)


class _Channel:
    """The part of a channel that generated code calls to make a stub."""

    def __init__(self, peers: Peers, name: str, channel: grpc.aio.Channel) -> None:
        self._peers = peers
        self._name = name
        self._channel = channel

    def unary_unary(
        self, path: str, request_serializer: Any, response_deserializer: Any, **_: Any
    ) -> Callable[..., Any]:
        """Make a call that is answered once."""
        send: Any = self._channel.unary_unary(path, request_serializer, response_deserializer)
        method, safe = path[1:], _is_safe(path)

        async def ask(
            request: object, *, timeout: float | None = None, metadata: Metadata = ()
        ) -> object:
            with self._peers.told(self._name, method, metadata) as said:

                async def attempt() -> object:
                    seconds = _seconds(timeout or ANSWER_SECONDS, own=bool(metadata))
                    return await send(request, timeout=seconds, metadata=said)

                return await (_twice(attempt) if safe else attempt())

        return ask

    def unary_stream(
        self, path: str, request_serializer: Any, response_deserializer: Any, **_: Any
    ) -> Callable[..., Any]:
        """Make a call that is answered by a stream."""
        send: Any = self._channel.unary_stream(path, request_serializer, response_deserializer)
        method = path[1:]

        async def ask(
            request: object, *, timeout: float | None = None, metadata: Metadata = ()
        ) -> AsyncIterator[object]:
            with self._peers.told(self._name, method, metadata) as said:
                seconds = _seconds(timeout, own=bool(metadata))
                stream = send(request, timeout=seconds, metadata=said)
                try:
                    async for response in stream:
                        yield response
                finally:
                    stream.cancel()

        return ask

    def stream_unary(self, path: str, *_: Any, **__: Any) -> Callable[..., Any]:
        """Refuse what no service asks another one."""

        def ask(*_: Any, **__: Any) -> Any:
            raise TypeError(f"{path} takes a stream, which no service sends another one")

        return ask

    stream_stream = stream_unary


async def open_peers(
    settings: Settings,
    service: str,
    signer: Signer | None,
    tracer: Tracer | None,
    stack: AsyncExitStack,
) -> Peers:
    """Make what a service calls the others with; the stack closes it."""
    peers = Peers(service, settings.peers, signer, tracer)
    stack.push_async_callback(peers.close)
    return peers


async def _twice(attempt: Callable[[], Awaitable[object]]) -> object:
    """Try once more what no process has answered: another one may."""
    try:
        return await attempt()
    except grpc.aio.AioRpcError as error:
        if error.code() is not grpc.StatusCode.UNAVAILABLE or _said(error) is not None:
            raise
    return await attempt()


def _seconds(most: float | None, *, own: bool) -> float | None:
    """Find how long an answer is waited for.

    Args:
        most: None for as long as the caller waits.
        own: whether it is this service's own call, for which nobody waits.
    """
    served = None if own else call.find()
    left = None if served is None else served.remaining()
    if most is None or left is None:
        return left if most is None else most
    return min(most, left)


def _context(served: call.Call | None) -> SpanContext | None:
    if served is None:
        return None
    # This process tells of no span, so the caller's own is the parent of what comes next.
    return served.context() if served.parent is None else served.parent


def _is_safe(path: str) -> bool:
    """Whether an rpc changes nothing, so that it may be asked twice."""
    service, _, method = path[1:].partition("/")
    pool: Any = descriptor_pool.Default()
    options = pool.FindServiceByName(service).methods_by_name[method].GetOptions()
    return bool(options.idempotency_level == _NO_SIDE_EFFECTS)


def _said(error: grpc.aio.AioRpcError) -> DomainError | None:
    """Read the error that the other service raised; None when it did not answer."""
    details = dict(error.trailing_metadata() or ()).get(DETAILS)
    if not isinstance(details, bytes):
        return None
    return read_status(status_pb2.Status.FromString(details))


def _away(name: str, code: grpc.StatusCode) -> DomainError:
    return DomainError(
        Reason.REASON_SERVICE_UNAVAILABLE,
        f"The service {name} does not answer ({code.name}); try again.",
        resources=[Resource("service", name, code.name)],
        metadata={"service": name},
        retry_after=_RETRY_SECONDS,
    )
