"""Directories and archives: what is packed, and that no archive writes where it likes."""

from __future__ import annotations

import io
import stat
import zipfile
from pathlib import Path

import pytest

from conductor.content.v1.archive_service_pb2 import ArchiveProgress, ImportItem, ImportReport
from conductor_ai.cli.directories import DirectoryError, pack, unpack

AGENT = "agents/writer/definition.yaml"
PERSONA = "agents/writer/persona.md"
PLAY = "screenplays/acts/één 👨\u200d👩\u200d👧.md"


def archive(*entries: tuple[str | zipfile.ZipInfo, bytes]) -> io.BytesIO:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as packed:
        for entry, content in entries:
            packed.writestr(entry, content)
    return file


def unpacked(
    file: io.BytesIO, directory: Path, *, dry_run: bool = False, force: bool = False
) -> ImportReport:
    steps: list[ArchiveProgress] = []
    return unpack(file, directory, dry_run=dry_run, force=force, watch=steps.append)


def counts(report: ImportReport) -> tuple[int, int, int, int]:
    return report.created, report.overwritten, report.kept, report.unchanged


def files_in(directory: Path) -> dict[str, bytes]:
    return {
        path.relative_to(directory).as_posix(): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file()
    }


def test_what_is_packed_comes_out_again_byte_for_byte(tmp_path: Path) -> None:
    there = tmp_path / "there"
    content = {AGENT: b"name: Writer\n", PERSONA: b"\xef\xbb\xbf# W\r\n", PLAY: b""}
    for name, text in content.items():
        (there / name).parent.mkdir(parents=True, exist_ok=True)
        (there / name).write_bytes(text)
    file, again = io.BytesIO(), io.BytesIO()

    assert pack(there, file) == []
    pack(there, again)

    assert file.getvalue() == again.getvalue()
    assert counts(unpacked(file, tmp_path / "here")) == (3, 0, 0, 0)
    assert files_in(tmp_path / "here") == content
    assert counts(unpacked(file, there)) == (0, 0, 0, 3)


def test_what_is_no_content_is_named_and_stays_where_it_is(tmp_path: Path) -> None:
    (tmp_path / "agents/writer").mkdir(parents=True)
    (tmp_path / "agents/writer/history.log").write_text("secret")
    (tmp_path / "agents/.git").mkdir()
    (tmp_path / "agents/.git/config").write_text("secret")
    (tmp_path / "notes.md").write_text("secret")
    (tmp_path / "screenplays").symlink_to(tmp_path / "agents")
    (tmp_path / "agents/writer/persona.md").symlink_to(tmp_path / "notes.md")
    file = io.BytesIO()

    odd = pack(tmp_path, file)

    with zipfile.ZipFile(file) as packed:
        assert {name: packed.read(name) for name in packed.namelist()} == {
            "agents/writer/history.log": b""
        }
    assert [finding.location for finding in odd] == [PERSONA, "screenplays"]


def test_a_directory_without_content_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DirectoryError, match="neither agents/ nor screenplays/"):
        pack(tmp_path, io.BytesIO())


def test_a_file_that_no_text_can_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "screenplays").mkdir()
    with (tmp_path / "screenplays/large.md").open("wb") as large:
        large.truncate(5 * 1024 * 1024)

    with pytest.raises(DirectoryError, match=r"large\.md is larger"):
        pack(tmp_path, io.BytesIO())


def link(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.create_system = 3
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


@pytest.mark.parametrize(
    "name",
    [
        *("../out.md", "screenplays/../../out.md", "/etc/out.md", "screenplays//out.md"),
        *("screenplays/./out.md", "screenplays/C:/out.md", "screenplays/..\\out.md"),
        *("screenplays/a\nb.md", "screenplays/out.exe", "agents/writer/.bashrc", ".bashrc"),
        *("agents/wri/ter/persona.md", "agents/../persona.md", "agents/a.b/persona.md"),
        *("agents/writer/PERSONA.md", "screenplays/a\u2028b.md", "Agents/writer/persona.md"),
    ],
)
def test_an_odd_path_in_an_archive_keeps_all_of_it_out(tmp_path: Path, name: str) -> None:
    file = archive((PLAY, b"fine"), (name, b"out"))
    here = tmp_path / "a/b/here"

    with pytest.raises(DirectoryError, match="no content"):
        unpacked(file, here)

    assert files_in(tmp_path) == {}


def test_a_link_in_an_archive_keeps_all_of_it_out(tmp_path: Path) -> None:
    with pytest.raises(DirectoryError, match="no content"):
        unpacked(archive((PLAY, b"fine"), (link("screenplays/x.md"), b"/etc/passwd")), tmp_path)

    assert files_in(tmp_path) == {}


def test_a_damaged_archive_is_a_sentence(tmp_path: Path) -> None:
    whole = archive((PLAY, b"fine" * 1000)).getvalue()
    for broken in (b"", whole[:-10], whole[:60] + b"\xff\xff" + whole[62:]):
        with pytest.raises(DirectoryError, match="damaged"):
            unpacked(io.BytesIO(broken), tmp_path)


def test_no_byte_of_an_archive_makes_more_than_a_sentence(tmp_path: Path) -> None:
    whole = archive((PERSONA, b"fine" * 10)).getvalue()

    for place in range(len(whole)):
        flipped = bytearray(whole)
        flipped[place] ^= 0x5A
        try:
            report = unpacked(io.BytesIO(flipped), tmp_path / "here", dry_run=True)
        except DirectoryError:
            continue
        assert counts(report) in {(0, 0, 0, 0), (1, 0, 0, 0)}


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    with pytest.raises(DirectoryError, match="larger than any text"):
        unpacked(archive((PLAY, bytes(5 * 1024 * 1024))), tmp_path)


def test_what_differs_is_kept_unless_forced_and_a_dry_run_writes_nothing(tmp_path: Path) -> None:
    (tmp_path / "agents/writer").mkdir(parents=True)
    (tmp_path / PERSONA).write_bytes(b"mine")
    (tmp_path / AGENT).write_bytes(b"same")
    file = archive((AGENT, b"same"), (PERSONA, b"theirs"), (PLAY, b"new"))

    assert counts(unpacked(file, tmp_path, dry_run=True)) == (1, 0, 1, 1)
    assert not (tmp_path / PLAY).exists()
    report = unpacked(file, tmp_path)
    assert counts(report) == (1, 0, 1, 1)
    assert [(item.action, item.id) for item in report.items] == [
        (ImportItem.ACTION_KEPT, PERSONA),
        (ImportItem.ACTION_CREATED, PLAY),
    ]
    assert (tmp_path / PERSONA).read_bytes() == b"mine"
    assert counts(unpacked(file, tmp_path, force=True)) == (0, 1, 0, 2)
    assert (tmp_path / PERSONA).read_bytes() == b"theirs"


def test_links_in_the_directory_are_not_followed(tmp_path: Path) -> None:
    here, outside = tmp_path / "here", tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.md").write_bytes(b"secret")
    (here / "screenplays").mkdir(parents=True)
    (here / "agents").symlink_to(outside)
    (here / "screenplays/link.md").symlink_to(outside / "secret.md")
    file = archive((PERSONA, b"p"), ("screenplays/link.md", b"secret"))

    report = unpacked(file, here)

    assert counts(report) == (0, 0, 1, 0)
    assert [finding.location for finding in report.findings] == [PERSONA]
    unpacked(file, here, force=True)
    assert files_in(outside) == {"secret.md": b"secret"}
    assert not (here / "screenplays/link.md").is_symlink()


def test_a_file_that_cannot_be_written_is_told_and_the_others_are(tmp_path: Path) -> None:
    (tmp_path / PLAY).mkdir(parents=True)

    report = unpacked(archive((PLAY, b"x"), (PERSONA, b"p")), tmp_path)

    assert counts(report) == (1, 0, 0, 0)
    assert [finding.location for finding in report.findings] == [PLAY]
