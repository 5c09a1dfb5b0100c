"""Personas and their versions, and the rules of their changes.

The versions are the truth: a version is stored first, under its number, which nobody else can take;
the persona is a projection of them and is brought up to them by whoever finds it behind.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from services.content.domain.deletions import Life

PRODUCTION = "production"
"""The alias whose version runs use that name none."""


@dataclass(frozen=True, slots=True)
class Alias:
    """A name that stands for a version."""

    name: str
    number: int
    update_time: int
    """When it was last moved, in microseconds since the epoch."""


@dataclass(frozen=True, slots=True)
class PersonaVersion:
    """One version of a persona. But for `used` it never changes."""

    org: str
    agent_id: str
    number: int
    """1, 2, 3, … without gaps as they are made."""
    content: str
    """Empty where it was not read."""
    create_time: int
    """Microseconds since the epoch; greater than that of the version before."""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    author: str = ""
    reason: str = ""
    restored_from: int = 0
    characters: int = 0
    content_bytes: int = 0
    content_hash: str = ""
    used: bool = False
    version: int = 1
    """Of the stored document."""


@dataclass(frozen=True, slots=True)
class Persona:
    """The persona of an agent: which versions it has, without their texts."""

    org: str
    agent_id: str
    number: int
    """Of the newest version."""
    create_time: int
    """Of the first version, in microseconds since the epoch."""
    update_time: int
    """Of the newest version."""
    aliases: Mapping[str, Alias] = field(default_factory=dict)
    life: Life = field(default_factory=Life)
    version: int = 1
    """Of the stored document."""

    @property
    def etag(self) -> str:
        """What changes with each version."""
        return str(self.number)

    @property
    def active(self) -> int:
        """The number of the version that runs use which name none."""
        alias = self.aliases.get(PRODUCTION)
        return self.number if alias is None else alias.number
