"""Making agents of the templates that come with the mesh."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace

from services.content.domain import templates
from services.content.domain.agents import Agent
from services.content.domain.templates import Category, Choice, Template
from services.content.ports.agents import Agents, Personas
from services.kit.errors import DomainError, Reason
from services.kit.resources import deletions
from services.kit.resources.cascades import Cascades
from services.kit.resources.ports import FencedError, TakenError

_REASON = "Installed from the template."


class TemplateService:
    """The templates, and which of them an organisation has.

    Args:
        categories: every template.
        clock: microseconds since the epoch.
        new_id: makes ids of deletions.
    """

    def __init__(
        self,
        categories: Sequence[Category],
        agents: Agents,
        cascades: Cascades[Agent],
        personas: Personas,
        *,
        clock: Callable[[], int],
        new_id: Callable[[], str],
    ) -> None:
        self._categories = categories
        self._agents = agents
        self._cascades = cascades
        self._personas = personas
        self._clock = clock
        self._new_id = new_id

    async def list(self, org: str, category: str) -> tuple[Sequence[Category], frozenset[str]]:
        """Read the templates, and the ids of those the organisation has as agents.

        Args:
            category: only this one; empty for all.

        Raises:
            DomainError: TEMPLATE_NOT_FOUND.
        """
        shown = templates.chosen(self._categories, Choice(category=category))
        installed = set()
        for template in shown:
            agent = await self._agents.get(org, template.id)
            if agent is not None and agent.life.live:
                installed.add(template.id)
        found = [one for one in self._categories if category in {"", one.id}]
        return found, frozenset(installed)

    async def install(
        self, org: str, choice: Choice, author: str
    ) -> tuple[Sequence[str], Sequence[str]]:
        """Make agents of templates; an agent that exists, or was deleted, is left as it is.

        Returns:
            The ids of the agents that were made, and of those that were there.

        Raises:
            DomainError: TEMPLATE_NOT_FOUND, CONFLICT.
        """
        installed: list[str] = []
        kept: list[str] = []
        for template in templates.chosen(self._categories, choice):
            made = await self._install(org, template, author)
            (installed if made else kept).append(template.id)
        return installed, kept

    async def _install(self, org: str, template: Template, author: str) -> bool:
        """Make an agent; it is seen once its persona is there.

        Until then its document says that it is about to go for good. So nobody else makes an agent of
        this id, and what somebody leaves who dies between is removed as from any purge.
        """
        if (holder := await self._agents.get(org, template.id)) is None:
            now = self._clock()
            staged = Agent(
                org,
                template.id,
                template.definition,
                create_time=now,
                update_time=now,
                template_id=template.id,
                life=deletions.staged(self._new_id(), now),
            )
            with suppress(TakenError):
                staged = await self._agents.add(staged)
                await self._personas.plant(
                    org,
                    template.id,
                    template.persona,
                    {"template_id": template.id},
                    author,
                    _REASON,
                )
                await self._begin(staged)
                return True
            holder = await self._agents.get(org, template.id)
        if holder is not None and holder.life.purging:
            raise DomainError(
                Reason.REASON_CONFLICT,
                f"The agent {template.id} is just being made or purged by others; try again.",
                retry_after=5.0,
            )
        return False

    async def _begin(self, staged: Agent) -> None:
        await self._cascades.mark(staged, staged.id)
        try:
            begun = replace(staged, life=deletions.begun(staged.life))
            await self._cascades.finish(await self._agents.save(begun), staged.id)
        except FencedError:
            # It took so long that it was held for what somebody left.
            raise DomainError(
                Reason.REASON_CONFLICT,
                f"The agent {staged.id} was removed while it was being installed; try again.",
                retry_after=1.0,
            ) from None
