"""Two texts and how they differ."""

from __future__ import annotations

import sys

from conductor.content.v1.comparison_pb2 import Comparison
from conductor_ai.cli.facts import count
from conductor_ai.cli.output import plain_order, tell, write_bytes

_STYLES = {"+": "green", "-": "red", "@": "cyan", "\\": "dim"}
_HEADS = ("--- ", "+++ ")


def show(comparison: Comparison) -> None:
    """Print the diff on stdout, as `patch` takes it behind a pipe, and a summary on stderr."""
    if not comparison.diff:
        tell("the texts are equal")
        return
    if sys.stdout.isatty():
        _draw(comparison.diff)
    else:
        write_bytes(comparison.diff.encode())
    tell(
        f"{count(comparison.added_lines, 'line')} added, {comparison.removed_lines:,} removed, "
        f"{comparison.unchanged_lines:,} unchanged: {comparison.change_percentage:.2f} % changed"
    )


def _draw(diff: str) -> None:
    from rich.console import Console  # noqa: PLC0415  # see tables.py
    from rich.text import Text  # noqa: PLC0415

    console = Console(file=sys.stdout)
    for number, line in enumerate(diff.removesuffix("\n").split("\n")):
        # Only the first two lines are heads: others may begin with a removed `--`.
        is_head = number < len(_HEADS) and line.startswith(_HEADS)
        style = "bold" if is_head else _STYLES.get(line[:1], "")
        console.print(Text(plain_order(line), style), soft_wrap=True)
