"""Findings as messages."""

from __future__ import annotations

from conductor.content.v1 import finding_pb2
from services.content.domain.findings import Finding


def finding_to_proto(finding: Finding) -> finding_pb2.Finding:
    """Print a finding."""
    return finding_pb2.Finding(
        severity=finding_pb2.Finding.Severity.Value(f"SEVERITY_{finding.severity.value}"),
        rule=finding.rule,
        message=finding.message,
        fix=finding.fix,
        location=finding.location,
        line=finding.line,
        column=finding.column,
    )
