"""What turns need from outside."""

from __future__ import annotations

from typing import Protocol

from services.conversations.domain.turns import Doing


class Stage(Protocol):
    """The instances of agents, as those who look at them see them."""

    async def note(self, org: str, instance_id: str, doing: Doing) -> None:
        """Note what an instance is doing; nothing happens when there is none."""
        ...
