"""`conductor agents`: the catalogue of agents, and the templates that fill it."""

from __future__ import annotations

import typer

from conductor_ai.cli.agents import catalogue, changes, templates

__all__ = ["group"]

group = typer.Typer(name="agents", no_args_is_help=True, help="See and change what agents are.")
group.command("list")(catalogue.list_agents)
group.command()(catalogue.get)
group.command()(changes.create)
group.command()(changes.edit)
group.command()(changes.update)
group.command()(catalogue.delete)
group.command()(catalogue.undelete)
group.command()(templates.templates)
group.command()(templates.install)
