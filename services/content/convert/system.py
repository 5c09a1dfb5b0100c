"""What was found of the mesh as messages."""

from __future__ import annotations

from conductor.content.v1 import system_service_pb2 as pb
from services.content.convert.findings import finding_to_proto
from services.content.domain.findings import Severity
from services.content.domain.system import SystemReport


def report_to_proto(report: SystemReport) -> pb.ValidateSystemResponse:
    """Print what was looked at, and what is wrong."""
    errors, warnings = report.of(Severity.ERROR), report.of(Severity.WARNING)
    return pb.ValidateSystemResponse(
        is_valid=not errors,
        errors=map(finding_to_proto, errors),
        warnings=map(finding_to_proto, warnings),
        checks=[
            pb.Check(name=one.name, checked=one.count, summary=one.summary) for one in report.checks
        ],
    )
