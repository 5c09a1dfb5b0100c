"""What the models of a run are told."""

from __future__ import annotations

import asyncio

from services.execution.domain import Context, Execution, Told, prompts

_MUCH = 128 * 1024
"""Characters which others would have to wait for while they are put together."""


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

    async def told(self, choice: int) -> Told:
        """Tell the model that is one of the order's choices."""
        if self._told is None or self._told[0] != choice:
            if self._context is not None and self._context.size > _MUCH:
                told = await asyncio.to_thread(self._assembled, choice)
            else:
                told = self._assembled(choice)
            self._told = choice, told
        return self._told[1]

    async def news(self, choice: int) -> Told | None:
        """Tell the same, if that was not news before; None where there is no context."""
        told = await self.told(choice)
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
    """Estimate how many bytes of history that model of a run can be told that takes the most."""
    order = execution.order
    budget = max(prompts.room(order, choice) for choice in order.choices)
    return prompts.room_for_history(order, budget)
