"""Agents: what they are, and the rules of their changes."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from difflib import SequenceMatcher
from enum import StrEnum
from typing import Any

from services.content.domain.personas import PersonaVersion
from services.kit.errors import DomainError, Reason, Resource, Violation, invalid
from services.kit.resources import controls, labels
from services.kit.resources.deletions import Life
from services.kit.resources.request_ids import digest
from services.kit.resources.words import folded

DEFAULT_ID = "default"
"""The agent of every organisation that cannot be deleted."""

TAKEN_BY_ROUTES = frozenset({"instances", "personas", "context", "suggest", "run"})
"""Ids that no agent can have."""

MAX_SUGGESTIONS = 3
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_TOOL = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
_COLOR = re.compile(r"(#[0-9A-Fa-f]{6})?")
_NOT_IN_SLUGS = re.compile(r"[^a-z0-9]+")
_SLUG = 48
"""How many characters of a name become an id: a number or more has to fit behind them."""
_LINES = {
    "group": 64,
    "emoji": 16,
    "author": 100,
    "definition_version": 32,
    "ai_provider": 64,
    "model": 128,
}
"""How many characters each text of one line may have."""
_TEXTS = {"description": 500, "instructions": 10_000}
"""The same, for those of several lines."""
_LABELS = {"tags": (32, 50), "capabilities": (64, 100)}
"""How many labels there may be, and how many characters each may have."""
_TOOLS = {"tools": 64, "mcp_servers": 32}
_FALLBACKS = 8
_NAME = 100
_ALIKE = 0.6
_COMPARED = 20


@dataclass(frozen=True, slots=True)
class AgentModel:
    """A model an agent asks for; what is empty is left open."""

    ai_provider: str = ""
    model: str = ""


@dataclass(frozen=True, slots=True)
class Definition:
    """What an agent is, as its author says it."""

    name: str
    description: str = ""
    instructions: str = ""
    group: str = ""
    emoji: str = ""
    color: str = ""
    author: str = ""
    definition_version: str = ""
    tags: tuple[str, ...] = ()
    capabilities: tuple[str, ...] = ()
    tools: tuple[str, ...] = ()
    mcp_servers: tuple[str, ...] = ()
    ai_provider: str = ""
    model: str = ""
    fallbacks: tuple[AgentModel, ...] = ()


@dataclass(frozen=True, slots=True)
class Agent:
    """A stored agent."""

    org: str
    id: str
    definition: Definition
    create_time: int
    """Microseconds since the epoch; 0 for the built-in one, which was always there."""
    update_time: int
    """When the definition last changed, in microseconds since the epoch; 0 for never."""
    revision: int = 1
    """How often the definition changed, from 1; what the etag says."""
    template_id: str = ""
    request_id: str = ""
    digest: str = ""
    """Of the request that made it, when it had a request_id."""
    life: Life = field(default_factory=Life)
    version: int = 1
    """Of the stored document."""

    @property
    def etag(self) -> str:
        """What changes with each change of the definition."""
        return str(self.revision)

    @property
    def built_in(self) -> bool:
        """Whether it cannot be deleted."""
        return self.id == DEFAULT_ID

    @property
    def resource(self) -> Resource:
        """Itself, as errors name it."""
        return Resource("agent", self.id)


@dataclass(frozen=True, slots=True)
class Asked:
    """What a caller asks to be made."""

    definition: Definition
    id: str = ""
    """Empty for one made from the name."""
    request_id: str = ""

    @property
    def digest(self) -> str:
        """What tells it from another request; empty without a request_id."""
        return digest([self.definition, self.id]) if self.request_id else ""


@dataclass(frozen=True, slots=True)
class Resolved:
    """What a run of an agent needs."""

    agent: Agent
    version: PersonaVersion | None = None
    """None when it has no persona."""
    alias: str = ""
    """What the version was found by, if by an alias."""


class Order(StrEnum):
    """What lists of agents are in the order of."""

    NAME = "name"
    """Whatever its case."""
    CREATE_TIME = "create_time"
    """Newest first."""
    UPDATE_TIME = "update_time"
    """Newest first."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which agents a list shows, and in which order."""

    query: str = ""
    """Words that all begin a word of what an agent is found by."""
    group: str = ""
    tags: tuple[str, ...] = ()
    order: Order = Order.NAME
    reverse: bool = False
    deleted: bool = False
    """Those that are deleted, instead of those that are not."""

    @property
    def place_type(self) -> type[int | str]:
        """The type of the value that orders the list."""
        return int if self.order is Order.CREATE_TIME else str

    def content(self) -> list[Any]:
        """Return what page tokens are bound to."""
        tags = sorted(self.tags)
        return [self.query, self.group, tags, self.order.value, self.reverse, self.deleted]


def built_in(org: str) -> Agent:
    """Make the agent that every organisation has."""
    definition = Definition(
        name="Default",
        description="The agent of runs that name none. Change it as you like; it cannot be deleted.",
    )
    return Agent(org, DEFAULT_ID, definition, create_time=0, update_time=0)


def name_key(name: str) -> str:
    """Make what orders agents by name, whatever its case."""
    return folded(name)


# Rules


def checked(definition: Definition, at: str = "agent.") -> Definition:
    """Bring a definition to the form it is stored in: names trimmed, lists without repetitions.

    Args:
        at: what stands before the names of fields in errors.

    Raises:
        DomainError: INVALID_REQUEST, with every rule that is broken.
    """
    tidy = replace(
        definition,
        name=definition.name.strip(),
        tags=labels.trimmed(definition.tags),
        capabilities=labels.trimmed(definition.capabilities),
        tools=tuple(dict.fromkeys(definition.tools)),
        mcp_servers=tuple(dict.fromkeys(definition.mcp_servers)),
    )
    violations = [Violation(f"{at}{name}", what) for name, what in _broken(tidy)]
    if violations:
        raise DomainError(
            Reason.REASON_INVALID_REQUEST,
            f"{violations[0].field}: {violations[0].description}",
            violations=violations,
        )
    return tidy


def check_id(agent_id: str, at: str = "agent.id") -> None:
    """Check an id that somebody chose for an agent.

    Raises:
        DomainError: INVALID_REQUEST.
    """
    if not _ID.fullmatch(agent_id):
        raise invalid(at, "must have 1 to 64 letters, digits, - and _")
    if agent_id in TAKEN_BY_ROUTES:
        raise invalid(at, f"must not be {agent_id}, which routes have taken; choose another")


def _broken(definition: Definition) -> Iterator[tuple[str, str]]:
    """Yield each field that breaks a rule, and the rule."""
    if not 1 <= len(definition.name) <= _NAME:
        yield "name", f"must have 1 to {_NAME} characters besides blanks around them"
    elif controls.has_controls(definition.name):
        yield "name", "must not hold control characters, such as line breaks"
    elif not labels.is_seen(definition.name):
        yield "name", labels.UNSEEN
    for name, most in _LINES.items():
        yield from _broken_text(name, getattr(definition, name), most)
    for name, most in _TEXTS.items():
        yield from _broken_text(name, getattr(definition, name), most, prose=True)
    if not _COLOR.fullmatch(definition.color):
        yield "color", "must be empty or like #0a7fd4"
    for name, (most_items, most) in _LABELS.items():
        values = getattr(definition, name)
        yield from _broken_list(name, values, most_items)
        for number, value in enumerate(values):
            yield from _broken_text(f"{name}[{number}]", value, most)
    yield from _broken_tools(definition)
    yield from _broken_fallbacks(definition.fallbacks)


def _broken_tools(definition: Definition) -> Iterator[tuple[str, str]]:
    for name, most_items in _TOOLS.items():
        values = getattr(definition, name)
        yield from _broken_list(name, values, most_items)
        for number, value in enumerate(values):
            if not _TOOL.fullmatch(value):
                yield f"{name}[{number}]", "must have 1 to 64 letters, digits, . : - and _"


def _broken_fallbacks(fallbacks: Sequence[AgentModel]) -> Iterator[tuple[str, str]]:
    yield from _broken_list("fallbacks", fallbacks, _FALLBACKS)
    for number, fallback in enumerate(fallbacks):
        if fallback == AgentModel():
            yield f"fallbacks[{number}]", "must name an ai_provider or a model"
        for name in ("ai_provider", "model"):
            where = f"fallbacks[{number}].{name}"
            yield from _broken_text(where, getattr(fallback, name), _LINES[name])


def _broken_text(
    name: str, value: str, most: int, *, prose: bool = False
) -> Iterator[tuple[str, str]]:
    if len(value) > most:
        yield name, f"must have at most {most} characters"
    if prose and controls.has_controls_in_prose(value):
        yield name, "must not hold control characters but tabs and line breaks"
    elif not prose and controls.has_controls(value):
        yield name, "must not hold control characters"


def _broken_list(name: str, values: Sequence[object], most: int) -> Iterator[tuple[str, str]]:
    if len(values) > most:
        yield name, f"must have at most {most} items"


# Ids


def slugs(name: str, chance: str) -> Iterator[str]:
    """Yield the ids an agent of this name may get, the best first.

    Args:
        chance: a few letters and digits that nobody has used.
    """
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    slug = _NOT_IN_SLUGS.sub("-", plain).strip("-")[:_SLUG].rstrip("-") or "agent"
    candidates = (slug, *(f"{slug}-{number}" for number in range(2, 20)), f"{slug}-{chance}"[:64])
    return (one for one in candidates if one not in TAKEN_BY_ROUTES and one != DEFAULT_ID)


def suggestions(agent_id: str, known: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    """Find the ids that may have been meant by one that nobody has, the most alike first.

    First come those that are the same but for their case, then those of which one holds the other, then
    those that differ in a few letters.

    Args:
        known: the ids and name keys of the agents there are.
    """
    wanted = folded(agent_id)
    ranked: list[tuple[float, str]] = []
    others: list[tuple[float, str, str]] = []
    matcher = SequenceMatcher(autojunk=False)
    matcher.set_seq2(wanted)
    for id_, name in known:
        for text in (folded(id_), name):
            if held := _held(wanted, text):
                ranked.append((-held, id_))
                continue
            matcher.set_seq1(text)
            if matcher.real_quick_ratio() >= _ALIKE and (quick := matcher.quick_ratio()) >= _ALIKE:
                others.append((-quick, id_, text))
    # How alike two texts are takes long to find out, so only the likeliest are compared.
    for _, id_, text in sorted(others)[:_COMPARED]:
        matcher.set_seq1(text)
        if (ratio := matcher.ratio()) >= _ALIKE:
            ranked.append((-ratio, id_))
    found = dict.fromkeys(id_ for _, id_ in sorted(ranked))
    return tuple(found)[:MAX_SUGGESTIONS]


def _held(wanted: str, known: str) -> float:
    """Return 2 when texts are the same, 1 and more when one holds the other, else 0."""
    if wanted == known:
        return 2.0
    shorter, longer = sorted((wanted, known), key=len)
    return 1.0 + len(shorter) / len(longer) if len(shorter) > 2 and shorter in longer else 0.0


# Errors


def not_found(agent_id: str, meant: Sequence[str] = ()) -> DomainError:
    """Make the error for an id nobody has.

    Args:
        meant: the ids that may have been meant.
    """
    hint = f" Did you mean {' or '.join(meant)}?" if meant else ""
    return DomainError(
        Reason.REASON_AGENT_NOT_FOUND,
        f"No agent has the id {agent_id}.{hint}",
        resources=[Resource("agent", agent_id)],
        metadata={"suggestions": ",".join(meant)} if meant else {},
    )


def is_deleted(agent_id: str) -> DomainError:
    """Make the error for an agent that is deleted and can be taken back."""
    return DomainError(
        Reason.REASON_AGENT_NOT_FOUND,
        f"The agent {agent_id} is deleted; take it back with UndeleteAgent to use it.",
        resources=[Resource("agent", agent_id, "deleted")],
    )


def already_exists(agent: Agent) -> DomainError:
    """Make the error for an id that an agent has, deleted or not."""
    if agent.life.purging:
        # It is being installed or is about to go; both end within seconds.
        state, hint, retry_after = "in change", "is just being made or purged; try again", 5.0
    elif agent.life.live:
        state, hint, retry_after = "", "exists; choose another id or change that agent", None
    else:
        state, retry_after = "deleted", None
        hint = "is deleted; take it back with UndeleteAgent, or purge it with DeleteAgent first"
    return DomainError(
        Reason.REASON_AGENT_ALREADY_EXISTS,
        f"The agent {agent.id} {hint}.",
        resources=[Resource("agent", agent.id, state)],
        retry_after=retry_after,
    )


def is_built_in(agent_id: str) -> DomainError:
    """Make the error for deleting what every organisation has."""
    return DomainError(
        Reason.REASON_AGENT_BUILT_IN,
        f"The agent {agent_id} comes with every organisation and cannot be deleted; change it instead.",
        resources=[Resource("agent", agent_id)],
    )
