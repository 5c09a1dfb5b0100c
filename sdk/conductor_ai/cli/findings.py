"""What is wrong, where, and how to make it right."""

from __future__ import annotations

from collections.abc import Iterable

from conductor.content.v1.finding_pb2 import Finding
from conductor_ai.cli import rows
from conductor_ai.cli.output import enum_name, one_line, tell
from conductor_ai.cli.tables import Column

# Nothing of it is cut: half of what to do helps nobody.
_COLUMNS = (
    Column("severity", state=True),
    Column("where"),
    Column("what", below=True),
    Column("fix", below=True),
)


def in_text(finding: Finding, name: str) -> str:
    """Write a finding about a text as compilers do: `name:line:column: severity: message (rule)`."""
    place = [name, *(str(number) for number in (finding.line, finding.column) if number)]
    return one_line(f"{':'.join(place)}: {severity(finding)}: {finding.message} ({finding.rule})")


def severity(finding: Finding) -> str:
    """Name how bad it is."""
    return enum_name(Finding.Severity, finding.severity, "SEVERITY_")


def tell_all(findings: Iterable[Finding], name: str) -> None:
    """Say on stderr what is wrong with a text that was stored all the same."""
    for finding in findings:
        tell(in_text(finding, name))


def show(findings: Iterable[Finding]) -> None:
    """Print findings as a table."""
    rows.show(_COLUMNS, [_cells(finding) for finding in findings])


def _cells(finding: Finding) -> tuple[str, ...]:
    place = [finding.location, *(str(one) for one in (finding.line, finding.column) if one)]
    return severity(finding), ":".join(place), finding.message, finding.fix
