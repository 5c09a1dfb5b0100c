"""A bare grpc.aio server: no interceptors, no store, nothing but the answer.

Run as `python -m tests.bench.reference <address> <folder>`. The folder holds what it answers: for each
unary rpc the message in `<rpc>.binpb`, if it is asked for, and one `<job_id>.chunks` for each stream.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from pathlib import Path

import grpc
import uvloop
from google.api.httpbody_pb2 import HttpBody
from google.protobuf.message import Message

from conductor.content.v1.agent_pb2 import Agent
from conductor.content.v1.agent_service_pb2 import GetAgentRequest
from conductor.content.v1.screenplay_pb2 import Screenplay
from conductor.content.v1.screenplay_service_pb2 import (
    GetScreenplayRequest,
    UpdateScreenplayRequest,
)
from conductor.execution.v1.execution_pb2 import Execution
from conductor.execution.v1.execution_service_pb2 import GetExecutionRequest
from conductor.gateway.v1.gateway_service_pb2 import StreamJobRequest
from services.kit.server import OPTIONS

NAME = "bench.v1.ReferenceService"
UNARY: Mapping[str, tuple[type[Message], type[Message]]] = {
    "Echo": (GetExecutionRequest, Execution),
    "EchoScreenplay": (GetScreenplayRequest, Screenplay),
    "EchoUpdate": (UpdateScreenplayRequest, Screenplay),
    "EchoAgent": (GetAgentRequest, Agent),
}
"""What the unary rpcs take and answer."""
_LENGTH_BYTES = 4

Context = grpc.aio.ServicerContext[object, object]


def write_chunks(path: Path, chunks: Iterable[bytes]) -> None:
    """Store the chunks of a stream, each after its length."""
    path.write_bytes(
        b"".join(len(chunk).to_bytes(_LENGTH_BYTES, "big") + chunk for chunk in chunks)
    )


def write_message(folder: Path, rpc: str, message: Message) -> None:
    """Store what a unary rpc answers."""
    (folder / f"{rpc}.binpb").write_bytes(message.SerializeToString())


def read_chunks(path: Path) -> Iterator[bytes]:
    """Read the chunks of a stream."""
    stored = path.read_bytes()
    at = 0
    while at < len(stored):
        begin = at + _LENGTH_BYTES
        at = begin + int.from_bytes(stored[at:begin], "big")
        yield stored[begin:at]


class Echo:
    """A unary rpc of ReferenceService, as a plain servicer has it."""

    def __init__(self, rpc: str, folder: Path) -> None:
        self._takes, answers = UNARY[rpc]
        stored = folder / f"{rpc}.binpb"
        self._message = answers.FromString(stored.read_bytes()) if stored.exists() else answers()

    async def answer(self, request: Message, context: Context) -> Message:
        """Answer the message."""
        return self._message

    def handler(self) -> grpc.RpcMethodHandler[Message, Message]:
        """Make the handler of the rpc."""
        return grpc.unary_unary_rpc_method_handler(
            self.answer,
            request_deserializer=self._takes.FromString,
            response_serializer=type(self._message).SerializeToString,
        )


class Replays:
    """The streams of ReferenceService, as a plain servicer has them."""

    def __init__(self, folder: Path) -> None:
        self._chunks = {
            path.stem: [
                HttpBody(content_type="text/event-stream", data=chunk)
                for chunk in read_chunks(path)
            ]
            for path in folder.glob("*.chunks")
        }

    async def replay(self, request: StreamJobRequest, context: Context) -> AsyncIterator[HttpBody]:
        """Stream the chunks."""
        for body in self._chunks[request.job_id]:
            yield body


async def _serve(address: str, folder: Path) -> None:
    replays = Replays(folder)
    server = grpc.aio.server(options=OPTIONS)
    server.add_generic_rpc_handlers(
        (
            grpc.method_handlers_generic_handler(
                NAME,
                {
                    **{rpc: Echo(rpc, folder).handler() for rpc in UNARY},
                    "Replay": grpc.unary_stream_rpc_method_handler(
                        replays.replay,
                        request_deserializer=StreamJobRequest.FromString,
                        response_serializer=HttpBody.SerializeToString,
                    ),
                },
            ),
        )
    )
    server.add_insecure_port(address)
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    uvloop.run(_serve(sys.argv[1], Path(sys.argv[2])))
