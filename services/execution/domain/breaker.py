"""The circuit breaker of one model. Times are seconds that never go back."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, StrEnum, auto


class CircuitState(StrEnum):
    """Whether calls go through."""

    CLOSED = "CLOSED"
    OPEN = "OPEN"
    HALF_OPEN = "HALF_OPEN"


class Admission(Enum):
    """What a call was let through as."""

    CALL = auto()
    PROBE = auto()


@dataclass(frozen=True, slots=True)
class Tolerance:
    """When a circuit opens and how it closes."""

    failures: int = 5
    """So many in a row open it; 0 never does."""
    open_seconds: float = 30.0
    """How long it refuses every call."""
    probes: int = 1
    """How many calls may probe at a time once that is over."""


class Breaker:
    """Refuses calls to a model that failed several times in a row.

    Closed: calls go through. Open: none does, until its time is over. Half open: so many probes at a
    time do; one that ends well closes it, one that fails opens it again.
    """

    def __init__(self, tolerance: Tolerance) -> None:
        self._tolerance = tolerance
        self._probing = 0
        self._opened_at: float | None = None
        self.failures = 0

    def state(self, now: float) -> CircuitState:
        """Say whether calls go through."""
        # Read once: metrics look at it from another thread.
        opened_at = self._opened_at
        if opened_at is None:
            return CircuitState.CLOSED
        is_over = opened_at + self._tolerance.open_seconds <= now
        return CircuitState.HALF_OPEN if is_over else CircuitState.OPEN

    def opens_in(self, now: float) -> float:
        """Say how many seconds are left until a probe may go through; 0 or less when it may."""
        if self._opened_at is None:
            return 0.0
        return self._opened_at + self._tolerance.open_seconds - now

    def admit(self, now: float) -> Admission | None:
        """Ask for a call; None refuses it, else exactly one of the other methods has to follow."""
        match self.state(now):
            case CircuitState.CLOSED:
                return Admission.CALL
            case CircuitState.HALF_OPEN if self._probing < self._tolerance.probes:
                self._probing += 1
                return Admission.PROBE
            case _:
                return None

    def succeeded(self, admission: Admission) -> None:
        """Note that a call got through to the model, whatever it said."""
        self.left(admission)
        self._opened_at = None
        self.failures = 0

    def failed(self, admission: Admission, now: float) -> None:
        """Note that a call failed in a way that speaks against the model."""
        self.left(admission)
        self.failures += 1
        is_one_too_many = 0 < self._tolerance.failures <= self.failures
        closed = self._opened_at is None
        if (closed and is_one_too_many) or (not closed and admission is Admission.PROBE):
            self._opened_at = now

    def left(self, admission: Admission) -> None:
        """Note that a call was given up before anybody knew how it would end."""
        if admission is Admission.PROBE:
            self._probing = max(self._probing - 1, 0)
