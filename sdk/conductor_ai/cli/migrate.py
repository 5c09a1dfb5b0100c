"""`conductor migrate`: content between the mesh and a directory that people keep."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import IO, Annotated

import typer

from conductor.content.v1.archive_service_pb2 import (
    ARCHIVE_LAYOUT_DIRECTORY,
    ImportArchiveOptions,
    ImportReport,
)
from conductor_ai.cli import archives, directories, progress, reports
from conductor_ai.cli.asking import agreed, can_ask, interrupting
from conductor_ai.cli.connection import Address, ApiKey, call
from conductor_ai.cli.exits import Exit, refuse
from conductor_ai.cli.output import AsJson, tell
from conductor_ai.client import Client

group = typer.Typer(
    name="migrate",
    no_args_is_help=True,
    help="Move agents, personas and screenplays to a directory, and back.",
)

Directory = Annotated[
    Path,
    typer.Argument(
        help="It holds agents/ID/definition.yaml and persona.md, and screenplays/PATH.",
        metavar="DIRECTORY",
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would happen.")]
Force = Annotated[bool, typer.Option("--force", help="Overwrite what exists and differs.")]


@group.command()
def export(
    directory: Directory,
    dry_run: DryRun = False,
    force: Force = False,
    as_json: AsJson = False,
    address: Address = "",
    api_key: ApiKey = "",
) -> None:
    """Write agents, the newest text of each persona and screenplays to a directory.

    Files that hold the same stay untouched, those that differ are kept, unless forced. Others are left
    alone.
    """

    async def write(client: Client) -> Exit:
        with tempfile.TemporaryFile() as archive:
            await archives.fetch(client, ARCHIVE_LAYOUT_DIRECTORY, archive)
            report = _unpacked(archive, directory, dry_run=dry_run, force=force)
        reports.show(report, as_json=as_json)
        return Exit.FAILED if reports.has_errors(report) else Exit.SUCCEEDED

    call(address, api_key, write)


@group.command("import")
def import_directory(
    directory: Directory,
    dry_run: DryRun = False,
    force: Force = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask after the dry run.")] = False,
    as_json: AsJson = False,
    address: Address = "",
    api_key: ApiKey = "",
) -> None:
    """Take a directory in: all of it, or when anything is wrong with it nothing.

    First it is only said what would happen. What exists and differs is kept, unless forced; a persona
    whose text differs gets a new version.
    """
    with tempfile.TemporaryFile() as archive:
        try:
            odd = directories.pack(directory, archive)
        except directories.DirectoryError as error:
            refuse(str(error))

        async def take(client: Client) -> Exit:
            would = await _send(client, archive, dry_run=True, force=force)
            would.findings.extend(odd)
            if dry_run or not (would.created or would.overwritten):
                reports.show(would, as_json=as_json)
                if not dry_run:
                    tell("there is nothing to do")
                return Exit.SUCCEEDED
            tell(f"dry run: {reports.summary(would)}")
            if can_ask() and not yes and not agreed("Do it?"):
                tell("nothing was written")
                return Exit.FAILED
            done = await _send(client, archive, dry_run=False, force=force)
            done.findings.extend(odd)
            reports.show(done, as_json=as_json)
            return Exit.SUCCEEDED

        call(address, api_key, take)


async def _send(client: Client, archive: IO[bytes], *, dry_run: bool, force: bool) -> ImportReport:
    archive.seek(0)
    options = ImportArchiveOptions(layout=ARCHIVE_LAYOUT_DIRECTORY, dry_run=dry_run, force=force)
    return await archives.send(client, archive, options)


def _unpacked(archive: IO[bytes], directory: Path, *, dry_run: bool, force: bool) -> ImportReport:
    archive.seek(0)
    try:
        # Nothing else goes on meanwhile, so Ctrl-C need not wait for it.
        with interrupting(), progress.bar() as bar:
            return directories.unpack(
                archive, directory, dry_run=dry_run, force=force, watch=bar.show
            )
    except directories.DirectoryError as error:
        refuse(str(error))
