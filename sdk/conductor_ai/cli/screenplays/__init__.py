"""`conductor screenplays`: what agents work on."""

from __future__ import annotations

import typer

from conductor_ai.cli.screenplays import catalogue, changes, markdown, versions

__all__ = ["group"]

group = typer.Typer(
    name="screenplays", no_args_is_help=True, help="See and change what agents work on."
)
group.command("list")(catalogue.list_screenplays)
group.command()(catalogue.get)
group.command()(changes.create)
group.command()(changes.edit)
group.command()(changes.update)
group.command()(catalogue.rename)
group.command("set-directory")(catalogue.set_directory)
group.command()(catalogue.delete)
group.command()(catalogue.undelete)
group.command()(markdown.validate)
group.command()(versions.versions)
group.command()(versions.show)
group.command()(versions.compare)
group.command()(versions.restore)
group.command("import")(markdown.import_files)
group.command()(markdown.export)
group.command()(markdown.duplicates)
