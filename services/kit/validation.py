"""What the protos ask of requests, checked."""

from __future__ import annotations

from typing import Any

import orjson
import protovalidate
from google.protobuf.message import Message

from services.kit.errors import DomainError, Reason, Violation
from services.kit.patterns import IN_WORDS

_SMALL_REQUEST = 64 * 1024


class Validation:
    """Holds requests against the rules of their protos."""

    def __init__(self) -> None:
        self._validator = protovalidate.Validator()

    def check(self, request: Message, size: int = 0) -> None:
        """Let a request pass that keeps every rule.

        Args:
            size: how large it is, in bytes; 0 for one that is small.

        Raises:
            DomainError: INVALID_REQUEST, with each field that breaks one.
        """
        violations = self._validator.collect_violations(request, fail_fast=True)
        if violations:
            if size <= _SMALL_REQUEST:
                # All of them at once; in a large request there may be too many to look for.
                violations = self._validator.collect_violations(request)
            broken = [_violation(violation) for violation in violations]
            raise DomainError(
                Reason.REASON_INVALID_REQUEST,
                "; ".join(_sentence(one) for one in broken),
                violations=broken,
            )


def _violation(found: protovalidate.Violation) -> Violation:
    violation: Any = found.proto
    path = ""
    for element in violation.field.elements if violation.field else ():
        path += f".{element.field_name}" if path else element.field_name
        subscript = element.subscript
        if subscript is not None:
            path += f"[{orjson.dumps(subscript.value).decode()}]"
    in_words = (
        IN_WORDS.get(str(found.rule_value)) if violation.rule_id == "string.pattern" else None
    )
    return Violation(path, in_words or violation.message or violation.rule_id)


def _sentence(violation: Violation) -> str:
    """Write what is wrong with a field, or without one with the request as a whole."""
    if not violation.field:
        return f"the request {violation.description}"
    return f"{violation.field}: {violation.description}"
