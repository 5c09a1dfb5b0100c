"""Looking up whom conversations and messages name."""

from __future__ import annotations

from dataclasses import replace

from services.conversations.domain.messages import Reference
from services.conversations.ports.catalogue import Catalogue
from services.conversations.ports.conversations import Cast
from services.kit.errors import Reason, invalid, naming


class References:
    """Finds out who agents and instances are."""

    def __init__(self, catalogue: Catalogue, cast: Cast) -> None:
        self._catalogue = catalogue
        self._cast = cast

    async def resolved(self, org: str, given: Reference | None, at: str) -> Reference | None:
        """Look an agent up, with its name and emoji as they are now; None when none is named.

        Args:
            at: the field of the request that names it.

        Raises:
            DomainError: INVALID_REQUEST, AGENT_NOT_FOUND, INSTANCE_NOT_FOUND, SERVICE_UNAVAILABLE.
        """
        if given is None or not (given.agent_id or given.instance_id):
            return None
        if not given.instance_id:
            with naming({Reason.REASON_AGENT_NOT_FOUND: f"{at}.agent_id"}):
                return await self._agent(given.agent_id)
        with naming({Reason.REASON_INSTANCE_NOT_FOUND: f"{at}.instance_id"}):
            placed = await self._cast.reference(org, given.instance_id)
        if given.agent_id not in ("", placed.agent_id):
            raise invalid(
                f"{at}.agent_id",
                f"is {given.agent_id}, but {given.instance_id} is an instance of {placed.agent_id}; "
                "leave it out",
            )
        agent = await self._agent(placed.agent_id)
        return replace(agent, instance_id=given.instance_id, emoji=placed.emoji or agent.emoji)

    async def check_agent(self, agent_id: str) -> None:
        """Check that there is an agent.

        Raises:
            DomainError: AGENT_NOT_FOUND, SERVICE_UNAVAILABLE.
        """
        await self._catalogue.agent(agent_id)

    async def check_screenplay(self, screenplay_id: str) -> None:
        """Check that there is a screenplay.

        Raises:
            DomainError: SCREENPLAY_NOT_FOUND, SERVICE_UNAVAILABLE.
        """
        await self._catalogue.directory(screenplay_id)

    async def _agent(self, agent_id: str) -> Reference:
        found = await self._catalogue.agent(agent_id)
        return Reference(agent_id, name=found.name, emoji=found.emoji)
