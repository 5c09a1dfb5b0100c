"""What the commands about personas are told."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

LATEST = "latest"

AgentId = Annotated[str, typer.Argument(help="The id of the agent.", metavar="AGENT")]


AgentIds = Annotated[list[str], typer.Argument(help="The ids of the agents.", metavar="AGENT...")]


Version = Annotated[
    str,
    typer.Argument(
        help="The version: a number, latest, first or the name of an alias.", metavar="VERSION"
    ),
]


Reason = Annotated[str, typer.Option(help="Why; kept with the version.")]


Etag = Annotated[str, typer.Option(help="Only while `show` shows this etag.", show_default="any")]


def _metadata(text: str) -> dict[str, Any]:
    try:
        read = json.loads(text)
    except ValueError as error:
        raise typer.BadParameter(f"this is no JSON: {error}") from None
    if not isinstance(read, dict):
        raise typer.BadParameter('it has to be an object, such as {"ticket": 7}')
    return read


Metadata = Annotated[
    dict[str, Any] | None,
    typer.Option(parser=_metadata, metavar="JSON", help="An object that is noted with it."),
]
