"""A bare grpc.aio server: no interceptors, no store, nothing but the answer.

Run as `python -m tests.bench.reference <address> <folder>`. The folder holds what it answers:
`execution.binpb`, and one `<job_id>.chunks` for each stream.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path

import grpc
import uvloop
from google.api.httpbody_pb2 import HttpBody

from conductor.execution.v1.execution_pb2 import Execution
from conductor.execution.v1.execution_service_pb2 import GetExecutionRequest
from conductor.gateway.v1.gateway_service_pb2 import StreamJobRequest
from services.kit.server import OPTIONS

NAME = "bench.v1.ReferenceService"
MESSAGE = "execution.binpb"
_LENGTH_BYTES = 4

Context = grpc.aio.ServicerContext[object, object]


def write_chunks(path: Path, chunks: Iterable[bytes]) -> None:
    """Store the chunks of a stream, each after its length."""
    path.write_bytes(
        b"".join(len(chunk).to_bytes(_LENGTH_BYTES, "big") + chunk for chunk in chunks)
    )


def read_chunks(path: Path) -> Iterator[bytes]:
    """Read the chunks of a stream."""
    stored = path.read_bytes()
    at = 0
    while at < len(stored):
        begin = at + _LENGTH_BYTES
        at = begin + int.from_bytes(stored[at:begin], "big")
        yield stored[begin:at]


class Reference:
    """The rpcs of ReferenceService, as a plain servicer has them."""

    def __init__(self, folder: Path) -> None:
        self._execution = Execution.FromString((folder / MESSAGE).read_bytes())
        self._chunks = {
            path.stem: [
                HttpBody(content_type="text/event-stream", data=chunk)
                for chunk in read_chunks(path)
            ]
            for path in folder.glob("*.chunks")
        }

    async def echo(self, request: GetExecutionRequest, context: Context) -> Execution:
        """Answer the message."""
        return self._execution

    async def replay(self, request: StreamJobRequest, context: Context) -> AsyncIterator[HttpBody]:
        """Stream the chunks."""
        for body in self._chunks[request.job_id]:
            yield body


async def _serve(address: str, folder: Path) -> None:
    servicer = Reference(folder)
    server = grpc.aio.server(options=OPTIONS)
    server.add_generic_rpc_handlers(
        (
            grpc.method_handlers_generic_handler(
                NAME,
                {
                    "Echo": grpc.unary_unary_rpc_method_handler(
                        servicer.echo,
                        request_deserializer=GetExecutionRequest.FromString,
                        response_serializer=Execution.SerializeToString,
                    ),
                    "Replay": grpc.unary_stream_rpc_method_handler(
                        servicer.replay,
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
