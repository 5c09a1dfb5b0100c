"""What the portfolio chat needs from outside."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from services.conversations.domain.visits import Visitor


class Visitors(Protocol):
    """Those who came lately."""

    async def get(self, org: str, id_: str) -> Visitor | None:
        """Read when somebody came."""
        ...

    async def save(self, visitor: Visitor) -> None:
        """Store when somebody came, for the first time or again.

        Raises:
            FencedError: somebody else stored it since it was read.
        """
        ...

    async def page(self, after: Visitor | None, limit: int) -> Sequence[Visitor]:
        """Read a page of those of all organisations, in the order they first came in."""
        ...

    async def remove(self, visitor: Visitor) -> None:
        """Forget somebody, unless they came again since."""
        ...


class Runs(Protocol):
    """The runs that answer."""

    async def answer(self, agent_id: str, conversation_id: str, text: str) -> str:
        """Run an agent in a conversation, and answer what it says.

        Raises:
            DomainError: AGENT_NOT_FOUND, EXECUTION_TIMEOUT, and whatever else a run ends with.
        """
        ...

    async def install(self, template_id: str) -> None:
        """Make an agent of a template, unless it is there.

        Raises:
            DomainError: TEMPLATE_NOT_FOUND.
        """
        ...
