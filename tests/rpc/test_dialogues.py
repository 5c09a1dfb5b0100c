"""Calls that send a stream and are answered by one: their requests are checked, and they are recorded."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message

from conductor.content.v1 import archive_service_pb2 as pb
from conductor.content.v1.archive_service_pb2_grpc import (
    ArchiveServiceServicer,
    ArchiveServiceStub,
    add_ArchiveServiceServicer_to_server,
)
from conductor.execution.v1 import execution_service_pb2 as execution_pb
from conductor.execution.v1.execution_service_pb2_grpc import (
    ExecutionServiceServicer,
    ExecutionServiceStub,
    add_ExecutionServiceServicer_to_server,
)
from services.kit.call import Call
from services.kit.errors import DomainError, Reason
from services.kit.frame import hosted
from services.kit.guard import Access
from services.kit.server import App, serving
from tests.patience import PATIENCE
from tests.rpc.serving import stream_refusal

FIRST = pb.ImportArchiveRequest(options=pb.ImportArchiveOptions())
CHUNK = pb.ImportArchiveRequest(chunk=b"a" * 10)
TOO_LARGE = pb.ImportArchiveRequest(chunk=b"a" * (1024 * 1024 + 1))
INVALID = (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")


class Archives(ArchiveServiceServicer):
    """Answers each request, except that a chunk of nothing is an error."""

    async def ImportArchive(
        self, request_iterator: AsyncIterator[pb.ImportArchiveRequest], context: object
    ) -> AsyncIterator[pb.ImportArchiveResponse]:
        async for request in request_iterator:
            if request.WhichOneof("content") is None:
                raise DomainError(Reason.REASON_CONFLICT, "There is nothing in it.")
            yield pb.ImportArchiveResponse()


class Sessions(ExecutionServiceServicer):
    """Answers each request."""

    async def Converse(
        self, request_iterator: AsyncIterator[execution_pb.ConverseRequest], context: object
    ) -> AsyncIterator[execution_pb.ConverseResponse]:
        async for _ in request_iterator:
            yield execution_pb.ConverseResponse()


# Their other methods are those of the base, whatever the types say: they are not there.
ARCHIVES: Any = Archives
SESSIONS: Any = Sessions


@dataclass
class House:
    """What was kept of calls, and their clients."""

    stub: ArchiveServiceStub = field(init=False)
    sessions: ExecutionServiceStub = field(init=False)
    channel: grpc.aio.Channel = field(init=False)
    kept: list[tuple[Message, str, str]] = field(default_factory=list)
    let_in: list[str] = field(default_factory=list)

    async def admit(self, served: Call, access: Access, request: Message | None) -> None:
        self.let_in.append("call")

    async def pace(self, served: Call) -> None:
        self.let_in.append("request")

    async def record(
        self,
        served: Call,
        request: Message,
        response: Message | bytes | None,
        code: str,
        reason: str,
    ) -> None:
        self.kept.append((request, code, reason))

    def ask(self, requests: Iterable[pb.ImportArchiveRequest]) -> Any:
        return self.stub.ImportArchive(iter(requests), timeout=PATIENCE)


@pytest.fixture
async def house() -> AsyncIterator[House]:
    async def drain() -> None:
        pass

    async with AsyncExitStack() as stack:
        house = House()
        services = [
            hosted(add_ArchiveServiceServicer_to_server, ARCHIVES()),
            hosted(add_ExecutionServiceServicer_to_server, SESSIONS()),
        ]
        app = App("127.0.0.1:0", services, [], drain, guard=house, auditor=house)
        server = await stack.enter_async_context(serving(app, 1))
        house.channel = grpc.aio.insecure_channel(f"127.0.0.1:{server.port}")
        stack.push_async_callback(house.channel.close)
        house.stub = ArchiveServiceStub(house.channel)
        house.sessions = ExecutionServiceStub(house.channel)
        yield house


async def test_it_leaves_one_record_of_its_first_request(house: House) -> None:
    answers = [one async for one in house.ask([FIRST, CHUNK, CHUNK])]

    assert len(answers) == 3
    assert house.kept == [(FIRST, "OK", "")]


async def test_every_request_is_checked(house: House) -> None:
    refused = await stream_refusal(house.ask([FIRST, TOO_LARGE]))
    assert refused.kind == INVALID
    assert refused.fields == ["chunk"]
    # It began well, and then failed.
    failed = (FIRST, "INVALID_ARGUMENT", "INVALID_REQUEST")
    assert house.kept == [(FIRST, "OK", ""), failed]

    refused = await stream_refusal(house.ask([TOO_LARGE]))
    assert refused.kind == INVALID
    assert house.kept[2:] == [(TOO_LARGE, "INVALID_ARGUMENT", "INVALID_REQUEST")]


async def test_one_that_fails_before_an_answer_is_recorded_as_failed(house: House) -> None:
    nothing = pb.ImportArchiveRequest()

    refused = await stream_refusal(house.ask([nothing]))

    assert refused.kind == (grpc.StatusCode.ABORTED, "CONFLICT")
    assert house.kept == [(nothing, "ABORTED", "CONFLICT")]


async def test_who_asks_nothing_leaves_nothing(house: House) -> None:
    assert [one async for one in house.ask([])] == []
    assert house.kept == []


async def test_what_cannot_be_read_is_refused_as_anywhere(house: House) -> None:
    ask: Any = house.channel.stream_stream("/conductor.content.v1.ArchiveService/ImportArchive")

    for sent in ([b"\xff\xff"], [FIRST.SerializeToString(), b"\x12\x05a"]):
        refused = await stream_refusal(ask(iter(sent), timeout=PATIENCE))
        assert refused.kind == (grpc.StatusCode.INVALID_ARGUMENT, "MALFORMED_REQUEST")
    # Of the first there is nothing that could be recorded.
    failed = (FIRST, "INVALID_ARGUMENT", "MALFORMED_REQUEST")
    assert house.kept == [(FIRST, "OK", ""), failed]


async def test_each_message_of_a_session_counts_as_a_call_and_the_pieces_of_a_file_do_not(
    house: House,
) -> None:
    said = [execution_pb.ConverseRequest(message=f"{number}") for number in range(3)]

    answers = [one async for one in house.sessions.Converse(iter(said), timeout=PATIENCE)]

    assert len(answers) == 3
    assert house.let_in == ["call", "request", "request"]
    house.let_in.clear()
    assert len([one async for one in house.ask([FIRST, CHUNK, CHUNK])]) == 3
    assert house.let_in == ["call"]
