"""The limits of a run, held against what its model calls say and cost."""

from __future__ import annotations

from dataclasses import dataclass, replace

from services.execution.domain.models import Choice
from services.execution.domain.spend import LOST, NANO, NOTHING, Spend, Usage, spent
from services.kit.errors import DomainError, Reason

BYTES_PER_TOKEN = 4
"""Of text whose tokens nobody reported."""

_MILLION = 1_000_000
_LARGEST_GUESS = 16_384
"""The most tokens a model is told it may make when its own most is not known."""


@dataclass(frozen=True, slots=True)
class Tally:
    """What the calls of a run count against its limits: as reported, else estimated."""

    output_tokens: int = 0
    cost: int = 0
    """Nano-dollars."""


class Meter:
    """Measures one model call of a run with limits.

    Until the provider reports what was used, it is estimated from what was said: at most a token for
    each piece, and one for each four bytes.

    Args:
        before: what the calls before it count.
    """

    def __init__(
        self, max_output_tokens: int | None, max_cost: int | None, before: Tally, choice: Choice
    ) -> None:
        self._max_output_tokens = max_output_tokens
        self._max_cost = max_cost
        self._before = before
        self._price = choice.price
        self._most = choice.max_output_tokens
        self._pieces = 0
        self._usage: Usage | None = None
        self._is_news = False
        """Whether anything was heard that is not in the last report."""
        self.size = 0
        """Bytes said so far."""
        self._left = self._tokens_left()

    @property
    def allowance(self) -> int | None:
        """The most tokens the model is told to make; None to leave it to the model.

        Raises:
            DomainError: OUTPUT_LIMIT_REACHED or COST_LIMIT_REACHED, when there are none left.
        """
        if self._left is None:
            return None
        tokens, limit = self._left
        if tokens <= 0:
            raise limit
        if self._most is not None:
            # Providers refuse a call that asks for more.
            return min(tokens, self._most)
        asked_for = limit.reason == Reason.REASON_OUTPUT_LIMIT_REACHED
        return tokens if asked_for or tokens <= _LARGEST_GUESS else None

    def thought(self) -> None:
        """Note a sign of life without text."""
        self._is_news = True

    def said(self, text: str) -> None:
        """Measure a piece of the answer.

        Raises:
            DomainError: OUTPUT_LIMIT_REACHED or COST_LIMIT_REACHED.
        """
        self._is_news = True
        self._pieces += 1
        self.size += len(text) if text.isascii() else len(text.encode())
        if self._left is not None:
            tokens, limit = self._left
            if min(self._pieces, self.size // BYTES_PER_TOKEN) > tokens:
                raise limit

    def reported(self, usage: Usage) -> None:
        """Take over what the provider reports of the call.

        Raises:
            DomainError: COST_LIMIT_REACHED, when the input alone costs too much.
        """
        self._is_news = False
        self._usage = usage if self._usage is None else self._usage.updated(usage)
        self._left = self._tokens_left()
        if self._left is not None and self._left[0] <= 0:
            raise self._left[1]

    def spend(self, *, whole: bool, billed: bool) -> Spend:
        """Say what the call used and cost, as far as it was reported.

        Args:
            whole: whether the call ended well, so that the last report is of all of it.
            billed: whether a call of which nothing was heard may have cost something.
        """
        if self._usage is None:
            return LOST if whole or billed or self._is_news else NOTHING
        spend = spent(self._usage, self._price)
        return spend.plus(LOST) if self._is_news and not whole else spend

    def tally(self) -> Tally:
        """Count this call and those before it against the limits."""
        usage = self._usage or Usage()
        made = max(usage.output_tokens or 0, min(self._pieces, self.size // BYTES_PER_TOKEN))
        cost = self._cost(replace(usage, output_tokens=made))
        return Tally(self._before.output_tokens + made, self._before.cost + cost)

    def close(self, *, cut: bool) -> None:
        """Hold the whole run against its limits, once the call ended well.

        Args:
            cut: whether the model stopped because it had made as many tokens as it may.

        Raises:
            DomainError: OUTPUT_LIMIT_REACHED or COST_LIMIT_REACHED.
        """
        usage = self._usage or Usage()
        made, most, dearest = usage.output_tokens, self._max_output_tokens, self._max_cost
        if most is not None and self._before.output_tokens + (made or 0) > most:
            raise self._too_long()
        if dearest is not None and self._before.cost + self._cost(usage) > dearest:
            raise self._too_dear()
        if cut and self._left is not None:
            tokens, limit = self._left
            # With fewer tokens it was the model's own limit.
            own = self._most is not None and self._most < tokens
            if (made is None and not own) or (made is not None and made >= tokens):
                raise limit

    def _cost(self, usage: Usage) -> int:
        """Price what is known of a usage."""
        if self._price is None:
            return 0
        known = replace(
            usage,
            input_tokens=usage.input_tokens or 0,
            output_tokens=usage.output_tokens or 0,
        )
        return self._price.cost(known) or 0

    def _tokens_left(self) -> tuple[int, DomainError] | None:
        """Say how many tokens the call may make, and which limit that is."""
        left = []
        if self._max_output_tokens is not None:
            left.append((self._max_output_tokens - self._before.output_tokens, self._too_long()))
        if self._max_cost is not None and self._price is not None:
            given = replace(self._usage or Usage(), output_tokens=0)
            unspent = self._max_cost - self._before.cost - self._cost(given)
            if self._price.output:
                left.append((unspent * _MILLION // self._price.output, self._too_dear()))
            elif unspent < 0:
                left.append((0, self._too_dear()))
        return min(left, key=lambda one: one[0], default=None)

    def _too_long(self) -> DomainError:
        return DomainError(
            Reason.REASON_OUTPUT_LIMIT_REACHED,
            f"The run reached its limit of {self._max_output_tokens} output tokens.",
        )

    def _too_dear(self) -> DomainError:
        return DomainError(
            Reason.REASON_COST_LIMIT_REACHED,
            f"The run reached its limit of {(self._max_cost or 0) / NANO:.9g} US dollars.",
        )


def tally(spend: Spend, said: int, choice: Choice) -> Tally:
    """Count what the log of a run tells of the calls before a take-over.

    Args:
        said: bytes of all attempts that nobody reported.
        choice: whose price is taken for them.
    """
    made = said // BYTES_PER_TOKEN
    price = choice.price.output if choice.price is not None else 0
    cost = (spend.cost or 0) + made * price // _MILLION
    return Tally((spend.usage.output_tokens or 0) + made, cost)
