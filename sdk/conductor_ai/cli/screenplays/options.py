"""What the commands about screenplays are told."""

from __future__ import annotations

from typing import Annotated

import typer

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
