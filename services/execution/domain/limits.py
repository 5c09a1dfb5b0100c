"""The limits of a run, held against what its model calls say and cost."""

from __future__ import annotations

from dataclasses import replace

from services.execution.domain.models import Choice
from services.execution.domain.spend import NANO, NOTHING, Spend, Usage, spent
from services.kit.errors import DomainError, Reason

_BYTES_PER_TOKEN = 4
_MILLION = 1_000_000


class Meter:
    """Measures one model call of a run with limits.

    Until the provider reports what was used, it is estimated from what was said: at most a token for
    each piece, and one for each four bytes.

    Args:
        before: what the calls before it used and cost.
    """

    def __init__(
        self, max_output_tokens: int | None, max_cost: int | None, before: Spend, choice: Choice
    ) -> None:
        self._max_output_tokens = max_output_tokens
        self._max_cost = max_cost
        self._before = before
        self._price = choice.price
        self._pieces = 0
        self._usage: Usage | None = None
        self.size = 0
        """Bytes said so far."""
        self._left = self._tokens_left()

    @property
    def allowance(self) -> int | None:
        """The most tokens the call may make; None when nothing limits them.

        Raises:
            DomainError: OUTPUT_LIMIT_REACHED or COST_LIMIT_REACHED, when there are none left.
        """
        if self._left is None:
            return None
        tokens, limit = self._left
        if tokens <= 0:
            raise limit
        return tokens

    def said(self, text: str) -> None:
        """Measure a piece of the answer.

        Raises:
            DomainError: OUTPUT_LIMIT_REACHED or COST_LIMIT_REACHED.
        """
        self._pieces += 1
        self.size += len(text) if text.isascii() else len(text.encode())
        if self._left is not None:
            tokens, limit = self._left
            if min(self._pieces, self.size // _BYTES_PER_TOKEN) > tokens:
                raise limit

    def reported(self, usage: Usage) -> None:
        """Take over what the provider reports of the call.

        Raises:
            DomainError: COST_LIMIT_REACHED, when the input alone costs too much.
        """
        self._usage = usage if self._usage is None else self._usage.updated(usage)
        self._left = self._tokens_left()
        if self._left is not None and self._left[0] <= 0:
            raise self._left[1]

    def spend(self, *, billed: bool) -> Spend:
        """Say what the call used and cost, as far as it was reported.

        Args:
            billed: whether the call came far enough to cost something, reported or not.
        """
        if self._usage is None and not self._pieces and not billed:
            return NOTHING
        return spent(self._usage, self._price)

    def close(self, *, cut: bool) -> None:
        """Hold the whole run against its limits, once the call ended well.

        Args:
            cut: whether the model stopped because it had made as many tokens as it may.

        Raises:
            DomainError: OUTPUT_LIMIT_REACHED or COST_LIMIT_REACHED.
        """
        total = self._before.plus(self.spend(billed=True))
        most, dearest = self._max_output_tokens, self._max_cost
        if most is not None and (total.usage.output_tokens or 0) > most:
            raise self._too_long()
        if dearest is not None and (total.cost or 0) > dearest:
            raise self._too_dear()
        if cut and self._left is not None:
            tokens, limit = self._left
            made = self._usage.output_tokens if self._usage else None
            # With fewer tokens it was the model's own limit.
            if made is None or made >= tokens:
                raise limit

    def _tokens_left(self) -> tuple[int, DomainError] | None:
        """Say how many tokens the call may make, and which limit that is."""
        left = []
        if self._max_output_tokens is not None:
            made = self._before.usage.output_tokens or 0
            left.append((self._max_output_tokens - made, self._too_long()))
        if self._max_cost is not None and self._price is not None:
            given = replace(self._usage or Usage(), output_tokens=0)
            given = replace(given, input_tokens=given.input_tokens or 0)
            unspent = self._max_cost - (self._before.cost or 0) - (self._price.cost(given) or 0)
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
