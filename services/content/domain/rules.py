"""The rules that things of an archive are held to: those of the rpcs that make them."""

from __future__ import annotations

import re
from hashlib import sha256

from services.content.domain import agents, personas, screenplays
from services.content.domain.agents import Agent
from services.content.domain.archives import Record
from services.content.domain.personas import Persona, PersonaVersion
from services.content.domain.screenplays import Screenplay, Text
from services.kit.errors import DomainError
from services.kit.resources.deletions import Life

_ALIAS = re.compile(r"[a-z][a-z0-9-]{0,31}")
_DELETION = re.compile(r"[A-Za-z0-9_+-]{1,200}")
_REQUEST_ID = 128
_DIGEST = 128
_AUTHOR = 400
_REASON = 1000
_DESCRIPTION = 500
_WORKING_DIRECTORY = 1000
_TEMPLATE = 64
_SCREENPLAY_GIVEN = (
    *("name", "description", "tags", "working_directory"),
    *("file_path", "import_path", "export_path"),
)
_NO_ALIASES = {personas.LATEST, personas.FIRST}


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
    _check_length("template_id", agent.template_id, _TEMPLATE)
    _check_request(agent.request_id, agent.digest)


def _check_persona(persona: Persona) -> None:
    _check_count("number", persona.number)
    _check_life(persona.life)
    if len(persona.aliases) > personas.MAX_ALIASES:
        _refuse("aliases", f"must be at most {personas.MAX_ALIASES}")
    for name, alias in persona.aliases.items():
        if alias.name != name or not _ALIAS.fullmatch(name) or name in _NO_ALIASES:
            _refuse("aliases", f"holds {name[:50]!r}, which is no name for an alias")


def _check_version(version: PersonaVersion) -> None:
    _check_count("number", version.number)
    personas.checked(version.draft, "version")
    raw = version.content.encode()
    _check_sum("characters", version.characters, len(version.content))
    _check_sum("content_bytes", version.content_bytes, len(raw))
    _check_sum("content_hash", version.content_hash, sha256(raw).hexdigest())
    if version.restored_from >= version.number:
        _refuse("restored_from", "has to be an earlier version, or 0")
    _check_length("author", version.author, _AUTHOR)
    _check_length("reason", version.reason, _REASON)


def _check_screenplay(screenplay: Screenplay) -> None:
    given = {name: getattr(screenplay, name) for name in _SCREENPLAY_GIVEN}
    if screenplays.tidy(given, "") != given:
        _refuse("a name, tag or path", "is not in the form it is stored in")
    _check_length("description", screenplay.description, _DESCRIPTION)
    _check_length("working_directory", screenplay.working_directory, _WORKING_DIRECTORY)
    if screenplay.working_directory and not screenplay.working_directory.startswith("/"):
        _refuse("working_directory", "has to be an absolute path")
    _check_text_of(screenplay)
    _check_length("text_author", screenplay.text_author, _AUTHOR)
    _check_count("revision", screenplay.revision)
    _check_count("text_revision", screenplay.text_revision)
    if screenplay.text_revision > screenplay.revision:
        _refuse("text_revision", "has to be at most the revision")
    _check_request(screenplay.request_id, screenplay.digest)
    _check_life(screenplay.life)


def _check_text(text: Text) -> None:
    _check_count("revision", text.revision)
    _check_text_of(text)
    _check_length("author", text.author, _AUTHOR)


def _check_text_of(thing: Screenplay | Text) -> None:
    _check_sum("content_bytes", thing.content_bytes, len(thing.content.encode()))
    _check_sum("content_hash", thing.content_hash, screenplays.content_hash(thing.content))


def _check_request(request_id: str, digest: str) -> None:
    _check_length("request_id", request_id, _REQUEST_ID)
    _check_length("digest", digest, _DIGEST)


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


def _check_length(field: str, text: str, most: int) -> None:
    if len(text) > most:
        _refuse(field, f"must have at most {most} characters")


def _check_sum(field: str, said: object, right: object) -> None:
    if said != right:
        _refuse(field, f"is not that of the text: {said!r} in place of {right!r}")


def _refuse(field: str, description: str) -> None:
    raise ValueError(f"{field} {description}")
