"""`conductor`: a mesh, used from a terminal.

Exit status of every command: 0 done, 1 failed, 2 refused as asked for, 3 no mesh answers, 130 ended
by Ctrl-C, 141 nobody reads stdout. `conductor run` and `conductor executions watch` answer the
outcome of the run: 0 succeeded, 1 failed, 130 cancelled.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from importlib.metadata import EntryPoint, PackageNotFoundError, entry_points, version
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_command, get_group

from conductor_ai.cli import run, validate
from conductor_ai.cli.exits import Exit
from conductor_ai.cli.output import tell

__all__ = ["app", "main"]

_COMMANDS = "conductor_ai.commands"
_DISTRIBUTION = "conductor-mesh"
_GROUPS = frozenset(
    {
        "agents",
        "audit",
        "backup",
        "conversations",
        "executions",
        "instances",
        "keys",
        "migrate",
        "models",
        "personas",
        "screenplays",
    }
)
"""The groups of commands, each a module of its name."""
_LATE = frozenset({"chat"})
"""Commands that are loaded when used, each a function in a module of its name."""


class _Commands(TyperGroup):
    """The commands here, and those that installed packages add; each is loaded when used."""

    def list_commands(self, ctx: Any) -> list[str]:
        return sorted({*super().list_commands(ctx), *_GROUPS, *_LATE, *_added()})

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name in _GROUPS:
            return get_group(import_module(f"conductor_ai.cli.{cmd_name}").group)
        if cmd_name in _LATE:
            return _single(
                cmd_name, getattr(import_module(f"conductor_ai.cli.{cmd_name}"), cmd_name)
            )
        own = super().get_command(ctx, cmd_name)
        if own is not None or cmd_name not in _added():
            return own
        return _single(cmd_name, _added()[cmd_name].load())

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] not in self.list_commands(ctx):
            # What may have been meant is looked for among what is loaded.
            self.commands.update({name: self.get_command(ctx, name) for name in _GROUPS | _LATE})
        return super().resolve_command(ctx, args)


def _single(name: str, function: Callable[..., Any]) -> Any:
    one = typer.Typer(add_completion=False)
    one.command(name=name)(function)
    return get_command(one)


def _added() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=_COMMANDS)}


app = typer.Typer(
    name="conductor",
    cls=_Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Run AI agents durably, and follow what they do.",
)
app.command()(run.run)
app.command()(validate.validate)


def _print_version(wanted: bool) -> None:
    if wanted:
        try:
            print(f"conductor {version(_DISTRIBUTION)}")
        except PackageNotFoundError:
            print("conductor (not installed)")
        raise typer.Exit


@app.callback()
def _conductor(
    _version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the release.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line."""
    for stream in (sys.stdout, sys.stderr):
        # What the terminal's encoding lacks becomes a question mark, not a crash.
        with suppress(AttributeError):
            stream.reconfigure(errors="replace")  # type: ignore[union-attr]  # not on every TextIO
    if any("\udc80" <= character <= "\udcff" for word in sys.argv for character in word):
        # Python's way to carry bytes that are no text; no message of the mesh can.
        tell("error: an argument is not UTF-8")
        sys.exit(Exit.REFUSED)
    app()
