"""Request ids: the same request, sent again, makes nothing new."""

from __future__ import annotations

import hashlib
from typing import Any

import orjson

from services.kit.errors import DomainError, Reason, Resource, Violation


def digest(content: Any) -> str:
    """Make the digest of what a request asks for, from dataclasses and JSON-able values."""
    return hashlib.sha256(orjson.dumps(content, option=orjson.OPT_SORT_KEYS)).hexdigest()


def same_request(given: str, stored: str, what: Resource) -> None:
    """Check that a repeated request_id came with the same request.

    Args:
        given: the digest of this request.
        stored: that of the one that made `what`.

    Raises:
        DomainError: REQUEST_ID_REUSED.
    """
    if given != stored:
        description = "was used before with another request; use a new id"
        raise DomainError(
            Reason.REASON_REQUEST_ID_REUSED,
            f"request_id: {description}",
            violations=[Violation("request_id", description)],
            resources=[what],
        )
