"""Stored things as JSON, exactly: what is written is read back equal, and nothing else is read."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Callable, Mapping
from enum import StrEnum
from functools import cache
from typing import Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

import orjson

T = TypeVar("T")

DEEPEST = 32
"""How deep free JSON in a record may be nested."""
_LAST_TIME = 253_402_300_799_999_999
"""The last microsecond of the year 9999, the newest time that callers can be told."""
_MOST_COUNT = 2**32 - 1
_HOW = orjson.OPT_SORT_KEYS | orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE


def written(thing: Any, *, without: frozenset[str] = frozenset()) -> bytes:
    """Write a dataclass or mapping as JSON: sorted keys, two blanks a level, line feeds.

    Args:
        without: the fields to leave out.
    """
    fields = {name: value for name, value in _fields(thing).items() if name not in without}
    return orjson.dumps(fields, option=_HOW, default=_fields)


def read(kind: type[T], raw: bytes, given: Mapping[str, Any]) -> T:
    """Read what `written` wrote.

    Fields with a default may be missing: an earlier release did not have them. Times are microseconds
    up to the year 9999, other numbers fit 32 bits.

    Args:
        given: the values of the fields that were left out.

    Raises:
        ValueError: it is something else; the message says where.
    """
    try:
        said = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise ValueError(f"it is not JSON: {error}") from None
    said = _exactly(dict, "a JSON object", said, "it")
    if both := sorted(said.keys() & given.keys()):
        raise ValueError(f"{both[0]} does not belong here")
    return _made(kind, said, "", given)


def _fields(thing: Any) -> dict[str, Any]:
    if isinstance(thing, Mapping):
        return dict(thing)
    return {one.name: getattr(thing, one.name) for one in dataclasses.fields(thing)}


def _made(kind: type[T], said: Mapping[str, Any], at: str, given: Mapping[str, Any]) -> T:
    rows = _rows(cast("Any", kind))
    if unknown := sorted(said.keys() - rows.keys()):
        raise ValueError(f"{at}{unknown[0]} is not known; a newer release may have written it")
    values = {name: rows[name].read(value, f"{at}{name}") for name, value in said.items()}
    values |= given
    for name, row in rows.items():
        if name not in values and row.required:
            raise ValueError(f"{at}{name} is missing")
    return kind(**values)


_Read = Callable[[Any, str], Any]


@dataclasses.dataclass(frozen=True, slots=True)
class _Row:
    """A field of a dataclass."""

    read: _Read
    required: bool


@cache
def _rows(kind: type[Any]) -> dict[str, _Row]:
    hints = get_type_hints(kind)
    return {
        one.name: _Row(
            _reader(hints[one.name], is_time=one.name.endswith("_time")),
            one.default is dataclasses.MISSING and one.default_factory is dataclasses.MISSING,
        )
        for one in dataclasses.fields(kind)
    }


def _reader(kind: Any, *, is_time: bool = False) -> _Read:
    """Return what reads values of a type."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin in {Union, types.UnionType}:
        (some,) = (one for one in inner if one is not type(None))
        read_some = _reader(some, is_time=is_time)
        return lambda value, at: None if value is None else read_some(value, at)
    if origin is tuple:
        read_one = _reader(inner[0])
        return lambda value, at: _tuple(value, at, read_one)
    if origin is not None and issubclass(origin, Mapping):
        read_value = _reader(inner[1])
        return lambda value, at: _mapping(value, at, read_value)
    if kind is Any:
        return _free
    if dataclasses.is_dataclass(kind):
        return lambda value, at: _nested(kind, value, at)
    if issubclass(kind, StrEnum):
        return lambda value, at: _enum(kind, value, at)
    if kind is int:
        most = _LAST_TIME if is_time else _MOST_COUNT
        return lambda value, at: _number(value, at, most)
    if kind is bool:
        return lambda value, at: _exactly(bool, "true or false", value, at)
    if kind is str:
        return lambda value, at: _exactly(str, "text", value, at)
    raise TypeError(f"there is no JSON for {kind}")


def _tuple(value: Any, at: str, read_one: _Read) -> tuple[Any, ...]:
    rows = _exactly(list, "a list", value, at)
    return tuple(read_one(row, f"{at}[{place}]") for place, row in enumerate(rows))


def _mapping(value: Any, at: str, read_value: _Read) -> dict[str, Any]:
    rows = _exactly(dict, "an object", value, at)
    return {name: read_value(row, f"{at}[{name[:50]!r}]") for name, row in rows.items()}


def _nested(kind: Any, value: Any, at: str) -> Any:
    return _made(kind, _exactly(dict, "an object", value, at), f"{at}.", {})


def _enum(kind: type[StrEnum], value: Any, at: str) -> StrEnum:
    try:
        return kind(_exactly(str, "text", value, at))
    except ValueError:
        raise ValueError(f"{at} has to be one of {', '.join(map(repr, kind))}") from None


def _number(value: Any, at: str, most: int) -> int:
    number: int = _exactly(int, "a whole number", value, at)
    if not 0 <= number <= most:
        raise ValueError(f"{at} has to be 0 to {most}")
    return number


def _exactly(kind: type[T], name: str, value: Any, at: str) -> T:
    if type(value) is not kind:
        raise ValueError(f"{at} has to be {name}")
    return value


def _free(value: Any, at: str, depth: int = 0) -> Any:
    if depth > DEEPEST:
        raise ValueError(f"{at} is nested too deep")
    if isinstance(value, (list, dict)):
        for one in value.values() if isinstance(value, dict) else value:
            _free(one, at, depth + 1)
    return value
