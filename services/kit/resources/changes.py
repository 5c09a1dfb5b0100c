"""Changes of stored things that others change, too."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from services.kit.resources.ports import FencedError, Mortal, Roots

T = TypeVar("T", bound=Mortal)


async def follow(roots: Roots[T], org: str, id_: str, change: Callable[[T], T | None]) -> T | None:
    """Store a change, whatever others change meanwhile; for changes that nobody may refuse.

    Args:
        change: makes another one of what is stored; None when nothing is to change.

    Returns:
        What there is then; None when it is gone.
    """
    while (found := await roots.get(org, id_)) is not None:
        changed = change(found)
        if changed is None:
            return found
        with suppress(FencedError):
            return await roots.save(changed)
    return None
