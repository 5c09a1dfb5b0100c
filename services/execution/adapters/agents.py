"""Agents from the settings, until a catalogue of agents exists."""

from __future__ import annotations

from collections.abc import Mapping

from services.execution.domain import Agent


class SettingsAgents:
    """The same table of agents for every organisation.

    Args:
        agents: by id.
    """

    def __init__(self, agents: Mapping[str, Agent]) -> None:
        self._agents = agents

    async def get(self, org: str, agent_id: str) -> Agent | None:  # noqa: ARG002 same for all
        """Look an agent up."""
        return self._agents.get(agent_id)
