"""Archives that do not come to their end, or are not what they should be: nothing half is left."""

from __future__ import annotations

import asyncio
import io
import signal
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
import pytest_asyncio
from google.api.httpbody_pb2 import HttpBody

from conductor.content.v1 import archive_service_pb2 as pb
from conductor.content.v1.archive_service_pb2_grpc import (
    ArchiveServiceServicer,
    add_ArchiveServiceServicer_to_server,
)
from tests.patience import PATIENCE
from tests.rpc.scripted import Context, Failure
from tests.rpc.terminal import Terminal, unstyled


class Archivist(ArchiveServiceServicer):
    """Sends these answers, and then what it is told: an error, or nothing more for ever."""

    def __init__(self) -> None:
        self.answers: list[pb.ExportArchiveResponse] = []
        self.failure: Failure | None = None
        self.hangs = False
        self.reached = asyncio.Event()

    async def ExportArchive(
        self, request: pb.ExportArchiveRequest, context: Context
    ) -> AsyncIterator[pb.ExportArchiveResponse]:
        for answer in self.answers:
            yield answer
        await self._end(context)

    async def ImportArchive(
        self, request_iterator: AsyncIterator[pb.ImportArchiveRequest], context: Context
    ) -> AsyncIterator[pb.ImportArchiveResponse]:
        async for _ in request_iterator:
            pass
        yield pb.ImportArchiveResponse(progress=progress(pb.ArchiveProgress.PHASE_APPLY))
        await self._end(context)

    async def DownloadArchive(
        self, request: pb.ExportArchiveRequest, context: Context
    ) -> AsyncIterator[HttpBody]:
        yield HttpBody()

    async def _end(self, context: Context) -> None:
        self.reached.set()
        if self.failure is not None:
            await self.failure.abort(context)
        if self.hangs:
            await asyncio.Event().wait()


def progress(phase: pb.ArchiveProgress.Phase.ValueType) -> pb.ArchiveProgress:
    return pb.ArchiveProgress(phase=phase, done=3, total=4)


def chunk(content: bytes) -> pb.ExportArchiveResponse:
    return pb.ExportArchiveResponse(chunk=content)


@pytest.fixture
def archivist() -> Archivist:
    return Archivist()


@pytest_asyncio.fixture
async def terminal(
    archivist: Archivist, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Terminal]:
    monkeypatch.chdir(tmp_path)
    server = grpc.aio.server()
    add_ArchiveServiceServicer_to_server(archivist, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield Terminal(f"127.0.0.1:{port}")
    await server.stop(None)


def names(directory: Path) -> list[str]:
    return sorted(path.relative_to(directory).as_posix() for path in directory.rglob("*"))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("backup", "create", "all.zip"), ""),
        (("migrate", "export", "there"), ""),
        (("backup", "restore", "given.zip"), "takes in all of it or nothing"),
    ],
)
async def test_ctrl_c_leaves_nothing_half(
    archivist: Archivist, terminal: Terminal, tmp_path: Path, arguments: tuple[str, ...], told: str
) -> None:
    (tmp_path / "given.zip").write_bytes(b"zip")
    archivist.answers, archivist.hangs = [chunk(b"half")], True

    process = await terminal.start(*arguments)
    await asyncio.wait_for(archivist.reached.wait(), PATIENCE)
    process.send_signal(signal.SIGINT)
    _, err = await asyncio.wait_for(process.communicate(), PATIENCE)

    assert process.returncode == 130
    assert told in err.decode()
    assert "Traceback" not in err.decode()
    assert names(tmp_path) == ["given.zip"]


async def test_a_backup_that_is_cut_leaves_the_one_before(
    archivist: Archivist, terminal: Terminal, tmp_path: Path
) -> None:
    (tmp_path / "all.zip").write_bytes(b"before")
    archivist.answers = [chunk(b"half")]
    archivist.failure = Failure(grpc.StatusCode.INTERNAL, "It broke.", "INTERNAL")

    outcome = await terminal.run("backup", "create", "all.zip", "--force")

    assert (outcome.status, outcome.err) == (1, "error: It broke. (INTERNAL)\n")
    assert (tmp_path / "all.zip").read_bytes() == b"before"
    assert names(tmp_path) == ["all.zip"]


async def test_an_archive_that_reaches_out_of_its_directory_writes_nothing(
    archivist: Archivist, terminal: Terminal, tmp_path: Path
) -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as packed:
        packed.writestr("screenplays/fine.md", "fine")
        packed.writestr("screenplays/../../out.md", "out")
    archivist.answers = [chunk(file.getvalue())]

    outcome = await terminal.run("migrate", "export", "there", "--force")

    assert outcome.status == 2
    assert "'screenplays/../../out.md', which is no content" in outcome.err
    assert names(tmp_path) == []


async def test_somebody_at_a_terminal_sees_how_far_it_is(
    archivist: Archivist, terminal: Terminal, tmp_path: Path
) -> None:
    archivist.answers = [
        pb.ExportArchiveResponse(progress=progress(pb.ArchiveProgress.PHASE_EXPORT)),
        chunk(b"whole"),
    ]

    shown = unstyled((await terminal.show("backup", "create", "all.zip")).out)

    assert "exporting" in shown
    assert "3/4" in shown
    assert "all.zip written, 5 bytes" in shown
    assert (tmp_path / "all.zip").read_bytes() == b"whole"
