"""Imports: what becomes of the things of a file, and how they are written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypeAlias

import orjson

from services.content.domain import records
from services.content.domain.agents import Agent
from services.content.domain.archives import LEFT_OUT, Record
from services.content.domain.findings import Finding, Severity
from services.content.domain.personas import Persona, PersonaVersion
from services.content.domain.screenplays import Screenplay, Text

MOST_ITEMS = 1000
"""How many things a report names."""
MOST_FINDINGS = 1000
"""How many findings a report has."""


class Action(StrEnum):
    """What happens to a thing."""

    CREATED = "created"
    OVERWRITTEN = "overwritten"
    KEPT = "kept"
    UNCHANGED = "unchanged"


class Phase(StrEnum):
    """What is done now."""

    EXPORT = "export"
    RECEIVE = "receive"
    CHECK = "check"
    STAGE = "stage"
    APPLY = "apply"


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a long one is."""

    phase: Phase
    done: int
    """Things, or bytes while a file is received."""
    total: int = 0
    """0 when it is not known."""


@dataclass(frozen=True, slots=True)
class ImportItem:
    """What happened to one thing."""

    action: Action
    kind: str
    """`agent`, `persona` or `screenplay`."""
    id: str
    name: str = ""
    detail: str = ""


@dataclass(slots=True)
class ImportReport:
    """What happened to the things of a file, or would."""

    dry_run: bool = False
    counts: dict[Action, int] = field(default_factory=lambda: dict.fromkeys(Action, 0))
    items: list[ImportItem] = field(default_factory=list)
    """At most `MOST_ITEMS` of those that are not unchanged."""
    findings: list[Finding] = field(default_factory=list)

    def add(self, item: ImportItem) -> None:
        """Note what happens to a thing."""
        self.counts[item.action] += 1
        if item.action is not Action.UNCHANGED and len(self.items) < MOST_ITEMS:
            self.items.append(item)

    def find(self, rule: str, location: str, message: str, fix: str = "") -> None:
        """Note what was passed over, or is odd."""
        if len(self.findings) < MOST_FINDINGS:
            self.findings.append(Finding(Severity.WARNING, rule, message, fix, location))


class Mode(StrEnum):
    """How a thing is written that may have been written already, or changed by others since."""

    CREATE = "create"
    """When there is none; what belongs to another is written as long as that is not there, or is the
    one of the import."""
    OVERWRITE = "overwrite"
    """Whatever there is."""
    UPDATE = "update"
    """When it is as it was."""


@dataclass(frozen=True, slots=True)
class Put:
    """Writes a thing."""

    record: Record
    mode: Mode
    root_time: int | None = None
    """When that which it belongs to was made, in an import that makes it; None where that was there."""


@dataclass(frozen=True, slots=True)
class Sweep:
    """Removes the versions of a persona, or the texts of a screenplay, but for some."""

    kind: str
    """`versions` or `texts`."""
    parent: str
    """The id of the agent or screenplay."""
    keep: tuple[int, ...]
    """Numbers or revisions."""
    mode: Mode = Mode.OVERWRITE


@dataclass(frozen=True, slots=True)
class Release:
    """Takes a path from a screenplay that gets another one later in the same import."""

    screenplay: str
    field: str
    """`file_path` or `import_path`."""
    path: str


Item: TypeAlias = Put | Sweep | Release

_KINDS: dict[str, type[Any]] = {
    "agent": Agent,
    "persona": Persona,
    "version": PersonaVersion,
    "screenplay": Screenplay,
    "text": Text,
}
_NAMES = {kind: name for name, kind in _KINDS.items()}


def printed(items: Sequence[Item]) -> list[dict[str, Any]]:
    """Print what is to be written as JSON objects."""
    return [_printed(item) for item in items]


def read(rows: Sequence[dict[str, Any]], org: str) -> list[Item]:
    """Read what `printed` printed."""
    return [_read(row, org) for row in rows]


def _printed(item: Item) -> dict[str, Any]:
    match item:
        case Put(record, mode, root_time):
            known = records.written(record, without=LEFT_OUT[type(record)])
            row = {
                "put": _NAMES[type(record)],
                "known": orjson.loads(known),
                "mode": mode.value,
                "root_time": root_time,
                "version": record.version,
            }
            return row if isinstance(record, (Agent, Persona)) else row | {"text": record.content}
        case Sweep(kind, parent, keep, mode):
            return {"sweep": kind, "parent": parent, "keep": keep, "mode": mode.value}
        case Release(screenplay, path_field, path):
            return {"release": screenplay, "field": path_field, "path": path}


def _read(row: dict[str, Any], org: str) -> Item:
    if "sweep" in row:
        return Sweep(row["sweep"], row["parent"], tuple(row["keep"]), Mode(row["mode"]))
    if "release" in row:
        return Release(row["release"], row["field"], row["path"])
    given = {"org": org, "version": row["version"]}
    if row["put"] != "agent":
        given["content"] = row.get("text", "")
    record = records.read(_KINDS[row["put"]], orjson.dumps(row["known"]), given)
    return Put(record, Mode(row["mode"]), row["root_time"])
