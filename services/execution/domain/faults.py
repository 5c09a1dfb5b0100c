"""What can go wrong with a model call, and what is done about it."""

from __future__ import annotations

from dataclasses import dataclass

from services.kit.errors import Reason

RETRIED = frozenset(
    {
        Reason.REASON_MODEL_FAILED,
        Reason.REASON_MODEL_RATE_LIMITED,
        Reason.REASON_MODEL_OVERLOADED,
        Reason.REASON_MODEL_UNREACHABLE,
        Reason.REASON_MODEL_TIMEOUT,
        Reason.REASON_MODEL_RESPONSE_INVALID,
        Reason.REASON_MODEL_CIRCUIT_OPEN,
    }
)
"""Faults that may be gone when the same call is made again."""

BREAKING = RETRIED - {Reason.REASON_MODEL_RATE_LIMITED, Reason.REASON_MODEL_CIRCUIT_OPEN}
"""Faults that say the provider is in trouble, and open its circuit when they come in a row."""

BILLED = frozenset({Reason.REASON_MODEL_TIMEOUT})
"""Faults of calls that may have cost something although nothing was heard of them."""

FINAL = frozenset({Reason.REASON_MODEL_CONTENT_REFUSED})
"""Faults that are the answer: another model is not asked either."""


class ModelError(Exception):
    """A model call failed.

    Args:
        message: one sentence that is safe to show to the caller: nothing secret, and nothing a
            provider wrote.
        reason: one of the catalogue's MODEL_ reasons, or why its provider cannot be asked.
        retry_after: seconds the provider asks to wait before the same call.
    """

    def __init__(
        self,
        message: str,
        reason: Reason.ValueType = Reason.REASON_MODEL_FAILED,
        *,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class Persistence:
    """How often and after which pauses a failed call is made again, on each model."""

    attempts: int = 3
    """Calls in all; a take-over after a crash is not counted."""
    first_pause: float = 0.5
    """Seconds; it doubles with each failure, and half of it is left to chance."""
    longest_pause: float = 8.0
    longest_wish: float = 60.0
    """The longest Retry-After that is waited for; a longer one ends the tries on this model."""

    def pause(self, fault: ModelError, failures: int, chance: float) -> float | None:
        """Say how many seconds to wait before the same model is called again; None for not at all.

        Args:
            failures: how often it failed by now, at least 1.
            chance: from 0 to 1, so that many runs do not come back in one moment.
        """
        if fault.reason not in RETRIED or failures >= self.attempts:
            return None
        pause = min(self.first_pause * 2.0 ** (failures - 1), self.longest_pause)
        pause *= 0.5 + 0.5 * chance
        if fault.retry_after is None:
            return pause
        if fault.retry_after > self.longest_wish:
            return None
        # A little later than asked, so that those who were told the same do not meet again.
        return fault.retry_after + min(pause, 0.1 * fault.retry_after + 0.1)


@dataclass(frozen=True, slots=True)
class Following:
    """The call that follows a failed one."""

    pause: float
    """Seconds before it."""
    falls_back: bool = False
    """Whether it goes to the next fallback, and not to the same model."""

    @property
    def sentence(self) -> str:
        """Say so, as the end of a message."""
        if self.falls_back:
            return " The next model is asked."
        return f" It is asked again in {self.pause:.1f} s."
