"""What other services refuse, as those who asked for a run read it."""

from __future__ import annotations

from collections.abc import Mapping

from services.kit.errors import DomainError, Reason, Violation


def of_the_request(error: DomainError, fields: Mapping[Reason.ValueType, str]) -> DomainError:
    """Say which field of a request to run is wrong: those of the question may have other names.

    Args:
        fields: by reason; an error with another one, or that names fields itself, stays as it is.
    """
    field = fields.get(error.reason)
    if field is None or error.violations:
        return error
    return DomainError(
        error.reason,
        f"{field}: {error.message}",
        violations=[Violation(field, error.message)],
        resources=error.resources,
        metadata=error.metadata,
    )
