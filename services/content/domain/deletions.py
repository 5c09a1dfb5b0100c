"""How things are deleted and come back, with what belongs to them.

A thing is deleted by one change of its own document: it gets the id of the deletion, and notes that
what belongs to it is still to be marked. That note is the outbox row: who dies after the change has
left it behind, and whoever finds it goes on. Each of those below takes the mark of a deletion once;
one that was deleted before by itself keeps its own, so it does not come back with the others.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Cascade(StrEnum):
    """What is still to be done to those that belong to a thing."""

    NONE = ""
    MARK = "mark"
    """They are to be deleted with it."""
    UNMARK = "unmark"
    """They are to come back with it."""
    PURGE = "purge"
    """They are to go for good, and it after them."""


@dataclass(frozen=True, slots=True)
class Life:
    """Whether a thing is deleted, and how."""

    deletion: str = ""
    """The id of the deletion it went with; empty while it is not deleted."""
    delete_time: int | None = None
    """Microseconds since the epoch."""
    last_deletion: str = ""
    """The newest deletion it ever took the mark of. It takes none twice: whoever is late with one
    that was taken back marks nothing."""
    cascade: Cascade = Cascade.NONE

    @property
    def live(self) -> bool:
        """Whether it is not deleted."""
        return not self.deletion

    @property
    def purging(self) -> bool:
        """Whether it is about to go for good, and cannot come back."""
        return self.cascade is Cascade.PURGE
