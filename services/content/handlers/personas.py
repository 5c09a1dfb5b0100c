"""Personas and their versions."""

from __future__ import annotations

from google.protobuf.empty_pb2 import Empty

from conductor.content.v1 import persona_pb2
from conductor.content.v1 import persona_service_pb2 as pb
from conductor.content.v1.persona_service_pb2_grpc import PersonaServiceServicer
from services.content.convert import personas as convert
from services.content.usecases.personas import PersonaService
from services.kit import call, paging
from services.kit.interceptor import Context
from services.kit.masks import fields_of
from services.kit.messages import fitting


class PersonaHandlers(PersonaServiceServicer):
    """The rpcs of PersonaService.

    Args:
        keep_days: how long what is deleted is kept; 0 for ever.
    """

    def __init__(self, service: PersonaService, keep_days: float) -> None:
        self._personas = service
        self._keep_days = keep_days

    async def CreatePersona(
        self, request: pb.CreatePersonaRequest, context: Context
    ) -> persona_pb2.Persona:
        agent_id = request.persona.agent_id
        draft = convert.draft_of_create(request, call.author())
        persona = await self._personas.create(call.org(), agent_id, draft)
        return convert.persona_to_proto(persona, self._keep_days)

    async def GetPersona(
        self, request: pb.GetPersonaRequest, context: Context
    ) -> persona_pb2.Persona:
        persona = await self._personas.get(
            call.org(), request.agent_id, include_deleted=request.include_deleted
        )
        return convert.persona_to_proto(persona, self._keep_days)

    async def ListPersonas(
        self, request: pb.ListPersonasRequest, context: Context
    ) -> pb.ListPersonasResponse:
        page = paging.page(request, request.deleted)
        found = await self._personas.list(
            call.org(), page.after, page.size + 1, deleted=request.deleted
        )
        shown = fitting(
            convert.summary_to_proto(one, self._keep_days) for one in found[: page.size]
        )
        return pb.ListPersonasResponse(
            personas=shown, next_page_token=page.next_token(found, len(shown))
        )

    async def UpdatePersona(
        self, request: pb.UpdatePersonaRequest, context: Context
    ) -> persona_pb2.Persona:
        asked = request.persona
        fields = fields_of(asked, request.update_mask, convert.UPDATABLE, "persona")
        persona = await self._personas.update(
            call.org(),
            asked.agent_id,
            convert.changes_of(asked, fields),
            asked.etag,
            force=request.force,
            author=call.author(),
            reason=request.reason,
        )
        return convert.persona_to_proto(persona, self._keep_days)

    async def DeletePersona(self, request: pb.DeletePersonaRequest, context: Context) -> Empty:
        await self._personas.delete(call.org(), request.agent_id, request.etag, purge=request.purge)
        return Empty()

    async def UndeletePersona(
        self, request: pb.UndeletePersonaRequest, context: Context
    ) -> persona_pb2.Persona:
        persona = await self._personas.undelete(call.org(), request.agent_id)
        return convert.persona_to_proto(persona, self._keep_days)

    async def GetPersonaVersion(
        self, request: pb.GetPersonaVersionRequest, context: Context
    ) -> persona_pb2.PersonaVersion:
        persona, version = await self._personas.version(
            call.org(), request.agent_id, request.version
        )
        return convert.version_to_proto(persona, version)

    async def ListPersonaVersions(
        self, request: pb.ListPersonaVersionsRequest, context: Context
    ) -> pb.ListPersonaVersionsResponse:
        wanted = convert.wanted_of(request)
        page = paging.page(request, (request.agent_id, *wanted.content()))
        beyond = None if page.after is None else page.after[0]
        persona, found = await self._personas.versions(
            call.org(), request.agent_id, wanted, beyond, page.size + 1
        )
        shown = fitting(convert.version_to_proto(persona, one) for one in found[: page.size])
        token = page.next_token(found, len(shown), lambda version: (version.number, version.id))
        return pb.ListPersonaVersionsResponse(persona_versions=shown, next_page_token=token)

    async def ComparePersonaVersions(
        self, request: pb.ComparePersonaVersionsRequest, context: Context
    ) -> pb.ComparePersonaVersionsResponse:
        compared = await self._personas.compare(
            call.org(), request.agent_id, request.from_version, request.to_version
        )
        return convert.compared_to_proto(*compared)

    async def RestorePersonaVersion(
        self, request: pb.RestorePersonaVersionRequest, context: Context
    ) -> persona_pb2.Persona:
        persona = await self._personas.restore(
            call.org(),
            request.agent_id,
            request.version,
            request.etag,
            author=call.author(),
            reason=request.reason,
        )
        return convert.persona_to_proto(persona, self._keep_days)

    async def SetPersonaAlias(
        self, request: pb.SetPersonaAliasRequest, context: Context
    ) -> persona_pb2.Persona:
        persona = await self._personas.set_alias(
            call.org(), request.agent_id, request.alias, request.version
        )
        return convert.persona_to_proto(persona, self._keep_days)

    async def DeletePersonaAlias(
        self, request: pb.DeletePersonaAliasRequest, context: Context
    ) -> persona_pb2.Persona:
        persona = await self._personas.delete_alias(call.org(), request.agent_id, request.alias)
        return convert.persona_to_proto(persona, self._keep_days)

    async def GetPersonaStatistics(
        self, request: pb.GetPersonaStatisticsRequest, context: Context
    ) -> persona_pb2.PersonaStatistics:
        statistics = await self._personas.statistics(call.org(), request.agent_id)
        return convert.statistics_to_proto(statistics)

    async def CleanUpPersonaVersions(
        self, request: pb.CleanUpPersonaVersionsRequest, context: Context
    ) -> pb.CleanUpPersonaVersionsResponse:
        result = await self._personas.clean_up(
            call.org(), request.agent_id, convert.keep_of(request), dry_run=request.dry_run
        )
        return convert.clean_up_to_proto(result)
