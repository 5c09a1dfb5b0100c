"""How often an organisation may call."""

from __future__ import annotations

from typing import Protocol


class Rates(Protocol):
    """Counts the calls of organisations."""

    async def admit(self, org_id: str) -> float | None:
        """Count a call in; answers None, or the seconds after which one is let in again."""
        ...
