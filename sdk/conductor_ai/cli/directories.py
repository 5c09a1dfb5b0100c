"""A directory as people keep it, packed into the archive the mesh takes, and unpacked again.

Nothing in an archive is believed: neither its paths nor its sizes decide what is written where. Links
are never followed, on the way in or out.
"""

from __future__ import annotations

import os
import re
import stat
import struct
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Final, TypeAlias

from conductor.content.v1.archive_service_pb2 import ArchiveProgress, ImportItem, ImportReport
from conductor.content.v1.finding_pb2 import Finding
from conductor_ai.cli import files, reports

ROOTS: Final = ("agents", "screenplays")
"""The directories that hold content; nothing else is read or written."""

_LARGEST: Final = 4 * 1024 * 1024
"""Bytes of one file: no text of the mesh is as large."""
_MOST_FILES: Final = 1_000_000
_MOST_BYTES: Final = 8 * 1024**3
_FIRST_DAY: Final = (1980, 1, 1, 0, 0, 0)
_PASSED_OVER: Final = frozenset({".git", ".hg", ".svn", ".DS_Store", "Thumbs.db"})
_OURS: Final = re.compile(
    r"agents/[A-Za-z0-9_-]{1,64}/(?:definition\.yaml|persona\.md)|"
    r"screenplays/.+\.(?i:md|markdown|txt|yaml)",
    re.DOTALL,
)
_UNFIT: Final = frozenset('<>:"|?*\\')

_CONTROLS: Final = frozenset({"Cc", "Cs", "Zl", "Zp"})

# What zipfile raises where an archive is not what it says.
_DAMAGES: Final = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    OSError,
    RuntimeError,
    ValueError,
)

Watcher: TypeAlias = Callable[[ArchiveProgress], None]


class DirectoryError(Exception):
    """A directory or an archive that cannot be taken as it is; the sentence says why."""


def pack(directory: Path, archive: IO[bytes]) -> list[Finding]:
    """Pack what content a directory holds; answers what is odd.

    What else lies beside it is named without what is in it, so that the mesh can tell that it takes no
    such file.

    Raises:
        DirectoryError: it holds no content, or a file cannot be read.
    """
    if not any((directory / root).is_dir() for root in ROOTS):
        raise DirectoryError(
            f"{directory} holds neither {' nor '.join(f'{one}/' for one in ROOTS)}"
        )
    odd: list[Finding] = []
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        for root in ROOTS:
            for name, path in _found(directory / root, root, odd):
                info = zipfile.ZipInfo(name, _FIRST_DAY)
                info.create_system = 3
                info.external_attr = (stat.S_IFREG | 0o644) << 16
                info.compress_type = zipfile.ZIP_DEFLATED
                packed.writestr(info, _read(path) if _OURS.fullmatch(name) else b"")
    return odd


def unpack(
    archive: IO[bytes], directory: Path, *, dry_run: bool, force: bool, watch: Watcher
) -> ImportReport:
    """Unpack an archive; what exists and differs is kept, unless forced.

    Nothing is written when a path in the archive is odd. A file is written whole or not at all.

    Raises:
        DirectoryError: it is no archive, or holds what it may not.
    """
    report = ImportReport(dry_run=dry_run)
    try:
        with zipfile.ZipFile(archive) as packed:
            entries = _checked(packed)
            for number, entry in enumerate(entries, start=1):
                _unpack_one(packed, entry, directory, report, force=force)
                watch(
                    ArchiveProgress(
                        phase=ArchiveProgress.PHASE_APPLY, done=number, total=len(entries)
                    )
                )
    except _DAMAGES as error:
        raise DirectoryError(f"the archive is damaged: {error}") from None
    return report


def _found(top: Path, root: str, odd: list[Finding]) -> Iterator[tuple[str, Path]]:
    """Yield the files below a directory in the order of their paths."""
    if top.is_symlink():
        odd.append(_link(root))
        return
    if not top.is_dir():
        return
    pending = [(root, top)]
    while pending:
        name, place = pending.pop()
        try:
            inside = sorted(os.scandir(place), key=lambda entry: entry.name)
        except OSError as error:
            raise DirectoryError(f"{name} cannot be read: {error.strerror}") from None
        for entry in inside:
            if entry.name in _PASSED_OVER:
                continue
            if any("\udc80" <= character <= "\udcff" for character in entry.name):
                raise DirectoryError(f"the name of {name}/{entry.name!r} is not UTF-8")
            below = f"{name}/{entry.name}"
            if entry.is_dir(follow_symlinks=False):
                pending.append((below, Path(entry.path)))
            elif entry.is_file(follow_symlinks=False):
                yield below, Path(entry.path)
            else:
                odd.append(_link(below))


def _link(name: str) -> Finding:
    return Finding(
        severity=Finding.SEVERITY_WARNING,
        rule="no-file",
        message="It is a link, or otherwise no file, and is passed over.",
        fix="Put the file itself there.",
        location=name,
    )


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST + 1)
    except OSError as error:
        raise DirectoryError(f"{path} cannot be read: {error.strerror}") from None
    if len(content) > _LARGEST:
        raise DirectoryError(f"{path} is larger than any text of the mesh may be")
    return content


def _checked(packed: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    """Check every entry before any is written."""
    entries = [entry for entry in packed.infolist() if not entry.is_dir()]
    if len(entries) > _MOST_FILES or sum(entry.file_size for entry in entries) > _MOST_BYTES:
        raise DirectoryError("the archive is larger than any content may be")
    seen: set[str] = set()
    for entry in entries:
        mode = entry.external_attr >> 16
        if not _is_ours(entry.filename) or (stat.S_IFMT(mode) not in {0, stat.S_IFREG}):
            raise DirectoryError(f"the archive holds {entry.filename!r}, which is no content")
        if entry.filename in seen:
            raise DirectoryError(f"the archive holds {entry.filename!r} twice")
        if entry.file_size > _LARGEST:
            raise DirectoryError(f"{entry.filename!r} is larger than any text of the mesh may be")
        seen.add(entry.filename)
    return entries


def _is_ours(name: str) -> bool:
    """Whether a path names content, and nothing outside of its directory on any system."""
    return (
        _OURS.fullmatch(name) is not None
        and not any(unicodedata.category(character) in _CONTROLS for character in name)
        and _UNFIT.isdisjoint(name)
        and not {"", ".", ".."} & {*name.split("/")}
    )


def _unpack_one(
    packed: zipfile.ZipFile,
    entry: zipfile.ZipInfo,
    directory: Path,
    report: ImportReport,
    *,
    force: bool,
) -> None:
    path = directory / entry.filename
    content = packed.read(entry)
    item = ImportItem(kind="file", id=entry.filename)
    try:
        blocking = _blocking(directory, path)
        if blocking:
            raise OSError(0, f"{blocking} is no directory, or a link to one")
        item.action = _action(path, content, force=force)
        writes = item.action in {ImportItem.ACTION_CREATED, ImportItem.ACTION_OVERWRITTEN}
        if writes and not report.dry_run:
            path.parent.mkdir(parents=True, exist_ok=True)
            files.write(path, content)
    except OSError as error:
        report.findings.append(
            Finding(
                severity=Finding.SEVERITY_ERROR,
                rule="not-written",
                message=f"It was not written: {error.strerror}.",
                location=entry.filename,
            )
        )
        return
    reports.count(report, item)


def _blocking(directory: Path, path: Path) -> Path | None:
    """Find what stands where a directory has to be."""
    for parent in reversed(path.relative_to(directory).parents[:-1]):
        place = directory / parent
        if place.is_symlink() or (place.exists() and not place.is_dir()):
            return place
    return None


def _action(path: Path, content: bytes, *, force: bool) -> ImportItem.Action.ValueType:
    try:
        there = path.lstat()
    except FileNotFoundError:
        return ImportItem.ACTION_CREATED
    if stat.S_ISDIR(there.st_mode):
        raise OSError(0, f"{path} is a directory")
    if (
        stat.S_ISREG(there.st_mode)
        and there.st_size == len(content)
        and path.read_bytes() == content
    ):
        return ImportItem.ACTION_UNCHANGED
    return ImportItem.ACTION_OVERWRITTEN if force else ImportItem.ACTION_KEPT
