"""The errors of the execution service, each with its place in the catalogue."""

from __future__ import annotations

from services.execution.domain.events import MAX_RESULT_BYTES
from services.execution.domain.models import Choice
from services.kit.errors import DomainError, Reason, Resource, Violation


def unavailable_feature(field_name: str, why: str) -> DomainError:
    """Make the error for a field that cannot be honoured yet."""
    return DomainError(
        Reason.REASON_FEATURE_UNAVAILABLE,
        f"{field_name}: {why}",
        violations=[Violation(field_name, why)],
    )


def about(error: DomainError, execution_id: str) -> DomainError:
    """Name the run that an error met after its start is about, so that nobody starts it again."""
    if error.resources:
        return error
    return DomainError(
        error.reason,
        f"{error.message} Execution {execution_id} goes on; watch it rather than start another.",
        violations=error.violations,
        resources=[Resource("execution", execution_id)],
        retry_after=error.retry_after,
        metadata={**error.metadata, "execution_id": execution_id},
    )


def not_found(execution_id: str) -> DomainError:
    """Make the error for an id nothing in the organisation has."""
    return DomainError(
        Reason.REASON_EXECUTION_NOT_FOUND,
        f"No execution has the id {execution_id}.",
        resources=[Resource("execution", execution_id)],
    )


def queue_full(most_waiting: int) -> DomainError:
    """Make the error for a run that may not even wait."""
    return DomainError(
        Reason.REASON_QUEUE_FULL,
        f"{most_waiting} runs wait already, which is the most that may; try again in a moment.",
        retry_after=2.0,
    )


def price_unknown(choice: Choice, *, given: bool) -> DomainError:
    """Make the error for a run with a cost limit on a model without a price.

    Args:
        given: whether the caller asked for the limit; else it comes from the settings.
    """
    name = f"{choice.ai_provider}/{choice.model}"
    description = f"{name} has no price, so its cost cannot be limited; add one to the price file"
    description += ", or leave max_cost_usd empty" if given else ", or choose another model"
    return DomainError(
        Reason.REASON_PRICE_UNKNOWN,
        f"max_cost_usd: {description}",
        violations=[Violation("max_cost_usd", description)],
        resources=[Resource("model", name)],
    )


def timed_out(timeout_ms: int) -> DomainError:
    """Make the error of a run that took too long."""
    return DomainError(
        Reason.REASON_EXECUTION_TIMEOUT, f"The run took longer than {timeout_ms / 1000:g} s."
    )


def result_too_large(most: int = MAX_RESULT_BYTES) -> DomainError:
    """Make the error of a run whose answer is larger than what is kept, so many bytes."""
    return DomainError(
        Reason.REASON_RESULT_TOO_LARGE,
        f"The answer grew beyond {most} bytes.",
    )


def is_ending(execution_id: str) -> DomainError:
    """Make the error for cancelling what has come to its end, which is not told yet."""
    return DomainError(
        Reason.REASON_EXECUTION_FINISHED,
        f"Execution {execution_id} has come to its end; what is left is to write its answer into "
        "its conversation.",
        resources=[Resource("execution", execution_id)],
    )


def is_not_told(execution_id: str) -> DomainError:
    """Make the error for deleting what its conversation does not know the end of."""
    return DomainError(
        Reason.REASON_EXECUTION_NOT_FINISHED,
        f"Execution {execution_id} has ended, and its answer waits for its conversation; try again "
        "once that is there.",
        resources=[Resource("execution", execution_id)],
    )


def contended(name: str) -> DomainError:
    """Make the error for a run that many change at once."""
    return DomainError(
        Reason.REASON_CONFLICT,
        f"{name} was changed by others many times in a row; try again.",
        retry_after=0.1,
    )


def withdrawn(execution_id: str) -> DomainError:
    """Make the error for a run that was taken back while it was about to be accepted."""
    return DomainError(
        Reason.REASON_TURN_WITHDRAWN,
        "The run was taken back before its message was in the conversation; try again.",
        retry_after=1.0,
        metadata={"execution_id": execution_id},
    )
