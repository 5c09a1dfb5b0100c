"""`conductor conversations`: what is said to agents, and by them."""

from __future__ import annotations

import typer

from conductor_ai.cli.conversations import catalogue, changes, messages

__all__ = ["group"]

group = typer.Typer(
    name="conversations",
    no_args_is_help=True,
    help="See and change what is said to agents; `conductor chat` talks.",
)
group.command("list")(catalogue.list_conversations)
group.command()(catalogue.get)
group.command()(changes.create)
group.command()(changes.title)
group.command()(changes.context)
group.command()(changes.settings)
group.command()(changes.agent)
group.command()(messages.messages)
group.command()(messages.search)
group.command()(messages.say)
group.command()(messages.hide)
group.command("delete-message")(messages.delete_message)
group.command("undelete-message")(messages.undelete_message)
group.command()(changes.clone)
group.command()(catalogue.delete)
group.command()(catalogue.undelete)
