"""Zip files, strictly: the same files make the same bytes, and what is read is all there is.

Readers of zip files disagree about those that are odd: whether the directory at the end counts or the
headers before the files, what lies between them, where the file begins. So nothing odd is read: no byte
may belong to no file, and what is said twice has to be the same.
"""

from __future__ import annotations

import os
import stat
import struct
import tempfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple

from services.content.domain.archives import ArchiveError

CHUNK = 64 * 1024

_LOCAL = struct.Struct("<4s5H3I2H")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_END = struct.Struct("<4s4H2IH")
_END_64 = struct.Struct("<4sQ2H2I4Q")
_LOCATOR_64 = struct.Struct("<4sIQI")
_DESCRIPTOR = struct.Struct("<4s3I")
_LOCAL_SIGN, _CENTRAL_SIGN = b"PK\x03\x04", b"PK\x01\x02"
_END_SIGN, _END_64_SIGN, _LOCATOR_64_SIGN = b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07"
_DESCRIPTOR_SIGN = b"PK\x07\x08"

_STORED, _DEFLATED = 0, 8
_UTF_8, _DESCRIBED = 1 << 11, 1 << 3
_KNOWN_FLAGS = _UTF_8 | _DESCRIBED | 0b110  # the other two say how hard was packed
_UNIX = 3
_VERSION = 20
_VERSION_64 = 45
_NO_TIME, _FIRST_DAY = 0, (1 << 5) | 1  # 1980-01-01, the first there is
_FULL_16, _FULL_32 = 0xFFFF, 0xFFFFFFFF
_LEVEL = 6
_MOST_NAME_BYTES = 4096


def weight(path: str, size: int) -> int:
    """Return how many bytes a file counts for, at least as many as it takes in a zip file."""
    return size + size // 1000 + 128 + 2 * len(path.encode())


class Part:
    """Some files of a zip file to be, packed into temporary files that have no name.

    Args:
        directory: where these are.
    """

    def __init__(self, directory: Path) -> None:
        self._data = tempfile.TemporaryFile(dir=directory)  # noqa: SIM115 closed by `close`
        self._records = tempfile.TemporaryFile(dir=directory)  # noqa: SIM115
        self.count = 0
        self.size = 0
        """Of the packed files, in bytes."""

    def add(self, path: str, chunks: Iterable[bytes]) -> None:
        """Pack a file."""
        name = path.encode()
        packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
        start, crc, size = self.size, 0, 0
        self._data.seek(start + _LOCAL.size + len(name))
        for chunk in chunks:
            crc, size = zlib.crc32(chunk, crc), size + len(chunk)
            self._data.write(packer.compress(chunk))
        self._data.write(packer.flush())
        end = self._data.tell()
        packed = end - start - _LOCAL.size - len(name)
        how = (_VERSION, _UTF_8, _DEFLATED, _NO_TIME, _FIRST_DAY, crc, packed, size, len(name), 0)
        self._data.seek(start)
        self._data.write(_LOCAL.pack(_LOCAL_SIGN, *how) + name)
        self._records.write(
            _CENTRAL.pack(
                _CENTRAL_SIGN,
                _UNIX << 8 | _VERSION,
                *how,
                0,
                0,
                0,
                (stat.S_IFREG | 0o644) << 16,
                start,
            )
            + name
        )
        self.size, self.count = end, self.count + 1

    def place(self) -> tuple[int, int, int]:
        """Return where it ends now, for `cut`."""
        return self.size, self.count, self._records.tell()

    def cut(self, place: tuple[int, int, int]) -> None:
        """Forget what was added since."""
        self.size, self.count, records = place
        self._data.truncate(self.size)
        self._records.truncate(records)
        self._records.seek(records)

    def data(self) -> Iterator[bytes]:
        """Read the packed files."""
        self._data.seek(0)
        while chunk := self._data.read(CHUNK):
            yield chunk

    def records(self, offset: int) -> Iterator[bytes]:
        """Read their records in the directory of a zip file in which they begin at an offset."""
        self._records.seek(0)
        while head := self._records.read(_CENTRAL.size):
            *said, start = _CENTRAL.unpack(head)
            yield _CENTRAL.pack(*said, start + offset) + self._records.read(said[10])

    def close(self) -> None:
        """Let go of the temporary files."""
        let_go(self._data)
        let_go(self._records)


def let_go(file: IO[bytes]) -> None:
    """Close a temporary file; what had no room in it is lost with the rest."""
    with suppress(OSError):
        file.close()


def joined(parts: Iterable[Part]) -> Iterator[bytes]:
    """Make a zip file of parts, in pieces of up to `CHUNK` bytes."""
    pending = bytearray()
    for piece in _pieces(list(parts)):
        pending += piece
        while len(pending) >= CHUNK:
            yield bytes(pending[:CHUNK])
            del pending[:CHUNK]
    if pending:
        yield bytes(pending)


def _pieces(parts: list[Part]) -> Iterator[bytes]:
    begin = size = 0
    for part in parts:
        yield from part.data()
        begin += part.size
    offset = 0
    for part in parts:
        for record in part.records(offset):
            size += len(record)
            yield record
        offset += part.size
    count = sum(part.count for part in parts)
    if count >= _FULL_16:
        yield _END_64.pack(
            _END_64_SIGN, 44, _UNIX << 8 | _VERSION_64, _VERSION_64, 0, 0, count, count, size, begin
        )
        yield _LOCATOR_64.pack(_LOCATOR_64_SIGN, 0, begin + size, 1)
    short = min(count, _FULL_16)
    yield _END.pack(_END_SIGN, 0, 0, short, short, size, begin, 0)


@dataclass(frozen=True, slots=True)
class Packed:
    """A file in a zip file."""

    path: str
    method: int
    crc: int
    packed: int
    """Bytes it takes."""
    size: int
    """Bytes it has."""
    start: int
    """Where its bytes begin."""

    @property
    def is_directory(self) -> bool:
        """Whether it only names a directory."""
        return self.path.endswith("/")


class _Record(NamedTuple):
    """What the directory of a zip file says of a file."""

    sign: bytes
    made_by: int
    version: int
    flags: int
    method: int
    time: int
    date: int
    crc: int
    packed: int
    size: int
    name_bytes: int
    extra_bytes: int
    comment_bytes: int
    disk: int
    attributes: int
    mode: int
    offset: int


class Reader:
    """Reads a zip file.

    Args:
        file: the whole of it; it is read by position alone.

    Raises:
        ArchiveError: it is none, or odd.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._fd = file.fileno()
        self._size = os.fstat(self._fd).st_size
        self._begin, self._end, self._count = self._directory()

    def files(self) -> Iterator[Packed]:
        """Read what files there are, in order; each is held against its header as it comes."""
        place, expected = self._begin, 0
        for _ in range(self._count):
            record = _Record(*self._unpacked(_CENTRAL, place, _CENTRAL_SIGN))
            place += _CENTRAL.size
            name = self._bytes(place, record.name_bytes)
            extra = self._bytes(place + record.name_bytes, record.extra_bytes)
            place += record.name_bytes + record.extra_bytes + record.comment_bytes
            if place > self._end:
                raise ArchiveError("", "its directory does not end where it says")
            file, expected = self._file(record, name, extra, expected)
            yield file
        if place != self._end:
            raise ArchiveError("", "its directory holds more than it says")
        if expected != self._begin:
            raise ArchiveError("", "it holds bytes that belong to no file")

    def chunks(self, file: Packed) -> Iterator[bytes]:
        """Unpack a file; no more of it than it says it has.

        Raises:
            ArchiveError: it is not what its header says.
        """
        crc = size = 0
        for chunk in self._inflated(file) if file.method == _DEFLATED else self._stored(file):
            crc, size = zlib.crc32(chunk, crc), size + len(chunk)
            if size > file.size:
                raise ArchiveError(file.path, f"it has more than the {file.size} bytes it says")
            yield chunk
        if size != file.size:
            raise ArchiveError(file.path, f"it has {size} bytes, and says {file.size}")
        if crc != file.crc:
            raise ArchiveError(file.path, "it is damaged: its CRC-32 is not the one it says")

    def _directory(self) -> tuple[int, int, int]:
        """Find where the directory begins and ends, and how many files it holds."""
        end = self._size - _END.size
        if end < 0 or self._bytes(end, 4) != _END_SIGN:
            raise ArchiveError(
                "", "it is no zip file, or not a whole one, or something comes after its end"
            )
        _, disk, first, here, count, size, begin, comment = self._unpacked(_END, end, _END_SIGN)
        if comment:
            raise ArchiveError("", "it is not a whole zip file")
        if _FULL_16 in {here, count} or _FULL_32 in {size, begin}:
            locator = end - _LOCATOR_64.size
            _, other, place, disks = self._unpacked(_LOCATOR_64, locator, _LOCATOR_64_SIGN)
            end = locator - _END_64.size
            if other or disks != 1 or place != end:
                raise ArchiveError("", "its end does not fit together")
            _, length, _, _, disk, first, here, count, size, begin = self._unpacked(
                _END_64, end, _END_64_SIGN
            )
            if length != _END_64.size - 12:
                raise ArchiveError("", "its end does not fit together")
        if disk or first or here != count:
            raise ArchiveError("", "it is a part of a zip file in several parts")
        if begin + size != end or count * _CENTRAL.size > size:
            raise ArchiveError(
                "", "its directory is not where it says, or something comes before it"
            )
        return begin, end, count

    def _file(
        self, record: _Record, name: bytes, extra: bytes, expected: int
    ) -> tuple[Packed, int]:
        """Hold what the directory says of a file against its header; also return where it ends."""
        if not 0 < len(name) <= _MOST_NAME_BYTES:
            raise ArchiveError("", "a file in it has no name, or one that is too long")
        try:
            path = name.decode()
        except UnicodeDecodeError:
            raise ArchiveError(repr(name[:100]), "its name is not UTF-8") from None
        size, packed, offset = _wide(path, extra, record.size, record.packed, record.offset)
        if record.flags & ~_KNOWN_FLAGS:
            raise ArchiveError(
                path, "it is encrypted, or needs something else that is not read here"
            )
        if record.method not in {_STORED, _DEFLATED}:
            raise ArchiveError(path, "it is packed in a way that is not read here; use deflate")
        if record.method == _STORED and size != packed:
            raise ArchiveError(path, "its sizes do not fit together")
        if record.disk or record.version > _VERSION_64:
            raise ArchiveError(path, "it needs something that is not read here")
        _check_mode(path, record, size)
        if offset != expected:
            raise ArchiveError(path, "it does not begin where the file before it ends")
        start = self._check_header(path, name, record, offset)
        end = start + packed
        if record.flags & _DESCRIBED:
            end = self._described(path, record, end)
        if end > self._begin:
            raise ArchiveError(path, "it reaches into what comes after it")
        return Packed(path, record.method, record.crc, packed, size, start), end

    def _check_header(self, path: str, name: bytes, record: _Record, offset: int) -> int:
        """Hold a file's own header against the directory; return where its bytes begin."""
        _, _, flags, method, _, _, crc, packed, size, name_bytes, extra_bytes = self._unpacked(
            _LOCAL, offset, _LOCAL_SIGN
        )
        said = (crc, packed, size)
        same = flags == record.flags and method == record.method
        if flags & _DESCRIBED:
            # What was not known yet is 0 here, and is said after the file.
            same = same and all(
                one in {0, _FULL_32, other}
                for one, other in zip(said, (record.crc, record.packed, record.size), strict=True)
            )
        else:
            same = same and said == (record.crc, record.packed, record.size)
        begin = offset + _LOCAL.size
        if not same or self._bytes(begin, name_bytes) != name:
            raise ArchiveError(path, "its header says something else than the directory")
        return int(begin + name_bytes + extra_bytes)

    def _described(self, path: str, record: _Record, place: int) -> int:
        """Check what is said after a file; return where that ends."""
        _, *said = self._unpacked(_DESCRIPTOR, place, _DESCRIPTOR_SIGN)
        if said != [record.crc, record.packed, record.size]:
            raise ArchiveError(path, "what is said after it is not what the directory says")
        return place + _DESCRIPTOR.size

    def _stored(self, file: Packed) -> Iterator[bytes]:
        for place in range(file.start, file.start + file.packed, CHUNK):
            yield self._bytes(place, min(CHUNK, file.start + file.packed - place))

    def _inflated(self, file: Packed) -> Iterator[bytes]:
        unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
        beyond = ArchiveError(file.path, "it does not end where it says")
        try:
            for chunk in self._stored(file):
                if unpacker.eof:
                    raise beyond
                yield unpacker.decompress(chunk, CHUNK)
                while unpacker.unconsumed_tail:
                    yield unpacker.decompress(unpacker.unconsumed_tail, CHUNK)
            # What was ready and did not fit into the last piece.
            while not unpacker.eof and (piece := unpacker.decompress(b"", CHUNK)):
                yield piece
        except zlib.error:
            raise ArchiveError(file.path, "it is damaged and cannot be unpacked") from None
        if not unpacker.eof or unpacker.unused_data:
            raise beyond

    def _unpacked(self, form: struct.Struct, place: int, sign: bytes) -> tuple[Any, ...]:
        raw = self._bytes(place, form.size)
        if raw[:4] != sign:
            raise ArchiveError("", "it is damaged: what should stand in one place of it does not")
        return form.unpack(raw)

    def _bytes(self, place: int, count: int) -> bytes:
        raw = os.pread(self._fd, count, place) if place >= 0 else b""
        if len(raw) != count:
            raise ArchiveError("", "it is not a whole zip file")
        return raw


def _wide(path: str, extra: bytes, *said: int) -> tuple[int, ...]:
    """Read sizes and offset of the directory that may need more than 32 bits."""
    if _FULL_32 not in said:
        return said
    place = 0
    while place + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, place)
        place += 4
        if kind == 1 and length == 8 * said.count(_FULL_32) and place + length <= len(extra):
            wide = iter(struct.unpack_from(f"<{length // 8}Q", extra, place))
            return tuple(next(wide) if one == _FULL_32 else one for one in said)
        place += length
    raise ArchiveError(path, "its sizes do not fit together")


def _check_mode(path: str, record: _Record, size: int) -> None:
    """Refuse what is neither a file nor a directory, such as a link."""
    mode = record.mode >> 16 if record.made_by >> 8 == _UNIX else 0
    kind = stat.S_IFMT(mode)
    if path.endswith("/"):
        if kind not in {0, stat.S_IFDIR} or size:
            raise ArchiveError(path, "it has the name of a directory and is none")
    elif kind not in {0, stat.S_IFREG}:
        raise ArchiveError(path, "it is no ordinary file; links and the like are not taken in")
