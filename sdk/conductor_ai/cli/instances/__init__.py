"""`conductor instances`: agents placed in screenplays and conversations."""

from __future__ import annotations

import typer

from conductor_ai.cli.instances import catalogue, changes

__all__ = ["group"]

group = typer.Typer(
    name="instances",
    no_args_is_help=True,
    help="See and place agents in screenplays and conversations.",
)
group.command("list")(catalogue.list_instances)
group.command()(catalogue.get)
group.command()(changes.create)
group.command()(changes.update)
group.command()(changes.cwd)
group.command()(catalogue.context)
group.command()(catalogue.history)
group.command()(catalogue.delete)
group.command()(catalogue.undelete)
