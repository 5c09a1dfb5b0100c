"""What the messages of every service have in common: times, scopes, and pages that fit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol, TypeVar

from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct, Value
from google.protobuf.timestamp_pb2 import Timestamp

from conductor.auth.v1 import access_pb2
from services.kit.errors import invalid
from services.kit.principals import Scope
from services.kit.resources.deletions import Life, purge_time

M = TypeVar("M", bound=Message)

_MAX_PAGE_BYTES = 2 * 1024 * 1024
_SCOPE = "SCOPE_"
_WHOLE = 2**53
"""Below it each whole number is one that a fraction can be."""


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


def object_of(struct: Struct) -> dict[str, Any]:
    """Read an object of JSON."""
    return {key: _value_of(value) for key, value in struct.fields.items()}


def _value_of(value: Value) -> Any:
    match value.WhichOneof("kind"):
        case "number_value":
            # A message has only fractions; one that is whole was written as a whole number.
            number = value.number_value
            return int(number) if number.is_integer() and abs(number) < _WHOLE else number
        case "string_value":
            return value.string_value
        case "bool_value":
            return value.bool_value
        case "struct_value":
            return object_of(value.struct_value)
        case "list_value":
            return [_value_of(one) for one in value.list_value.values]
        case _:
            return None


def struct_of(said: Mapping[str, Any]) -> Struct:
    """Print an object of JSON."""
    struct = Struct()
    struct.update(said)
    return struct
