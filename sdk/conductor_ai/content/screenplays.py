"""Screenplays and their texts."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable

from google.protobuf.field_mask_pb2 import FieldMask

from conductor.content.v1 import screenplay_service_pb2 as pb
from conductor.content.v1.screenplay_pb2 import Screenplay, ScreenplayVersion
from conductor.content.v1.screenplay_service_pb2_grpc import ScreenplayServiceStub
from conductor_ai.transport import Transport


class Screenplays:
    """The screenplays of an organisation."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._stub = ScreenplayServiceStub(transport.channel)

    async def create(self, screenplay: Screenplay, *, request_id: str = "") -> Screenplay:
        """Make a screenplay; what is wrong with its text is in `findings` and keeps nothing back."""
        request = pb.CreateScreenplayRequest(screenplay=screenplay, request_id=request_id)
        return await self._transport.answer(self._stub.CreateScreenplay, request)

    async def get(self, screenplay_id: str, *, include_deleted: bool = False) -> Screenplay:
        """Get a screenplay with its text."""
        request = pb.GetScreenplayRequest(
            screenplay_id=screenplay_id, include_deleted=include_deleted
        )
        return await self._transport.answer(self._stub.GetScreenplay, request)

    def list(
        self, filters: pb.ListScreenplaysRequest | None = None
    ) -> AsyncGenerator[Screenplay, None]:
        """List screenplays without their texts; `filters` are those of ListScreenplays."""
        asked = pb.ListScreenplaysRequest() if filters is None else filters
        return self._transport.listed(
            self._stub.ListScreenplays, asked, lambda page: page.screenplays
        )

    async def update(
        self, screenplay: Screenplay, *, fields: Iterable[str] = (), force: bool = False
    ) -> Screenplay:
        """Change one whose etag is still that of `screenplay`, or with `force` whatever it is.

        Args:
            fields: which fields change; when left out, those that `screenplay` has.
        """
        request = pb.UpdateScreenplayRequest(screenplay=screenplay, force=force)
        if paths := [*fields]:
            request.update_mask.CopyFrom(FieldMask(paths=paths))
        return await self._transport.answer(self._stub.UpdateScreenplay, request)

    async def rename(
        self, screenplay_id: str, new_name: str, *, update_file_paths: bool = True, etag: str = ""
    ) -> Screenplay:
        """Rename a screenplay and, unless told otherwise, the files it is kept in."""
        request = pb.RenameScreenplayRequest(
            screenplay_id=screenplay_id,
            new_name=new_name,
            update_file_paths=update_file_paths,
            etag=etag,
        )
        return await self._transport.answer(self._stub.RenameScreenplay, request)

    async def set_working_directory(self, screenplay_id: str, directory: str) -> Screenplay:
        """Set where runs that work on it work; empty for nowhere."""
        request = pb.SetScreenplayWorkingDirectoryRequest(
            screenplay_id=screenplay_id, working_directory=directory
        )
        return await self._transport.answer(self._stub.SetScreenplayWorkingDirectory, request)

    async def mark_used(self, screenplay_id: str) -> Screenplay:
        """Note that a screenplay was used now."""
        request = pb.MarkScreenplayUsedRequest(screenplay_id=screenplay_id)
        return await self._transport.answer(self._stub.MarkScreenplayUsed, request)

    async def delete(self, screenplay_id: str, *, etag: str = "", purge: bool = False) -> None:
        """Delete a screenplay; with `purge` for good. Its paths are free at once."""
        request = pb.DeleteScreenplayRequest(screenplay_id=screenplay_id, etag=etag, purge=purge)
        await self._transport.answer(self._stub.DeleteScreenplay, request)

    async def undelete(self, screenplay_id: str, *, drop_taken_paths: bool = False) -> Screenplay:
        """Take a deleted screenplay back, as asked without the paths that others have now."""
        request = pb.UndeleteScreenplayRequest(
            screenplay_id=screenplay_id, drop_taken_paths=drop_taken_paths
        )
        return await self._transport.answer(self._stub.UndeleteScreenplay, request)

    async def validate(self, content: str) -> pb.ValidateMarkdownResponse:
        """Check a Markdown text without storing it."""
        request = pb.ValidateMarkdownRequest(content=content)
        return await self._transport.answer(self._stub.ValidateMarkdown, request)

    async def find_duplicates(
        self, *, path: str = "", content: str = "", exclude_id: str = ""
    ) -> pb.FindScreenplayDuplicatesResponse:
        """Find who has a path, and who has an equal text."""
        request = pb.FindScreenplayDuplicatesRequest(
            file_path=path, content=content, exclude_id=exclude_id
        )
        return await self._transport.answer(self._stub.FindScreenplayDuplicates, request)

    async def version(self, screenplay_id: str, version: int) -> ScreenplayVersion:
        """Get a text that is kept."""
        request = pb.GetScreenplayVersionRequest(screenplay_id=screenplay_id, version=version)
        return await self._transport.answer(self._stub.GetScreenplayVersion, request)

    def versions(self, screenplay_id: str) -> AsyncGenerator[ScreenplayVersion, None]:
        """List the texts that are kept, newest first, without the texts themselves."""
        request = pb.ListScreenplayVersionsRequest(screenplay_id=screenplay_id)
        return self._transport.listed(
            self._stub.ListScreenplayVersions, request, lambda page: page.screenplay_versions
        )

    async def compare(
        self, screenplay_id: str, from_version: int, to_version: int = 0
    ) -> pb.CompareScreenplayVersionsResponse:
        """Compare two texts that are kept; the second is the newest when left out."""
        request = pb.CompareScreenplayVersionsRequest(
            screenplay_id=screenplay_id, from_version=from_version, to_version=to_version
        )
        return await self._transport.answer(self._stub.CompareScreenplayVersions, request)

    async def restore(self, screenplay_id: str, version: int, *, etag: str = "") -> Screenplay:
        """Make a text that is kept the text of the screenplay again."""
        request = pb.RestoreScreenplayVersionRequest(
            screenplay_id=screenplay_id, version=version, etag=etag
        )
        return await self._transport.answer(self._stub.RestoreScreenplayVersion, request)

    async def take_in(self, file: pb.ImportScreenplayRequest) -> Screenplay:
        """Make a screenplay of a Markdown file, or change the one imported from the same path."""
        return await self._transport.answer(self._stub.ImportScreenplay, file)

    async def export(self, screenplay_id: str) -> bytes:
        """Get the Markdown itself, in UTF-8."""
        request = pb.ExportScreenplayRequest(screenplay_id=screenplay_id)
        bodies = self._transport.streamed(self._stub.ExportScreenplay, request)
        return b"".join([body.data async for body in bodies])
