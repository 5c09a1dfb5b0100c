"""Screenplays and the texts they had, and the rules of their changes."""

from __future__ import annotations

from dataclasses import dataclass, field

from services.content.domain.deletions import Life

KEPT_TEXTS = 50
"""How many texts of a screenplay are kept, the newest among them."""


@dataclass(frozen=True, slots=True)
class Screenplay:
    """A stored screenplay."""

    org: str
    id: str
    name: str
    create_time: int
    """Microseconds since the epoch."""
    update_time: int
    last_use_time: int
    description: str = ""
    tags: tuple[str, ...] = ()
    content: str = ""
    """Empty where it was not read."""
    content_bytes: int = 0
    content_hash: str = ""
    working_directory: str = ""
    file_path: str = ""
    import_path: str = ""
    export_path: str = ""
    revision: int = 1
    """How often it changed, from 1; what callers see as its version, and what the etag says."""
    text_revision: int = 1
    """The revision in which its text came."""
    text_time: int = 0
    """When its text came, in microseconds since the epoch."""
    text_author: str = ""
    request_id: str = ""
    digest: str = ""
    """Of the request that made it, when it had a request_id."""
    life: Life = field(default_factory=Life)
    version: int = 1
    """Of the stored document."""

    @property
    def etag(self) -> str:
        """What changes with each change."""
        return str(self.revision)


@dataclass(frozen=True, slots=True)
class Text:
    """A text that a screenplay had until another one came."""

    org: str
    screenplay_id: str
    revision: int
    """The revision of the screenplay in which it came."""
    content: str
    """Empty where it was not read."""
    content_bytes: int
    content_hash: str
    author: str
    create_time: int
    """When it came, in microseconds since the epoch."""
    version: int = 1
    """Of the stored document."""
