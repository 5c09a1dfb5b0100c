"""Screenplays and the texts they had, and the rules of their changes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from services.content.domain import paths
from services.content.domain.findings import Finding
from services.kit.errors import DomainError, Reason, Resource, Violation, invalid
from services.kit.resources import controls, deletions, labels
from services.kit.resources.deletions import Life
from services.kit.resources.request_ids import digest
from services.kit.resources.words import folded

KEPT_TEXTS = 50
"""How many texts of a screenplay are kept, the newest among them."""
LONGEST_NAME = 200
_TAGS, _TAG = 32, 50
_UPDATABLE_PATHS = ("file_path", "import_path", "export_path")
UNIQUE_PATHS = ("file_path", "import_path")
"""The paths that no two screenplays share which are not deleted."""


@dataclass(frozen=True, slots=True)
class Screenplay:
    """A stored screenplay."""

    org: str
    id: str
    name: str
    create_time: int
    """Microseconds since the epoch."""
    update_time: int
    last_use_time: int
    description: str = ""
    tags: tuple[str, ...] = ()
    content: str = ""
    """Empty where it was not read."""
    content_bytes: int = 0
    content_hash: str = ""
    working_directory: str = ""
    file_path: str = ""
    import_path: str = ""
    export_path: str = ""
    revision: int = 1
    """How often it changed, from 1; what callers see as its version, and what the etag says."""
    text_revision: int = 1
    """The revision in which its text came."""
    text_time: int = 0
    """When its text came, in microseconds since the epoch."""
    text_author: str = ""
    request_id: str = ""
    digest: str = ""
    """Of the request that made it, when it had a request_id."""
    life: Life = field(default_factory=Life)
    version: int = 1
    """Of the stored document."""

    @property
    def etag(self) -> str:
        """What changes with each change."""
        return str(self.revision)

    @property
    def resource(self) -> Resource:
        """Itself, as errors name it."""
        return Resource("screenplay", self.id)


@dataclass(frozen=True, slots=True)
class Text:
    """A text that a screenplay had until another one came."""

    org: str
    screenplay_id: str
    revision: int
    """The revision of the screenplay in which it came."""
    content: str
    """Empty where it was not read."""
    content_bytes: int
    content_hash: str
    author: str
    create_time: int
    """When it came, in microseconds since the epoch."""
    version: int = 1
    """Of the stored document."""

    @property
    def id(self) -> str:
        """What no other text of the organisation has."""
        return text_id(self.screenplay_id, self.revision)


@dataclass(frozen=True, slots=True)
class Asked:
    """What a caller asks to be made."""

    values: Mapping[str, Any]
    """By the names of the fields of Screenplay that a caller gives; `name` is among them."""
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class Checked:
    """A screenplay, and what is to be said of its text when that is new."""

    screenplay: Screenplay
    findings: tuple[Finding, ...] = ()
    same_content: tuple[Screenplay, ...] = ()
    """Others with an equal text, without their texts."""


class Order(StrEnum):
    """What lists of screenplays are in the order of."""

    LAST_USE_TIME = "last_use_time"
    """The last used first."""
    NAME = "name"
    """Whatever its case."""
    CREATE_TIME = "create_time"
    """Newest first."""
    UPDATE_TIME = "update_time"
    """Newest first."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which screenplays a list shows, and in which order."""

    query: str = ""
    """Words that all begin a word of the name, the description or a tag."""
    tags: tuple[str, ...] = ()
    order: Order = Order.LAST_USE_TIME
    reverse: bool = False
    deleted: bool = False
    """Those that are deleted, instead of those that are not."""

    @property
    def place_type(self) -> type[int | str]:
        """What a place in the list begins with: a time, or text."""
        return int if self.order is Order.CREATE_TIME else str

    def content(self) -> list[Any]:
        """Return what page tokens are bound to."""
        return [self.query, sorted(self.tags), self.order.value, self.reverse, self.deleted]


def name_key(name: str) -> str:
    """Make what orders screenplays by name, whatever its case."""
    return folded(name)


# Rules


def tidy(values: Mapping[str, Any], at: str = "screenplay.") -> dict[str, Any]:
    """Bring what a caller gives to the form it is stored in.

    Args:
        values: by the names of fields of Screenplay.
        at: what stands before the names of fields in errors.

    Raises:
        DomainError: INVALID_REQUEST.
    """
    tidied = dict(values)
    if "name" in tidied:
        tidied["name"] = normal_name(tidied["name"], f"{at}name")
    if "tags" in tidied:
        tidied["tags"] = _tags(tidied["tags"], f"{at}tags")
    for name in _UPDATABLE_PATHS:
        if name in tidied:
            tidied[name] = paths.normal(tidied[name], f"{at}{name}")
    if controls.has_controls_in_prose(tidied.get("description", "")):
        raise invalid(
            f"{at}description", "must not hold control characters but tabs and line breaks"
        )
    if controls.has_controls(tidied.get("working_directory", "")):
        raise invalid(f"{at}working_directory", "must not hold control characters")
    return tidied


def normal_name(name: str, at: str) -> str:
    """Bring a name to the form it is kept in.

    Raises:
        DomainError: INVALID_REQUEST.
    """
    name = name.strip()
    problem = ""
    if not 1 <= len(name) <= LONGEST_NAME:
        problem = f"must have 1 to {LONGEST_NAME} characters besides blanks around them"
    elif paths.NOT_IN_NAMES.intersection(name):
        problem = f"must hold none of {' '.join(sorted(paths.NOT_IN_NAMES))}"
    elif controls.has_controls(name):
        problem = "must not hold control characters, such as line breaks"
    elif not labels.is_seen(name):
        problem = labels.UNSEEN
    if problem:
        raise invalid(at, problem)
    return name


def _tags(tags: Iterable[str], at: str) -> tuple[str, ...]:
    given = tuple(tags)
    for number, tag in enumerate(given):
        if len(tag.strip()) > _TAG:
            raise invalid(f"{at}[{number}]", f"must have at most {_TAG} characters")
        if controls.has_controls(tag.strip()):
            raise invalid(f"{at}[{number}]", "must not hold control characters")
    found = labels.trimmed(given)
    if len(found) > _TAGS:
        raise invalid(at, f"must be at most {_TAGS}")
    return found


def content_hash(content: str) -> str:
    """Make what equal texts have in common; empty for a text of white space alone.

    It is the SHA-256 of the text without white space around it and with line feeds alone.
    """
    text = content.replace("\r\n", "\n").replace("\r", "\n").strip()
    return hashlib.sha256(text.encode()).hexdigest() if text else ""


# Changes


def made(org: str, id_: str, asked: Asked, now: int, author: str) -> Screenplay:
    """Make a screenplay.

    Args:
        asked: with tidy values.
        now: microseconds since the epoch.
        author: who asks, as in audit records.
    """
    content = asked.values.get("content", "")
    return Screenplay(
        org=org,
        id=id_,
        create_time=now,
        update_time=now,
        last_use_time=now,
        text_time=now,
        text_author=author,
        content_bytes=len(content.encode()),
        content_hash=content_hash(content),
        request_id=asked.request_id,
        digest=digest_of(asked) if asked.request_id else "",
        **asked.values,
    )


def digest_of(asked: Asked) -> str:
    """Make the digest of what was asked for, tidy."""
    return digest({name: value for name, value in asked.values.items() if value})


def changed(
    screenplay: Screenplay, values: Mapping[str, Any], now: int, author: str
) -> Screenplay | None:
    """Change a screenplay, which makes a new revision of it; None when nothing changes.

    Args:
        values: tidy ones, by the names of fields.
        now: microseconds since the epoch.
        author: who asks, as in audit records.
    """
    if all(getattr(screenplay, name) == value for name, value in values.items()):
        return None
    # Lists in the order of changes know no two changes of one screenplay at one time.
    now = max(now, screenplay.update_time + 1)
    after = replace(screenplay, revision=screenplay.revision + 1, update_time=now, **values)
    if after.content == screenplay.content:
        return after
    return replace(
        after,
        content_bytes=len(after.content.encode()),
        content_hash=content_hash(after.content),
        text_revision=after.revision,
        text_time=now,
        text_author=author,
    )


def renamed(screenplay: Screenplay, name: str, *, move_files: bool) -> dict[str, Any]:
    """Say what changes when a screenplay gets another name.

    Args:
        name: in the form it is kept in.
        move_files: whether the files it is kept in and exported to get the name, too.

    Raises:
        DomainError: INVALID_REQUEST, when the name is too long for a path.
    """
    values: dict[str, Any] = {"name": name}
    if move_files:
        file = name.replace("/", "-").replace("\\", "-")
        for field_ in ("file_path", "export_path"):
            if path := getattr(screenplay, field_):
                folder, _, ending = paths.parted(path)
                values[field_] = paths.normal(f"{folder}{file}{ending}", "new_name")
    return values


def used(screenplay: Screenplay, now: int) -> Screenplay:
    """Note that it was used."""
    return replace(screenplay, last_use_time=max(now, screenplay.last_use_time))


def text_of(screenplay: Screenplay) -> Text:
    """Return the text a screenplay has."""
    return Text(
        org=screenplay.org,
        screenplay_id=screenplay.id,
        revision=screenplay.text_revision,
        content=screenplay.content,
        content_bytes=screenplay.content_bytes,
        content_hash=screenplay.content_hash,
        author=screenplay.text_author,
        create_time=screenplay.text_time,
    )


def text_id(screenplay_id: str, revision: int) -> str:
    """Make the id of a text, such that text has the order of revisions."""
    return f"{screenplay_id}.{revision:010d}"


def undeleted(screenplay: Screenplay, without: Iterable[str], now: int) -> Screenplay:
    """Take a deleted screenplay back.

    Args:
        without: the fields of those of its paths that others have now.
        now: microseconds since the epoch.
    """
    back = replace(screenplay, life=deletions.undeleted(screenplay.life))
    return changed(back, dict.fromkeys(without, ""), now, "") or back


def import_name(path: str) -> str:
    """Name what is imported from a path as its file is named, without the ending."""
    _, stem, ending = paths.parted(path)
    return stem.strip()[:LONGEST_NAME] or ending


# Errors


def not_found(screenplay_id: str) -> DomainError:
    """Make the error for an id nobody has."""
    return DomainError(
        Reason.REASON_SCREENPLAY_NOT_FOUND,
        f"No screenplay has the id {screenplay_id}.",
        resources=[Resource("screenplay", screenplay_id)],
    )


def is_deleted(screenplay_id: str) -> DomainError:
    """Make the error for a screenplay that is deleted and can be taken back."""
    return DomainError(
        Reason.REASON_SCREENPLAY_NOT_FOUND,
        f"The screenplay {screenplay_id} is deleted; take it back with UndeleteScreenplay to use it.",
        resources=[Resource("screenplay", screenplay_id, "deleted")],
    )


def no_version(screenplay_id: str, revision: int) -> DomainError:
    """Make the error for a text that is not kept, or never was."""
    return DomainError(
        Reason.REASON_SCREENPLAY_VERSION_NOT_FOUND,
        f"No text of version {revision} of the screenplay {screenplay_id} is kept; "
        f"ListScreenplayVersions names those that are kept.",
        resources=[Resource("screenplay_version", f"{screenplay_id}/{revision}")],
    )


def path_taken(at: str, path: str, holder: Screenplay, hint: str = "") -> DomainError:
    """Make the error for a path that another screenplay has.

    Args:
        at: the field of the request that asks for it.
        hint: what else the caller may do, as the end of a sentence.
    """
    taken = f"is {path}, which the screenplay {holder.id} ({holder.name}) has"
    description = f"{taken}; choose another path or change that screenplay{hint}"
    return DomainError(
        Reason.REASON_SCREENPLAY_PATH_TAKEN,
        f"{at}: {description}.",
        violations=[Violation(at, description)],
        resources=[Resource("screenplay", holder.id, holder.name)],
        metadata={"holder_id": holder.id, "holder_name": holder.name, "path": path},
    )
