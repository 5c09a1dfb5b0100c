"""The content of an organisation as one file."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable

from conductor.content.v1 import archive_service_pb2 as pb
from conductor.content.v1.archive_service_pb2_grpc import ArchiveServiceStub
from conductor_ai.transport import Transport


class Archives:
    """Backups and directories, both as a zip file."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._stub = ArchiveServiceStub(transport.channel)

    def export(
        self, layout: pb.ArchiveLayout.ValueType = pb.ARCHIVE_LAYOUT_BACKUP
    ) -> AsyncGenerator[pb.ExportArchiveResponse, None]:
        """Stream the content of the organisation: the bytes of the file, and how far it is."""
        request = pb.ExportArchiveRequest(layout=layout)
        return self._transport.streamed(self._stub.ExportArchive, request)

    def take_in(
        self, chunks: AsyncIterable[bytes], options: pb.ImportArchiveOptions
    ) -> AsyncGenerator[pb.ImportArchiveResponse, None]:
        """Take a file in, all of it or nothing: how far it is, and last what happened.

        Args:
            chunks: the bytes of the file in order, at most 1 MiB each.
            options: how to take it in.
        """

        async def requests() -> AsyncGenerator[pb.ImportArchiveRequest, None]:
            yield pb.ImportArchiveRequest(options=options)
            async for chunk in chunks:
                yield pb.ImportArchiveRequest(chunk=chunk)

        return self._transport.exchanged(self._stub.ImportArchive, requests())
