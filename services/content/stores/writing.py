"""Writing documents: what a store refuses, in the words of the ports."""

from __future__ import annotations

from services.content.ports import FencedError, TakenError
from services.kit.storage.ports import ConflictError, DuplicateError, Store, Write


async def write(store: Store, *writes: Write) -> None:
    """Write documents.

    Raises:
        FencedError: one of them has another version by now, or is gone.
        TakenError: another one has the id or a unique key.
    """
    try:
        await store.write(*writes)
    except ConflictError:
        raise FencedError from None
    except DuplicateError as error:
        raise TakenError(error.field) from None


def number_key(number: int) -> str:
    """Print a number so that text has the order of numbers."""
    return f"{number:010d}"
