"""What the commands about instances are told."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Annotated

import typer
from google.protobuf.json_format import ParseDict, ParseError

from conductor.conversations.v1.instance_pb2 import Instance, Position
from conductor_ai.cli import files
from conductor_ai.cli.exits import refuse


class Status(StrEnum):
    """What an instance is doing, as the protos name it."""

    PENDING = "pending"
    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    ERROR = "error"


Id = Annotated[str, typer.Argument(help="The id of the instance.", metavar="ID")]


Ids = Annotated[list[str], typer.Argument(help="The ids of the instances.", metavar="ID...")]


OfStatus = Annotated[
    Status | None, typer.Option("--status", help="What it is doing.", case_sensitive=False)
]


Cwd = Annotated[str | None, typer.Option(help="Where its runs work, an absolute path.")]


Emoji = Annotated[str | None, typer.Option(help="An emoji it is shown with.")]


Place = Annotated[
    tuple[float, float] | None,
    typer.Option("--position", help="Where it is drawn: to the right, downwards.", metavar="X Y"),
]


Order = Annotated[float | None, typer.Option("--order", help="Its place in lists ordered by hand.")]


Mcp = Annotated[
    list[str] | None,
    typer.Option(
        "--mcp", help="An MCP server beside those of its agent; may be given several times."
    ),
]


Config = Annotated[
    str,
    typer.Option(
        help="Settings of whoever shows it, a file with an object of JSON; - is stdin.",
        metavar="FILE",
    ),
]


Hidden = Annotated[
    bool | None,
    typer.Option("--hidden/--shown", help="Whether it is not shown.", show_default=False),
]


def status_value(status: Status | None) -> Instance.Status.ValueType:
    """Give what the protos call it; unspecified for None."""
    if status is None:
        return Instance.STATUS_UNSPECIFIED
    return Instance.Status.Value(f"STATUS_{status.name}")


def said(
    *,
    status: Status | None,
    cwd: str | None,
    emoji: str | None,
    position: tuple[float, float] | None,
    order: float | None,
    mcp: list[str] | None,
    config: str,
    hidden: bool | None,
) -> Instance:
    """Make an instance that has what options say, and nothing else."""
    instance = Instance(
        status=status_value(status),
        cwd=cwd,
        emoji=emoji,
        display_order=order,
        mcp_configs=[one for one in mcp or [] if one.strip()],
        is_hidden=hidden,
    )
    if position is not None:
        instance.position.CopyFrom(Position(x=position[0], y=position[1]))
    if config:
        _read_config(config, instance)
    return instance


def _read_config(name: str, instance: Instance) -> None:
    try:
        ParseDict(json.loads(files.read_text(name)), instance.config)
    except (ParseError, ValueError, RecursionError):
        refuse(f"{name} is no object of JSON")
    instance.config.SetInParent()
