"""The rules that things of an archive are held to: those of the rpcs that make them."""

from __future__ import annotations

import re
from hashlib import sha256

from services.content.domain import agents
from services.content.domain.agents import Agent
from services.content.domain.archives import Record
from services.content.domain.deletions import Life
from services.content.domain.personas import Persona, PersonaVersion
from services.content.domain.screenplays import Screenplay, Text
from services.kit.errors import DomainError

_ALIAS = re.compile(r"[a-z][a-z0-9-]{0,31}")
_DELETION = re.compile(r"[A-Za-z0-9_+-]{1,200}")
_REQUEST_ID = 64
_AUTHOR = 300
_REASON = 1000


def check(record: Record) -> None:
    """Hold a thing to the rules of its kind.

    Raises:
        ValueError: it breaks one; says which.
    """
    try:
        match record:
            case Agent():
                _check_agent(record)
            case Persona():
                _check_persona(record)
            case PersonaVersion():
                _check_version(record)
            case Screenplay():
                _check_screenplay(record)
            case Text():
                _check_text(record)
    except DomainError as error:
        raise ValueError(error.message) from None


def _check_agent(agent: Agent) -> None:
    agents.check_id(agent.id, "id")
    if agents.checked(agent.definition, "definition.") != agent.definition:
        _refuse("definition", "is not in the form it is stored in: trimmed, without repetitions")
    _check_life(agent.life)
    if agent.built_in and not agent.life.live:
        _refuse("life", f"says that {agent.id} is deleted, which cannot be")
    _check_count("revision", agent.revision)


def _check_persona(persona: Persona) -> None:
    _check_count("number", persona.number)
    _check_life(persona.life)
    for name, alias in persona.aliases.items():
        if alias.name != name or not _ALIAS.fullmatch(name):
            _refuse("aliases", f"holds {name[:50]!r}, which is no name for an alias")


def _check_version(version: PersonaVersion) -> None:
    _check_count("number", version.number)


def _check_screenplay(screenplay: Screenplay) -> None:
    _check_count("revision", screenplay.revision)
    _check_life(screenplay.life)


def _check_text(text: Text) -> None:
    _check_count("revision", text.revision)


def _check_life(life: Life) -> None:
    if (life.delete_time is None) != life.live:
        _refuse("life", "needs a deletion and its time, or neither")
    if life.purging:
        _refuse("life", "says that it is about to go for good")
    for deletion in (life.deletion, life.last_deletion):
        if deletion and not _DELETION.fullmatch(deletion):
            _refuse("life", "holds what is no id of a deletion")


def _check_count(name: str, number: int) -> None:
    if number < 1:
        _refuse(name, "has to be 1 or more")


def _refuse(field: str, description: str) -> None:
    raise ValueError(f"{field} {description}")


__all__ = ["check", "sha256"]
