"""Findings: what is wrong, where, and how to make it right."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """How bad a finding is."""

    WARNING = "WARNING"
    """It should be made right, and works without."""
    ERROR = "ERROR"
    """It does not work."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong."""

    severity: Severity
    rule: str
    """Lower-case words joined by hyphens."""
    message: str
    fix: str = ""
    location: str = ""
    """A setting, `agents/<id>`, a file of an archive; empty for a text."""
    line: int = 0
    """From 1; 0 when it is about no line."""
    column: int = 0
    """In characters, from 1; 0 when it is about no column."""
