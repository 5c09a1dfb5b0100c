"""Personas and their versions, and the rules of their changes.

The versions are the truth: a version is stored first, under its number, which nobody else can take;
the persona is a projection of them and is brought up to them by whoever finds it behind.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import orjson

from services.content.domain.statistics import TextStatistics
from services.kit.errors import DomainError, Reason, Resource, invalid
from services.kit.resources import conflicts, objects
from services.kit.resources.deletions import Cascade, Life

PRODUCTION = "production"
"""The alias whose version runs use that name none."""
LATEST = "latest"
FIRST = "first"

MAX_CHARACTERS = 50_000
MAX_METADATA = 5_000
"""Characters of the JSON text."""
MAX_DEPTH = 16
"""How deep objects and lists in metadata may lie in one another."""
MAX_ALIASES = 32
KEPT_VERSIONS = 50
"""How many of the newest versions a clean-up keeps that is told nothing else."""

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_DAY = 24 * 3600 * 1_000_000


@dataclass(frozen=True, slots=True)
class Alias:
    """A name that stands for a version."""

    name: str
    number: int
    update_time: int
    """When it was last moved, in microseconds since the epoch."""


@dataclass(frozen=True, slots=True)
class PersonaVersion:
    """One version of a persona. But for `used` it never changes."""

    org: str
    agent_id: str
    number: int
    """1, 2, 3, … without gaps as they are made."""
    content: str
    """Empty where it was not read."""
    create_time: int
    """Microseconds since the epoch; greater than that of the version before."""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    author: str = ""
    reason: str = ""
    restored_from: int = 0
    characters: int = 0
    content_bytes: int = 0
    content_hash: str = ""
    used: bool = False
    version: int = 1
    """Of the stored document."""

    @property
    def id(self) -> str:
        """What no other version of the organisation has."""
        return version_id(self.agent_id, self.number)

    @property
    def draft(self) -> Draft:
        """What it was made of."""
        return Draft(self.content, self.metadata, self.author, self.reason, self.restored_from)


@dataclass(frozen=True, slots=True)
class Draft:
    """What a version is to be made of."""

    content: str
    metadata: Mapping[str, Any] = field(default_factory=dict)
    author: str = ""
    reason: str = ""
    restored_from: int = 0


@dataclass(frozen=True, slots=True)
class Persona:
    """The persona of an agent: which versions it has, and what the newest one says."""

    org: str
    agent_id: str
    number: int
    """Of the newest version."""
    create_time: int
    """Of the first version, in microseconds since the epoch."""
    update_time: int
    """Of the newest version."""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """Of the newest version."""
    content_hash: str = ""
    """Of the newest version."""
    content: str = ""
    """That of the newest version, and no part of what is stored here; empty where it was not read."""
    aliases: Mapping[str, Alias] = field(default_factory=dict)
    life: Life = field(default_factory=Life)
    version: int = 1
    """Of the stored document."""

    @property
    def id(self) -> str:
        """What no other persona of the organisation has: its agent."""
        return self.agent_id

    @property
    def etag(self) -> str:
        """What changes with each version."""
        return str(self.number)

    @property
    def resource(self) -> Resource:
        """Itself, as errors name it."""
        return Resource("persona", self.agent_id)

    @property
    def active(self) -> int:
        """The number of the version that runs use which name none."""
        alias = self.aliases.get(PRODUCTION)
        return self.number if alias is None else alias.number

    def aliases_of(self, number: int) -> list[str]:
        """Name the aliases of a version."""
        return sorted(name for name, alias in self.aliases.items() if alias.number == number)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which versions to list."""

    first: int = 0
    """The lowest number; 0 for any."""
    last: int = 0
    """The highest number; 0 for any."""
    ascending: bool = False
    """Whether the oldest come first."""

    def __contains__(self, number: int) -> bool:
        """Tell whether a number is in the range."""
        return self.first <= number and (not self.last or number <= self.last)

    @property
    def beyond(self) -> int | None:
        """The number before the first one of the list; None when any may be the first."""
        if self.ascending:
            return self.first - 1 if self.first else None
        return self.last + 1 if self.last else None

    def check(self) -> None:
        """Check that the range is one.

        Raises:
            DomainError: INVALID_REQUEST.
        """
        if self.last and self.first > self.last:
            raise invalid("to_version", f"must not be less than from_version, {self.first}")

    def content(self) -> tuple[int, int, bool]:
        """Say what page tokens are bound to."""
        return self.first, self.last, self.ascending


@dataclass(frozen=True, slots=True)
class PersonaStatistics:
    """How a persona grew, and what its newest text is made of."""

    agent_id: str
    versions: int
    """How many are kept."""
    latest: int
    first_time: int
    """When the oldest that is kept was made, in microseconds since the epoch."""
    last_time: int
    versions_per_day: float
    """From the first to the last, over at least one day."""
    content_bytes: int
    """Of all texts in UTF-8."""
    content: TextStatistics


@dataclass(frozen=True, slots=True)
class CleanUp:
    """Which versions go, and how many stay."""

    doomed: Sequence[PersonaVersion]
    kept: int
    kept_in_use: int
    """How many of the kept ones would go if no alias and no run named them."""


# What is written


def checked(draft: Draft, at: str = "persona") -> Draft:
    """Check what a version is to be made of.

    Args:
        at: what holds the text and the metadata, for errors.

    Raises:
        DomainError: INVALID_REQUEST.
    """
    content, where = draft.content, f"{at}.content"
    if not content.strip():
        raise invalid(where, "must hold text that is not only white space")
    if len(content) > MAX_CHARACTERS:
        raise invalid(where, f"must have at most {MAX_CHARACTERS} characters, not {len(content)}")
    if found := _CONTROL.search(content):
        line = content.count("\n", 0, found.start()) + 1
        column = found.start() - content.rfind("\n", 0, found.start())
        raise invalid(
            where,
            f"must not hold the control character U+{ord(found[0]):04X} "
            f"at line {line}, column {column}; remove it",
        )
    _check_metadata(draft.metadata, f"{at}.metadata")
    return draft


def _check_metadata(metadata: Mapping[str, Any], where: str) -> None:
    objects.check(metadata, where, MAX_DEPTH)
    if not all(key.strip() for key in objects.keys(metadata)):
        raise invalid(where, "must have keys that are not only white space")
    try:
        length = len(orjson.dumps(metadata).decode())
    except TypeError as error:
        raise invalid(where, f"must be JSON: {error}") from None
    if length > MAX_METADATA:
        raise invalid(where, f"must have at most {MAX_METADATA} characters as JSON, not {length}")


def first_version(org: str, agent_id: str, draft: Draft, now: int) -> PersonaVersion:
    """Make the first version of a persona."""
    return _version(org, agent_id, 1, draft, now)


def version_id(agent_id: str, number: int) -> str:
    """Make the id of a version, such that text has the order of numbers."""
    return f"{agent_id}.{number:010d}"


def next_version(persona: Persona, draft: Draft, now: int) -> PersonaVersion:
    """Make the version that comes next."""
    # A clock that is behind the one of the version before must not turn their order around.
    time = max(now, persona.update_time + 1)
    return _version(persona.org, persona.agent_id, persona.number + 1, draft, time)


def _version(org: str, agent_id: str, number: int, draft: Draft, now: int) -> PersonaVersion:
    raw = draft.content.encode()
    return PersonaVersion(
        org,
        agent_id,
        number,
        draft.content,
        now,
        metadata=draft.metadata,
        author=draft.author,
        reason=draft.reason,
        restored_from=draft.restored_from,
        characters=len(draft.content),
        content_bytes=len(raw),
        content_hash=hashlib.sha256(raw).hexdigest(),
    )


def same(persona: Persona, draft: Draft) -> bool:
    """Tell whether a draft says what the newest version says."""
    digest = hashlib.sha256(draft.content.encode()).hexdigest()
    return digest == persona.content_hash and _text(draft.metadata) == _text(persona.metadata)


def same_version(stored: PersonaVersion, made: PersonaVersion) -> bool:
    """Tell whether a stored version is the one that was made: of two alike either is."""
    facts = ("number", "create_time", "content", "author", "reason", "restored_from")
    is_alike = all(getattr(stored, name) == getattr(made, name) for name in facts)
    return is_alike and _text(stored.metadata) == _text(made.metadata)


def _text(metadata: Mapping[str, Any]) -> bytes:
    """Print metadata so that equal ones are equal; in Python `True == 1`."""
    return orjson.dumps(metadata, option=orjson.OPT_SORT_KEYS)


# The persona follows its versions


def begun(version: PersonaVersion) -> Persona:
    """Make the persona of a first version."""
    return Persona(
        version.org,
        version.agent_id,
        version.number,
        create_time=version.create_time,
        update_time=version.create_time,
        metadata=version.metadata,
        content_hash=version.content_hash,
        content=version.content,
    )


def followed(persona: Persona, version: PersonaVersion) -> Persona:
    """Bring a persona up to the version after its newest."""
    return replace(
        persona,
        number=version.number,
        update_time=version.create_time,
        metadata=version.metadata,
        content_hash=version.content_hash,
        content=version.content,
    )


def succeeds(version: PersonaVersion, persona: Persona) -> bool:
    """Tell whether a version found after the newest one of a persona is of this persona.

    Else it is what somebody left who died while the persona before was purged.
    """
    return version.create_time > persona.update_time


def revived(persona: Persona) -> Persona:
    """Let a deleted persona begin again: its numbers go on, its aliases do not."""
    life = replace(
        persona.life, deletion="", delete_time=None, inherited=False, cascade=Cascade.NONE
    )
    return replace(persona, life=life, aliases={})


# Versions by name


def numbered(persona: Persona, reference: str) -> tuple[int | None, str]:
    """Find the number a reference means, and the alias it was found by.

    Args:
        reference: a number, `latest`, `first` or an alias; empty for the active version.

    Returns:
        The number, None for the first of those that are kept; and the alias, if it is one.

    Raises:
        DomainError: PERSONA_VERSION_NOT_FOUND.
    """
    if reference.isascii() and reference.isdigit():
        return int(reference), ""
    if reference == FIRST:
        return None, ""
    name = reference or PRODUCTION
    if name in persona.aliases:
        return persona.aliases[name].number, name
    if reference not in {"", LATEST}:
        raise version_not_found(persona, reference)
    return persona.number, ""


def with_alias(persona: Persona, name: str, number: int, now: int) -> Persona:
    """Let an alias stand for a version; one that does already stays as it is.

    Raises:
        DomainError: INVALID_REQUEST.
    """
    earlier = persona.aliases.get(name)
    if earlier is not None and earlier.number == number:
        return persona
    if earlier is None and len(persona.aliases) >= MAX_ALIASES:
        raise invalid("alias", f"would be one more than the {MAX_ALIASES} a persona may have")
    return replace(persona, aliases={**persona.aliases, name: Alias(name, number, now)})


def without_alias(persona: Persona, name: str) -> Persona:
    """Remove an alias.

    Raises:
        DomainError: PERSONA_ALIAS_NOT_FOUND.
    """
    if name not in persona.aliases:
        raise DomainError(
            Reason.REASON_PERSONA_ALIAS_NOT_FOUND,
            f"The persona of {persona.agent_id} has no alias {name}; {_aliases(persona)}.",
            resources=[Resource("persona_alias", f"{persona.agent_id}/{name}")],
        )
    kept = {key: alias for key, alias in persona.aliases.items() if key != name}
    return replace(persona, aliases=kept)


# All versions together


def to_clean_up(versions: Sequence[PersonaVersion], named: Collection[int], keep: int) -> CleanUp:
    """Tell which versions go: all but the newest ones, those with an alias, and those that runs used.

    Args:
        versions: all there are, newest first.
        named: the numbers that aliases stand for.
        keep: how many of the newest stay.
    """
    older = versions[keep:]
    doomed = [one for one in older if not one.used and one.number not in named]
    return CleanUp(doomed, len(versions) - len(doomed), len(older) - len(doomed))


def grown(
    persona: Persona, versions: Sequence[PersonaVersion], content: TextStatistics
) -> PersonaStatistics:
    """Say how a persona grew.

    Args:
        versions: all there are, at least one, newest first.
        content: what the newest text is made of.
    """
    sizes = [version.content_bytes for version in versions]
    first, last = versions[-1].create_time, persona.update_time
    days = max((last - first) / _DAY, 1.0)
    return PersonaStatistics(
        persona.agent_id,
        len(sizes),
        persona.number,
        first,
        last,
        len(sizes) / days,
        sum(sizes),
        content,
    )


# What goes wrong


def not_found(agent_id: str, *, deleted: bool = False) -> DomainError:
    """Make the error for an agent without a persona."""
    fix = "it is deleted, undelete it to take it back" if deleted else "create one"
    return DomainError(
        Reason.REASON_PERSONA_NOT_FOUND,
        f"The agent {agent_id} has no persona: {fix}.",
        resources=[Resource("persona", agent_id)],
    )


def already_exists(persona: Persona) -> DomainError:
    """Make the error for an agent that has a persona."""
    return DomainError(
        Reason.REASON_PERSONA_ALREADY_EXISTS,
        f"The agent {persona.agent_id} has a persona, at version {persona.number}: update it.",
        resources=[persona.resource],
        metadata={"etag": persona.etag},
    )


def version_not_found(persona: Persona, reference: str) -> DomainError:
    """Make the error for a number or alias that no version has."""
    has = (
        f"the newest is {persona.number}, and old ones may have been cleaned up"
        if reference.isdigit()
        else _aliases(persona)
    )
    return DomainError(
        Reason.REASON_PERSONA_VERSION_NOT_FOUND,
        f"The persona of {persona.agent_id} has no version {reference}; {has}.",
        resources=[Resource("persona_version", f"{persona.agent_id}/{reference}")],
    )


def contended(agent_id: str) -> DomainError:
    """Make the error for a persona that others change all the time."""
    return conflicts.contended(Resource("persona", agent_id))


def being_purged(agent_id: str) -> DomainError:
    """Make the error for a persona that is about to be gone."""
    return DomainError(
        Reason.REASON_CONFLICT,
        f"The persona of {agent_id} is just being purged; try again.",
        retry_after=1.0,
    )


def _aliases(persona: Persona) -> str:
    names = ", ".join(sorted(persona.aliases))
    return f"its aliases are {names}" if names else "it has no aliases"
