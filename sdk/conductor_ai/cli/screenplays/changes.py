"""Screenplays made and changed, by options and in an editor."""

from __future__ import annotations

from typing import Annotated

import typer

from conductor.content.v1.screenplay_pb2 import Screenplay
from conductor_ai.cli import editing, files
from conductor_ai.cli.connection import Address, ApiKey, call
from conductor_ai.cli.exits import Exit, refuse
from conductor_ai.cli.output import AsJson, tell
from conductor_ai.cli.screenplays.options import (
    Content,
    Description,
    Directory,
    Etag,
    ExportPath,
    FilePath,
    Id,
    Tags,
)
from conductor_ai.cli.screenplays.shown import report, tell_oddities
from conductor_ai.client import Client


def create(
    name: Annotated[str, typer.Argument(help="Its name.", metavar="NAME")],
    content: Content = "",
    description: Description = None,
    tag: Tags = None,
    working_directory: Directory = None,
    file_path: FilePath = None,
    export_path: ExportPath = None,
    as_json: AsJson = False,
    address: Address = "",
    api_key: ApiKey = "",
) -> None:
    """Make a screenplay. A text with mistakes is stored, and what is wrong with it is told."""
    said = _said(content, description, tag, working_directory, file_path, export_path)
    said.name = name

    async def make(client: Client) -> Exit:
        made = await client.screenplays.create(said)
        report(made, "created", as_json=as_json)
        return Exit.SUCCEEDED

    call(address, api_key, make)


def update(
    screenplay_id: Id,
    name: Annotated[
        str | None, typer.Option(help="Its name; `rename` moves its files, too.")
    ] = None,
    content: Content = "",
    description: Description = None,
    tag: Tags = None,
    working_directory: Directory = None,
    file_path: FilePath = None,
    export_path: ExportPath = None,
    etag: Etag = "",
    as_json: AsJson = False,
    address: Address = "",
    api_key: ApiKey = "",
) -> None:
    """Change what options name. An empty one clears: `--tag ''` takes all labels away."""
    said = _said(content, description, tag, working_directory, file_path, export_path)
    if name is not None:
        said.name = name
    fields = [field.name for field, _ in said.ListFields()]
    if tag is not None and "tags" not in fields:
        fields.append("tags")
    if not fields:
        refuse("nothing is to change: name options")
    said.id, said.etag = screenplay_id, etag

    async def change(client: Client) -> Exit:
        changed = await client.screenplays.update(said, fields=fields, force=not etag)
        report(changed, "saved", as_json=as_json)
        return Exit.SUCCEEDED

    call(address, api_key, change)


def edit(
    screenplay_id: Id,
    force: editing.Force = False,
    address: Address = "",
    api_key: ApiKey = "",
) -> None:
    """Edit the Markdown of a screenplay in $VISUAL or $EDITOR.

    What others save in the meantime is merged. Whatever keeps it from being saved, your text is kept.
    """

    async def change(client: Client) -> Exit:
        # Only its name is of use before the text is fetched: an editor shows the one of the file.
        name = (await client.screenplays.get(screenplay_id)).name

        async def fetch() -> editing.Draft:
            screenplay = await client.screenplays.get(screenplay_id)
            return editing.Draft(screenplay.content, screenplay.etag)

        async def save(text: str, etag: str, over: bool) -> None:
            wanted = Screenplay(id=screenplay_id, content=text, etag=etag)
            saved = await client.screenplays.update(wanted, fields=["content"], force=over)
            tell(f"{screenplay_id} saved as version {saved.version}")
            tell_oddities(saved)

        subject = editing.Subject(
            name=screenplay_id,
            file_name=files.file_name(name, ".md"),
            fetch=fetch,
            save=save,
            rescue=f"conductor screenplays update {screenplay_id} --content",
        )
        return await editing.edit(subject, force=force)

    call(address, api_key, change)


def _said(
    content: str,
    description: str | None,
    tags: list[str] | None,
    working_directory: str | None,
    file_path: str | None,
    export_path: str | None,
) -> Screenplay:
    return Screenplay(
        content=files.read_text(content) if content else None,
        description=description,
        tags=[tag for tag in tags or [] if tag.strip()],
        working_directory=working_directory,
        file_path=file_path,
        export_path=export_path,
    )
