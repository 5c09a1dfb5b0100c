"""Personas and their versions as documents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from services.content.domain.personas import Alias, Persona, PersonaVersion, version_id
from services.kit.resources.deletions import Cascade
from services.kit.resources.ports import Place
from services.kit.storage.ports import (
    Collection,
    ConflictError,
    Delete,
    Document,
    Insert,
    Query,
    Replace,
    Store,
)
from services.kit.storage.resources import (
    DELETED,
    LIFE_FIELDS,
    LIFE_SWEPT,
    LIVE,
    deleted,
    life_body,
    life_fields,
    number_key,
    pending,
    read_life,
    write,
)

PERSONAS = Collection("personas", fields=LIFE_FIELDS, swept=LIFE_SWEPT)
VERSIONS = Collection(
    "persona_versions", fields=("agent_id", "number"), orders=(("agent_id", "number"),)
)
_REMOVED_AT_ONCE = 100


class StoredPersonas:
    """Personas over the storage ports."""

    kind = "persona"

    def __init__(self, store: Store) -> None:
        self._store = store

    async def begin(self, persona: Persona, version: PersonaVersion | None = None) -> Persona:
        """Store a first version and its persona."""
        first = [] if version is None else [Insert(VERSIONS, version_to_document(version))]
        await write(self._store, *first, Insert(PERSONAS, to_document(persona)))
        return persona

    async def append(self, persona: Persona, version: PersonaVersion) -> Persona:
        """Store a version and the persona it makes."""
        made = Insert(VERSIONS, version_to_document(version))
        await write(self._store, made, Replace(PERSONAS, to_document(persona)))
        return replace(persona, version=persona.version + 1)

    async def get(self, org: str, id_: str) -> Persona | None:
        """Read a persona, deleted or not."""
        document = await self._store.get(PERSONAS, org, id_)
        return None if document is None else from_document(document)

    async def save(self, thing: Persona) -> Persona:
        """Store a changed persona."""
        await write(self._store, Replace(PERSONAS, to_document(thing)))
        return replace(thing, version=thing.version + 1)

    async def remove(self, thing: Persona) -> None:
        """Remove a persona for good."""
        await write(self._store, Delete(PERSONAS, thing.org, thing.id, thing.version))

    async def list(
        self, org: str, after: tuple[int, str] | None, limit: int, *, deleted: bool
    ) -> Sequence[Persona]:
        """Read a page of personas, newest first."""
        equal = {"life": DELETED if deleted else LIVE}
        query = Query(PERSONAS, org, equal, after=after, limit=limit, newest_first=True)
        return [from_document(document) for document in await self._store.query(query)]

    async def pending(
        self, cascade: Cascade, org: str | None, after: Place | None, limit: int
    ) -> Sequence[Place]:
        """Read a page of the personas whose cascade is to be done."""
        return await pending(self._store, PERSONAS, cascade, org, after, limit)

    async def deleted(self, after: Place | None, limit: int) -> Sequence[Place]:
        """Read a page of the personas that are deleted."""
        return await deleted(self._store, PERSONAS, after, limit)


class StoredVersions:
    """Versions over the storage ports."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def get(self, org: str, agent_id: str, number: int) -> PersonaVersion | None:
        """Read a version."""
        document = await self._store.get(VERSIONS, org, version_id(agent_id, number))
        return None if document is None else version_from_document(document)

    async def list(
        self,
        org: str,
        agent_id: str,
        beyond: int | None,
        limit: int,
        *,
        ascending: bool = False,
    ) -> Sequence[PersonaVersion]:
        """Read a page of versions without their texts."""
        query = Query(
            VERSIONS,
            org,
            {"agent_id": agent_id},
            after=None if beyond is None else (number_key(beyond), version_id(agent_id, beyond)),
            limit=limit,
            newest_first=not ascending,
            order="number",
        )
        return [version_from_document(document) for document in await self._store.query(query)]

    async def save(self, version: PersonaVersion) -> PersonaVersion:
        """Store a version anew."""
        await write(self._store, Replace(VERSIONS, version_to_document(version)))
        return replace(version, version=version.version + 1)

    async def remove(self, versions: Sequence[PersonaVersion]) -> int:
        """Remove versions, many at once as long as nobody stores one of them anew."""
        gone = 0
        for start in range(0, len(versions), _REMOVED_AT_ONCE):
            some = versions[start : start + _REMOVED_AT_ONCE]
            try:
                await self._store.write(*map(_delete, some))
                gone += len(some)
            except ConflictError:
                for version in some:
                    gone += await self._remove(version)
        return gone

    async def _remove(self, version: PersonaVersion) -> bool:
        try:
            await self._store.write(_delete(version))
        except ConflictError:
            return await self._store.version(VERSIONS, version.org, version.id) is None
        return True


def to_document(persona: Persona) -> Document:
    """Print a persona."""
    body: dict[str, Any] = {
        "number": persona.number,
        "update_time": persona.update_time,
        "metadata": persona.metadata,
        "content_hash": persona.content_hash,
        "aliases": [asdict(persona.aliases[name]) for name in sorted(persona.aliases)],
        "life": life_body(persona.life),
    }
    return Document(
        org=persona.org,
        id=persona.agent_id,
        create_time=persona.create_time,
        version=persona.version,
        fields=life_fields(persona.life),
        body={name: value for name, value in body.items() if value},
    )


def from_document(document: Document) -> Persona:
    """Read a persona."""
    body = document.body
    return Persona(
        org=document.org,
        agent_id=document.id,
        number=body["number"],
        create_time=document.create_time,
        update_time=body["update_time"],
        metadata=body.get("metadata", {}),
        content_hash=body["content_hash"],
        aliases={row["name"]: Alias(**row) for row in body.get("aliases", ())},
        life=read_life(document.fields, body.get("life", {})),
        version=document.version,
    )


def version_to_document(version: PersonaVersion) -> Document:
    """Print a version; its text is the part that lists leave out."""
    body: dict[str, Any] = {
        "metadata": version.metadata,
        "author": version.author,
        "reason": version.reason,
        "restored_from": version.restored_from,
        "characters": version.characters,
        "content_bytes": version.content_bytes,
        "content_hash": version.content_hash,
        "used": version.used,
    }
    return Document(
        org=version.org,
        id=version.id,
        create_time=version.create_time,
        version=version.version,
        fields={"agent_id": version.agent_id, "number": number_key(version.number)},
        body={name: value for name, value in body.items() if value},
        content={"content": version.content},
    )


def version_from_document(document: Document) -> PersonaVersion:
    """Read a version; from a query it has no text."""
    return PersonaVersion(
        org=document.org,
        agent_id=document.fields["agent_id"],
        number=int(document.fields["number"]),
        content=document.content.get("content", ""),
        create_time=document.create_time,
        version=document.version,
        **document.body,
    )


def _delete(version: PersonaVersion) -> Delete:
    return Delete(VERSIONS, version.org, version.id, version.version)
