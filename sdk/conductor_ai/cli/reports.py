"""What happened to each of many things, or would."""

from __future__ import annotations

from conductor.content.v1.archive_service_pb2 import ImportItem, ImportReport
from conductor.content.v1.finding_pb2 import Finding
from conductor_ai.cli import findings, rows
from conductor_ai.cli.output import enum_name, json_line, tell
from conductor_ai.cli.tables import Column

_COLUMNS = (
    Column("action", state=True),
    Column("kind"),
    Column("id"),
    Column("name", below=True),
    Column("why", below=True, long=True),
)


def show(report: ImportReport, *, as_json: bool = False) -> None:
    """Print what happened, and on stderr a summary."""
    if as_json:
        print(json_line(report))
    else:
        rows.show(_COLUMNS, [_cells(item) for item in report.items])
        if report.items and report.findings:
            print()
        findings.show(report.findings)
    tell(f"dry run: {summary(report)}" if report.dry_run else summary(report))


def summary(report: ImportReport) -> str:
    """Write on one line how much became of what."""
    told = (
        f"{report.created:,} created, {report.overwritten:,} overwritten, {report.kept:,} kept, "
        f"{report.unchanged:,} unchanged"
    )
    if report.kept:
        told += "; --force overwrites what was kept"
    return told


def has_errors(report: ImportReport) -> bool:
    """Whether something of it did not work."""
    return any(one.severity == Finding.SEVERITY_ERROR for one in report.findings)


def count(report: ImportReport, item: ImportItem) -> None:
    """Add what happened to one thing."""
    name = action(item)
    setattr(report, name, getattr(report, name) + 1)
    if item.action != ImportItem.ACTION_UNCHANGED:
        report.items.append(item)


def action(item: ImportItem) -> str:
    """Name what happened."""
    return enum_name(ImportItem.Action, item.action, "ACTION_")


def _cells(item: ImportItem) -> tuple[str, ...]:
    return action(item), item.kind, item.id, item.name, item.detail
