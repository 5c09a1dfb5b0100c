"""Etags: whoever changes a thing shows which state of it the change started from."""

from __future__ import annotations

from services.kit.errors import DomainError, Reason, Resource, invalid


def check(
    given: str,
    current: str,
    *,
    force: bool,
    required: bool,
    what: Resource,
    changes: bool = True,
) -> None:
    """Hold the etag that a caller shows against the one a thing has.

    An old one does no harm to a change that is made already: so whoever was left without an answer
    asks again, and is answered as if it had been the first time (RFC 9110, 13.1.1).

    Args:
        given: empty when the caller shows none.
        force: whether the change is to be made whatever the thing is now.
        required: whether a caller without `force` has to show one.
        what: the thing, for the message.
        changes: whether the thing is another one than the caller wants it to be.

    Raises:
        DomainError: ETAG_MISMATCH, INVALID_REQUEST.
    """
    if force or given == current or (given and not changes):
        return
    if given:
        raise DomainError(
            Reason.REASON_ETAG_MISMATCH,
            f"Somebody else changed {what.type} {what.name}: its etag is {current}, not {given}. "
            "Read it, merge, and try again.",
            resources=[what],
            metadata={"etag": current},
        )
    if required:
        raise invalid(
            "etag", f"needs the one the change started from, now {current}; or set force to true"
        )
