"""Personas and their versions.

Where a version is asked for it is a number, `latest`, `first` or the name of an alias.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from typing import Any

from conductor.content.v1 import persona_service_pb2 as pb
from conductor.content.v1.persona_pb2 import Persona, PersonaStatistics, PersonaVersion
from conductor.content.v1.persona_service_pb2_grpc import PersonaServiceStub
from conductor_ai.transport import Transport


class Personas:
    """The personas of an organisation's agents."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._stub = PersonaServiceStub(transport.channel)

    async def create(
        self,
        agent_id: str,
        content: str,
        *,
        metadata: Mapping[str, Any] | None = None,
        reason: str = "",
    ) -> Persona:
        """Give an agent its persona, as version 1."""
        persona = _persona(agent_id, content, metadata)
        request = pb.CreatePersonaRequest(persona=persona, reason=reason)
        return await self._transport.answer(self._stub.CreatePersona, request)

    async def get(self, agent_id: str, *, include_deleted: bool = False) -> Persona:
        """Get the persona of an agent, with its newest text."""
        request = pb.GetPersonaRequest(agent_id=agent_id, include_deleted=include_deleted)
        return await self._transport.answer(self._stub.GetPersona, request)

    def list(self, *, deleted: bool = False) -> AsyncGenerator[Persona, None]:
        """List personas, newest first, without their texts; or those that are deleted."""
        request = pb.ListPersonasRequest(deleted=deleted)
        return self._transport.listed(self._stub.ListPersonas, request, lambda page: page.personas)

    async def update(
        self,
        agent_id: str,
        content: str | None = None,
        *,
        metadata: Mapping[str, Any] | None = None,
        etag: str = "",
        force: bool = False,
        reason: str = "",
    ) -> Persona:
        """Make a new version, when the etag is still this one or with `force` whatever it is.

        What is None stays as it is; when nothing changes there is no new version.
        """
        persona = _persona(agent_id, content, metadata)
        persona.etag = etag
        request = pb.UpdatePersonaRequest(persona=persona, force=force, reason=reason)
        if content is not None:
            request.update_mask.paths.append("content")
        if metadata is not None:
            request.update_mask.paths.append("metadata")
        return await self._transport.answer(self._stub.UpdatePersona, request)

    async def delete(self, agent_id: str, *, etag: str = "", purge: bool = False) -> None:
        """Delete a persona with its versions; with `purge` for good."""
        request = pb.DeletePersonaRequest(agent_id=agent_id, etag=etag, purge=purge)
        await self._transport.answer(self._stub.DeletePersona, request)

    async def undelete(self, agent_id: str) -> Persona:
        """Take a deleted persona back."""
        request = pb.UndeletePersonaRequest(agent_id=agent_id)
        return await self._transport.answer(self._stub.UndeletePersona, request)

    async def version(self, agent_id: str, version: str) -> PersonaVersion:
        """Get a version."""
        request = pb.GetPersonaVersionRequest(agent_id=agent_id, version=version)
        return await self._transport.answer(self._stub.GetPersonaVersion, request)

    def versions(
        self, filters: pb.ListPersonaVersionsRequest
    ) -> AsyncGenerator[PersonaVersion, None]:
        """List versions without their texts; `filters` are those of ListPersonaVersions."""
        return self._transport.listed(
            self._stub.ListPersonaVersions, filters, lambda page: page.persona_versions
        )

    async def compare(
        self, agent_id: str, from_version: str, to_version: str = "latest"
    ) -> pb.ComparePersonaVersionsResponse:
        """Compare two versions."""
        request = pb.ComparePersonaVersionsRequest(
            agent_id=agent_id, from_version=from_version, to_version=to_version
        )
        return await self._transport.answer(self._stub.ComparePersonaVersions, request)

    async def restore(
        self, agent_id: str, version: str, *, etag: str = "", reason: str = ""
    ) -> Persona:
        """Make a new version with the text and metadata of an earlier one."""
        request = pb.RestorePersonaVersionRequest(
            agent_id=agent_id, version=version, etag=etag, reason=reason
        )
        return await self._transport.answer(self._stub.RestorePersonaVersion, request)

    async def set_alias(self, agent_id: str, alias: str, version: str) -> Persona:
        """Make an alias, or move it to another version."""
        request = pb.SetPersonaAliasRequest(agent_id=agent_id, alias=alias, version=version)
        return await self._transport.answer(self._stub.SetPersonaAlias, request)

    async def delete_alias(self, agent_id: str, alias: str) -> Persona:
        """Remove an alias; its version stays."""
        request = pb.DeletePersonaAliasRequest(agent_id=agent_id, alias=alias)
        return await self._transport.answer(self._stub.DeletePersonaAlias, request)

    async def statistics(self, agent_id: str) -> PersonaStatistics:
        """Say how a persona grew, and what its text is made of."""
        request = pb.GetPersonaStatisticsRequest(agent_id=agent_id)
        return await self._transport.answer(self._stub.GetPersonaStatistics, request)

    async def clean_up(
        self, agent_id: str, *, keep: int = 0, dry_run: bool = False
    ) -> pb.CleanUpPersonaVersionsResponse:
        """Delete old versions for good, but not the newest, those with an alias and used ones.

        Args:
            keep: how many of the newest stay; 0 leaves it to the mesh.
            dry_run: whether only to say what would be deleted.
        """
        request = pb.CleanUpPersonaVersionsRequest(agent_id=agent_id, keep=keep, dry_run=dry_run)
        return await self._transport.answer(self._stub.CleanUpPersonaVersions, request)


def _persona(agent_id: str, content: str | None, metadata: Mapping[str, Any] | None) -> Persona:
    persona = Persona(agent_id=agent_id, content=content)
    if metadata is not None:
        # An empty object is one, too: it takes away what was noted.
        persona.metadata.SetInParent()
        persona.metadata.update(metadata)
    return persona
