"""What histories need from outside."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from services.conversations.domain.histories import Link, Shown, Whose


class Links(Protocol):
    """The links of all chains."""

    async def find(self, org: str, execution_id: str) -> Link | None:
        """Read the link of a run."""
        ...

    async def newest(self, org: str, chain: str) -> Link | None:
        """Read the newest link of a chain."""
        ...

    async def add(self, link: Link) -> None:
        """Store a link.

        Raises:
            TakenError: its number is taken, or its run has a link; nothing happened.
        """
        ...

    async def save(self, link: Link) -> Link:
        """Store a changed link; answers it with its new version.

        Raises:
            FencedError: somebody else changed it, or it is gone; nothing happened.
        """
        ...

    async def list(
        self, org: str, whose: Whose, shown: Shown, after: tuple[int, str] | None, limit: int
    ) -> Sequence[Link]:
        """Read a page of a history, newest first.

        Args:
            after: the create time and the id of the last one of the page before.
        """
        ...

    async def told(self, org: str, instance_id: str, upto: int, limit: int) -> Sequence[Link]:
        """Read the newest links that later runs of an instance are told, newest first.

        Args:
            upto: the highest number that is read.
        """
        ...

    async def remove(self, org: str, chain: str) -> None:
        """Remove a whole chain for good, the newest links first."""
        ...


class Sayings(Protocol):
    """What was said in the turns of runs."""

    async def any_deleted(self, org: str, execution_id: str) -> bool:
        """Tell whether the message a run answers is deleted, or its answer is."""
        ...
