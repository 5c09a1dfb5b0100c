"""Agents placed in screenplays and conversations, and the rules of their changes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

import orjson

from services.kit.errors import DomainError, Reason, Resource, invalid
from services.kit.resources import conflicts, deletions, labels, objects, request_ids, ties
from services.kit.resources.controls import has_controls
from services.kit.resources.deletions import Cascade, Life
from services.kit.resources.ties import Ties, tie

MOST_CONFIG = 16 * 1024
"""How many bytes a config may have as JSON."""
DEEPEST_CONFIG = 16
"""How deep objects and lists in a config may lie in one another."""
_MCP_CONFIGS = 32
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_TAKEN_IDS = frozenset({"reorder"})
"""What routes would take for something else."""
AGENT, SCREENPLAY, CONVERSATION = "agent", "screenplay", "conversation"
"""The kinds of things that instances are tied to."""


class Status(StrEnum):
    """What an instance is doing, as whoever shows it sets it."""

    PENDING = "pending"
    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Position:
    """Where something is drawn: to the right, and downwards."""

    x: float = 0.0
    y: float = 0.0


@dataclass(frozen=True, slots=True)
class Instance:
    """A stored instance."""

    org: str
    id: str
    agent_id: str
    create_time: int
    """Microseconds since the epoch."""
    update_time: int
    screenplay_id: str = ""
    conversation_id: str = ""
    position: Position | None = None
    status: Status = Status.PENDING
    cwd: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)
    """Free JSON; empty where it was not read."""
    emoji: str = ""
    display_order: float = 0.0
    mcp_configs: tuple[str, ...] = ()
    is_system_default: bool = False
    is_hidden: bool = False
    revision: int = 1
    """How often it changed, from 1; what the etag says."""
    request_id: str = ""
    digest: str = ""
    """Of the request that made it, when it had a request_id."""
    life: Life = field(default_factory=Life)
    """Its own: whether it was deleted by itself."""
    ties: Ties = field(default_factory=dict)
    """To its agent, its screenplay, its conversation and that one's screenplay."""
    version: int = 1
    """Of the stored document."""

    @property
    def fate(self) -> Life:
        """Whether it is deleted, by itself or with what it belongs to."""
        return ties.fate(self.life, self.ties)

    @property
    def etag(self) -> str:
        """What changes with each change."""
        return str(self.revision)

    @property
    def resource(self) -> Resource:
        """Itself, as errors name it."""
        return Resource("instance", self.id)


@dataclass(frozen=True, slots=True)
class Asked:
    """What a caller asks to be made."""

    values: Mapping[str, Any]
    """By the names of the fields of Instance that a caller gives; `agent_id` is among them."""
    id: str = ""
    """Empty for one that is made up."""
    request_id: str = ""


class Order(StrEnum):
    """What lists of instances are in the order of."""

    CREATE_TIME = "create_time"
    """Newest first."""
    DISPLAY = "display"
    """By hand, the smallest first."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which instances a list shows, and in which order."""

    agent_id: str = ""
    screenplay_id: str = ""
    conversation_id: str = ""
    status: Status | None = None
    order: Order = Order.CREATE_TIME
    reverse: bool = False
    deleted: bool = False
    """Those that are deleted, instead of those that are not."""

    @property
    def place_type(self) -> type[int | str]:
        """What a place in the list begins with: a time, or text."""
        return int if self.order is Order.CREATE_TIME else str

    @property
    def newest_first(self) -> bool:
        """Whether it begins with the greatest."""
        return (self.order is Order.CREATE_TIME) != self.reverse

    def content(self) -> list[Any]:
        """Return what page tokens are bound to."""
        return [
            self.agent_id,
            self.screenplay_id,
            self.conversation_id,
            self.status,
            self.order.value,
            self.reverse,
            self.deleted,
        ]


# Rules


def check_id(id_: str) -> None:
    """Check an id that a caller chose.

    Raises:
        DomainError: INVALID_REQUEST.
    """
    if not _ID.fullmatch(id_):
        raise invalid("instance.instance_id", "must be at most 64 letters, digits, `_` and `-`")
    if id_ in _TAKEN_IDS:
        raise invalid(
            "instance.instance_id", f"must not be {id_}, which a route has; choose another"
        )


def tidy(values: Mapping[str, Any], at: str = "instance.") -> dict[str, Any]:
    """Bring what a caller gives to the form it is stored in.

    Args:
        values: by the names of fields of Instance.
        at: what stands before the names of fields in errors.

    Raises:
        DomainError: INVALID_REQUEST.
    """
    tidied = dict(values)
    for name in ("cwd", "emoji"):
        if has_controls(tidied.get(name, "")):
            raise invalid(f"{at}{name}", "must not hold control characters")
    if "display_order" in tidied:
        # There are two zeros, which are one place.
        tidied["display_order"] += 0.0
    if "mcp_configs" in tidied:
        tidied["mcp_configs"] = _mcp_configs(tidied["mcp_configs"], f"{at}mcp_configs")
    if "config" in tidied:
        objects.check(tidied["config"], f"{at}config", DEEPEST_CONFIG)
    return tidied


def _mcp_configs(given: tuple[str, ...], at: str) -> tuple[str, ...]:
    for number, name in enumerate(given):
        if has_controls(name):
            raise invalid(f"{at}[{number}]", "must not hold control characters")
    found = labels.trimmed(given)
    if len(found) > _MCP_CONFIGS:
        raise invalid(at, f"must be at most {_MCP_CONFIGS}")
    return found


def config_text(config: Mapping[str, Any]) -> bytes:
    """Print a config as JSON, always in the same form."""
    return orjson.dumps(config, option=orjson.OPT_SORT_KEYS)


def _check_size(config: Mapping[str, Any]) -> None:
    size = len(config_text(config))
    if size > MOST_CONFIG:
        raise invalid(
            "instance.config",
            f"would have {size} bytes as JSON, and {MOST_CONFIG} is the most; "
            "give keys that nobody needs the value null",
        )


def merged(config: Mapping[str, Any], given: Mapping[str, Any] | None) -> dict[str, Any]:
    """Replace the keys that are given; null takes one away.

    A key is a name and never a path, whatever it holds.

    Args:
        given: None takes all away.
    """
    if given is None:
        return {}
    kept = {key: value for key, value in config.items() if key not in given}
    return kept | {key: value for key, value in given.items() if value is not None}


# Changes


def made(org: str, id_: str, asked: Asked, now: int, digest: str = "") -> Instance:
    """Make an instance.

    Args:
        asked: with tidy values.
        now: microseconds since the epoch.
        digest: of what was asked for, when it had a request_id.

    Raises:
        DomainError: INVALID_REQUEST.
    """
    values = {"display_order": now / 1_000_000, **asked.values}
    values["config"] = merged({}, values.get("config", {}))
    _check_size(values["config"])
    return Instance(
        org=org,
        id=id_,
        create_time=now,
        update_time=now,
        request_id=asked.request_id,
        digest=digest,
        **values,
    )


def digest_of(asked: Asked) -> str:
    """Make the digest of what was asked for, tidy."""
    values = {name: value for name, value in asked.values.items() if value}
    return request_ids.digest({"instance_id": asked.id, **values})


def changed(instance: Instance, values: Mapping[str, Any], now: int) -> Instance | None:
    """Change an instance, which makes a new etag; None when nothing changes.

    Args:
        values: tidy ones, by the names of fields; a `config` is merged into the one there is, and None
            clears it.
        now: microseconds since the epoch.

    Raises:
        DomainError: INVALID_REQUEST.
    """
    wanted = dict(values)
    if "config" in wanted:
        wanted["config"] = merged(instance.config, wanted["config"])
        _check_size(wanted["config"])
    if all(getattr(instance, name) == value for name, value in wanted.items()):
        return None
    time = max(now, instance.update_time + 1)
    return replace(instance, revision=instance.revision + 1, update_time=time, **wanted)


def noted(instance: Instance, status: Status, now: int) -> Instance:
    """Note what the mesh does with it: whoever edits it meanwhile is not in its way."""
    return replace(instance, status=status, update_time=max(now, instance.update_time + 1))


def deleted(instance: Instance, deletion: str, now: int, *, purge: bool) -> Instance:
    """Delete an instance by itself.

    Args:
        deletion: the id of a new deletion.
        now: microseconds since the epoch.
        purge: whether it goes for good, deleted before or not.
    """
    life = deletions.deleted(instance.life, deletion, now, Cascade.NONE)
    return replace(instance, life=deletions.purging(life) if purge else life)


def undeleted(instance: Instance) -> Instance:
    """Take an instance back that was deleted by itself."""
    return replace(instance, life=deletions.undeleted(instance.life))


def marked(instance: Instance, to: str, deletion: str, time: int) -> Instance | None:
    """Delete an instance with what it is tied to; None when that changes nothing."""
    found = ties.marked(instance.ties, to, deletion, time)
    return None if found is None else replace(instance, ties=found)


def unmarked(instance: Instance, to: str, deletion: str) -> Instance | None:
    """Take an instance back with what it is tied to; None when that changes nothing."""
    found = ties.unmarked(instance.ties, to, deletion)
    return None if found is None else replace(instance, ties=found)


def copied(instance: Instance, id_: str, conversation_id: str, staged: Life, now: int) -> Instance:
    """Copy an instance into a copy of its conversation, which is not seen yet.

    It has done nothing, and begins with that.

    Args:
        staged: the life of the copy of the conversation.
        now: microseconds since the epoch.
    """
    home = tie(CONVERSATION, conversation_id)
    own_home = tie(CONVERSATION, instance.conversation_id)
    kept = {to: life for to, life in instance.ties.items() if to != own_home}
    seen = ties.marked(kept, home, staged.deletion, staged.delete_time or 0)
    return replace(
        instance,
        id=id_,
        conversation_id=conversation_id,
        create_time=now,
        update_time=now,
        status=Status.PENDING,
        revision=1,
        request_id="",
        digest="",
        life=Life(),
        ties=kept if seen is None else seen,
        version=1,
    )


def belongs(instance: Instance, kind: str, of: str) -> bool:
    """Tell whether it belongs to a thing of a kind."""
    return of == {
        AGENT: instance.agent_id,
        SCREENPLAY: instance.screenplay_id,
        CONVERSATION: instance.conversation_id,
    }.get(kind)


def held_by(instance: Instance) -> Iterator[tuple[str, str]]:
    """Yield the kinds and ids of the things it went with and is not back from."""
    for to, life in instance.ties.items():
        if not life.live:
            kind, _, id_ = to.partition("/")
            yield kind, id_


# Errors


def not_found(instance_id: str) -> DomainError:
    """Make the error for an id nobody has."""
    return DomainError(
        Reason.REASON_INSTANCE_NOT_FOUND,
        f"No instance has the id {instance_id}.",
        resources=[Resource("instance", instance_id)],
    )


def is_deleted(instance: Instance) -> DomainError:
    """Make the error for an instance that is deleted and can be taken back."""
    with_others = next(held_by(instance), None)
    how = (
        "take it back with UndeleteInstance to use it"
        if with_others is None
        else f"its {with_others[0]} {with_others[1]} is, and it comes back with that"
    )
    return DomainError(
        Reason.REASON_INSTANCE_NOT_FOUND,
        f"The instance {instance.id} is deleted; {how}.",
        resources=[Resource("instance", instance.id, "deleted")],
    )


def already_exists(holder: Instance) -> DomainError:
    """Make the error for an id that another instance has."""
    how = "; choose another id"
    if holder.life.purging:
        how = " and is being purged; try again, or choose another id"
    elif not holder.fate.live:
        how = " and is deleted; take it back with UndeleteInstance, purge it, or choose another id"
    return DomainError(
        Reason.REASON_INSTANCE_ALREADY_EXISTS,
        f"An instance has the id {holder.id}{how}.",
        resources=[holder.resource],
    )


_GONE = {
    AGENT: Reason.REASON_AGENT_NOT_FOUND,
    SCREENPLAY: Reason.REASON_SCREENPLAY_NOT_FOUND,
    CONVERSATION: Reason.REASON_CONVERSATION_NOT_FOUND,
}


def went_with(kind: str, id_: str) -> DomainError:
    """Make the error for an instance that comes back with what it belongs to alone.

    Args:
        kind: of what it belongs to, which is deleted.
    """
    return DomainError(
        _GONE[kind],
        f"The {kind} {id_} of the instance is deleted; take it back, and the instance follows.",
        resources=[Resource(kind, id_, "deleted")],
    )


def contended(instance_id: str) -> DomainError:
    """Make the error for an instance that many change at once; its id is empty before it has one."""
    return conflicts.contended(Resource("instance", instance_id))
