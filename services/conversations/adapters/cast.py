"""A cast without anybody in it."""

from __future__ import annotations

from collections.abc import Mapping

from services.conversations.domain.conversations import Conversation
from services.conversations.domain.messages import Reference
from services.conversations.domain.turns import Doing
from services.kit.errors import DomainError, Reason, Resource


class NoCast:
    """Nobody has an instance."""

    async def reference(self, org: str, instance_id: str) -> Reference:  # noqa: ARG002 a port
        """Find none."""
        raise DomainError(
            Reason.REASON_INSTANCE_NOT_FOUND,
            f"No agent instance has the id {instance_id}.",
            resources=[Resource("instance", instance_id)],
        )

    async def copy(self, org: str, conversation_id: str, copy: Conversation) -> Mapping[str, str]:  # noqa: ARG002 a port
        """Copy none."""
        return {}

    async def note(self, org: str, instance_id: str, doing: Doing) -> None:
        """Note nothing."""
