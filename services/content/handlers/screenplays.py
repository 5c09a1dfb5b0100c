"""Screenplays and their texts."""

from __future__ import annotations

from collections.abc import AsyncIterator

from google.api.httpbody_pb2 import HttpBody
from google.protobuf.empty_pb2 import Empty

from conductor.content.v1 import screenplay_pb2
from conductor.content.v1 import screenplay_service_pb2 as pb
from conductor.content.v1.screenplay_service_pb2_grpc import ScreenplayServiceServicer
from services.content.convert import screenplays as convert
from services.content.usecases.screenplays import ScreenplayService
from services.kit import call, paging
from services.kit.interceptor import Context
from services.kit.masks import fields_of
from services.kit.messages import fitting


class ScreenplayHandlers(ScreenplayServiceServicer):
    """The rpcs of ScreenplayService.

    Args:
        keep_days: how long what is deleted is kept; 0 for ever.
    """

    def __init__(self, service: ScreenplayService, keep_days: float) -> None:
        self._screenplays = service
        self._keep_days = keep_days

    async def CreateScreenplay(
        self, request: pb.CreateScreenplayRequest, context: Context
    ) -> screenplay_pb2.Screenplay:
        made = await self._screenplays.create(
            call.org(), convert.asked_of_create(request), call.author()
        )
        return convert.checked_to_proto(made, self._keep_days)

    async def GetScreenplay(
        self, request: pb.GetScreenplayRequest, context: Context
    ) -> screenplay_pb2.Screenplay:
        screenplay = await self._screenplays.get(
            call.org(), request.screenplay_id, include_deleted=request.include_deleted
        )
        return convert.screenplay_to_proto(screenplay, self._keep_days)

    async def ListScreenplays(
        self, request: pb.ListScreenplaysRequest, context: Context
    ) -> pb.ListScreenplaysResponse:
        wanted = convert.wanted_of(request)
        page = paging.page(request, wanted.content(), wanted.place_type)
        found = await self._screenplays.list(call.org(), wanted, page.after, page.size + 1)
        shown = fitting(
            convert.summary_to_proto(one, self._keep_days) for one in found[: page.size]
        )
        token = page.next_token(found, len(shown), lambda one: self._screenplays.place(one, wanted))
        return pb.ListScreenplaysResponse(screenplays=shown, next_page_token=token)

    async def UpdateScreenplay(
        self, request: pb.UpdateScreenplayRequest, context: Context
    ) -> screenplay_pb2.Screenplay:
        asked = request.screenplay
        fields = fields_of(asked, request.update_mask, convert.UPDATABLE, "screenplay")
        changed = await self._screenplays.update(
            call.org(),
            asked.id,
            convert.values_of(asked, fields),
            asked.etag,
            call.author(),
            force=request.force,
        )
        return convert.checked_to_proto(changed, self._keep_days)

    async def RenameScreenplay(
        self, request: pb.RenameScreenplayRequest, context: Context
    ) -> screenplay_pb2.Screenplay:
        given = request.HasField("update_file_paths")
        renamed = await self._screenplays.rename(
            call.org(),
            request.screenplay_id,
            request.new_name,
            request.etag,
            call.author(),
            move_files=request.update_file_paths if given else True,
        )
        return convert.checked_to_proto(renamed, self._keep_days)

    async def SetScreenplayWorkingDirectory(
        self, request: pb.SetScreenplayWorkingDirectoryRequest, context: Context
    ) -> screenplay_pb2.Screenplay:
        screenplay = await self._screenplays.set_working_directory(
            call.org(), request.screenplay_id, request.working_directory
        )
        return convert.screenplay_to_proto(screenplay, self._keep_days)

    async def MarkScreenplayUsed(
        self, request: pb.MarkScreenplayUsedRequest, context: Context
    ) -> screenplay_pb2.Screenplay:
        screenplay = await self._screenplays.mark_used(call.org(), request.screenplay_id)
        return convert.screenplay_to_proto(screenplay, self._keep_days)

    async def DeleteScreenplay(
        self, request: pb.DeleteScreenplayRequest, context: Context
    ) -> Empty:
        await self._screenplays.delete(
            call.org(), request.screenplay_id, request.etag, purge=request.purge
        )
        return Empty()

    async def UndeleteScreenplay(
        self, request: pb.UndeleteScreenplayRequest, context: Context
    ) -> screenplay_pb2.Screenplay:
        screenplay = await self._screenplays.undelete(
            call.org(), request.screenplay_id, drop_taken_paths=request.drop_taken_paths
        )
        return convert.screenplay_to_proto(screenplay, self._keep_days)

    async def ValidateMarkdown(
        self, request: pb.ValidateMarkdownRequest, context: Context
    ) -> pb.ValidateMarkdownResponse:
        return convert.report_to_proto(await self._screenplays.check(request.content))

    async def FindScreenplayDuplicates(
        self, request: pb.FindScreenplayDuplicatesRequest, context: Context
    ) -> pb.FindScreenplayDuplicatesResponse:
        found = await self._screenplays.duplicates(
            call.org(), request.file_path, request.content, request.exclude_id
        )
        holder = found.holder
        return pb.FindScreenplayDuplicatesResponse(
            is_duplicate=holder is not None,
            duplicate_screenplay=None if holder is None else convert.reference_to_proto(holder),
            normalized_path=found.path,
            same_content=map(convert.reference_to_proto, found.same_content),
        )

    async def ListScreenplayVersions(
        self, request: pb.ListScreenplayVersionsRequest, context: Context
    ) -> pb.ListScreenplayVersionsResponse:
        id_ = request.screenplay_id
        page = paging.page(request, id_)
        below = page.after[0] if page.after else None
        found = await self._screenplays.texts(call.org(), id_, below, page.size + 1)
        shown = [convert.text_summary_to_proto(text) for text in found[: page.size]]
        token = page.next_token(found, len(shown), lambda text: (text.revision, id_))
        return pb.ListScreenplayVersionsResponse(screenplay_versions=shown, next_page_token=token)

    async def GetScreenplayVersion(
        self, request: pb.GetScreenplayVersionRequest, context: Context
    ) -> screenplay_pb2.ScreenplayVersion:
        text = await self._screenplays.text(call.org(), request.screenplay_id, request.version)
        return convert.text_to_proto(text)

    async def CompareScreenplayVersions(
        self, request: pb.CompareScreenplayVersionsRequest, context: Context
    ) -> pb.CompareScreenplayVersionsResponse:
        compared = await self._screenplays.compare(
            call.org(), request.screenplay_id, request.from_version, request.to_version or None
        )
        return convert.compared_to_proto(compared.before, compared.after, compared.comparison)

    async def RestoreScreenplayVersion(
        self, request: pb.RestoreScreenplayVersionRequest, context: Context
    ) -> screenplay_pb2.Screenplay:
        restored = await self._screenplays.restore(
            call.org(), request.screenplay_id, request.version, request.etag, call.author()
        )
        return convert.checked_to_proto(restored, self._keep_days)

    async def ImportScreenplay(
        self, request: pb.ImportScreenplayRequest, context: Context
    ) -> screenplay_pb2.Screenplay:
        asked = convert.asked_of_import(request)
        taken_in = await self._screenplays.take_in(
            call.org(), asked, call.author(), overwrite=request.overwrite
        )
        return convert.checked_to_proto(taken_in, self._keep_days)

    async def ExportScreenplay(
        self, request: pb.ExportScreenplayRequest, context: Context
    ) -> AsyncIterator[HttpBody]:
        for body in convert.file_of(await self._screenplays.get(call.org(), request.screenplay_id)):
            yield body
