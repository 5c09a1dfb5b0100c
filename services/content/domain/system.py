"""Whether the mesh is set up well: what is looked at, and what is found."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from services.content.domain.agents import Agent
from services.content.domain.findings import Finding, Severity
from services.content.domain.personas import Persona

MOST_AGENTS = 1000
"""How many agents are looked at."""
MOST_FINDINGS = 1000
"""How many errors, and how many warnings, are told."""
SLOW_SECONDS = 1.0
LEAST_FREE_BYTES = 2**30
LEAST_FREE_PART = 0.1


@dataclass(frozen=True, slots=True)
class Setup:
    """How a mesh is set up, as far as one service is told."""

    auth: bool
    """Whether callers are asked who they are."""
    shared_store: bool
    """Whether the store is one that several machines reach."""
    queue: bool
    """Whether something carries wake-ups between processes."""
    processes: int
    """Of this service."""
    keep_days: float
    """How long what was deleted can be taken back; 0 for ever."""
    audit_days: float
    """How long audit records are kept; 0 for ever."""


@dataclass(frozen=True, slots=True)
class Known:
    """The models that runs can use."""

    models: Mapping[str, frozenset[str]]
    """By provider."""
    open_providers: frozenset[str] = frozenset()
    """The providers that also serve others."""


@dataclass(frozen=True, slots=True)
class Checked:
    """What was looked at."""

    name: str
    count: int
    summary: str


@dataclass(slots=True)
class SystemReport:
    """What was looked at, and what is wrong."""

    findings: list[Finding] = field(default_factory=list)
    checks: list[Checked] = field(default_factory=list)

    def of(self, severity: Severity) -> Sequence[Finding]:
        """Return the findings of one severity, as many as are told."""
        return [one for one in self.findings if one.severity is severity][:MOST_FINDINGS]


def setup_findings(setup: Setup) -> Iterator[Finding]:
    """Judge how a mesh is set up."""
    if not setup.auth:
        yield _warning(
            "auth-off",
            "CONDUCTOR_AUTH",
            "Callers are not asked who they are.",
            "Set CONDUCTOR_AUTH=on before others than you can reach the mesh.",
        )
    if setup.processes > 1 and not setup.shared_store:
        yield _warning(
            "processes-share-a-file",
            "CONDUCTOR_STORE_URL",
            f"{setup.processes} processes share one SQLite file, which takes one writer at a time.",
            "Set CONDUCTOR_STORE_URL to a MongoDB, or CONDUCTOR_CONTENT_PROCESSES to 1.",
        )
    if setup.processes > 1 and not setup.queue:
        yield _warning(
            "no-queue",
            "CONDUCTOR_QUEUE_URL",
            f"{setup.processes} processes hear nothing of one another.",
            "Set CONDUCTOR_QUEUE_URL to a Redis.",
        )
    for name, days, what in (
        ("CONDUCTOR_CONTENT_RETENTION_DAYS", setup.keep_days, "What was deleted is"),
        ("CONDUCTOR_AUDIT_RETENTION_DAYS", setup.audit_days, "Audit records are"),
    ):
        if not days:
            yield _warning(
                "kept-for-ever",
                name,
                f"{what} kept for ever, and the store only grows.",
                f"Set {name} to a number of days.",
            )


def store_findings(seconds: float, space: tuple[int, int] | None) -> Iterator[Finding]:
    """Judge a store that answers.

    Args:
        seconds: how long a document took to be written and read.
        space: free and all bytes of its disk; None when it has none here.
    """
    if seconds > SLOW_SECONDS:
        yield _warning(
            "store-is-slow",
            "store",
            f"Writing and reading one document took {seconds:.1f} s.",
            "Look at the load of the store and of its disk.",
        )
    if space is not None:
        free, size = space
        if free < LEAST_FREE_BYTES or free < LEAST_FREE_PART * size:
            yield _warning(
                "disk-nearly-full",
                "CONDUCTOR_DATA_DIR",
                f"{free // 2**20} MiB of {size // 2**20} MiB are free where the store is.",
                "Free some space, or move the data directory.",
            )


def service_findings(troubles: Mapping[str, str]) -> Iterator[Finding]:
    """Judge the other services.

    Args:
        troubles: what is wrong with each; empty where nothing is.
    """
    for name, trouble in sorted(troubles.items()):
        if trouble:
            yield _error(
                "service-away",
                name,
                f"The service {name} is away: {trouble}",
                "Start it, or look at CONDUCTOR_PEERS.",
            )


def agent_findings(
    agent: Agent, persona: Persona | None, numbers: Iterable[int], known: Known | None
) -> Iterator[Finding]:
    """Judge an agent.

    Args:
        persona: None when it has none.
        numbers: those of the versions of the persona that are there, of those that have a name.
        known: None when it is not known which models there are.
    """
    where = f"agents/{agent.id}"
    if persona is None and not agent.built_in:
        yield _warning(
            "no-persona",
            where,
            f"The agent {agent.id} has no persona, so models are told its instructions alone.",
            "Give it one with CreatePersona.",
        )
    if not agent.definition.description.strip():
        yield _warning(
            "no-description",
            where,
            f"Nothing says what the agent {agent.id} is for.",
            "Give it a description.",
        )
    if persona is not None:
        there = set(numbers)
        for name, alias in sorted(persona.aliases.items()):
            if alias.number not in there:
                yield _error(
                    "alias-to-nowhere",
                    f"{where}/persona/aliases/{name}",
                    f"The alias {name} stands for version {alias.number}, which is not there.",
                    "Move it to another version with SetPersonaAlias.",
                )
    if known is not None:
        yield from _model_findings(agent, known)


def _model_findings(agent: Agent, known: Known) -> Iterator[Finding]:
    definition = agent.definition
    wishes = [("", definition.ai_provider, definition.model)]
    wishes += [
        (f"fallbacks[{number}].", one.ai_provider, one.model)
        for number, one in enumerate(definition.fallbacks)
    ]
    for at, provider, model in wishes:
        providers = known.models.keys() | known.open_providers
        if provider and provider not in providers:
            yield _error(
                "unknown-provider",
                f"agents/{agent.id}",
                f"{at}ai_provider: the agent {agent.id} asks for {provider}, which is not switched on.",
                f"Set the key of {provider}, or name one of {', '.join(sorted(providers))}.",
            )
        elif model and not _is_served(provider, model, known):
            of = f" of {provider}" if provider else ""
            yield _error(
                "unknown-model",
                f"agents/{agent.id}",
                f"{at}model: the agent {agent.id} asks for {model}{of}, which this mesh does not know.",
                "Name one that ListModels answers.",
            )


def _is_served(provider: str, model: str, known: Known) -> bool:
    if not provider:
        return any(model in models for models in known.models.values())
    return provider in known.open_providers or model in known.models.get(provider, ())


def template_findings(problem: str) -> Iterator[Finding]:
    """Judge the templates.

    Args:
        problem: what is wrong with them; empty when nothing is.
    """
    if problem:
        yield _error("broken-template", "templates", problem, "Install the mesh anew.")


def store_is_away(message: str) -> Finding:
    """Say that the store does not do its work."""
    return _error("store-away", "store", message, "Look at the store, and at CONDUCTOR_STORE_URL.")


def models_unknown(message: str) -> Finding:
    """Say that the models of agents could not be looked at."""
    return _warning(
        "models-unknown",
        "execution",
        f"Which models there are could not be asked, so those of agents were not looked at: {message}",
        "See that the service execution is there, then validate again.",
    )


def _warning(rule: str, location: str, message: str, fix: str) -> Finding:
    return Finding(Severity.WARNING, rule, message, fix, location)


def _error(rule: str, location: str, message: str, fix: str) -> Finding:
    return Finding(Severity.ERROR, rule, message, fix, location)
