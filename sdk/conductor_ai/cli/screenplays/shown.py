"""Screenplays that were saved, as people read them."""

from __future__ import annotations

from conductor.content.v1.screenplay_pb2 import Screenplay
from conductor_ai.cli import findings
from conductor_ai.cli.output import json_line, tell


def report(screenplay: Screenplay, verb: str, *, as_json: bool) -> None:
    """Print a screenplay that was saved, and what is odd about it."""
    if as_json:
        print(json_line(screenplay))
        return
    print(f"{screenplay.id} {verb}, version {screenplay.version}")
    tell_oddities(screenplay)


def tell_oddities(screenplay: Screenplay) -> None:
    """Say on stderr what is wrong with a text, and who has an equal one."""
    findings.tell_all(screenplay.findings, screenplay.id)
    for other in screenplay.same_content:
        tell(f"{other.id} ({other.name}) has an equal text")
