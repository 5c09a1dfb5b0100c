"""The health of the parts of the mesh."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PartHealth:
    """One part of the mesh and what is wrong with it; nothing when `trouble` is empty."""

    name: str
    trouble: str = ""
