"""The models that runs can use, as the service execution knows them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from conductor.execution.v1.execution_service_pb2 import ListModelsRequest, ListModelsResponse
from services.content.domain.system import Known
from services.kit.errors import DomainError, Reason

ListModels = Callable[[ListModelsRequest], Awaitable[ListModelsResponse]]


class ExecutionModels:
    """Asks execution.

    Args:
        list_models: the rpc; None when nothing says where execution is.
    """

    def __init__(self, list_models: Any | None) -> None:
        self._list_models: ListModels | None = list_models

    async def known(self) -> Known:
        """Ask which models there are."""
        if self._list_models is None:
            raise DomainError(
                Reason.REASON_SERVICE_UNAVAILABLE,
                "CONDUCTOR_PEERS does not say where the service execution is.",
            )
        response = await self._list_models(ListModelsRequest())
        models: dict[str, set[str]] = {}
        for model in response.models:
            models.setdefault(model.ai_provider, set()).add(model.id)
        return Known(
            {name: frozenset(ids) for name, ids in models.items()},
            frozenset(response.open_providers),
        )
