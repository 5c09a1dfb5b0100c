"""What instances need from outside."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from services.conversations.domain.histories import Link, Totals, Whose
from services.conversations.domain.instances import Instance, Wanted
from services.conversations.domain.parents import Kind, Parent
from services.kit.resources.ports import Roots


class Instances(Roots[Instance], Protocol):
    """The stored instances."""

    async def add(self, instance: Instance) -> Instance:
        """Store a new instance.

        Raises:
            TakenError: `id` or `request_key`.
        """
        ...

    async def save_all(self, instances: Sequence[Instance]) -> None:
        """Store changed instances, one after the other.

        Raises:
            FencedError: somebody else changed one of them; those before it may be stored.
        """
        ...

    async def by_request_id(self, org: str, request_id: str) -> Instance | None:
        """Read the instance a request_id made, deleted or not."""
        ...

    async def list(
        self, org: str, wanted: Wanted, after: tuple[int | str, str] | None, limit: int
    ) -> Sequence[Instance]:
        """Read a page of instances, without their configs."""
        ...

    def place(self, instance: Instance, wanted: Wanted) -> tuple[int | str, str]:
        """Tell the place of an instance in a list."""
        ...

    async def ids(
        self, org: str, kind: str, of: str, after: tuple[int, str] | None, limit: int
    ) -> Sequence[tuple[int, str]]:
        """Read create times and ids of instances, deleted or not, oldest first.

        Args:
            kind: of what they belong to: agent, screenplay or conversation.
            of: the id of that.
            after: the last one of the page before.
        """
        ...


class Parents(Protocol):
    """What was heard of the deletions of things of the content service."""

    async def get(self, org: str, kind: Kind, id_: str) -> Parent | None:
        """Read what was heard of a thing; None when that is nothing."""
        ...

    async def add(self, parent: Parent) -> Parent:
        """Store what was heard first.

        Raises:
            TakenError: somebody else was there first.
        """
        ...

    async def save(self, parent: Parent) -> Parent:
        """Store what is newer.

        Raises:
            FencedError: somebody else was there first.
        """
        ...


class Histories(Protocol):
    """The runs of instances that ended, and what they came to."""

    async def statistics(self, org: str, instance_id: str) -> Totals:
        """Say what the runs of an instance came to."""
        ...

    async def list(
        self, org: str, whose: Whose, after: tuple[int, str] | None, limit: int
    ) -> Sequence[Link]:
        """Read a page of a history, newest first."""
        ...

    async def clear(self, org: str, whose: Whose) -> int:
        """Leave nothing of a history but what it counts; returns how many runs were listed."""
        ...

    async def purge(self, org: str, instance_id: str) -> None:
        """Remove the history of an instance for good, with what it counts."""
        ...
