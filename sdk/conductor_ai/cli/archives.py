"""Archives on their way: into a file, and out of one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import IO, Final

from conductor.content.v1.archive_service_pb2 import (
    ArchiveLayout,
    ImportArchiveOptions,
    ImportReport,
)
from conductor_ai.cli import progress
from conductor_ai.cli.output import tell
from conductor_ai.client import Client

_CHUNK: Final = 256 * 1024


async def fetch(client: Client, layout: ArchiveLayout.ValueType, file: IO[bytes]) -> None:
    """Write the content of the organisation to a file."""
    with progress.bar() as bar:
        async with aclosing(client.archives.export(layout)) as answers:
            async for answer in answers:
                if answer.HasField("progress"):
                    bar.show(answer.progress)
                else:
                    file.write(answer.chunk)


async def send(client: Client, file: IO[bytes], options: ImportArchiveOptions) -> ImportReport:
    """Let the mesh take in a file, from where it stands to its end; answers what happened.

    Raises:
        ConductorError: it was refused, and nothing was taken in.
    """
    report = ImportReport()
    try:
        with progress.bar() as bar:
            async with aclosing(client.archives.take_in(_chunks(file), options)) as answers:
                async for answer in answers:
                    if answer.HasField("report"):
                        report = answer.report
                    else:
                        bar.show(answer.progress)
    except asyncio.CancelledError:
        if not options.dry_run:
            tell("left; the mesh takes in all of it or nothing, and --dry-run tells which")
        raise
    return report


async def _chunks(file: IO[bytes]) -> AsyncGenerator[bytes, None]:
    while chunk := file.read(_CHUNK):
        yield chunk
