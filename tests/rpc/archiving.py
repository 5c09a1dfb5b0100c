"""Archives made of a served content service, and taken in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from conductor.content.v1 import archive_service_pb2 as pb
from tests.patience import PATIENCE
from tests.rpc.content import Content

BACKUP = pb.ARCHIVE_LAYOUT_BACKUP


async def export(content: Content, layout: pb.ArchiveLayout.ValueType = BACKUP) -> bytes:
    request = pb.ExportArchiveRequest(layout=layout)
    stream = content.archives.ExportArchive(request, timeout=PATIENCE)
    return b"".join([part.chunk async for part in stream])


def requests(raw: bytes, size: int = 50_000, **options: Any) -> Iterator[pb.ImportArchiveRequest]:
    yield pb.ImportArchiveRequest(options=pb.ImportArchiveOptions(**options))
    for place in range(0, len(raw), size):
        yield pb.ImportArchiveRequest(chunk=raw[place : place + size])


def importing(content: Content, asked: Iterable[pb.ImportArchiveRequest]) -> Any:
    return content.archives.ImportArchive(iter(asked), timeout=PATIENCE)


async def take_in(content: Content, raw: bytes, **options: Any) -> pb.ImportReport:
    answers = [answer async for answer in importing(content, requests(raw, **options))]
    assert all(answer.HasField("progress") for answer in answers[:-1])
    report: pb.ImportReport = answers[-1].report
    return report
