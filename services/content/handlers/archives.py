"""The content of an organisation as one file."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing

from google.api.httpbody_pb2 import HttpBody

from conductor.content.v1 import archive_service_pb2 as pb
from conductor.content.v1.archive_service_pb2_grpc import ArchiveServiceServicer
from services.content.convert import archives as convert
from services.content.usecases.exports import Exporter
from services.content.usecases.imports import Asked, Importer
from services.kit import call
from services.kit.errors import invalid
from services.kit.interceptor import Context

_TYPE = "application/zip"


class ArchiveHandlers(ArchiveServiceServicer):
    """The rpcs of ArchiveService."""

    def __init__(self, exporter: Exporter, importer: Importer) -> None:
        self._exporter = exporter
        self._importer = importer

    async def ExportArchive(
        self, request: pb.ExportArchiveRequest, context: Context
    ) -> AsyncIterator[pb.ExportArchiveResponse]:
        layout = convert.layout_of(request.layout)
        async with aclosing(self._exporter.export(call.org(), layout)) as parts:
            async for part in parts:
                yield convert.exported(part)

    async def DownloadArchive(
        self, request: pb.ExportArchiveRequest, context: Context
    ) -> AsyncIterator[HttpBody]:
        layout = convert.layout_of(request.layout)
        async with aclosing(self._exporter.export(call.org(), layout)) as parts:
            async for part in parts:
                if isinstance(part, bytes):
                    yield HttpBody(content_type=_TYPE, data=part)

    async def ImportArchive(
        self, requests: AsyncIterator[pb.ImportArchiveRequest], context: Context
    ) -> AsyncIterator[pb.ImportArchiveResponse]:
        first = await anext(requests, None)
        if first is None or first.WhichOneof("content") != "options":
            raise invalid("options", "must come first, before the file")
        options = first.options
        layout = convert.layout_of(options.layout)
        asked = Asked(layout, options.dry_run, options.force, call.author())
        async with aclosing(self._importer.run(call.org(), asked, _chunks(requests))) as steps:
            async for step in steps:
                yield convert.imported(step)


async def _chunks(requests: AsyncIterator[pb.ImportArchiveRequest]) -> AsyncIterator[bytes]:
    """Read the file that comes after the options."""
    async for request in requests:
        if request.WhichOneof("content") != "chunk":
            raise invalid("chunk", "must be all that comes after the options")
        yield request.chunk
