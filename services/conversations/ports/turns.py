"""What turns need from outside."""

from __future__ import annotations

from typing import Protocol

from services.conversations.domain.instances import Status


class Stage(Protocol):
    """The instances of agents, as those who look at them see them."""

    async def note(self, org: str, instance_id: str, status: Status) -> bool:
        """Note what an instance is doing; nothing happens when there is none.

        Returns:
            Whether there is one, deleted or not; one that is about to go for good is none.
        """
        ...
