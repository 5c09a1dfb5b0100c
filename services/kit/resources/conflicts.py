"""Things that others change all the time."""

from __future__ import annotations

from services.kit.errors import DomainError, Reason, Resource


def contended(what: Resource) -> DomainError:
    """Make the error for a thing that others were faster to change, again and again.

    Args:
        what: without a name when it is yet to be made.
    """
    if what.name:
        trouble = f"The {what.type} {what.name} was changed"
    else:
        trouble = f"What the new {what.type} is to have was taken and freed"
    return DomainError(
        Reason.REASON_CONFLICT,
        f"{trouble} by others many times in a row; try again.",
        resources=[what] if what.name else [],
        retry_after=0.1,
    )
