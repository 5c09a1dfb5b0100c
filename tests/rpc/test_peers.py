"""Calls from one service to another: what they carry, how long they wait, and how they fail."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from conductor.execution.v1 import execution_service_pb2 as pb
from conductor.execution.v1.execution_pb2 import Execution
from conductor.execution.v1.execution_service_pb2_grpc import (
    ExecutionServiceServicer,
    ExecutionServiceStub,
    add_ExecutionServiceServicer_to_server,
)
from services.kit import call, ids, tracing
from services.kit.errors import DomainError, Reason, Resource, Violation
from services.kit.frame import hosted
from services.kit.interceptor import Context
from services.kit.messages import timestamp
from services.kit.peers import ANSWER_SECONDS, Peers
from services.kit.principals import MESH_ORG, Principal, Scope
from services.kit.server import App, serving
from services.kit.settings import SettingsError
from services.kit.signing import PEER, PRINCIPAL, Signer
from services.kit.tracing import Kind, SpanContext
from tests.fakes.tracer import Spans
from tests.patience import PATIENCE

SIGNER = Signer("the secret of this mesh, shared by its processes", ids.now)
ADA = Principal("acme", "key:ada", frozenset({Scope.READ}))
TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


class Echo(ExecutionServiceServicer):
    """Answers with what it is told besides the request; fails as often as it is to."""

    def __init__(self) -> None:
        self.calls = 0
        self.refusals = 0
        self.error: DomainError | None = None
        self.silent = False

    async def GetExecution(self, request: pb.GetExecutionRequest, context: Context) -> Execution:
        return await self._answer(request.execution_id, context)

    async def CancelExecution(
        self, request: pb.CancelExecutionRequest, context: Context
    ) -> Execution:
        return await self._answer(request.execution_id, context)

    async def WatchExecution(
        self, request: pb.WatchExecutionRequest, context: Context
    ) -> AsyncIterator[pb.WatchExecutionResponse]:
        for sequence in (1, 2):
            response = pb.WatchExecutionResponse()
            response.event.sequence = sequence
            yield response
        await self._answer(request.execution_id, context)

    async def _answer(self, execution_id: str, context: Context) -> Execution:
        self.calls += 1
        if self.silent:
            await asyncio.Event().wait()
        if self.calls <= self.refusals:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "not here")
        if self.error is not None:
            raise self.error
        served = call.current()
        left = served.remaining()
        return Execution(
            id=execution_id,
            metadata={name: str(value) for name, value in served.metadata.items()},
            start_time=None if left is None else timestamp(int(left * 1_000_000)),
        )


ECHO: Any = Echo
"""Its other methods are those of the base, whatever the types say: they are not there."""


@asynccontextmanager
async def served(echo: Echo) -> AsyncIterator[int]:
    """Serve until the block ends; gives the port."""

    async def drain() -> None:
        pass

    service = hosted(add_ExecutionServiceServicer_to_server, echo)
    async with serving(App("127.0.0.1:0", [service], [], drain), 1) as server:
        yield server.port


@pytest.fixture
def echo() -> Echo:
    made: Echo = ECHO()
    return made


@asynccontextmanager
async def calling(
    *ports: int, signer: Signer | None = SIGNER, tracer: Spans | None = None
) -> AsyncIterator[tuple[Peers, ExecutionServiceStub]]:
    """What content calls execution with."""
    target = "ipv4:" + ",".join(f"127.0.0.1:{port}" for port in ports)
    peers = Peers("content", {"execution": target}, signer, tracer)
    yield peers, ExecutionServiceStub(peers.channel("execution"))
    await peers.close()


@pytest.fixture
async def stub(echo: Echo) -> AsyncIterator[ExecutionServiceStub]:
    async with served(echo) as port, calling(port) as (_, stub):
        yield stub


def serve_a_call(principal: Principal = ADA, left: float | None = None) -> call.Call:
    """Make a call current, as it is in a handler."""
    context = SpanContext(TRACE, SPAN, sampled=True)
    served = call.begin("/x/Y", {"traceparent": context.traceparent, "x-request-id": "call-1"})
    served.principal = principal
    served.remaining = lambda: left
    return served


def get(execution_id: str = "one") -> pb.GetExecutionRequest:
    return pb.GetExecutionRequest(execution_id=execution_id)


async def refused(answering: Any) -> DomainError:
    with pytest.raises(DomainError) as caught:
        await asyncio.wait_for(answering, PATIENCE)
    return caught.value


async def test_a_call_says_for_whom_it_is_made_and_carries_the_ids(
    stub: ExecutionServiceStub,
) -> None:
    serve_a_call()

    answer = await stub.GetExecution(get())

    assert answer.id == "one"
    assert SIGNER.read_principal(answer.metadata[PRINCIPAL]) == ADA
    assert answer.metadata["traceparent"] == f"00-{TRACE}-{SPAN}-01"
    assert answer.metadata["x-request-id"] == "call-1"
    assert PEER not in answer.metadata


async def test_what_nobody_asked_for_is_asked_by_the_service_itself(
    stub: ExecutionServiceStub,
) -> None:
    answer = await stub.GetExecution(get())

    own = Principal(MESH_ORG, "service:content", frozenset({Scope.OPERATOR}))
    assert SIGNER.read_principal(answer.metadata[PRINCIPAL]) == own


async def test_a_service_may_ask_for_itself_while_it_serves_a_call(echo: Echo) -> None:
    async with served(echo) as port, calling(port) as (peers, stub):
        serve_a_call(left=0.0)

        answer = await stub.GetExecution(get(), metadata=peers.itself("acme"))

    own = Principal("acme", "service:content", frozenset({Scope.OPERATOR}))
    assert SIGNER.read_principal(answer.metadata[PRINCIPAL]) == own
    # The trace goes on, the caller's patience is not asked for.
    assert answer.metadata["traceparent"] == f"00-{TRACE}-{SPAN}-01"


async def test_while_nothing_is_signed_a_call_says_which_service_makes_it(echo: Echo) -> None:
    async with served(echo) as port, calling(port, signer=None) as (peers, stub):
        for metadata in ((), peers.itself("acme")):
            answer = await stub.GetExecution(get(), metadata=metadata)
            assert answer.metadata[PEER] == "content"
            assert PRINCIPAL not in answer.metadata


async def test_an_answer_is_waited_for_as_long_as_the_caller_waits(
    stub: ExecutionServiceStub,
) -> None:
    async def left(timeout: float | None = None) -> float:
        answer = await stub.GetExecution(get(), timeout=timeout)
        return answer.start_time.ToMicroseconds() / 1e6

    # What is sent is rounded up a little.
    assert 3 < await left() < ANSWER_SECONDS + 1
    assert await left(timeout=60.0) > ANSWER_SECONDS + 1

    serve_a_call(left=2.0)

    assert 0 < await left() < 3
    assert 0 < await left(timeout=60.0) < 3


async def test_a_service_that_says_nothing_is_unavailable(
    echo: Echo, stub: ExecutionServiceStub
) -> None:
    echo.silent = True

    error = await refused(stub.GetExecution(get(), timeout=0.1))

    assert error.reason == Reason.REASON_SERVICE_UNAVAILABLE
    assert "DEADLINE_EXCEEDED" in error.message
    assert error.retry_after is not None
    assert echo.calls == 1


async def test_an_error_is_raised_as_the_other_service_raised_it(
    echo: Echo, stub: ExecutionServiceStub
) -> None:
    echo.error = raised = DomainError(
        Reason.REASON_STORE_UNAVAILABLE,
        "The store does not answer; try again.",
        violations=[Violation("a", "must be b"), Violation("c", "must be d")],
        resources=[Resource("execution", "one", "is gone")],
        retry_after=1.5,
        metadata={"part": "store"},
    )
    stream = aiter(stub.WatchExecution(pb.WatchExecutionRequest(execution_id="one")))
    async with asyncio.timeout(PATIENCE):
        seen = [(await anext(stream)).event.sequence for _ in range(2)]

    for error in (await refused(stub.GetExecution(get())), await refused(anext(stream))):
        assert error.reason == raised.reason
        assert error.message == raised.message
        assert error.violations == raised.violations
        assert error.resources == raised.resources
        assert (error.retry_after, error.metadata) == (raised.retry_after, raised.metadata)
    assert seen == [1, 2]
    # It was an answer: UNAVAILABLE or not, nothing is repeated.
    assert echo.calls == 2


async def test_only_what_changes_nothing_is_asked_again_when_nobody_answered(
    echo: Echo, stub: ExecutionServiceStub
) -> None:
    echo.refusals = 1
    assert (await stub.GetExecution(get("two"))).id == "two"
    assert echo.calls == 2

    echo.refusals = 3
    error = await refused(stub.CancelExecution(pb.CancelExecutionRequest(execution_id="one")))

    assert error.reason == Reason.REASON_SERVICE_UNAVAILABLE
    assert [(one.type, one.name) for one in error.resources] == [("service", "execution")]
    assert echo.calls == 3


async def test_processes_share_the_calls_and_those_that_are_left_take_them_all() -> None:
    echoes: list[Echo] = [ECHO(), ECHO()]
    async with served(echoes[0]) as one:
        async with served(echoes[1]) as other, calling(one, other) as (peers, stub):
            async with asyncio.timeout(PATIENCE):
                while not all(echo.calls for echo in echoes):
                    await stub.GetExecution(get())
            assert await peers.health() == {"execution": ""}
        async with calling(one, other) as (peers, stub):
            for _ in range(10):
                await stub.GetExecution(get())
            assert await peers.health() == {"execution": ""}


async def test_a_service_that_is_away_is_named_and_found_again(echo: Echo, free_port: int) -> None:
    async with calling(free_port) as (peers, stub):
        error = await refused(stub.GetExecution(get()))
        assert error.reason == Reason.REASON_SERVICE_UNAVAILABLE
        assert "execution" in error.message
        (trouble,) = (await peers.health()).values()
        assert "UNAVAILABLE" in trouble

        service = hosted(add_ExecutionServiceServicer_to_server, echo)

        async def drain() -> None:
            pass

        app = App(f"127.0.0.1:{free_port}", [service], [], drain)
        async with serving(app, 1), asyncio.timeout(PATIENCE):
            while (await peers.health())["execution"]:
                await asyncio.sleep(0.01)
            assert (await stub.GetExecution(get())).id == "one"


async def test_a_call_is_a_span_between_those_of_both_services(echo: Echo) -> None:
    spans = Spans()
    async with served(echo) as port, calling(port, tracer=spans) as (_, stub):
        own = spans.begin("x.Y/Z", Kind.SERVER, TRACE, SpanContext(TRACE, SPAN, sampled=True), {})
        assert own is not None
        tracing.enter(own)
        answer = await stub.GetExecution(get())
        echo.error = DomainError(Reason.REASON_EXECUTION_NOT_FOUND, "No.")
        await refused(stub.GetExecution(get()))

    good, bad = spans.ended
    assert good.name == bad.name == "conductor.execution.v1.ExecutionService/GetExecution"
    assert (good.kind, good.parent, good.local) == (Kind.CLIENT, own.context, True)
    assert answer.metadata["traceparent"] == good.context.traceparent
    assert good.attributes["rpc.response.status_code"] == "OK"
    assert bad.attributes["rpc.response.status_code"] == "NOT_FOUND"
    assert (good.failed, bad.failed) == (False, True)


async def test_a_service_that_nobody_told_of_is_asked_for_by_the_setting() -> None:
    peers = Peers("content", {"content": "ipv4:127.0.0.1:1"})

    with pytest.raises(SettingsError, match="content calls execution, and CONDUCTOR_PEERS"):
        peers.channel("execution")
    assert list(peers.others) == []
    assert await peers.health() == {}
