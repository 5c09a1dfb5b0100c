"""What the messages of every service have in common: times, scopes, and pages that fit."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, TypeVar

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from conductor.auth.v1 import access_pb2
from services.kit.errors import invalid
from services.kit.principals import Scope
from services.kit.resources.deletions import Life, purge_time

M = TypeVar("M", bound=Message)

_MAX_PAGE_BYTES = 2 * 1024 * 1024
_SCOPE = "SCOPE_"


def timestamp(microseconds: int) -> Timestamp:
    """Print a time, in microseconds since the epoch."""
    seconds, rest = divmod(microseconds, 1_000_000)
    return Timestamp(seconds=seconds, nanos=rest * 1000)


def microseconds(message: Message, field: str, path: str = "") -> int | None:
    """Read a time in microseconds since the epoch; None when it is not there.

    Args:
        path: how an error names the field, where that is not its name alone.

    Raises:
        DomainError: INVALID_REQUEST, when it is no time of the calendar.
    """
    if not message.HasField(field):
        return None
    time: Timestamp = getattr(message, field)
    try:
        return time.ToMicroseconds()
    except ValueError:
        raise invalid(path or field, "must be a time of the years 1 to 9999") from None


def scope(value: access_pb2.Scope.ValueType) -> Scope:
    """Read a scope."""
    return Scope[access_pb2.Scope.Name(value).removeprefix(_SCOPE)]


def scopes_to_proto(scopes: Iterable[Scope]) -> list[access_pb2.Scope.ValueType]:
    """Print scopes, the least first."""
    held = set(scopes)
    return [access_pb2.Scope.Value(f"{_SCOPE}{one.name}") for one in Scope if one in held]


def fitting(messages: Iterable[M]) -> list[M]:
    """Take the first messages, at least one, that fit a message that any client takes."""
    page: list[M] = []
    room = _MAX_PAGE_BYTES
    for message in messages:
        room -= message.ByteSize()
        if room < 0 and page:
            break
        page.append(message)
    return page


class Deletable(Protocol):
    """A message of a thing that can be deleted."""

    @property
    def delete_time(self) -> Timestamp:
        """When it was."""
        ...

    @property
    def purge_time(self) -> Timestamp:
        """When it goes for good."""
        ...


def life_to_proto(life: Life, message: Deletable, keep_days: float) -> None:
    """Print into the message of a thing when it was deleted and goes for good, if it is deleted.

    Args:
        keep_days: how long what is deleted is kept; 0 for ever.
    """
    if life.delete_time is None:
        return
    message.delete_time.CopyFrom(timestamp(life.delete_time))
    if keep_days:
        message.purge_time.CopyFrom(timestamp(purge_time(life.delete_time, keep_days)))
