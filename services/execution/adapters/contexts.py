"""What runs are told besides their agent and their input, gathered from the services that keep it."""

from __future__ import annotations

from services.execution.adapters.screenplays import ContentScreenplays
from services.execution.domain import Context, Execution


class MeshContexts:
    """What the other services of the mesh keep."""

    def __init__(self, screenplays: ContentScreenplays) -> None:
        self._screenplays = screenplays

    async def read(self, execution: Execution, max_bytes: int) -> Context:  # noqa: ARG002 nothing is cut yet
        """Read it as it is now."""
        screenplay_id = execution.order.screenplay_id
        if not screenplay_id:
            return Context()
        return Context(screenplay=await self._screenplays.kept(execution.org, screenplay_id))
