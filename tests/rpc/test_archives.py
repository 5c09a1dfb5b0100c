"""Backups, restores and directories through the served service."""

from __future__ import annotations

import io
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from google.protobuf.json_format import MessageToDict

from conductor.audit.v1.audit_service_pb2 import ListAuditRecordsRequest
from conductor.audit.v1.audit_service_pb2_grpc import AuditServiceStub
from conductor.content.v1 import (
    agent_service_pb2,
    persona_service_pb2,
    screenplay_service_pb2,
    template_service_pb2,
)
from conductor.content.v1 import archive_service_pb2 as pb
from tests.patience import PATIENCE
from tests.rpc.archiving import BACKUP, export, importing, requests, take_in
from tests.rpc.content import Content, served_content
from tests.rpc.serving import stream_refusal

DIRECTORY = pb.ARCHIVE_LAYOUT_DIRECTORY


@pytest.fixture
async def content(tmp_path: Path) -> AsyncIterator[Content]:
    async with served_content(tmp_path) as served:
        yield served


async def furnish(content: Content) -> None:
    """Install a category, and work with what came."""
    await content.templates.InstallTemplates(
        template_service_pb2.InstallTemplatesRequest(category="writing"), timeout=PATIENCE
    )
    listed = await content.agents.ListAgents(
        agent_service_pb2.ListAgentsRequest(), timeout=PATIENCE
    )
    agent_id = next(agent.id for agent in listed.agents if not agent.built_in)
    for text in ("# One", "# Two\r\n"):
        update = persona_service_pb2.UpdatePersonaRequest(force=True)
        update.persona.agent_id = agent_id
        update.persona.content = text
        await content.personas.UpdatePersona(update, timeout=PATIENCE)
    alias = persona_service_pb2.SetPersonaAliasRequest(
        agent_id=agent_id, alias="production", version="2"
    )
    await content.personas.SetPersonaAlias(alias, timeout=PATIENCE)
    create = screenplay_service_pb2.CreateScreenplayRequest(request_id="r1")
    create.screenplay.name = "Spiel ✍️"
    create.screenplay.file_path = "plays/a.md"
    create.screenplay.content = "# A\n"
    made = await content.screenplays.CreateScreenplay(create, timeout=PATIENCE)
    change = screenplay_service_pb2.UpdateScreenplayRequest(force=True)
    change.screenplay.id = made.id
    change.screenplay.content = "# B\n"
    await content.screenplays.UpdateScreenplay(change, timeout=PATIENCE)


async def test_a_backup_restored_elsewhere_is_byte_for_byte_the_same(
    content: Content, tmp_path: Path
) -> None:
    await furnish(content)
    raw = await export(content)

    async with served_content(tmp_path / "other") as other:
        report = await take_in(other, raw)
        assert (report.created, report.kept, report.overwritten) == (8, 0, 0)
        assert {item.kind for item in report.items} == {"agent", "persona", "screenplay"}
        assert await export(other) == raw
        again = await take_in(other, raw, force=True)
        assert (again.unchanged, list(again.items)) == (report.created + report.unchanged, [])
    assert list((tmp_path / "content").glob("tmp*")) == []


async def test_what_was_restored_can_be_worked_with(content: Content, tmp_path: Path) -> None:
    await furnish(content)
    raw = await export(content)
    listed = screenplay_service_pb2.ListScreenplaysRequest(query="spiel")

    async with served_content(tmp_path / "other") as other:
        await take_in(other, raw)

        found = await other.screenplays.ListScreenplays(listed, timeout=PATIENCE)
        (play,) = found.screenplays
        texts = await other.screenplays.ListScreenplayVersions(
            screenplay_service_pb2.ListScreenplayVersionsRequest(screenplay_id=play.id),
            timeout=PATIENCE,
        )
        assert [one.version for one in texts.screenplay_versions] == [2, 1]
        personas = await other.personas.ListPersonas(
            persona_service_pb2.ListPersonasRequest(), timeout=PATIENCE
        )
        assert sorted((one.version, one.active_version) for one in personas.personas) == [
            (1, 1),
            (1, 1),
            (3, 2),
        ]


async def test_a_directory_goes_there_and_back(content: Content, tmp_path: Path) -> None:
    await furnish(content)
    raw = await export(content, DIRECTORY)
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        assert archive.read("screenplays/plays/a.md") == b"# B\n"

    async with served_content(tmp_path / "other") as other:
        dry = await take_in(other, raw, layout=DIRECTORY, dry_run=True)
        report = await take_in(other, raw, layout=DIRECTORY)
        assert dry.dry_run
        assert (dry.created, report.created) == (7, 7)
        assert await export(other, DIRECTORY) == raw


async def test_browsers_get_the_same_file(content: Content) -> None:
    await furnish(content)
    stream = content.archives.DownloadArchive(pb.ExportArchiveRequest(), timeout=PATIENCE)

    bodies = [body async for body in stream]

    assert {body.content_type for body in bodies} == {"application/zip"}
    assert max(len(body.data) for body in bodies) <= 64 * 1024
    assert b"".join(body.data for body in bodies) == await export(content)


async def test_a_damaged_archive_is_refused_and_says_where(content: Content) -> None:
    await furnish(content)
    raw = await export(content)
    before = await export(content)

    refused = await stream_refusal(importing(content, requests(raw[:-7], force=True)))

    assert refused.kind == (grpc.StatusCode.INVALID_ARGUMENT, "ARCHIVE_INVALID")
    assert refused.fields == ["archive"]
    assert "Nothing was written" in refused.message
    assert await export(content) == before


async def test_too_large_an_archive_is_refused_while_it_comes(tmp_path: Path) -> None:
    async with served_content(tmp_path, content_archive_bytes=2**20) as content:
        refused = await stream_refusal(importing(content, requests(b"x" * (2**20 + 1), size=2**18)))

    assert refused.kind == (grpc.StatusCode.RESOURCE_EXHAUSTED, "ARCHIVE_TOO_LARGE")


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ([], "options"),
        ([pb.ImportArchiveRequest(chunk=b"PK")], "options"),
        ([pb.ImportArchiveRequest()], "options"),
        ([*requests(b""), *requests(b"")], "chunk"),
        ([*requests(b"x" * (2**20 + 1), size=2**21)], "chunk"),
        ([pb.ImportArchiveRequest(options=pb.ImportArchiveOptions(layout=7))], "options.layout"),  # type: ignore[arg-type]  # no layout
    ],
    ids=[
        "nothing",
        "a chunk first",
        "an empty message first",
        "options twice",
        "a large chunk",
        "no layout",
    ],
)
async def test_who_does_not_keep_to_the_order_is_told(
    content: Content, asked: list[pb.ImportArchiveRequest], field: str
) -> None:
    refused = await stream_refusal(importing(content, asked))

    assert refused.kind == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
    assert refused.fields == [field]


async def test_an_import_leaves_a_record_without_the_file(content: Content) -> None:
    raw = await export(content)
    await take_in(content, raw, force=True)

    listed = await AuditServiceStub(content.channel).ListAuditRecords(
        ListAuditRecordsRequest(), timeout=PATIENCE
    )

    (record,) = [one for one in listed.audit_records if one.rpc.endswith("ImportArchive")]
    assert MessageToDict(record.request) == {"options": {"force": True}}
    assert "ExportArchive" not in str(listed)


async def test_an_import_that_fails_leaves_a_record_that_says_so(content: Content) -> None:
    asked = [
        pb.ImportArchiveRequest(options=pb.ImportArchiveOptions(layout=BACKUP)),
        pb.ImportArchiveRequest(chunk=b"no zip file"),
    ]
    refused = await stream_refusal(importing(content, asked))
    assert refused.kind == (grpc.StatusCode.INVALID_ARGUMENT, "ARCHIVE_INVALID")

    listed = await AuditServiceStub(content.channel).ListAuditRecords(
        ListAuditRecordsRequest(), timeout=PATIENCE
    )

    records = [one for one in listed.audit_records if one.rpc.endswith("ImportArchive")]
    assert [(one.outcome, one.reason) for one in records] == [
        ("INVALID_ARGUMENT", "ARCHIVE_INVALID"),
        ("OK", ""),
    ]


async def test_who_goes_away_while_sending_leaves_nothing(content: Content, tmp_path: Path) -> None:
    await furnish(content)
    raw = await export(content)
    async with served_content(tmp_path / "other") as other:
        before = await export(other)
        call = other.archives.ImportArchive(timeout=PATIENCE)
        for request in requests(raw):
            await call.write(request)
        call.cancel()

        assert await export(other) == before
        assert (await take_in(other, raw)).created == 8
