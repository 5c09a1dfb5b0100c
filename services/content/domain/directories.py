"""Directories: agents and screenplays as files that people keep.

`agents/<id>/definition.yaml` and `persona.md`; `screenplays/<path>`, and beside it `<path>.yaml` with what
does not follow from text and path. Without that file a text says nothing but itself and its path.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from services.content.domain import agents, paths, personas, screenplays
from services.content.domain.agents import AgentModel, Definition
from services.content.domain.archives import ArchiveError, File, shown
from services.content.domain.personas import Draft
from services.content.domain.screenplays import Screenplay
from services.kit.errors import DomainError
from services.kit.resources import controls

AGENTS, SCREENPLAYS = "agents/", "screenplays/"
DEFINITION, PERSONA = "definition.yaml", "persona.md"
SIDECAR = ".yaml"
MOST_PROBLEMS = 50
_SCHEMA_VERSION = 1

_TEXTS = {
    "name": "name",
    "version": "definition_version",
    "description": "description",
    "author": "author",
    "group": "group",
    "emoji": "emoji",
    "color": "color",
}
"""The keys of a definition that hold text, and the fields they are."""
_LISTS = ("tags", "capabilities", "tools", "mcp_servers")
_LAST_TEXTS = ("instructions", "ai_provider", "model")
DEFINITION_KEYS = frozenset({"schema_version", *_TEXTS, *_LISTS, *_LAST_TEXTS, "fallbacks"})
_SAID = ("name", "description", "working_directory", "file_path", "import_path", "export_path")
"""The texts of a sidecar, besides the id."""
_SCREENPLAY_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_DRIVE = re.compile(r"[A-Za-z]:")
_MOST_PATH = 1000
_DESCRIPTION, _WORKING_DIRECTORY = 500, 1000

Row: TypeAlias = Mapping[str, Any]
"""What a YAML file says."""
Find: TypeAlias = Callable[[str, str, str], None]
"""Hears of what is odd: the rule, where, and a sentence."""


@dataclass(frozen=True, slots=True)
class AgentFolder:
    """An agent as its folder says it."""

    id: str
    definition: Definition | None = None
    """None when it says nothing of it."""
    persona: str | None = None

    @property
    def where(self) -> str:
        """Its folder."""
        return f"{AGENTS}{self.id}"


@dataclass(frozen=True, slots=True)
class ScreenplayFile:
    """A screenplay as its files say it."""

    path: str
    values: Mapping[str, Any]
    """By the names of the fields of Screenplay, the text among them; tidy."""
    id: str = ""
    """Empty when it is known by its path."""

    @property
    def where(self) -> str:
        """Its file."""
        return f"{SCREENPLAYS}{self.path}"


Thing: TypeAlias = AgentFolder | ScreenplayFile


# Reading


def order_of(path: str) -> tuple[str, bool]:
    """Return what sorts files such that what is said of a text comes right after it."""
    text = _told_of(path)
    return (path, False) if text is None else (text, True)


def is_read(path: str) -> bool:
    """Tell whether a file is one of those that are taken in; its name may be anything."""
    if path.startswith(AGENTS):
        _, _, name = path.removeprefix(AGENTS).partition("/")
        return name in {DEFINITION, PERSONA}
    text = _told_of(path)
    return path.startswith(SCREENPLAYS) and _is_text(path if text is None else text)


def check_path(path: str) -> None:
    """Refuse a path that does not stay in the directory, or that not every system can hold.

    Raises:
        ArchiveError: it is one.
    """
    where, segments = shown(path), path.removesuffix("/").split("/")
    if not path or len(path) > _MOST_PATH:
        raise ArchiveError(where, f"its path has to have 1 to {_MOST_PATH} characters")
    if path.startswith("/") or "\\" in path or _DRIVE.match(path):
        raise ArchiveError(where, "its path has to be relative, with slashes")
    if any(one.strip() in {"", ".", ".."} for one in segments):
        raise ArchiveError(where, "its path leads out of the directory, or nowhere")
    if controls.has_controls(path):
        raise ArchiveError(where, "its path holds control characters")


@dataclass(slots=True)
class Reading:
    """Reads the files of a directory to its end, whatever is wrong with some of them.

    Args:
        read_yaml: reads a YAML file; raises ValueError.
        find: hears of what is passed over.

    Attributes:
        problems: what is wrong, at most `MOST_PROBLEMS`.
        known: how many files were taken in.
    """

    read_yaml: Callable[[bytes], Row]
    find: Find
    problems: list[ArchiveError] = field(default_factory=list)
    known: int = 0
    _taken: dict[tuple[str, str], str] = field(default_factory=dict)
    _agent: AgentFolder | None = None
    _text: File | None = None

    def take(self, path: str, raw: bytes) -> Iterator[Thing]:
        """Take the next file, in the order of `order_of`; answers what is complete."""
        if path.startswith(AGENTS):
            yield from self._of_agent(path, raw)
            return
        text = _told_of(path)
        if path.startswith(SCREENPLAYS) and text is not None:
            yield from self._sidecar(path, text, raw)
        elif path.startswith(SCREENPLAYS) and _is_text(path):
            yield from self.end()
            self.known += 1
            self._text = path, raw
        else:
            self._pass_over(path)

    def end(self) -> Iterator[Thing]:
        """Answer what nothing more can come to."""
        agent, self._agent = self._agent, None
        if agent is not None:
            yield agent
        text, self._text = self._text, None
        if text is not None:
            yield from self._screenplay(*text, None)

    def _of_agent(self, path: str, raw: bytes) -> Iterator[Thing]:
        id_, _, name = path.removeprefix(AGENTS).partition("/")
        if name not in {DEFINITION, PERSONA}:
            self._pass_over(path)
            return
        if self._agent is None or self._agent.id != id_:
            yield from self.end()
        agent = self._agent
        self.known += 1
        with _Problems(self, path):
            agents.check_id(id_, "the folder's name")
            if name == DEFINITION:
                self._agent = AgentFolder(id_, self._definition(path, raw))
            else:
                text = _decoded(raw)
                personas.checked(Draft(text), "persona")
                self._agent = AgentFolder(id_, agent.definition if agent else None, text)

    def _definition(self, path: str, raw: bytes) -> Definition:
        row = self.read_yaml(raw)
        self._find_unknown(path, row, DEFINITION_KEYS)
        return definition_of(row)

    def _sidecar(self, path: str, text: str, raw: bytes) -> Iterator[Thing]:
        self.known += 1
        held, self._text = self._text, None
        if held is None or held[0] != text:
            self._text = held
            yield from self.end()
            self._note(ArchiveError(shown(path), "the text it is about is missing"))
            return
        with _Problems(self, path):
            row = self.read_yaml(raw)
            self._find_unknown(path, row, {"id", "tags", *_SAID})
            yield from self._screenplay(*held, row)

    def _screenplay(self, path: str, raw: bytes, row: Row | None) -> Iterator[Thing]:
        made: ScreenplayFile | None = None
        with _Problems(self, path):
            file = unicodedata.normalize("NFC", path.removeprefix(SCREENPLAYS))
            values: dict[str, Any] = {"content": _decoded(raw), "file_path": file}
            id_ = "" if row is None else _said_text(row, "id")
            if row is not None:
                values |= _said_of_screenplay(row, file)
                if id_ and not _SCREENPLAY_ID.fullmatch(id_):
                    raise ValueError("its id must have 1 to 64 letters, digits, - and _")
            made = ScreenplayFile(file, screenplays.tidy(values, ""), id_)
            self._hold(path, made)
        if made is not None:
            yield made

    def _hold(self, path: str, made: ScreenplayFile) -> None:
        """Refuse a second one that says it has what only one may have."""
        unique = [("id", made.id)]
        unique += [(name, made.values.get(name, "")) for name in screenplays.UNIQUE_PATHS]
        for key in unique:
            if key[1] and (holder := self._taken.setdefault(key, path)) != path:
                raise ValueError(f"it has the same {key[0]} as {shown(holder)}")

    def _find_unknown(self, path: str, row: Row, known: Iterable[str]) -> None:
        for key in sorted(set(row) - set(known)):
            self.find("unknown-key", shown(path), f"The key {shown(key)} is not known.")

    def _pass_over(self, path: str) -> None:
        self.find("not-taken-in", shown(path), "Files of this name are not taken in.")

    def _note(self, problem: ArchiveError) -> None:
        if len(self.problems) < MOST_PROBLEMS:
            self.problems.append(problem)


class _Problems:
    """Notes what is wrong with a file, so that the others are looked at as well."""

    def __init__(self, reading: Reading, path: str) -> None:
        self._reading = reading
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if isinstance(error, DomainError):
            why = error.message
        elif isinstance(error, ValueError):
            why = str(error)
        else:
            return False
        self._reading._note(ArchiveError(shown(self._path), why))  # noqa: SLF001 it is a part of it
        return True


def definition_of(row: Row) -> Definition:
    """Read what a `definition.yaml` says; keys that are not known are passed over.

    Raises:
        ValueError: it says something else than a definition.
        DomainError: INVALID_REQUEST, when the definition breaks a rule.
    """
    if row.get("schema_version", _SCHEMA_VERSION) != _SCHEMA_VERSION:
        raise ValueError(f"its schema_version has to be {_SCHEMA_VERSION}")
    values: dict[str, Any] = {
        name: _said_text(row, key)
        for key, name in (*_TEXTS.items(), *((one, one) for one in _LAST_TEXTS))
    }
    values |= {name: _said_list(row, name) for name in _LISTS}
    values["fallbacks"] = tuple(_fallbacks(row))
    return agents.checked(Definition(**values), "")


def _decoded(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8") from None


def _said_text(row: Row, key: str) -> str:
    value = row.get(key, "")
    if not isinstance(value, str):
        raise ValueError(f"{key} must be text; put it in quotes")  # noqa: TRY004 it is the file's
    return value


def _said_list(row: Row, key: str) -> tuple[str, ...]:
    value = row.get(key, [])
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise ValueError(f"{key} must be a list of texts")
    return tuple(value)


def _fallbacks(row: Row) -> Iterator[AgentModel]:
    value = row.get("fallbacks", [])
    if not isinstance(value, list):
        raise ValueError("fallbacks must be a list")  # noqa: TRY004 it is the file's
    for one in value:
        if not isinstance(one, dict) or set(one) - {"ai_provider", "model"}:
            raise ValueError("each of the fallbacks must have ai_provider, model or both")
        yield AgentModel(_said_text(one, "ai_provider"), _said_text(one, "model"))


def _said_of_screenplay(row: Row, file: str) -> dict[str, Any]:
    """Read what a sidecar says, and what follows from the path where it says nothing."""
    values: dict[str, Any] = {name: _said_text(row, name) for name in _SAID}
    values["tags"] = _said_list(row, "tags")
    if "name" not in row:
        values["name"] = screenplays.import_name(file)
    if "file_path" not in row:
        values["file_path"] = file
    directory = values["working_directory"]
    if len(values["description"]) > _DESCRIPTION:
        raise ValueError(f"description must have at most {_DESCRIPTION} characters")
    if len(directory) > _WORKING_DIRECTORY or (directory and not directory.startswith("/")):
        raise ValueError(
            f"working_directory must be an absolute path of at most {_WORKING_DIRECTORY} characters"
        )
    return values


def _told_of(path: str) -> str | None:
    """Name the text that a file says something of; None when it is no such file."""
    text = path.removesuffix(SIDECAR)
    return text if text != path and _is_text(text) else None


def _is_text(path: str) -> bool:
    return path.lower().endswith(paths.ENDINGS)


# Writing


def definition_row(definition: Definition) -> dict[str, Any]:
    """Print a definition as `definition.yaml` says it, in the order of its keys."""
    row: dict[str, Any] = {"schema_version": _SCHEMA_VERSION}
    row |= {key: getattr(definition, name) for key, name in _TEXTS.items()}
    row |= {name: list(getattr(definition, name)) for name in _LISTS}
    row |= {
        name: value
        for name in _LAST_TEXTS
        if (value := getattr(definition, name)) or name == "instructions"
    }
    if definition.fallbacks:
        row["fallbacks"] = [
            {"ai_provider": one.ai_provider, "model": one.model} for one in definition.fallbacks
        ]
    return row


def sidecar_row(screenplay: Screenplay, path: str) -> dict[str, Any]:
    """Print what does not follow from a text and its path; empty when there is nothing.

    Args:
        path: where it is put, below `screenplays/`.
    """
    row: dict[str, Any] = {}
    if screenplay.file_path != path:
        row["id"] = screenplay.id
    if screenplay.name != screenplays.import_name(path):
        row["name"] = screenplay.name
    row |= {
        name: value
        for name in ("description", "working_directory")
        if (value := getattr(screenplay, name))
    }
    if screenplay.tags:
        row["tags"] = list(screenplay.tags)
    if screenplay.file_path != path:
        row["file_path"] = screenplay.file_path
    row |= {
        name: value
        for name in ("import_path", "export_path")
        if (value := getattr(screenplay, name))
    }
    return row


def placed(known: Iterable[Screenplay]) -> list[tuple[str, str]]:
    """Give each screenplay a path of its own, which it keeps as long as names and paths stay.

    Those with a file path that file systems take are there; the others are named by their name.

    Args:
        known: without their texts.

    Returns:
        Paths and ids, in the order of paths.
    """
    screenplays_ = list(known)
    folders = {folder for one in screenplays_ for folder in _folders(one.file_path)}
    taken: dict[str, tuple[str, str]] = {}
    others: list[Screenplay] = []
    for one in screenplays_:
        # A file and a folder of one name cannot lie side by side.
        is_free = one.file_path.casefold() not in folders
        if one.file_path and is_free and paths.fits_files(one.file_path):
            taken[one.file_path] = one.file_path, one.id
        else:
            others.append(one)
    names = {path.casefold() for path in taken} | folders
    numbers: dict[str, int] = {}
    for one in sorted(others, key=lambda one: (one.name, one.id)):
        path = _free_path(one, names, numbers)
        names.add(path.casefold())
        taken[path] = path, one.id
    return [taken[path] for path in sorted(taken)]


def _free_path(screenplay: Screenplay, names: set[str], numbers: dict[str, int]) -> str:
    """Find a path for one that has none."""
    base = screenplay.name.replace("/", "-").replace("\\", "-")
    while True:
        number = numbers[base] = numbers.get(base, 0) + 1
        path = f"{base}.md" if number == 1 else f"{base} ({number}).md"
        try:
            path = paths.normal(path, "name")
        except DomainError:
            path = ""
        if not path or "/" in path or not paths.fits_files(path):
            return f"{screenplay.id}.md"
        if path.casefold() not in names:
            return path


def _folders(path: str) -> Sequence[str]:
    """Name the folders a file is in."""
    parts = path.casefold().split("/")[:-1]
    return ["/".join(parts[: count + 1]) for count in range(len(parts))]
