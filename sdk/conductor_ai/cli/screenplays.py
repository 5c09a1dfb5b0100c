"""`conductor screenplays`: what agents work on."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from conductor.content.v1.screenplay_pb2 import Screenplay, ScreenplayReference, ScreenplayVersion
from conductor.content.v1.screenplay_service_pb2 import (
    FindScreenplayDuplicatesResponse,
    ImportScreenplayRequest,
    ListScreenplaysRequest,
)
from conductor_ai.cli import comparing, editing, facts, files, findings, listing, rows
from conductor_ai.cli.asking import confirm
from conductor_ai.cli.connection import Address, ApiKey, call, call_each
from conductor_ai.cli.exits import Exit, refuse
from conductor_ai.cli.output import AsJson, json_line, tell, write_bytes, write_text
from conductor_ai.cli.tables import Column
from conductor_ai.client import Client

group = typer.Typer(
    name="screenplays", no_args_is_help=True, help="See and change what agents work on."
)

_ALL = 0
_NEWEST = 0

Id = Annotated[str, typer.Argument(help="The id of the screenplay.", metavar="ID")]
Ids = Annotated[list[str], typer.Argument(help="The ids of the screenplays.", metavar="ID...")]
Version = Annotated[int, typer.Argument(help="The number of the version.", metavar="N", min=1)]
Description = Annotated[str | None, typer.Option(help="What it is for.")]
Tags = Annotated[
    list[str] | None, typer.Option("--tag", help="A label; may be given several times.")
]
Directory = Annotated[
    str | None, typer.Option("--working-directory", help="Where runs that work on it work.")
]
FilePath = Annotated[str | None, typer.Option(help="The file it is kept in.")]
ExportPath = Annotated[str | None, typer.Option(help="The file it is exported to.")]
Content = Annotated[
    str, typer.Option("--content", help="Its Markdown, a file; - is stdin.", metavar="FILE")
]
Etag = Annotated[str, typer.Option(help="Only while `get` shows this etag.", show_default="any")]


class Order(StrEnum):
    """What a list of screenplays is in the order of."""

    USED = "used"
    NAME = "name"
    CREATED = "created"
    CHANGED = "changed"


_ORDERS = {
    Order.USED: ListScreenplaysRequest.ORDER_LAST_USE_TIME,
    Order.NAME: ListScreenplaysRequest.ORDER_NAME,
    Order.CREATED: ListScreenplaysRequest.ORDER_CREATE_TIME,
    Order.CHANGED: ListScreenplaysRequest.ORDER_UPDATE_TIME,
}


@group.command("list")
def list_screenplays(
    query: Annotated[
        str, typer.Option("--query", "-q", help="Only those whose words begin with these.")
    ] = "",
    tag: Annotated[
        list[str] | None,
        typer.Option(help="Only those with this label; may be given several times."),
    ] = None,
    order: Annotated[
        Order, typer.Option(help="The order of the list.", case_sensitive=False)
    ] = Order.USED,
    reverse: Annotated[bool, typer.Option("--reverse", help="Turn the order around.")] = False,
    deleted: Annotated[bool, typer.Option("--deleted", help="Only deleted ones.")] = False,
    limit: listing.Limit = 50,
    as_json: AsJson = False,
    address: Address = "",
    api_key: ApiKey = "",
) -> None:
    """List screenplays without their texts, or find them by words of name, description and tags."""
    filters = ListScreenplaysRequest(
        page_size=listing.page_size(limit),
        query=query,
        tags=tag or [],
        order=_ORDERS[order],
        reverse=reverse,
        deleted=deleted,
    )
    filtered = query or tag or deleted
    nothing = "no screenplays are like that" if filtered else "no screenplays yet"

    async def show(client: Client) -> Exit:
        found = client.screenplays.list(filters)
        return await listing.show(found, limit, _LAYOUT, nothing=nothing, as_json=as_json)

    call(address, api_key, show)


@group.command()
def get(
    screenplay_id: Id,
    deleted: Annotated[bool, typer.Option("--deleted", help="Also when it is deleted.")] = False,
    as_json: AsJson = False,
    address: Address = "",
    api_key: ApiKey = "",
) -> None:
    """Show what is known of a screenplay; `export` prints its text."""

    async def show(client: Client) -> Exit:
        screenplay = await client.screenplays.get(screenplay_id, include_deleted=deleted)
        if as_json:
            print(json_line(screenplay))
        else:
            facts.show(_facts(screenplay))
        return Exit.SUCCEEDED

    call(address, api_key, show)


@group.command()
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
    """Make a screenplay, and print its id. What is wrong with its text is told, and stored."""
    said = _said(content, description, tag, working_directory, file_path, export_path)
    said.name = name

    async def make(client: Client) -> Exit:
        made = await client.screenplays.create(said)
        _print(made, "created", as_json=as_json)
        return Exit.SUCCEEDED

    call(address, api_key, make)


@group.command()
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
        _print(changed, "saved", as_json=as_json)
        return Exit.SUCCEEDED

    call(address, api_key, change)


@group.command()
def edit(
    screenplay_id: Id,
    force: Annotated[
        bool, typer.Option("--force", help="Save over what others saved in the meantime.")
    ] = False,
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
            _tell_oddities(saved)

        subject = editing.Subject(
            name=screenplay_id,
            file_name=files.file_name(name, ".md"),
            fetch=fetch,
            save=save,
            rescue=f"conductor screenplays update {screenplay_id} --content",
        )
        return await editing.edit(subject, force=force)

    call(address, api_key, change)


@group.command()
def rename(
    screenplay_id: Id,
    name: Annotated[str, typer.Argument(help="The new name.", metavar="NAME")],
    keep_paths: Annotated[
        bool, typer.Option("--keep-paths", help="Leave the names of its files as they are.")
    ] = False,
    etag: Etag = "",
    as_json: AsJson = False,
    address: Address = "",
    api_key: ApiKey = "",
) -> None:
    """Rename a screenplay, and the files it is kept in and exported to."""

    async def change(client: Client) -> Exit:
        renamed = await client.screenplays.rename(
            screenplay_id, name, update_file_paths=not keep_paths, etag=etag
        )
        if as_json:
            print(json_line(renamed))
        else:
            kept = f", kept in {renamed.file_path}" if renamed.file_path else ""
            print(f"{screenplay_id} is called {renamed.name}{kept}")
        return Exit.SUCCEEDED

    call(address, api_key, change)


@group.command("set-directory")
def set_directory(
    screenplay_id: Id,
    directory: Annotated[
        str, typer.Argument(help="An absolute path; '' for none.", metavar="DIRECTORY")
    ],
    as_json: AsJson = False,
    address: Address = "",
    api_key: ApiKey = "",
) -> None:
    """Set where runs that work on a screenplay work; who edits it meets no conflict for that."""

    async def change(client: Client) -> Exit:
        changed = await client.screenplays.set_working_directory(screenplay_id, directory)
        where = changed.working_directory or "nowhere in particular"
        print(json_line(changed) if as_json else f"runs work in {where} on {screenplay_id}")
        return Exit.SUCCEEDED

    call(address, api_key, change)


@group.command()
def delete(
    ids: Ids,
    purge: Annotated[
        bool, typer.Option("--purge", help="For good, deleted before or not.")
    ] = False,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Do not ask before it is for good.")
    ] = False,
    as_json: AsJson = False,
    address: Address = "",
    api_key: ApiKey = "",
) -> None:
    """Delete screenplays; `undelete` takes them back unless they are purged."""
    if purge and not yes:
        what = ids[0] if len(ids) == 1 else f"{len(ids)} screenplays"
        confirm(
            f"Delete {what} with all texts for good?",
            unasked="--purge is for good",
            declined="nothing was deleted",
        )

    async def one(client: Client, screenplay_id: str) -> None:
        await client.screenplays.delete(screenplay_id, purge=purge)
        gone = "deleted for good" if purge else "deleted"
        print(json_line(Screenplay(id=screenplay_id)) if as_json else f"{screenplay_id} {gone}")

    call_each(ids, one, address, api_key)


@group.command()
def undelete(
    ids: Ids,
    drop_taken_paths: Annotated[
        bool, typer.Option("--drop-taken-paths", help="Without the paths that others have now.")
    ] = False,
    as_json: AsJson = False,
    address: Address = "",
    api_key: ApiKey = "",
) -> None:
    """Take deleted screenplays back."""

    async def one(client: Client, screenplay_id: str) -> None:
        back = await client.screenplays.undelete(screenplay_id, drop_taken_paths=drop_taken_paths)
        kept = f", kept in {back.file_path}" if back.file_path else ""
        print(json_line(back) if as_json else f"{screenplay_id} is back{kept}")

    call_each(ids, one, address, api_key)


@group.command()
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


@group.command()
def versions(
    screenplay_id: Id,
    limit: listing.Limit = _ALL,
    as_json: AsJson = False,
    address: Address = "",
    api_key: ApiKey = "",
) -> None:
    """List the texts of a screenplay that are kept, newest first."""

    async def list_them(client: Client) -> Exit:
        found = client.screenplays.versions(screenplay_id)
        nothing = "no versions yet"
        return await listing.show(found, limit, _VERSIONS, nothing=nothing, as_json=as_json)

    call(address, api_key, list_them)


@group.command()
def show(
    screenplay_id: Id,
    version: Version,
    as_json: AsJson = False,
    address: Address = "",
    api_key: ApiKey = "",
) -> None:
    """Show a version with its text; `export --version N` prints the text alone."""

    async def tell_all(client: Client) -> Exit:
        one = await client.screenplays.version(screenplay_id, version)
        if as_json:
            print(json_line(one))
        else:
            facts.show(_version_facts(one))
            facts.text("text", one.content)
        return Exit.SUCCEEDED

    call(address, api_key, tell_all)


@group.command()
def compare(
    screenplay_id: Id,
    from_version: Annotated[
        int, typer.Argument(help="The version to begin with.", metavar="FROM", min=1)
    ],
    to_version: Annotated[
        int,
        typer.Argument(
            help="The version it became.", metavar="[TO]", min=0, show_default="the newest"
        ),
    ] = _NEWEST,
    as_json: AsJson = False,
    address: Address = "",
    api_key: ApiKey = "",
) -> None:
    """Show how one version became another: a diff, which `patch` takes behind a pipe."""

    async def show_both(client: Client) -> Exit:
        found = await client.screenplays.compare(screenplay_id, from_version, to_version)
        if as_json:
            print(json_line(found))
        else:
            comparing.show(found.comparison)
        return Exit.SUCCEEDED

    call(address, api_key, show_both)


@group.command()
def restore(
    screenplay_id: Id,
    version: Version,
    etag: Etag = "",
    as_json: AsJson = False,
    address: Address = "",
    api_key: ApiKey = "",
) -> None:
    """Make a text that is kept the text of a screenplay again, as a new version."""

    async def take(client: Client) -> Exit:
        restored = await client.screenplays.restore(screenplay_id, version, etag=etag)
        _print(restored, "saved", as_json=as_json)
        return Exit.SUCCEEDED

    call(address, api_key, take)


@group.command("import")
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
        told = f"{taken.id} is {taken.import_path}, version {taken.version}"
        print(json_line(taken) if as_json else told)
        findings.tell_all(taken.findings, file)

    call_each(names, one, address, api_key)


@group.command()
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
    ] = _NEWEST,
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


@group.command()
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


def _print(screenplay: Screenplay, verb: str, *, as_json: bool) -> None:
    if as_json:
        print(json_line(screenplay))
        return
    print(f"{screenplay.id} {verb}, version {screenplay.version}")
    _tell_oddities(screenplay)


def _tell_oddities(screenplay: Screenplay) -> None:
    findings.tell_all(screenplay.findings, screenplay.id)
    for other in screenplay.same_content:
        tell(f"{other.id} ({other.name}) has an equal text")


def _facts(screenplay: Screenplay) -> list[tuple[str, str]]:
    return [
        ("id", screenplay.id),
        ("name", screenplay.name),
        ("description", screenplay.description),
        ("tags", ", ".join(screenplay.tags)),
        ("version", str(screenplay.version)),
        ("bytes", f"{screenplay.content_bytes:,}"),
        ("sha-256", screenplay.content_hash),
        ("works in", screenplay.working_directory),
        ("kept in", screenplay.file_path),
        ("imported from", screenplay.import_path),
        ("exported to", screenplay.export_path),
        ("created", facts.when(screenplay.create_time)),
        ("changed", facts.when(screenplay.update_time)),
        ("used", facts.when(screenplay.last_use_time)),
        ("deleted", facts.when(screenplay.delete_time)),
        ("gone for good", rows.moment(screenplay.purge_time)),
        ("etag", screenplay.etag),
    ]


def _version_facts(version: ScreenplayVersion) -> list[tuple[str, str]]:
    return [
        ("screenplay", version.screenplay_id),
        ("version", str(version.version)),
        ("author", version.author),
        ("bytes", f"{version.content_bytes:,}"),
        ("sha-256", version.content_hash),
        ("created", facts.when(version.create_time)),
    ]


def _columns(when: Column) -> tuple[Column, ...]:
    return (
        Column("id", 41),
        Column("version", 7, right=True, below=True),
        Column("bytes", 9, right=True, below=True),
        replace(when, title="changed"),
        Column("file", 20, below=True),
        Column("tags", 16, below=True),
        Column("name", long=True),
    )


def _cells(screenplay: Screenplay, when: str) -> tuple[str, ...]:
    return (
        screenplay.id,
        str(screenplay.version),
        f"{screenplay.content_bytes:,}",
        when,
        screenplay.file_path or screenplay.import_path,
        ",".join(screenplay.tags),
        screenplay.name,
    )


def _version_columns(when: Column) -> tuple[Column, ...]:
    return (
        Column("version", 7, right=True),
        when,
        Column("bytes", 9, right=True),
        Column("author"),
    )


def _version_cells(version: ScreenplayVersion, when: str) -> tuple[str, ...]:
    return str(version.version), when, f"{version.content_bytes:,}", version.author


_LAYOUT = listing.Layout(_columns, _cells, lambda screenplay: screenplay.update_time)
_VERSIONS = listing.Layout(_version_columns, _version_cells)

_DUPLICATE_COLUMNS = (Column("same"), Column("id"), Column("file"), Column("name", long=True))


def _duplicates(found: FindScreenplayDuplicatesResponse) -> Iterator[tuple[str, ...]]:
    if found.is_duplicate:
        yield _duplicate("path", found.duplicate_screenplay)
    for other in found.same_content:
        yield _duplicate("text", other)


def _duplicate(what: str, other: ScreenplayReference) -> tuple[str, ...]:
    return what, other.id, other.file_path or other.import_path, other.name
