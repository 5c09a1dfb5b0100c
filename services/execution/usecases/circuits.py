"""The circuit breakers of all models, as this process sees them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from services.execution.domain import Admission, Breaker, CircuitState, Tolerance

_MOST = 1000
_CLOSED = (CircuitState.CLOSED, 0, 0.0)


class Circuits:
    """A breaker for each provider and model that has failed lately.

    Args:
        monotonic: seconds that never go back.
    """

    def __init__(self, tolerance: Tolerance, monotonic: Callable[[], float]) -> None:
        self._tolerance = tolerance
        self._monotonic = monotonic
        self._breakers: dict[tuple[str, str], Breaker] = {}

    def admit(self, ai_provider: str, model: str) -> Admission | None:
        """Ask for a call; see `Breaker.admit`."""
        breaker = self._breakers.get((ai_provider, model))
        return Admission.CALL if breaker is None else breaker.admit(self._monotonic())

    def succeeded(self, ai_provider: str, model: str, admission: Admission) -> None:
        """Note that a call got through to the model."""
        breaker = self._breakers.get((ai_provider, model))
        if breaker is not None:
            breaker.succeeded(admission)
            # What is closed and has not failed is as good as new: any name may have been asked for.
            del self._breakers[ai_provider, model]

    def failed(self, ai_provider: str, model: str, admission: Admission) -> None:
        """Note that a call failed in a way that speaks against the model."""
        key = (ai_provider, model)
        if key not in self._breakers and len(self._breakers) >= _MOST:
            # Some providers may be asked for any name.
            del self._breakers[next(iter(self._breakers))]
        breaker = self._breakers.setdefault(key, Breaker(self._tolerance))
        breaker.failed(admission, self._monotonic())

    def left(self, ai_provider: str, model: str, admission: Admission) -> None:
        """Note that a call was given up before anybody knew how it would end."""
        breaker = self._breakers.get((ai_provider, model))
        if breaker is not None:
            breaker.left(admission)

    def opens_in(self, ai_provider: str, model: str) -> float:
        """Say how many seconds a model is refused for."""
        breaker = self._breakers.get((ai_provider, model))
        return 0.0 if breaker is None else max(breaker.opens_in(self._monotonic()), 0.0)

    def state(self, ai_provider: str, model: str) -> tuple[CircuitState, int, float]:
        """Say the state, how many calls failed in a row, and for how many seconds it stays open."""
        breaker = self._breakers.get((ai_provider, model))
        if breaker is None:
            return _CLOSED
        now = self._monotonic()
        return breaker.state(now), breaker.failures, max(breaker.opens_in(now), 0.0)

    def states(self) -> Mapping[tuple[str, str], CircuitState]:
        """Say the state of each breaker there is; may be called from any thread."""
        now = self._monotonic()
        # Copied in one step, which the event loop cannot come between.
        return {key: breaker.state(now) for key, breaker in self._breakers.copy().items()}
