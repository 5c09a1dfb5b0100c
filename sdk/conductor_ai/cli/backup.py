"""`conductor backup`: all content of an organisation, in one file."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Annotated

import typer

from conductor.content.v1.archive_service_pb2 import ARCHIVE_LAYOUT_BACKUP, ImportArchiveOptions
from conductor_ai.cli import archives, files, reports
from conductor_ai.cli.connection import Address, ApiKey, call
from conductor_ai.cli.exits import Exit, refuse
from conductor_ai.cli.output import AsJson, tell
from conductor_ai.client import Client

group = typer.Typer(
    name="backup",
    no_args_is_help=True,
    help="Back up agents, personas and screenplays, and restore them.",
)


@group.command()
def create(
    file: Annotated[str, typer.Argument(help="The file to write; - is stdout.", metavar="FILE")],
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file.")] = False,
    address: Address = "",
    api_key: ApiKey = "",
) -> None:
    """Write agents, personas with all versions and screenplays with their texts to a zip file.

    The same content makes the same bytes. Until it is whole the file is called FILE.part.
    """
    if file == files.STANDARD:
        if sys.stdout.isatty():
            refuse("stdout is a terminal; name a file")
        call(address, api_key, lambda client: _fetch(client, sys.stdout.buffer))
    path = Path(file)
    if path.exists() and not force:
        refuse(f"{file} exists; --force overwrites it")

    async def write(client: Client) -> Exit:
        with _whole(path, force=force) as part:
            await _fetch(client, part)
        tell(f"{file} written, {path.stat().st_size:,} bytes")  # noqa: ASYNC240  # it takes no time
        return Exit.SUCCEEDED

    call(address, api_key, write)


@group.command()
def restore(
    file: Annotated[
        str, typer.Argument(help="The file `create` wrote; - is stdin.", metavar="FILE")
    ],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would happen.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Overwrite what exists and differs.")
    ] = False,
    as_json: AsJson = False,
    address: Address = "",
    api_key: ApiKey = "",
) -> None:
    """Take a backup in: all of it, or when anything is wrong with it nothing.

    What exists and differs is kept, unless forced.
    """
    options = ImportArchiveOptions(layout=ARCHIVE_LAYOUT_BACKUP, dry_run=dry_run, force=force)

    with _opened(file) as archive:

        async def take(client: Client) -> Exit:
            report = await archives.send(client, archive, options)
            reports.show(report, as_json=as_json)
            return Exit.SUCCEEDED

        call(address, api_key, take)


async def _fetch(client: Client, file: IO[bytes]) -> Exit:
    await archives.fetch(client, ARCHIVE_LAYOUT_BACKUP, file)
    file.flush()
    return Exit.SUCCEEDED


@contextmanager
def _whole(path: Path, *, force: bool) -> Iterator[IO[bytes]]:
    """Write a file that gets its name once it is whole and on disk."""
    part = path.with_name(f"{path.name}.part")
    try:
        with part.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if path.exists() and not force:
            refuse(f"{path} has been made in the meantime; --force overwrites it")
        part.replace(path)
    except OSError as error:
        refuse(f"{path} cannot be written: {error.strerror}")
    finally:
        with suppress(OSError):
            part.unlink()


@contextmanager
def _opened(file: str) -> Iterator[IO[bytes]]:
    if file == files.STANDARD:
        # Whoever writes it may take long: Ctrl-C is heard before the mesh is called.
        with tempfile.TemporaryFile() as archive:
            shutil.copyfileobj(sys.stdin.buffer, archive)
            archive.seek(0)
            yield archive
        return
    try:
        with Path(file).open("rb") as kept:
            yield kept
    except OSError as error:
        refuse(f"{file} cannot be read: {error.strerror}")
