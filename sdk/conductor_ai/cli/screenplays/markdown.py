"""Files of Markdown: checked, imported, exported, looked for."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from conductor.content.v1.screenplay_pb2 import ScreenplayReference
from conductor.content.v1.screenplay_service_pb2 import (
    FindScreenplayDuplicatesResponse,
    ImportScreenplayRequest,
)
from conductor_ai.cli import files, findings, rows
from conductor_ai.cli.connection import Address, ApiKey, call, call_each
from conductor_ai.cli.exits import Exit, refuse
from conductor_ai.cli.output import AsJson, harmless, json_line, tell, write_bytes, write_text
from conductor_ai.cli.screenplays.options import Id
from conductor_ai.cli.screenplays.versions import NEWEST
from conductor_ai.cli.tables import Column
from conductor_ai.client import Client


def validate(
    names: Annotated[
        list[str], typer.Argument(help="Markdown files; - is stdin.", metavar="FILE...")
    ],
    as_json: AsJson = False,
    address: Address = "",
    api_key: ApiKey = "",
) -> None:
    """Check Markdown files without storing them; exits with 1 when there are errors."""
    texts = [(name, files.read_text(name)) for name in names]

    async def check(client: Client) -> Exit:
        status = Exit.SUCCEEDED
        for name, text in texts:
            answer = await client.screenplays.validate(text)
            if as_json:
                print(json_line(answer))
            else:
                everything = sorted(
                    [*answer.errors, *answer.warnings], key=lambda one: (one.line, one.column)
                )
                for finding in everything:
                    print(findings.in_text(finding, name))
                if answer.truncated:
                    tell(f"{name}: there is more that is not told")
            if not answer.is_valid:
                status = Exit.FAILED
        return status

    call(address, api_key, check)


def import_files(
    names: Annotated[list[str], typer.Argument(help="Markdown files.", metavar="FILE...")],
    name: Annotated[
        str, typer.Option(help="The name, for one file.", show_default="that of the file")
    ] = "",
    description: Annotated[str, typer.Option(help="What new ones are for.")] = "",
    tag: Annotated[
        list[str] | None,
        typer.Option(help="A label of new ones; may be given several times."),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the text of those imported before.")
    ] = False,
    as_json: AsJson = False,
    address: Address = "",
    api_key: ApiKey = "",
) -> None:
    """Make screenplays of Markdown files. A file is known again by its path from here.

    One that is imported again unchanged stays as it is.
    """
    if name and len(names) > 1:
        refuse("--name is for one file; there are several")
    if files.STANDARD in names:
        refuse("a file to import needs a name, and stdin has none")
    requests = {
        file: ImportScreenplayRequest(
            import_path=_import_path(file),
            content=files.read_text(file),
            name=name,
            description=description,
            tags=tag or [],
            overwrite=overwrite,
        )
        for file in names
    }

    async def one(client: Client, file: str) -> None:
        taken = await client.screenplays.take_in(requests[file])
        told = harmless(f"{taken.id} is {taken.import_path}, version {taken.version}")
        print(json_line(taken) if as_json else told)
        findings.tell_all(taken.findings, file)

    call_each(names, one, address, api_key)


def export(
    screenplay_id: Id,
    target: Annotated[
        str,
        typer.Argument(
            help="A file, a directory that gets a file by its name, or - for stdout.",
            metavar="[FILE]",
        ),
    ] = files.STANDARD,
    version: Annotated[
        int, typer.Option(help="The version.", min=0, show_default="the newest")
    ] = NEWEST,
    force: Annotated[
        bool, typer.Option("--force", help="Overwrite a file that holds something else.")
    ] = False,
    address: Address = "",
    api_key: ApiKey = "",
) -> None:
    """Print or write the Markdown of a screenplay, byte for byte."""
    is_directory = target != files.STANDARD and Path(target).is_dir()

    async def write(client: Client) -> Exit:
        if version:
            kept = await client.screenplays.version(screenplay_id, version)
            content = kept.content.encode()
        else:
            content = await client.screenplays.export(screenplay_id)
        if target == files.STANDARD:
            if sys.stdout.isatty():
                write_text(content.decode(errors="replace"))
            else:
                write_bytes(content)
            return Exit.SUCCEEDED
        path = Path(target)
        if is_directory:
            screenplay = await client.screenplays.get(screenplay_id)
            path /= files.file_name(screenplay.name, ".md")
        return _write(path, content, force=force)

    call(address, api_key, write)


def duplicates(
    file: Annotated[
        str, typer.Argument(help="A Markdown file; - is stdin.", metavar="[FILE]")
    ] = "",
    path: Annotated[
        str, typer.Option(help="The path to look for.", show_default="that of the file")
    ] = "",
    exclude: Annotated[str, typer.Option(help="The id of one that does not count.")] = "",
    as_json: AsJson = False,
    address: Address = "",
    api_key: ApiKey = "",
) -> None:
    """Find who has a path, and who has an equal text."""
    if not (file or path):
        refuse("name a file, or a --path, or both")
    content = files.read_text(file) if file else ""
    wanted = path or ("" if file == files.STANDARD else _import_path(file))

    async def find(client: Client) -> Exit:
        found = await client.screenplays.find_duplicates(
            path=wanted, content=content, exclude_id=exclude
        )
        if as_json:
            print(json_line(found))
        elif found.is_duplicate or found.same_content:
            rows.show(_DUPLICATE_COLUMNS, _duplicates(found))
        else:
            tell("no other one is like that")
        return Exit.SUCCEEDED

    call(address, api_key, find)


def _import_path(name: str) -> str:
    """Give the path a file is known by: from here where it lies below, else from the root."""
    path = Path(os.path.abspath(name))  # noqa: PTH100  # a link keeps the name it was given
    here = Path.cwd()
    return (path.relative_to(here) if path.is_relative_to(here) else path).as_posix()


def _write(path: Path, content: bytes, *, force: bool) -> Exit:
    try:
        if path.exists() and not force:
            if path.read_bytes() == content:
                print(f"{path} is as it was")
                return Exit.SUCCEEDED
            refuse(f"{path} exists and holds something else; --force overwrites it")
        files.write(path, content)
    except OSError as error:
        refuse(f"{path} cannot be written: {error.strerror}")
    print(f"{path} written")
    return Exit.SUCCEEDED


_DUPLICATE_COLUMNS = (Column("same"), Column("id"), Column("file"), Column("name", long=True))


def _duplicates(found: FindScreenplayDuplicatesResponse) -> Iterator[tuple[str, ...]]:
    if found.is_duplicate:
        yield _duplicate("path", found.duplicate_screenplay)
    for other in found.same_content:
        yield _duplicate("text", other)


def _duplicate(what: str, other: ScreenplayReference) -> tuple[str, ...]:
    return what, other.id, other.file_path or other.import_path, other.name
