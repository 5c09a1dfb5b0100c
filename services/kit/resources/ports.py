"""What deleting, taking back and purging needs of the stores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, TypeVar

from services.kit.resources.deletions import Cascade, Life


class FencedError(Exception):
    """Somebody else changed or removed what was to be changed; nothing happened."""


class TakenError(Exception):
    """Another one of the organisation has the id or the unique key; nothing happened.

    Attributes:
        field: `id`, or the name of the key.
    """

    def __init__(self, field: str) -> None:
        super().__init__(f"{field} is taken")
        self.field = field


class Mortal(Protocol):
    """A stored thing that can be deleted; a dataclass."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def org(self) -> str:
        """The organisation."""
        ...

    @property
    def life(self) -> Life:
        """Whether it is deleted, and how."""
        ...


@dataclass(frozen=True, slots=True)
class Place:
    """Where a deletable thing is, as sweeps read it."""

    org: str
    id: str
    create_time: int
    """Microseconds since the epoch."""
    delete_time: int | None = None
    """Microseconds since the epoch; None for what is not deleted, or went with another."""
    version: int = field(default=1, compare=False)
    """Of the stored document."""


T = TypeVar("T", bound=Mortal)


class Roots(Protocol[T]):
    """Things of one kind that are deleted by themselves.

    `save` and `remove` raise FencedError when somebody else was there first.
    """

    kind: str
    """The noun, for logs."""

    async def get(self, org: str, id_: str) -> T | None:
        """Read a thing, deleted or not."""
        ...

    async def save(self, thing: T) -> T:
        """Store a changed thing; answers it with its new version."""
        ...

    async def remove(self, thing: T) -> None:
        """Remove a thing for good."""
        ...

    async def pending(
        self, cascade: Cascade, org: str | None, after: Place | None, limit: int
    ) -> Sequence[Place]:
        """Read a page of the things whose cascade is still to be done, oldest first.

        Args:
            org: None for all organisations.
            after: the last one of the page before.
        """
        ...

    async def deleted(self, after: Place | None, limit: int) -> Sequence[Place]:
        """Read a page of what is deleted, in all organisations, oldest first.

        What is about to go for good is not among them.
        """
        ...
