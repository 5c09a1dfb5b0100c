"""What is measured of the work, on the meter of the kit, and nothing when there is none."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping

from services.execution.domain import NANO, Choice, CircuitState, Execution, Spend
from services.execution.ports import Outcome
from services.kit import conventions as names
from services.kit.telemetry import Meter, Reading

_REFUSED = "refused"
_STATES = {CircuitState.CLOSED: 0, CircuitState.HALF_OPEN: 1, CircuitState.OPEN: 2}
# The bounds that the conventions recommend, and beyond: a call may take ten minutes.
_SECONDS = tuple(0.01 * 2**power for power in range(17))
_LAG_SECONDS = tuple(0.001 * 2**power for power in range(15))
_TOKENS = tuple(4**power for power in range(14))


class MeteredWork:
    """Measures the work of a process.

    Args:
        known: the providers and models that have a name of their own in what is told.
    """

    def __init__(self, meter: Meter, known: Collection[tuple[str, str]]) -> None:
        self._meter = meter
        self._known = known
        self._tokens = meter.histogram(
            "gen_ai.client.token.usage", "{token}", "Tokens of a model call.", _TOKENS
        )
        self._duration = meter.histogram(
            "gen_ai.client.operation.duration", "s", "How long a model call took.", _SECONDS
        )
        self._first = meter.histogram(
            "gen_ai.client.operation.time_to_first_chunk",
            "s",
            "How long a model took to its first word, said or thought.",
            _SECONDS,
        )
        self._attempts = meter.counter(
            "conductor.model.attempts", "{attempt}", "Attempts to call a model."
        )
        self._cost = meter.counter("conductor.run.cost", "{USD}", "What model calls cost.")
        self._ended = meter.counter("conductor.runs.ended", "{run}", "Runs that ended.")
        self._lag = meter.histogram(
            "conductor.event.lag",
            "s",
            "How old a live event was when a watcher got it.",
            _LAG_SECONDS,
        )
        self._take_overs = meter.counter(
            "conductor.worker.take_overs", "{run}", "Runs taken over from another worker."
        )

    def refused(self, choice: Choice) -> None:
        """Count a call that was not made."""
        self._attempts(1, {**self._about(choice), names.CONDUCTOR_CALL_OUTCOME: _REFUSED})

    def answering(self, choice: Choice, seconds: float) -> None:
        """Measure the time to the first word."""
        self._first(seconds, self._of_chat(choice))

    def called(
        self, choice: Choice, outcome: Outcome, reason: str, seconds: float, spend: Spend
    ) -> None:
        """Measure a call that ended."""
        about, chat = self._about(choice), self._of_chat(choice)
        self._attempts(1, {**about, names.CONDUCTOR_CALL_OUTCOME: outcome.value})
        failed = outcome is not Outcome.SUCCEEDED
        error = {names.ERROR_TYPE: reason or outcome.value} if failed else {}
        self._duration(seconds, {**chat, **error})
        for kind, tokens in _kinds(spend):
            if tokens is not None:
                self._tokens(tokens, {**chat, names.GEN_AI_TOKEN_TYPE: kind})
        if spend.cost is not None:
            self._cost(spend.cost / NANO, about)

    def taken_over(self) -> None:
        """Count a run taken over."""
        self._take_overs(1, {})

    def ended(self, execution: Execution) -> None:
        """Count a run that ended."""
        failure = execution.failure
        error = {} if failure is None else {names.ERROR_TYPE: failure.reason}
        self._ended(1, {names.CONDUCTOR_RUN_STATE: execution.state.value, **error})

    def handed(self, seconds: float) -> None:
        """Measure the age of an event."""
        self._lag(seconds, {})

    def observe(
        self,
        *,
        running: Callable[[], int],
        waiting: Callable[[], int],
        circuits: Callable[[], Mapping[tuple[str, str], CircuitState]],
    ) -> None:
        """Look at these whenever metrics are sent."""
        gauge = self._meter.gauge
        gauge("conductor.runs.running", "{run}", "Runs at work here.", lambda: [(running(), {})])
        gauge(
            "conductor.runs.waiting",
            "{run}",
            "Runs that wait, those of other processes too.",
            lambda: [(waiting(), {})],
        )
        shown: set[tuple[str, str]] = set()

        def read() -> Iterator[Reading]:
            found = dict.fromkeys(shown, 0)
            for (ai_provider, model), state in circuits().items():
                name = self._named(ai_provider, model)
                # Of all that are called `other`, the worst.
                found[name] = max(found.get(name, 0), _STATES[state])
            # A breaker that closes is forgotten; who saw it open has to see it closed.
            shown.update(found)
            for name, value in found.items():
                yield value, _attributes(name)

        gauge(
            "conductor.model.circuit",
            "{state}",  # with "1" Prometheus would call it a ratio
            "Whether calls go through: 0 closed, 1 half-open, 2 open.",
            read,
        )

    def _about(self, choice: Choice) -> dict[str, str]:
        return _attributes(self._named(choice.ai_provider, choice.model))

    def _of_chat(self, choice: Choice) -> dict[str, str]:
        return {names.GEN_AI_OPERATION_NAME: names.CHAT, **self._about(choice)}

    def _named(self, ai_provider: str, model: str) -> tuple[str, str]:
        """Name a model, if it is one of those that are known."""
        is_known = (ai_provider, model) in self._known
        return ai_provider, model if is_known else names.OTHER


class Unmetered:
    """Measures nothing."""

    def refused(self, choice: Choice) -> None:
        """Nothing."""

    def answering(self, choice: Choice, seconds: float) -> None:
        """Nothing."""

    def called(
        self, choice: Choice, outcome: Outcome, reason: str, seconds: float, spend: Spend
    ) -> None:
        """Nothing."""

    def taken_over(self) -> None:
        """Nothing."""

    def ended(self, execution: Execution) -> None:
        """Nothing."""

    def handed(self, seconds: float) -> None:
        """Nothing."""

    def observe(
        self,
        *,
        running: Callable[[], int],
        waiting: Callable[[], int],
        circuits: Callable[[], Mapping[tuple[str, str], CircuitState]],
    ) -> None:
        """Nothing."""


def _attributes(name: tuple[str, str]) -> dict[str, str]:
    ai_provider, model = name
    return {names.GEN_AI_PROVIDER_NAME: ai_provider, names.GEN_AI_REQUEST_MODEL: model}


def _kinds(spend: Spend) -> Iterator[tuple[str, int | None]]:
    """Name the tokens of a call, in the words of `Usage`; the last three are parts of the others."""
    usage = spend.usage
    yield "input", usage.input_tokens
    yield "output", usage.output_tokens
    yield "cached_input", usage.cached_input_tokens
    yield "cache_write_input", usage.cache_write_input_tokens
    yield "reasoning", usage.reasoning_tokens
