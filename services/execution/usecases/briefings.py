"""What the models of a run are told."""

from __future__ import annotations

from services.execution.domain import Context, Execution, Told, prompts


class Briefing:
    """What the models of a run are told, each as much as it takes.

    Args:
        context: None for a run that has none.
    """

    def __init__(self, execution: Execution, context: Context | None) -> None:
        self._id = execution.id
        self._order = execution.order
        self._context = context
        self._told: tuple[int, Told] | None = None
        self._newest: Told | None = None

    def told(self, choice: int) -> Told:
        """Tell the model that is one of the order's choices."""
        if self._told is None or self._told[0] != choice:
            self._told = choice, self._assembled(choice)
        return self._told[1]

    def news(self, choice: int) -> Told | None:
        """Tell the same, if the last call of this did not tell as much; None where there is no context."""
        told = self.told(choice)
        if self._context is None or told == self._newest:
            return None
        self._newest = told
        return told

    def _assembled(self, choice: int) -> Told:
        if self._context is None:
            return prompts.plain(self._order)
        budget = prompts.room(self._order, self._order.choices[choice])
        return prompts.assemble(self._id, self._order, self._context, budget)


def most_room(execution: Execution) -> int:
    """Estimate how many bytes that model of a run can be told that takes the most."""
    order = execution.order
    return max(prompts.room(order, choice) for choice in order.choices)
