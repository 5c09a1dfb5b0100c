"""Personas and their versions as messages."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, replace
from typing import Any

from google.protobuf.struct_pb2 import Struct

from conductor.content.v1 import persona_pb2, persona_service_pb2
from services.content.convert.comparisons import comparison_to_proto
from services.content.domain.comparisons import Comparison
from services.content.domain.personas import (
    KEPT_VERSIONS,
    MAX_METADATA,
    CleanUp,
    Draft,
    Persona,
    PersonaStatistics,
    PersonaVersion,
    Wanted,
)
from services.kit.errors import invalid
from services.kit.messages import life_to_proto, object_of, struct_of, timestamp

UPDATABLE = frozenset({"content", "metadata"})
"""The fields that an update may change."""
_MAX_METADATA_BYTES = 16 * MAX_METADATA
"""More than any metadata of the longest JSON has as a message: one that is larger is not even read."""
_MAX_INT32 = 2**31 - 1


def draft_of_create(request: persona_service_pb2.CreatePersonaRequest, author: str) -> Draft:
    """Read what a caller asks to be made.

    Raises:
        DomainError: INVALID_REQUEST.
    """
    persona = request.persona
    if not persona.agent_id:
        raise invalid("persona.agent_id", "must name the agent")
    return Draft(persona.content, _metadata(persona.metadata), author, request.reason)


def changes_of(message: persona_pb2.Persona, fields: Collection[str]) -> dict[str, Any]:
    """Read the fields that change.

    Raises:
        DomainError: INVALID_REQUEST.
    """
    changes: dict[str, Any] = {}
    if "content" in fields:
        changes["content"] = message.content
    if "metadata" in fields:
        changes["metadata"] = _metadata(message.metadata)
    return changes


def wanted_of(request: persona_service_pb2.ListPersonaVersionsRequest) -> Wanted:
    """Read which versions to list."""
    return Wanted(request.from_version, request.to_version, request.reverse)


def keep_of(request: persona_service_pb2.CleanUpPersonaVersionsRequest) -> int:
    """Read how many versions to keep."""
    return request.keep or KEPT_VERSIONS


def persona_to_proto(persona: Persona, keep_days: float) -> persona_pb2.Persona:
    """Print a persona with its newest text.

    Args:
        keep_days: how long what is deleted is kept; 0 for ever.
    """
    message = summary_to_proto(persona, keep_days)
    message.content = persona.content
    return message


def summary_to_proto(persona: Persona, keep_days: float) -> persona_pb2.Persona:
    """Print a persona without its text, as in lists."""
    message = persona_pb2.Persona(
        agent_id=persona.agent_id,
        version=persona.number,
        active_version=persona.active,
        aliases=[
            persona_pb2.PersonaAlias(
                name=name, version=alias.number, update_time=timestamp(alias.update_time)
            )
            for name, alias in sorted(persona.aliases.items())
        ],
        metadata=struct_of(persona.metadata),
        create_time=timestamp(persona.create_time),
        update_time=timestamp(persona.update_time),
        etag=persona.etag,
    )
    life_to_proto(persona.life, message, keep_days)
    return message


def version_to_proto(persona: Persona, version: PersonaVersion) -> persona_pb2.PersonaVersion:
    """Print a version with its text, as far as it was read."""
    return persona_pb2.PersonaVersion(
        agent_id=version.agent_id,
        version=version.number,
        content=version.content,
        metadata=struct_of(version.metadata),
        author=version.author,
        reason=version.reason,
        restored_from=version.restored_from,
        characters=version.characters,
        content_hash=version.content_hash,
        aliases=persona.aliases_of(version.number),
        used=version.used,
        create_time=timestamp(version.create_time),
    )


def compared_to_proto(
    persona: Persona, before: PersonaVersion, after: PersonaVersion, comparison: Comparison
) -> persona_service_pb2.ComparePersonaVersionsResponse:
    """Print two versions, without their texts, and how they differ."""
    response = persona_service_pb2.ComparePersonaVersionsResponse(
        to=version_to_proto(persona, replace(after, content="")),
        comparison=comparison_to_proto(comparison),
    )
    # Its name is a word of Python.
    first = version_to_proto(persona, replace(before, content=""))
    getattr(response, "from").CopyFrom(first)
    return response


def statistics_to_proto(statistics: PersonaStatistics) -> persona_pb2.PersonaStatistics:
    """Print how a persona grew."""
    return persona_pb2.PersonaStatistics(
        agent_id=statistics.agent_id,
        versions=statistics.versions,
        latest_version=statistics.latest,
        first_version_time=timestamp(statistics.first_time),
        last_version_time=timestamp(statistics.last_time),
        versions_per_day=statistics.versions_per_day,
        content_bytes=min(statistics.content_bytes, _MAX_INT32),
        content=persona_pb2.TextStatistics(**asdict(statistics.content)),
    )


def clean_up_to_proto(result: CleanUp) -> persona_service_pb2.CleanUpPersonaVersionsResponse:
    """Print what was deleted."""
    return persona_service_pb2.CleanUpPersonaVersionsResponse(
        deleted=len(result.doomed), kept=result.kept, kept_in_use=result.kept_in_use
    )


def _metadata(struct: Struct) -> dict[str, Any]:
    """Read metadata.

    Raises:
        DomainError: INVALID_REQUEST.
    """
    if struct.ByteSize() > _MAX_METADATA_BYTES:
        raise invalid("persona.metadata", f"must have at most {MAX_METADATA} characters as JSON")
    return object_of(struct)
