"""Screenplays as callers see them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest_asyncio
from google.protobuf.field_mask_pb2 import FieldMask

from conductor.content.v1 import screenplay_service_pb2 as pb
from conductor.content.v1.screenplay_pb2 import Screenplay
from tests.patience import PATIENCE
from tests.rpc.content import Content, served_content
from tests.rpc.serving import refusal, stream_refusal

MEBIBYTE = 1024 * 1024
NOT_FOUND = (grpc.StatusCode.NOT_FOUND, "SCREENPLAY_NOT_FOUND")


@pytest_asyncio.fixture
async def content(tmp_path: Path) -> AsyncIterator[Content]:
    async with served_content(tmp_path) as content:
        yield content


async def create(content: Content, name: str = "Play", /, **fields: Any) -> Screenplay:
    request = pb.CreateScreenplayRequest(screenplay=Screenplay(**{"name": name, **fields}))
    return await content.screenplays.CreateScreenplay(request, timeout=PATIENCE)


async def update(content: Content, id_: str, mask: str = "", /, **fields: Any) -> Screenplay:
    force = fields.pop("force", "etag" not in fields)
    request = pb.UpdateScreenplayRequest(
        screenplay=Screenplay(id=id_, **fields),
        update_mask=FieldMask(paths=mask.split(",") if mask else ()),
        force=force,
    )
    return await content.screenplays.UpdateScreenplay(request, timeout=PATIENCE)


async def get(content: Content, id_: str, **options: Any) -> Screenplay:
    request = pb.GetScreenplayRequest(screenplay_id=id_, **options)
    return await content.screenplays.GetScreenplay(request, timeout=PATIENCE)


async def listed(content: Content, **options: Any) -> list[str]:
    request = pb.ListScreenplaysRequest(**options)
    answer = await content.screenplays.ListScreenplays(request, timeout=PATIENCE)
    return [one.name for one in answer.screenplays]


async def test_a_screenplay_is_made_changed_deleted_and_taken_back(content: Content) -> None:
    made = await create(
        content,
        " Plan ",
        description="What to do",
        tags=["a", "b "],
        content="## Deep\n",
        working_directory="/srv",
        file_path="/docs/plan.md",
    )
    assert made.id.startswith("play_")
    assert (made.name, list(made.tags), made.file_path) == ("Plan", ["a", "b"], "docs/plan.md")
    assert (made.version, made.etag, made.content_bytes) == (1, "1", 8)
    assert [one.rule for one in made.findings] == ["heading-level-jump"]
    assert made.create_time == made.update_time == made.last_use_time
    assert not made.HasField("delete_time")

    changed = await update(content, made.id, etag=made.etag, content="# Deep\n")
    assert (changed.version, changed.content, list(changed.findings)) == (2, "# Deep\n", [])
    cleared = await update(content, made.id, "tags,description", etag=changed.etag)
    assert (list(cleared.tags), cleared.description, cleared.name) == ([], "", "Plan")

    await content.screenplays.DeleteScreenplay(
        pb.DeleteScreenplayRequest(screenplay_id=made.id, etag=cleared.etag), timeout=PATIENCE
    )
    assert (await refusal(get(content, made.id))).kind == NOT_FOUND
    gone = await get(content, made.id, include_deleted=True)
    assert (
        gone.purge_time.ToMicroseconds() - gone.delete_time.ToMicroseconds() == 30 * 86400 * 10**6
    )
    back = await content.screenplays.UndeleteScreenplay(
        pb.UndeleteScreenplayRequest(screenplay_id=made.id), timeout=PATIENCE
    )
    assert back == await get(content, made.id)
    assert (back.content, back.etag) == ("# Deep\n", cleared.etag)


async def test_an_update_names_its_screenplay(content: Content) -> None:
    refused = await refusal(update(content, "", name="x"))

    assert (refused.reason, refused.fields) == ("INVALID_REQUEST", ["screenplay"])


async def test_an_update_shows_its_etag_or_is_forced(content: Content) -> None:
    made = await create(content, content="one")
    await update(content, made.id, etag="1", content="two")

    stale = await refusal(update(content, made.id, etag="1", content="three"))
    assert stale.kind == (grpc.StatusCode.ABORTED, "ETAG_MISMATCH")
    assert stale.metadata == {"etag": "2"}
    missing = await refusal(update(content, made.id, force=False, content="three"))
    assert (missing.reason, missing.fields) == ("INVALID_REQUEST", ["etag"])
    assert (await update(content, made.id, content="three")).version == 3
    wrong = await refusal(update(content, made.id, "version", content="x"))
    assert (wrong.reason, wrong.fields) == ("INVALID_REQUEST", ["update_mask"])


async def test_a_taken_path_is_answered_with_its_holder(content: Content) -> None:
    holder = await create(content, "Holder", file_path="a.md")
    other = await create(content, "Other", import_path="b.md")
    taken = await refusal(create(content, file_path="./a.md"))

    assert taken.kind == (grpc.StatusCode.ALREADY_EXISTS, "SCREENPLAY_PATH_TAKEN")
    assert taken.fields == ["screenplay.file_path"]
    assert taken.resources == [("screenplay", holder.id)]
    assert taken.metadata == {"holder_id": holder.id, "holder_name": "Holder", "path": "a.md"}

    found = await content.screenplays.FindScreenplayDuplicates(
        pb.FindScreenplayDuplicatesRequest(file_path="/b.md", content="x"), timeout=PATIENCE
    )
    assert (found.is_duplicate, found.duplicate_screenplay.id) == (True, other.id)
    assert found.normalized_path == "b.md"
    nobody = await content.screenplays.FindScreenplayDuplicates(
        pb.FindScreenplayDuplicatesRequest(file_path="b.md", exclude_id=other.id), timeout=PATIENCE
    )
    assert not nobody.is_duplicate
    assert not nobody.HasField("duplicate_screenplay")


async def test_texts_are_kept_compared_and_restored(content: Content) -> None:
    made = await create(content, content="a\nb\n")
    await update(content, made.id, content="a\nc\n")
    await update(content, made.id, name="Other")
    stub = content.screenplays

    pages = []
    token = ""
    while True:
        page = await stub.ListScreenplayVersions(
            pb.ListScreenplayVersionsRequest(screenplay_id=made.id, page_size=1, page_token=token),
            timeout=PATIENCE,
        )
        pages.append(
            [(one.version, one.content_bytes, one.content) for one in page.screenplay_versions]
        )
        if not (token := page.next_page_token):
            break
    assert pages == [[(2, 4, "")], [(1, 4, "")]]
    text = await stub.GetScreenplayVersion(
        pb.GetScreenplayVersionRequest(screenplay_id=made.id, version=3), timeout=PATIENCE
    )
    assert (text.version, text.content, text.author) == (2, "a\nc\n", "anonymous")
    compared = await stub.CompareScreenplayVersions(
        pb.CompareScreenplayVersionsRequest(screenplay_id=made.id, from_version=1),
        timeout=PATIENCE,
    )
    assert (getattr(compared, "from").version, compared.to.version) == (1, 2)
    assert "-b\n+c\n" in compared.comparison.diff
    restored = await stub.RestoreScreenplayVersion(
        pb.RestoreScreenplayVersionRequest(screenplay_id=made.id, version=1, etag="3"),
        timeout=PATIENCE,
    )
    assert (restored.version, restored.content, restored.name) == (4, "a\nb\n", "Other")
    missing = await refusal(
        stub.GetScreenplayVersion(
            pb.GetScreenplayVersionRequest(screenplay_id=made.id, version=9), timeout=PATIENCE
        )
    )
    assert missing.kind == (grpc.StatusCode.NOT_FOUND, "SCREENPLAY_VERSION_NOT_FOUND")


async def test_a_rename_moves_the_file_unless_told_otherwise(content: Content) -> None:
    made = await create(content, "A", file_path="docs/a.md")
    stub = content.screenplays
    renamed = await stub.RenameScreenplay(
        pb.RenameScreenplayRequest(screenplay_id=made.id, new_name="B"), timeout=PATIENCE
    )
    kept = await stub.RenameScreenplay(
        pb.RenameScreenplayRequest(
            screenplay_id=made.id, new_name="C", update_file_paths=False, etag="2"
        ),
        timeout=PATIENCE,
    )
    assert (renamed.name, renamed.file_path) == ("B", "docs/B.md")
    assert (kept.name, kept.file_path, kept.version) == ("C", "docs/B.md", 3)


async def test_using_and_moving_keep_the_etag(content: Content) -> None:
    made = await create(content)
    stub = content.screenplays
    moved = await stub.SetScreenplayWorkingDirectory(
        pb.SetScreenplayWorkingDirectoryRequest(screenplay_id=made.id, working_directory="/srv"),
        timeout=PATIENCE,
    )
    used = await stub.MarkScreenplayUsed(
        pb.MarkScreenplayUsedRequest(screenplay_id=made.id), timeout=PATIENCE
    )
    assert (moved.working_directory, moved.etag) == ("/srv", "1")
    assert used.last_use_time.ToMicroseconds() > made.last_use_time.ToMicroseconds()
    relative = pb.SetScreenplayWorkingDirectoryRequest(
        screenplay_id=made.id, working_directory="srv"
    )
    refused = await refusal(stub.SetScreenplayWorkingDirectory(relative, timeout=PATIENCE))
    assert refused.fields == ["working_directory"]


async def test_screenplays_are_listed_in_pages_of_any_order(content: Content) -> None:
    for name in ("b", "A", "c"):
        await create(content, name, tags=["t"], content="text")
    order = pb.ListScreenplaysRequest.Order.ORDER_NAME
    stub = content.screenplays
    first = await stub.ListScreenplays(
        pb.ListScreenplaysRequest(page_size=2, order=order), timeout=PATIENCE
    )
    second = pb.ListScreenplaysRequest(page_size=2, order=order, page_token=first.next_page_token)
    rest = await stub.ListScreenplays(second, timeout=PATIENCE)

    assert [one.name for one in first.screenplays] == ["A", "b"]
    assert [one.name for one in rest.screenplays] == ["c"]
    assert {one.content for one in first.screenplays} == {""}
    assert rest.next_page_token == ""
    assert await listed(content) == ["c", "A", "b"]
    assert await listed(content, reverse=True) == ["b", "A", "c"]
    assert await listed(content, query="a", tags=["T"]) == ["A"]
    second.order = pb.ListScreenplaysRequest.Order.ORDER_CREATE_TIME
    refused = await refusal(stub.ListScreenplays(second, timeout=PATIENCE))
    assert refused.reason == "PAGE_TOKEN_INVALID"


async def test_a_file_goes_in_and_out_byte_for_byte(content: Content) -> None:
    stub = content.screenplays
    text = "\ufeff# é\r\n\x00" + "x" * (200 * 1024) + "𝄞"
    made = await stub.ImportScreenplay(
        pb.ImportScreenplayRequest(import_path="docs/a.md", content=text), timeout=PATIENCE
    )
    again = await stub.ImportScreenplay(
        pb.ImportScreenplayRequest(import_path="docs/a.md", content="", overwrite=True),
        timeout=PATIENCE,
    )
    assert (made.name, made.import_path, again.id) == ("a", "docs/a.md", made.id)

    async def exported() -> list[bytes]:
        request = pb.ExportScreenplayRequest(screenplay_id=made.id)
        bodies = [one async for one in stub.ExportScreenplay(request, timeout=PATIENCE)]
        assert {one.content_type for one in bodies} == {"text/markdown; charset=utf-8"}
        return [one.data for one in bodies]

    assert await exported() == [b""]
    await update(content, made.id, content=text)
    pieces = await exported()
    assert max(map(len, pieces)) <= 64 * 1024
    assert b"".join(pieces) == text.encode()
    nobody = stub.ExportScreenplay(pb.ExportScreenplayRequest(screenplay_id="play_x"))
    assert (await stream_refusal(nobody)).kind == NOT_FOUND


async def test_markdown_is_checked_without_being_stored(content: Content) -> None:
    answer = await content.screenplays.ValidateMarkdown(
        pb.ValidateMarkdownRequest(content="## A \n```\n"), timeout=PATIENCE
    )
    assert not answer.is_valid
    assert [(one.rule, one.line, one.column) for one in answer.errors] == [("unclosed-fence", 2, 1)]
    assert [(one.rule, one.column) for one in answer.warnings] == [
        ("heading-level-jump", 1),
        ("trailing-white-space", 5),
    ]
    assert await listed(content) == []


async def test_the_largest_text_is_saved_and_a_larger_one_refused(content: Content) -> None:
    made = await create(content, content=f"{'x' * 98} \n" * (MEBIBYTE // 100))
    changed = await update(content, made.id, content="é" * (MEBIBYTE // 2))
    assert (changed.content_bytes, len(made.findings)) == (MEBIBYTE, 100)
    refused = await refusal(update(content, made.id, content="a" * (MEBIBYTE + 1)))
    assert refused.fields == ["screenplay.content"]


async def test_what_breaks_a_rule_is_named(content: Content) -> None:
    for fields, at in (
        ({"name": ""}, "screenplay.name"),
        ({"name": "a:b"}, "screenplay.name"),
        ({"file_path": "../a.md"}, "screenplay.file_path"),
        ({"export_path": "a.exe"}, "screenplay.export_path"),
        ({"tags": ["x" * 51]}, "screenplay.tags[0]"),
        ({"working_directory": "a"}, "screenplay.working_directory"),
    ):
        refused = await refusal(create(content, **fields))
        assert (refused.reason, refused.fields) == ("INVALID_REQUEST", [at])
    unnamed = pb.CreateScreenplayRequest(screenplay=Screenplay(content="a"))
    refused = await refusal(content.screenplays.CreateScreenplay(unnamed, timeout=PATIENCE))
    assert refused.fields == ["screenplay.name"]
