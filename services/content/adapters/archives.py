"""Archives as zip files, in temporary files that have no name."""

from __future__ import annotations

import errno
import re
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TypeVar

from services.content.adapters import zips
from services.content.domain.archives import (
    LARGEST_RECORD,
    LARGEST_TEXT,
    MANIFEST,
    MANIFEST_TAIL,
    ArchiveError,
    File,
    Record,
    TooLargeError,
    check_format,
    counted,
    digest,
    kind_of,
    manifest_head,
    manifest_row,
    records_of,
    shown,
)
from services.content.domain.directories import check_path, is_read, order_of
from services.content.domain.rules import check
from services.kit.storage.ports import store_full
from services.kit.tasks import threaded

T = TypeVar("T")

MOST_FILES = 200_000
"""How many files a directory may have: their names are kept in memory."""
MOST_NAME_BYTES = 32 * 1024 * 1024
"""How many bytes the names of these may have together."""
_LARGEST = max(LARGEST_TEXT, LARGEST_RECORD)
_BATCH = 100
_BATCH_BYTES = 256 * 1024
_STEP_BYTES = 1024 * 1024
_LONGEST_HEAD = 4096
_LIST = b'"files": ['
_ROW = re.compile(rb',?\n    \{"path": "([^"]{1,4096})"')


class ZippedArchives:
    """Makes and receives zip files.

    Args:
        directory: where temporary files are made; it is made when it is not there.
        most_bytes: how much an archive may hold, as `zips.weight` counts; none takes more packed.
    """

    def __init__(self, directory: Path, most_bytes: int) -> None:
        self._directory = directory
        self._most_bytes = most_bytes
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    @contextmanager
    def packing(self, *, manifest: bool) -> Iterator[ZippedPacking]:
        """Begin an archive."""
        packing = ZippedPacking(self._directory, self._most_bytes, manifest=manifest)
        try:
            yield packing
        finally:
            packing.close()

    @contextmanager
    def receiving(self) -> Iterator[ReceivedZip]:
        """Begin to receive one."""
        with _room(), tempfile.TemporaryFile(dir=self._directory) as file:
            yield ReceivedZip(file, self._most_bytes)


@dataclass(frozen=True, slots=True)
class _Mark:
    files: tuple[int, int, int]
    rows: int
    weight: int
    counts: Mapping[str, int]


class ZippedPacking:
    """A zip file that is made."""

    def __init__(self, directory: Path, most_bytes: int, *, manifest: bool) -> None:
        self._manifest = manifest
        self._most_bytes = most_bytes
        with _room():
            self._files = zips.Part(directory)
            self._first = zips.Part(directory)
            self._rows = tempfile.TemporaryFile(dir=directory)  # noqa: SIM115 closed by `close`
        self._pending: list[File] = []
        self._waiting = 0
        self._weight = 0
        self._counts: Counter[str] = Counter()

    async def add(self, files: Sequence[File]) -> None:
        """Pack files."""
        self._pending += files
        self._waiting += sum(len(raw) for _, raw in files)
        if self._waiting >= _BATCH_BYTES or len(self._pending) >= _BATCH:
            await threaded(self._flush)

    async def mark(self) -> object:
        """Return where it ends now."""
        await threaded(self._flush)
        return _Mark(self._files.place(), self._rows.tell(), self._weight, Counter(self._counts))

    async def cut(self, mark: object) -> None:
        """Forget what was added since."""
        assert isinstance(mark, _Mark)
        self._pending, self._waiting = [], 0
        self._weight, self._counts = mark.weight, Counter(mark.counts)
        with _room():
            await threaded(self._files.cut, mark.files)
            self._rows.truncate(mark.rows)
            self._rows.seek(mark.rows)

    async def pieces(self) -> AsyncIterator[bytes]:
        """Close it, and read it."""
        await threaded(self._flush)
        if self._manifest:
            with _room():
                await threaded(self._first.add, MANIFEST, self._manifested())
        pieces = zips.joined([self._first, self._files])
        while piece := await self._next(pieces):
            yield piece

    def close(self) -> None:
        """Let go of the temporary files."""
        self._files.close()
        self._first.close()
        zips.let_go(self._rows)

    async def _next(self, pieces: Iterator[bytes]) -> bytes:
        # Even to read them may write what was kept back of them.
        with _room():
            return await threaded(next, pieces, b"")

    def _flush(self) -> None:
        pending, self._pending, self._waiting = self._pending, [], 0
        with _room():
            for path, raw in pending:
                self._weigh(path, len(raw))
                if self._manifest:
                    first = not self._files.count
                    self._rows.write(manifest_row(path, len(raw), digest(raw), first=first))
                    self._counts += counted([path])
                elif self._files.count >= MOST_FILES:
                    raise TooLargeError("", f"it would have more than {MOST_FILES} files")
                self._files.add(path, [raw])

    def _weigh(self, path: str, size: int) -> None:
        self._weight += zips.weight(path, size)
        if self._manifest:
            self._weight += len(manifest_row(path, size, digest(b""), first=False))
        if self._weight + zips.weight(MANIFEST, 1024) > self._most_bytes:
            raise TooLargeError("", f"it would hold more than {self._most_bytes} bytes")

    def _manifested(self) -> Iterator[bytes]:
        yield manifest_head(self._counts)
        self._rows.seek(0)
        while chunk := self._rows.read(zips.CHUNK):
            yield chunk
        yield MANIFEST_TAIL


class ReceivedZip:
    """A zip file that somebody sends."""

    def __init__(self, file: IO[bytes], most_bytes: int) -> None:
        self._file = file
        self._most_bytes = most_bytes
        self._pending: list[bytes] = []
        self._waiting = 0
        self.size = 0

    async def receive(self, chunk: bytes) -> None:
        """Take the next bytes."""
        self.size += len(chunk)
        if self.size > self._most_bytes:
            raise TooLargeError("", f"it has more than {self._most_bytes} bytes")
        self._pending.append(chunk)
        self._waiting += len(chunk)
        if self._waiting >= _BATCH_BYTES:
            await threaded(self._flush)

    async def backup(self, org: str) -> AsyncIterator[Sequence[Record]]:
        """Read what a backup holds."""
        async for step in _stepped(lambda: records_of(self._backup(), org, check)):
            yield step

    async def directory(self) -> AsyncIterator[Sequence[File]]:
        """Read the files of a directory."""
        async for step in _stepped(self._directory):
            yield step

    def _backup(self) -> Iterator[File]:
        self._flush()
        reader = zips.Reader(self._file)
        self._look_through(reader)
        files = reader.files()
        manifest = _Manifest(reader.chunks(next(files)))
        counts: Counter[str] = Counter()
        last = ""
        for file in files:
            if file.path <= last:
                raise ArchiveError(
                    file.path, f"it comes after {last}; use the archive as it was exported"
                )
            raw = b"".join(reader.chunks(file))
            manifest.expect(file.path, raw, first=not last)
            counts += counted([file.path])
            last = file.path
            yield file.path, raw
        manifest.end(counts)

    def _look_through(self, reader: zips.Reader) -> None:
        """Check the names and sizes of the files of a backup, before anything is unpacked."""
        weight = 0
        for number, file in enumerate(reader.files()):
            if number == 0 and file.path == MANIFEST:
                weight += zips.weight(file.path, file.size)
            elif number == 0:
                break
            else:
                kind_of(file.path)
                weight = self._weighed(weight, file)
        if not weight:
            raise ArchiveError("", f"it is no backup: {MANIFEST} is not the first file")

    def _directory(self) -> Iterator[File]:
        self._flush()
        reader = zips.Reader(self._file)
        found: dict[str, zips.Packed] = {}
        weight = names = 0
        for file in reader.files():
            if file.path in found:
                raise ArchiveError(shown(file.path), "it is in the archive twice")
            if len(found) >= MOST_FILES:
                raise TooLargeError("", f"it has more than {MOST_FILES} files")
            check_path(file.path)
            names += len(file.path.encode())
            if names > MOST_NAME_BYTES:
                raise TooLargeError("", f"its names have more than {MOST_NAME_BYTES} bytes")
            if is_read(file.path):
                weight = self._weighed(weight, file)
            found[file.path] = file
        for path in sorted(found, key=order_of):
            if is_read(path):
                yield path, b"".join(reader.chunks(found[path]))
            elif not found[path].is_directory:
                yield path, b""

    def _weighed(self, weight: int, file: zips.Packed) -> int:
        """Count what a file will take, before any of it is unpacked."""
        weight += zips.weight(file.path, file.size)
        if weight > self._most_bytes:
            raise TooLargeError("", f"it holds more than {self._most_bytes} bytes")
        if file.size > _LARGEST:
            raise ArchiveError(shown(file.path), f"it has more than {_LARGEST} bytes")
        return weight

    def _flush(self) -> None:
        with _room():
            for chunk in self._pending:
                self._file.write(chunk)
            self._file.flush()
        self._pending, self._waiting = [], 0


class _Manifest:
    """A manifest that is read beside the files it names.

    It is held against what it would be if it were made of them now, byte for byte.
    """

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._buffer = b""
        beginning = self._peek(_LONGEST_HEAD)
        check_format(beginning)
        end = beginning.find(_LIST) + len(_LIST)
        self._head = self._take(end)

    def expect(self, path: str, raw: bytes, *, first: bool) -> None:
        """Check that a file comes next, and that it is as the manifest says."""
        row = manifest_row(path, len(raw), digest(raw), first=first)
        if self._peek(len(row)) == row:
            self._take(len(row))
            return
        named = self._next_path()
        if named == path:
            raise ArchiveError(path, f"its size or SHA-256 is not the one {MANIFEST} says")
        raise ArchiveError(path, f"{MANIFEST} names {named or 'nothing'} in its place")

    def end(self, counts: Mapping[str, int]) -> None:
        """Check that it names nothing more, and counts what there is."""
        if self._peek(len(MANIFEST_TAIL) + 1) != MANIFEST_TAIL:
            named = self._next_path()
            why = f"it names {named}, which is missing" if named else "it does not end as it should"
            raise ArchiveError(MANIFEST, why)
        if self._head != manifest_head(counts):
            raise ArchiveError(MANIFEST, "its counts are not those of the archive")
        # To its end, so that its checksum is looked at.
        for _ in self._chunks:
            raise ArchiveError(MANIFEST, "it does not end as it should")

    def _next_path(self) -> str:
        found = _ROW.match(self._peek(_LONGEST_HEAD))
        return shown(found[1].decode(errors="replace")) if found else ""

    def _peek(self, count: int) -> bytes:
        while len(self._buffer) < count and (chunk := next(self._chunks, None)) is not None:
            self._buffer += chunk
        return self._buffer[:count]

    def _take(self, count: int) -> bytes:
        raw = self._peek(count)
        self._buffer = self._buffer[count:]
        return raw


async def _stepped(make: Callable[[], Iterator[T]]) -> AsyncIterator[list[T]]:
    """Go through something that blocks, in threads, some at a time."""
    iterator: Iterator[T] | None = None

    def step() -> list[T]:
        nonlocal iterator
        if iterator is None:
            iterator = make()
        taken: list[T] = []
        size = 0
        for one in iterator:
            taken.append(one)
            size += len(one[1]) if isinstance(one, tuple) else len(getattr(one, "content", ""))
            if len(taken) >= _BATCH or size >= _STEP_BYTES:
                break
        return taken

    while taken := await threaded(step):
        yield taken


@contextmanager
def _room() -> Iterator[None]:
    """Say it in words of ours when there is no room left for temporary files."""
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
            raise store_full() from error
        raise
