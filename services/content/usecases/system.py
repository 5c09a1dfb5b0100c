"""Looking whether the mesh is set up well."""

from __future__ import annotations

from services.content.domain import system
from services.content.domain.agents import Agent, Wanted
from services.content.domain.findings import Finding
from services.content.domain.system import Checked, Known, Setup, SystemReport
from services.content.ports.system import (
    AgentList,
    Models,
    Others,
    PersonaParts,
    Probe,
    TemplateFiles,
)
from services.kit.errors import DomainError


class SystemCheck:
    """Looks at settings, store, other services, the agents of an organisation and the templates."""

    def __init__(
        self,
        setup: Setup,
        probe: Probe,
        others: Others,
        models: Models,
        agents: AgentList,
        personas: PersonaParts,
        templates: TemplateFiles,
    ) -> None:
        self._setup = setup
        self._probe = probe
        self._others = others
        self._models = models
        self._agents = agents
        self._personas = personas
        self._templates = templates

    async def run(self, org: str) -> SystemReport:
        """Look at everything; what cannot be looked at is a finding."""
        report = SystemReport()
        found = list(system.setup_findings(self._setup))
        _note(report, found, "settings", 6, "Looked at how the service is set up.")
        is_there = await self._check_store(report)
        await self._check_services(report)
        if is_there:
            await self._check_agents(report, org)
        count, problem = await self._templates.check()
        found = list(system.template_findings(problem))
        _note(report, found, "templates", count, f"Read {count} templates.")
        return report

    async def _check_store(self, report: SystemReport) -> bool:
        """Look at the store; tell whether it answers."""
        try:
            seconds = await self._probe.store_seconds()
        except DomainError as error:
            found = [system.store_is_away(error.message)]
            _note(report, found, "store", 1, "The store does not do its work.")
            return False
        space = await self._probe.space()
        told = f"Wrote and read a document in {seconds * 1000:.1f} ms."
        if space is not None:
            told = f"{told} {space[0] // 2**20} MiB are free."
        _note(report, list(system.store_findings(seconds, space)), "store", 1, told)
        return True

    async def _check_services(self, report: SystemReport) -> None:
        troubles = await self._others.health()
        names = ", ".join(sorted(troubles)) or "no other service"
        found = list(system.service_findings(troubles))
        _note(report, found, "services", len(troubles), f"Asked {names}.")

    async def _check_agents(self, report: SystemReport, org: str) -> None:
        known: Known | None = None
        try:
            known = await self._models.known()
        except DomainError as error:
            report.findings.append(system.models_unknown(error.message))
        agents = await self._agents.list(org, Wanted(), None, system.MOST_AGENTS + 1)
        looked_at = agents[: system.MOST_AGENTS]
        found = []
        for agent in looked_at:
            found += await self._agent(org, agent, known)
        cut = len(agents) > len(looked_at)
        told = f"Looked at {'the first ' if cut else ''}{len(looked_at)} agents"
        _note(report, found, "agents", len(looked_at), f"{told}{', of more' if cut else ''}.")

    async def _agent(self, org: str, agent: Agent, known: Known | None) -> list[Finding]:
        persona = await self._personas.persona(org, agent.id)
        if persona is None or not persona.life.live:
            return list(system.agent_findings(agent, None, (), known))
        named = {alias.number for alias in persona.aliases.values()}
        there = [
            number
            for number in sorted(named)
            if await self._personas.has_version(org, agent.id, number)
        ]
        return list(system.agent_findings(agent, persona, there, known))


def _note(report: SystemReport, found: list[Finding], name: str, count: int, summary: str) -> None:
    report.findings += found
    report.checks.append(Checked(name, count, summary))
