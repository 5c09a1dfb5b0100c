"""What is found wrong with the way a mesh is set up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import pytest

from services.content.domain import system
from services.content.domain.agents import Agent, AgentModel, Definition, Wanted
from services.content.domain.findings import Severity
from services.content.domain.personas import Alias, Persona
from services.content.domain.system import Known, Setup
from services.content.usecases.system import SystemCheck
from services.kit.errors import DomainError
from services.kit.storage.ports import store_unavailable

GOOD = Setup(auth=True, shared_store=True, queue=True, processes=2, keep_days=30, audit_days=90)
KNOWN = Known({"mock": frozenset({"mock"}), "openai": frozenset({"gpt"})}, frozenset({"router"}))
GIB = 2**30


@dataclass
class Parts:
    """Everything that is looked at."""

    store: DomainError | float = 0.01
    free: tuple[int, int] | None = None
    troubles: Mapping[str, str] | None = None
    models: DomainError | Known = KNOWN
    agents: Sequence[Agent] = ()
    personas: Mapping[str, Persona] | None = None
    problem: str = ""

    async def store_seconds(self) -> float:
        if isinstance(self.store, DomainError):
            raise self.store
        return self.store

    async def space(self) -> tuple[int, int] | None:
        return self.free

    async def health(self) -> Mapping[str, str]:
        return self.troubles or {"execution": ""}

    async def known(self) -> Known:
        if isinstance(self.models, DomainError):
            raise self.models
        return self.models

    async def list(
        self, org: str, wanted: Wanted, after: tuple[int | str, str] | None, limit: int
    ) -> Sequence[Agent]:
        return self.agents[:limit]

    async def persona(self, org: str, agent_id: str) -> Persona | None:
        return (self.personas or {}).get(agent_id)

    async def has_version(self, org: str, agent_id: str, number: int) -> bool:
        return number < 3

    async def check(self) -> tuple[int, str]:
        return 15, self.problem


async def found(parts: Parts, setup: Setup = GOOD) -> list[tuple[str, str, str]]:
    check = SystemCheck(setup, parts, parts, parts, parts, parts, parts)
    report = await check.run("acme")
    return [(one.severity.value, one.rule, one.location) for one in report.findings]


def agent(id_: str = "writer", **definition: object) -> Agent:
    told = {"name": id_, "description": "Writes.", **definition}
    return Agent("acme", id_, Definition(**told), 1, 1)  # type: ignore[arg-type]  # told by name


def persona(agent_id: str = "writer", **aliases: int) -> Persona:
    named = {name: Alias(name, number, 1) for name, number in aliases.items()}
    return Persona("acme", agent_id, 2, 1, 1, aliases=named)


async def test_a_mesh_that_is_set_up_well_has_no_findings() -> None:
    parts = Parts(free=(50 * GIB, 100 * GIB), agents=[agent()], personas={"writer": persona()})

    assert await found(parts) == []


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"auth": False}, "auth-off"),
        ({"shared_store": False}, "processes-share-a-file"),
        ({"queue": False}, "no-queue"),
        ({"keep_days": 0}, "kept-for-ever"),
        ({"audit_days": 0}, "kept-for-ever"),
    ],
)
async def test_a_setting_that_is_odd_is_a_warning(change: dict[str, bool], rule: str) -> None:
    setup = replace(GOOD, **change)

    (one,) = await found(Parts(), setup)

    assert one[:2] == ("WARNING", rule)
    assert one[2].startswith("CONDUCTOR_")


async def test_one_process_needs_neither_a_queue_nor_a_shared_store() -> None:
    assert await found(Parts(), replace(GOOD, processes=1, queue=False, shared_store=False)) == []


@pytest.mark.parametrize(
    ("free", "is_told"),
    [
        ((GIB - 1, 5 * GIB), True),
        ((9 * GIB, 100 * GIB), True),
        ((11 * GIB, 100 * GIB), False),
        (None, False),
    ],
)
async def test_a_disk_that_is_nearly_full_is_a_warning(
    free: tuple[int, int] | None, is_told: bool
) -> None:
    assert bool(await found(Parts(free=free))) is is_told


async def test_a_slow_store_is_a_warning_and_one_that_is_away_an_error() -> None:
    assert await found(Parts(store=1.5)) == [("WARNING", "store-is-slow", "store")]
    away = await found(Parts(store=store_unavailable(), agents=[agent()]))
    assert away == [("ERROR", "store-away", "store")]


async def test_services_that_are_away_and_broken_templates_are_errors() -> None:
    parts = Parts(troubles={"a": "It is gone.", "b": ""}, problem="The file x is broken.")

    assert await found(parts) == [
        ("ERROR", "service-away", "a"),
        ("ERROR", "broken-template", "templates"),
    ]


async def test_agents_are_looked_at_one_by_one() -> None:
    parts = Parts(
        agents=[
            agent("bare", description=" "),
            agent("lost", model="nope"),
            agent("wrong", ai_provider="openai", model="mock"),
            agent("off", ai_provider="nobody"),
            agent("open", ai_provider="router", model="anything"),
            agent("fallen", fallbacks=(AgentModel("openai", "gpt"), AgentModel(model="nope"))),
            agent("default"),
        ],
        personas={
            "lost": persona("lost", production=2, canary=3),
            "wrong": persona("wrong"),
            "off": persona("off"),
            "open": persona("open"),
            "fallen": persona("fallen"),
        },
    )

    assert await found(parts) == [
        ("WARNING", "no-persona", "agents/bare"),
        ("WARNING", "no-description", "agents/bare"),
        ("ERROR", "alias-to-nowhere", "agents/lost/persona/aliases/canary"),
        ("ERROR", "unknown-model", "agents/lost"),
        ("ERROR", "unknown-model", "agents/wrong"),
        ("ERROR", "unknown-provider", "agents/off"),
        ("ERROR", "unknown-model", "agents/fallen"),
    ]


async def test_without_execution_the_models_of_agents_are_left_out() -> None:
    parts = Parts(models=store_unavailable(), agents=[agent(model="nope")])
    parts.personas = {"writer": persona()}

    assert await found(parts) == [("WARNING", "models-unknown", "execution")]


async def test_of_many_agents_the_first_thousand_are_looked_at() -> None:
    many = [agent(f"a{number}", model="nope") for number in range(1002)]
    parts = Parts(agents=many)

    report = await SystemCheck(GOOD, parts, parts, parts, parts, parts, parts).run("acme")

    assert {one.name: one.count for one in report.checks}["agents"] == system.MOST_AGENTS
    assert "of more" in next(one.summary for one in report.checks if one.name == "agents")
    assert len(report.of(Severity.ERROR)) == system.MOST_FINDINGS
