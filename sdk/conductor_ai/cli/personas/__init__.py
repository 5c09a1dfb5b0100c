"""`conductor personas`: who agents are, in all versions."""

from __future__ import annotations

import typer

from conductor_ai.cli.personas import texts, versions

__all__ = ["group"]

group = typer.Typer(name="personas", no_args_is_help=True, help="See and change who agents are.")
group.command("list")(texts.list_personas)
group.command()(texts.get)
group.command()(texts.edit)
group.command("set")(texts.set_persona)
group.command()(versions.versions)
group.command()(texts.show)
group.command()(versions.compare)
group.command()(versions.restore)
group.command()(versions.alias)
group.command()(versions.unalias)
group.command()(versions.statistics)
group.command("clean-up")(versions.clean_up)
group.command()(texts.delete)
group.command()(texts.undelete)
