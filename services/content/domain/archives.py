"""Archives: the content of an organisation as files.

A backup holds each stored thing as it is, two files each where it has a text: what is known of it as
JSON, and the text itself. A manifest comes first and names every file with its size and SHA-256, in the
order of their paths; so what is damaged, missing or too much is seen before anything is believed.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, TypeAlias, TypeVar

from services.content.domain import records
from services.content.domain.agents import DEFAULT_ID, Agent
from services.content.domain.personas import Persona, PersonaVersion
from services.content.domain.screenplays import Screenplay, Text
from services.kit.resources import deletions

FORMAT = "conductor-content"
FORMAT_VERSION = 1
MANIFEST = "manifest.json"

LARGEST_TEXT = 1024 * 1024
"""The most bytes of a text."""
LARGEST_RECORD = 1024 * 1024
"""The most bytes of what is known of a thing."""


class Layout(StrEnum):
    """What the files are like."""

    BACKUP = "backup"
    DIRECTORY = "directory"


class ArchiveError(Exception):
    """A file is not what an archive has to be.

    Attributes:
        where: the path in the archive; empty for all of it.
        why: what is wrong, as the end of a sentence.
    """

    def __init__(self, where: str, why: str) -> None:
        super().__init__(f"{where or 'the archive'}: {why}")
        self.where = where
        self.why = why


class TooLargeError(ArchiveError):
    """There is more of it than may be."""


File: TypeAlias = tuple[str, bytes]
"""A path and what is in the file."""

Record: TypeAlias = Agent | Persona | PersonaVersion | Screenplay | Text
"""What a backup is made of."""

R = TypeVar("R", Agent, Persona, PersonaVersion, Screenplay, Text)

_ID = r"[A-Za-z0-9_-]{1,64}"
_GRAMMAR = (
    ("agents", re.compile(rf"agents/({_ID})/agent\.json")),
    ("personas", re.compile(rf"agents/({_ID})/persona\.json")),
    ("versions", re.compile(rf"agents/({_ID})/versions/([0-9]{{10}})\.(json|md)")),
    ("screenplays", re.compile(rf"screenplays/({_ID})/(?:screenplay\.json|content\.md)")),
    ("texts", re.compile(rf"screenplays/({_ID})/texts/([0-9]{{10}})\.(json|md)")),
)
_SHOWN = 200

LEFT_OUT: Mapping[type, frozenset[str]] = {
    Agent: frozenset({"org", "version"}),
    Persona: frozenset({"org", "version", "content"}),
    PersonaVersion: frozenset({"org", "version", "content"}),
    Screenplay: frozenset({"org", "version", "content"}),
    Text: frozenset({"org", "version", "content"}),
}


def kind_of(path: str) -> str:
    """Name the kind of thing a file of a backup belongs to, for example `agents`.

    Raises:
        ArchiveError: no file of a backup is called so.
    """
    for kind, form in _GRAMMAR:
        if form.fullmatch(path):
            return kind
    raise ArchiveError(shown(path), "no file of a backup is called so")


def counted(paths: Iterable[str]) -> Counter[str]:
    """Count the things some files of a backup belong to, by kind."""
    return Counter(kind_of(path) for path in paths if path.endswith(".json"))


def files_of(record: Record) -> list[File]:
    """Write a thing as the files of a backup, in the order of their paths."""
    if isinstance(record, (Agent, Screenplay)) and record.life.cascade in deletions.AFAR:
        # What others are still to be told is nothing of the thing itself.
        record = replace(record, life=deletions.done(record.life))
    known = records.written(record, without=LEFT_OUT[type(record)])
    match record:
        case Agent():
            return [(f"agents/{record.id}/agent.json", known)]
        case Persona():
            return [(f"agents/{record.agent_id}/persona.json", known)]
        case PersonaVersion():
            path = f"agents/{record.agent_id}/versions/{record.number:010d}"
            return [(f"{path}.json", known), (f"{path}.md", record.content.encode())]
        case Screenplay():
            path = f"screenplays/{record.id}"
            return [
                (f"{path}/content.md", record.content.encode()),
                (f"{path}/screenplay.json", known),
            ]
        case Text():
            path = f"screenplays/{record.screenplay_id}/texts/{record.revision:010d}"
            return [(f"{path}.json", known), (f"{path}.md", record.content.encode())]


def same(one: Record, other: Record) -> bool:
    """Tell whether two things are the same, down to the kinds of numbers in free JSON."""
    return files_of(one) == files_of(other)


def in_order(ids: Iterable[str]) -> list[str]:
    """Sort ids as the paths that hold them."""
    return sorted(ids, key=lambda id_: f"{id_}/")


def shown(path: str) -> str:
    """Print a path that somebody else chose, for a message."""
    cut = path if len(path) <= _SHOWN else f"{path[:_SHOWN]}…"
    return cut if cut.isprintable() else repr(cut)[1:-1]


def digest(raw: bytes) -> str:
    """Return the SHA-256 of some bytes, as the manifest says it."""
    return hashlib.sha256(raw).hexdigest()


Check: TypeAlias = Callable[[Record], None]
"""Holds a thing to the rules of its kind; raises ValueError, whose message says what is wrong."""


def records_of(files: Iterable[File], org: str, check: Check) -> Iterator[Record]:
    """Read the things of a backup as they come.

    Args:
        files: without the manifest, in the order of their paths.
        org: whose they become.

    Raises:
        ArchiveError: they are not what `files_of` writes, or break a rule.
    """
    reading = _Reading(org, check)
    for path, raw in files:
        yield from reading.take(path, raw)
    yield from reading.end()


@dataclass(slots=True)
class _Reading:
    """Puts the files of a backup together to things."""

    org: str
    check: Check
    half: tuple[str, bytes] | None = None
    """The first of two files that belong together."""
    agent: str = ""
    """The id of the agent whose files are read."""
    persona: Persona | None = None
    numbers: set[int] | None = None
    """Those of the versions of its persona."""
    screenplay: Screenplay | None = None
    unique: dict[tuple[str, str], str] | None = None
    """Who has what only one may have."""

    def take(self, path: str, raw: bytes) -> Iterator[Record]:
        """Take the next file."""
        kind = kind_of(path)
        if len(raw) > (LARGEST_RECORD if path.endswith(".json") else LARGEST_TEXT):
            raise ArchiveError(path, "it is larger than such a file may be")
        if kind in {"agents", "personas"}:
            self._expect_whole()
        self._enter(path)
        if kind == "agents":
            yield self._read(Agent, path, raw, {})
        elif kind == "personas":
            self.persona = self._read(Persona, path, raw, {"content": ""})
            self.numbers = set()
            yield self.persona
        elif self.half is None:
            self.half = path, raw
        else:
            yield self._joined(kind, path, raw)

    def end(self) -> Iterator[Record]:
        """Check what can be checked once all is read; answers nothing."""
        self._expect_whole()
        self._leave()
        return iter(())

    def _expect_whole(self) -> None:
        if self.half is not None:
            raise ArchiveError(self.half[0], "the file that belongs to it is missing")

    def _enter(self, path: str) -> None:
        """Notice where another agent or screenplay begins."""
        root, id_, *_ = path.split("/")
        if root == "agents" and id_ != self.agent:
            self._leave()
            self.agent = id_
            if id_ != DEFAULT_ID and not path.endswith("/agent.json"):
                raise ArchiveError(path, f"agents/{id_}/agent.json is missing")
        if root == "screenplays":
            if self.agent:
                self._leave()
            if self.screenplay is not None and self.screenplay.id != id_:
                self.screenplay = None

    def _leave(self) -> None:
        """Check the persona of an agent that was read."""
        persona, numbers = self.persona, self.numbers or set()
        if persona is not None:
            named = {alias.number for alias in persona.aliases.values()} | {persona.number}
            if missing := sorted(named - numbers):
                raise ArchiveError(
                    f"agents/{self.agent}/persona.json",
                    f"it needs the version {missing[0]}, which is missing",
                )
        self.agent, self.persona, self.numbers = "", None, None

    def _joined(self, kind: str, path: str, raw: bytes) -> Record:
        assert self.half is not None
        first, other = self.half
        self.half = None
        if kind_of(first) != kind or _stem(kind, first) != _stem(kind, path):
            raise ArchiveError(first, "the file that belongs to it is missing")
        known_path, known, text = (
            (first, other, raw) if first.endswith("json") else (path, raw, other)
        )
        text_path = path if known_path is first else first
        try:
            content = text.decode()
        except UnicodeDecodeError:
            raise ArchiveError(text_path, "it is not UTF-8") from None
        given = {"content": content}
        if kind == "screenplays":
            self.screenplay = self._read(Screenplay, known_path, known, given)
            return self.screenplay
        if kind == "versions":
            return self._version(known_path, known, given)
        return self._text(known_path, known, given)

    def _version(self, path: str, known: bytes, given: Mapping[str, Any]) -> PersonaVersion:
        version = self._read(PersonaVersion, path, known, given)
        if self.persona is None or self.numbers is None:
            raise ArchiveError(path, f"agents/{self.agent}/persona.json is missing")
        if version.number > self.persona.number:
            raise ArchiveError(path, "it is newer than the newest that persona.json knows")
        newest = records.written(self.persona.metadata), self.persona.content_hash
        said = records.written(version.metadata), version.content_hash
        if version.number == self.persona.number and said != newest:
            raise ArchiveError(path, "persona.json says something else of the newest version")
        self.numbers.add(version.number)
        return version

    def _text(self, path: str, known: bytes, given: Mapping[str, Any]) -> Text:
        text = self._read(Text, path, known, given)
        if self.screenplay is None:
            raise ArchiveError(path, "its screenplay.json is missing")
        if text.revision > self.screenplay.revision:
            raise ArchiveError(path, "it is newer than its screenplay")
        return text

    def _read(self, kind: type[R], path: str, raw: bytes, given: Mapping[str, Any]) -> R:
        try:
            record: R = records.read(kind, raw, {"org": self.org, "version": 1, **given})
            self.check(record)
        except ValueError as error:
            raise ArchiveError(path, str(error)) from None
        if path not in {name for name, _ in files_of(record)}:
            raise ArchiveError(path, "it says it is another one than its path")
        self._hold(path, record)
        return record

    def _hold(self, path: str, record: Record) -> None:
        """Note what only one may have, and refuse the second one."""
        if self.unique is None:
            self.unique = {}
        for key in _keys(record):
            if (holder := self.unique.setdefault(key, path)) != path:
                raise ArchiveError(path, f"it has the same {key[0]} as {holder}")


def _stem(kind: str, path: str) -> str:
    """Return what two files that belong together have in common."""
    return path.rpartition("/" if kind == "screenplays" else ".")[0]


def _keys(record: Record) -> Iterator[tuple[str, str]]:
    """Yield what no other thing of the archive may have."""
    match record:
        case Agent() if record.request_id:
            yield "request_id", f"agent {record.request_id}"
        case Screenplay():
            if record.request_id:
                yield "request_id", f"screenplay {record.request_id}"
            if record.life.live and record.file_path:
                yield "file_path", record.file_path
            if record.life.live and record.import_path:
                yield "import_path", record.import_path


def manifest_head(counts: Mapping[str, int]) -> bytes:
    """Write the manifest up to its list of files."""
    things = ", ".join(f'"{kind}": {counts.get(kind, 0)}' for kind, _ in _GRAMMAR)
    return (
        f'{{\n  "format": "{FORMAT}",\n  "format_version": {FORMAT_VERSION},\n'
        f'  "counts": {{{things}}},\n  "files": ['
    ).encode()


def manifest_row(path: str, size: int, sha256: str, *, first: bool) -> bytes:
    """Write a row of that list. Paths hold nothing that JSON writes otherwise."""
    comma = "" if first else ","
    return (f'{comma}\n    {{"path": "{path}", "size": {size}, "sha256": "{sha256}"}}').encode()


MANIFEST_TAIL = b"\n  ]\n}\n"

_SAID_FORMAT = re.compile(rb'"format"\s*:\s*"([^"]{1,100})"')
_SAID_VERSION = re.compile(rb'"format_version"\s*:\s*([0-9]{1,9})')


def check_format(beginning: bytes) -> None:
    """Check that a manifest is of a format this release reads.

    Args:
        beginning: its first kilobytes.

    Raises:
        ArchiveError: it is not; says which it is.
    """
    said, version = _SAID_FORMAT.search(beginning), _SAID_VERSION.search(beginning)
    if said is None or version is None or said[1].decode(errors="replace") != FORMAT:
        raise ArchiveError(MANIFEST, f"it does not say that the archive is a {FORMAT}")
    if (number := int(version[1])) != FORMAT_VERSION:
        raise ArchiveError(
            MANIFEST,
            f"the archive has format version {number} and this release reads version "
            f"{FORMAT_VERSION}; take it in with the release that made it, and export it anew",
        )
