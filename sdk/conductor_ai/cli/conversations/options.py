"""What the commands about conversations are told."""

from __future__ import annotations

from typing import Annotated

import typer

Id = Annotated[str, typer.Argument(help="The id of the conversation.", metavar="ID")]


Ids = Annotated[list[str], typer.Argument(help="The ids of the conversations.", metavar="ID...")]


MessageIds = Annotated[
    list[str],
    typer.Argument(help="The messages, by their numbers or ids.", metavar="MESSAGE..."),
]


Allow = Annotated[
    list[str] | None,
    typer.Option(
        "--allow", help="An agent that may take part, else all; may be given several times."
    ),
]


AutoDelegate = Annotated[
    bool | None,
    typer.Option(
        "--auto-delegate/--no-auto-delegate",
        help="Whether agents may hand work to others by themselves.",
        show_default=False,
    ),
]


MaxChainDepth = Annotated[
    int | None,
    typer.Option(
        help="How many agents may hand a message on, one after the other; 0 for the default.",
        min=0,
        max=100,
    ),
]
