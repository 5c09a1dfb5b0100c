"""Deleting what `undelete` takes back, or for good after a question."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from conductor_ai.cli.asking import confirm

Purge = Annotated[bool, typer.Option("--purge", help="For good, deleted before or not.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before it is for good.")]
AlsoDeleted = Annotated[bool, typer.Option("--deleted", help="Also when it is deleted.")]


def ask(
    ids: Sequence[str], *, purge: bool, yes: bool, one: str, many: str, parts: str = "versions"
) -> None:
    """Go on with what can be taken back, and else only after a yes.

    Args:
        one: the name of a thing, with `{}` for its id.
        many: the noun of several.
        parts: what goes with them.
    """
    if purge and not yes:
        what = one.format(ids[0]) if len(ids) == 1 else f"{len(ids)} {many}"
        confirm(
            f"Delete {what} with all {parts} for good?",
            unasked="--purge is for good",
            declined="nothing was deleted",
        )


def told(purge: bool) -> str:
    """Say that something is deleted."""
    return "deleted for good" if purge else "deleted"
