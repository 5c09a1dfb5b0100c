"""How often an organisation may call."""

from __future__ import annotations

from typing import Protocol


class Rates(Protocol):
    """Holds organisations to their limits."""

    async def admit(self, org: str) -> float | None:
        """Count a call: None when it may be made, else the seconds after which the next one may."""
        ...
