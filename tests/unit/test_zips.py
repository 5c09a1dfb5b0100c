"""Zip files are read strictly: whole, or not at all."""

from __future__ import annotations

import io
import shutil
import stat
import struct
import subprocess
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.content.adapters.zips import CHUNK, Part, Reader, joined, weight
from services.content.domain.archives import ArchiveError

FILES = {
    "agents/a/agent.json": b'{"name": "A"}\n',
    "agents/ä/persona.md": "Grüße 👋\r\n".encode() * 200,
    "empty.md": b"",
    "noise.bin": zlib.compress(bytes(range(256)) * 50, 9),
}


def zipped(files: Mapping[str, bytes], directory: Path) -> bytes:
    part = Part(directory)
    for path, raw in files.items():
        part.add(path, [raw])
    made = b"".join(joined([part]))
    part.close()
    return made


def read(raw: bytes) -> dict[str, bytes]:
    """What a zip file holds."""
    with tempfile.TemporaryFile() as file:
        file.write(raw)
        file.flush()
        reader = Reader(file)
        return {one.path: b"".join(reader.chunks(one)) for one in reader.files()}


def others(files: Mapping[str, bytes], **how: object) -> bytes:
    """A zip file as Python's library makes it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", **how) as archive:  # type: ignore[call-overload]  # told by name
        for path, raw in files.items():
            archive.writestr(path, raw)
    return buffer.getvalue()


def test_what_was_packed_is_read_back(tmp_path: Path) -> None:
    assert read(zipped(FILES, tmp_path)) == FILES


def test_the_same_files_make_the_same_bytes_and_leave_nothing_behind(tmp_path: Path) -> None:
    assert zipped(FILES, tmp_path) == zipped(FILES, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_other_readers_read_what_is_packed_here(tmp_path: Path) -> None:
    raw = zipped(FILES, tmp_path)

    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        assert archive.testzip() is None
        assert {info.filename: archive.read(info) for info in archive.infolist()} == FILES
    if shutil.which("unzip"):
        (tmp_path / "a.zip").write_bytes(raw)
        subprocess.run(["unzip", "-tqq", tmp_path / "a.zip"], check=True)


def test_what_others_pack_is_read(tmp_path: Path) -> None:
    assert read(others(FILES)) == FILES
    assert read(others(FILES, compression=zipfile.ZIP_DEFLATED)) == FILES


def test_what_is_packed_into_a_pipe_is_read() -> None:
    class Pipe(io.RawIOBase):
        def __init__(self) -> None:
            self.raw = b""

        def writable(self) -> bool:
            return True

        def write(self, chunk: bytes) -> int:  # type: ignore[override]  # bytes alone come here
            self.raw += bytes(chunk)
            return len(chunk)

    pipe = Pipe()
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, raw in FILES.items():
            archive.writestr(path, raw)

    assert read(pipe.raw) == FILES


def test_more_files_than_sixteen_bits_count_are_packed_and_read(tmp_path: Path) -> None:
    files = {f"{number}": b"" for number in range(66_000)}
    raw = zipped(files, tmp_path)

    assert read(raw) == files
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        assert len(archive.namelist()) == 66_000


def test_what_comes_after_a_mark_can_be_forgotten(tmp_path: Path) -> None:
    part = Part(tmp_path)
    part.add("a", [b"one"])
    place = part.place()
    part.add("b", [b"two" * 100_000])
    part.cut(place)
    part.add("c", [b"three"])

    assert read(b"".join(joined([part]))) == {"a": b"one", "c": b"three"}
    part.close()


def test_pieces_are_of_64_kib_at_most(tmp_path: Path) -> None:
    part = Part(tmp_path)
    part.add("a", [bytes(range(256)) * 2000, zlib.compress(b"x")])
    part.add("b", [struct.pack(">I", n * 2654435761 % 2**32) for n in range(60_000)])

    assert {len(piece) for piece in joined([part])} >= {CHUNK}
    assert max(len(piece) for piece in joined([part])) == CHUNK
    part.close()


def test_a_zip_file_is_never_larger_than_its_files_count_for(tmp_path: Path) -> None:
    files = {**FILES, "n" * 300: b"x", "z" * 1000: zlib.compress(bytes(range(256)) * 4000) * 50}

    assert len(zipped(files, tmp_path)) <= 100 + sum(weight(p, len(r)) for p, r in files.items())


def patched(raw: bytes, place: int, new: bytes) -> bytes:
    return raw[:place] + new + raw[place + len(new) :]


def described(raw: bytes, offset: int, new: bytes) -> bytes:
    """Change a field of the first record of the directory."""
    return patched(raw, raw.index(b"PK\x01\x02") + offset, new)


def bomb(raw: bytes) -> bytes:
    """Say of a file of 10 MB, in both places, that it has one byte."""
    raw = described(raw, 24, struct.pack("<I", 1))
    return patched(raw, 22, struct.pack("<I", 1))


def with_gap(raw: bytes) -> bytes:
    directory = raw.index(b"PK\x01\x02")
    return patched(
        raw[:directory] + b"gap" + raw[directory:],
        len(raw) + 3 - 6,
        struct.pack("<I", directory + 3),
    )


HOSTILE: dict[str, Callable[[bytes], bytes]] = {
    "nothing": lambda raw: b"",
    "no zip file": lambda raw: b"x" * 100,
    "something before it": lambda raw: b"#!/bin/sh\n" + raw,
    "something after it": lambda raw: raw + b"\n",
    "another zip file before it": lambda raw: others({"x": b"y"}) + raw,
    "a comment": lambda raw: raw[:-2] + b"\x05\x00hello",
    "bytes between the files and the directory": with_gap,
    "a link": lambda raw: described(raw, 38, struct.pack("<I", (stat.S_IFLNK | 0o777) << 16)),
    "a device": lambda raw: described(raw, 38, struct.pack("<I", (stat.S_IFCHR | 0o777) << 16)),
    "encrypted": lambda raw: described(raw, 8, struct.pack("<H", 1 << 11 | 1)),
    "packed otherwise": lambda raw: described(raw, 10, struct.pack("<H", 12)),
    "another name in the header": lambda raw: patched(raw, 30, b"X"),
    "another size in the header": lambda raw: patched(raw, 22, b"\x01"),
    "a bomb that says it is small": bomb,
    "several disks": lambda raw: patched(raw, len(raw) - 18, b"\x01"),
    "fewer files than there are": lambda raw: patched(raw, len(raw) - 14, b"\x01\x00\x01\x00"),
    "more files than there are": lambda raw: patched(raw, len(raw) - 14, b"\xf0\xff\xf0\xff"),
}


@pytest.mark.parametrize("how", HOSTILE)
def test_odd_ones_are_refused(tmp_path: Path, how: str) -> None:
    raw = zipped({"large": b"\0" * 10_000_000, "small": b"x"}, tmp_path)
    assert len(raw) < 20_000

    with pytest.raises(ArchiveError):
        read(HOSTILE[how](raw))


def test_files_that_share_their_bytes_are_refused(tmp_path: Path) -> None:
    raw = zipped({"a": b"\0" * 100_000}, tmp_path)
    directory = raw.index(b"PK\x01\x02")
    end = raw.index(b"PK\x05\x06")
    record = raw[directory:end]
    last = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 2, 2, 2 * len(record), directory, 0)

    with pytest.raises(ArchiveError, match="does not begin where"):
        read(raw[:directory] + 2 * record + last)


def test_every_cut_is_refused(tmp_path: Path) -> None:
    raw = zipped(FILES, tmp_path)

    for length in range(len(raw)):
        with pytest.raises(ArchiveError):
            read(raw[:length])


def test_a_changed_byte_is_refused_or_changes_nothing(tmp_path: Path) -> None:
    raw = zipped(FILES, tmp_path)
    harmless = 0

    for place in range(len(raw)):
        try:
            found = read(patched(raw, place, bytes([raw[place] ^ 0x41])))
        except ArchiveError:
            continue
        # Times, permissions, and which system made it.
        harmless += 1
        assert found == FILES
    assert harmless < 100


@settings(max_examples=60, deadline=None, database=None)
@given(noise=st.binary(max_size=300))
def test_noise_is_refused(noise: bytes) -> None:
    with pytest.raises(ArchiveError):
        read(noise)
