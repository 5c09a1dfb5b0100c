"""Requests as they may be kept: as JSON, without secrets, and short.

What is secret is told by the option `debug_redact` of a field, by the name of a field or key, and by
the look of a text. What is left out says so in its place. Requests are walked by hand: to print them
with `json_format` and look through the print would take several times as long.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import lru_cache
from itertools import islice, pairwise
from typing import Any, Final

from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import ListValue, Struct, Value
from google.protobuf.timestamp_pb2 import Timestamp

REDACTED: Final = "[redacted]"
"""What stands for a secret."""
LONGEST_TEXT: Final = 256
"""Characters of a text that are kept."""
LONGEST_LIST: Final = 32
"""Elements of a list or an object that are kept."""
MOST_CHARACTERS: Final = 4096
"""Characters of keys and texts of one request that are kept; each value counts as some more."""
DEEPEST: Final = 12
"""Levels that are kept: a `Struct` takes three levels of messages for one, and readers of messages
go 100 deep."""

_EACH_VALUE: Final = 4
_MARGIN: Final = 64
"""Characters beyond the cut that tell whether a secret begins before it."""

_SECRET: Final = frozenset(
    {
        *("password", "passwords", "passwd", "passphrase", "passphrases", "pwd", "otp", "jwt"),
        *("secret", "secrets", "token", "apikey", "apikeys", "credential", "credentials"),
        *("authorization", "authentication", "bearer", "cookie", "cookies"),
    }
)
_SECRET_ENDING: Final = (
    *("password", "passwd", "passphrase", "secret", "token", "credential", "credentials"),
    *("apikey", "accesskey", "privatekey", "secretkey", "signingkey"),
)
"""How words end that are written as one, like `accesstoken`."""
_OF_KEYS: Final = frozenset({"api", "access", "private", "secret", "signing", "encryption"})
_OF_TOKENS: Final = frozenset({"access", "api", "auth", "bearer", "id", "refresh", "session"})
"""What stands before `tokens` where those are no count."""

_PARTS: Final = re.compile(r"[^\W\d_]+")
_HUMPS: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[^\W\d_A-Z]+")
_ASSIGNED: Final = (
    r"""\\?["']?\s*[:=]\s*(?:(?:bearer|basic)\s+)?(?:\\?"[^"]*"?|'[^']*'?|[^\s"',;&]+)"""
)
_SECRET_TEXT: Final = re.compile(
    # Of text in lower case. Each way begins with a letter, so that few places have to be tried.
    "|".join(
        (
            r"cmk_[\w-]+",
            r"""bearer\s+[^\s"',;]+""",
            r"s(?<!\ws)k-[\w-]{8,}",
            # As GitHub, GitLab, Google, Groq, AWS, Slack and Stripe write theirs.
            r"g(?<!\wg)(?:h[oprsu]_|ithub_pat_|lpat-|sk_)[\w-]{16,}",
            r"a(?<!\wa)(?:iza[\w-]{30,}|(?:k|s)ia[0-9a-z]{16})",
            r"xox[a-z]-[\w-]{8,}",
            r"s(?<!\ws)k_(?:live|test)_\w{8,}",
            r"e(?<!\we)yj[\w-]{6,}(?:\.[\w-]*){0,2}",  # JSON in base64, as JWTs have it
            rf"password{_ASSIGNED}",
            rf"passwd{_ASSIGNED}",
            rf"pwd{_ASSIGNED}",
            rf"passphrase{_ASSIGNED}",
            rf"private[ _-]?key{_ASSIGNED}",
            rf"secret(?:[ _-]?key)?{_ASSIGNED}",
            rf"token{_ASSIGNED}",
            rf"api[ _-]?key{_ASSIGNED}",
            rf"access[ _-]?key{_ASSIGNED}",
            rf"authorization{_ASSIGNED}",
            rf"credentials?{_ASSIGNED}",
            rf"cookie{_ASSIGNED}",
            r"://[^\s/:@]*:[^\s/@]+@",
            r"-----begin [a-z ]*private key[\s\S]*",
        )
    )
)
_LARGE: Final = {
    FieldDescriptor.TYPE_INT64,
    FieldDescriptor.TYPE_UINT64,
    FieldDescriptor.TYPE_SINT64,
    FieldDescriptor.TYPE_FIXED64,
    FieldDescriptor.TYPE_SFIXED64,
}
_FRACTIONS: Final = {FieldDescriptor.TYPE_DOUBLE, FieldDescriptor.TYPE_FLOAT}

_Print = Callable[[Any, "_Room", int], Any]
"""Prints a value that stands so many levels deep."""


def redacted(message: Message) -> Any:
    """Print a message as JSON with the names of its proto."""
    return _message(message, _Room(), 0)


def redacted_text(text: str) -> str:
    """Cut a text, and take out what looks like a secret."""
    # A secret that begins before the cut is found by what stands beyond it.
    window = text[: LONGEST_TEXT + _MARGIN] if len(text) > LONGEST_TEXT else text
    lower = window.lower()
    if len(lower) != len(window):
        # One letter of Turkish is two in lower case.
        lower = window.replace("\u0130", "i").lower()
    matched = _SECRET_TEXT.search(lower)
    if matched is None:
        return text if window is text else f"{text[:LONGEST_TEXT]}… ({len(text)} characters)"
    shown, place = "", 0
    while matched is not None and matched.start() < LONGEST_TEXT:
        shown += window[place : matched.start()] + REDACTED
        place = matched.end()
        matched = _SECRET_TEXT.search(lower, place)
    shown += window[place:LONGEST_TEXT]
    return shown if window is text else f"{shown}… ({len(text)} characters)"


def is_secret(name: str) -> bool:
    """Tell by the name of a field or key whether what it holds is a secret.

    The words of the name decide, in whichever way they are written together: `X-API-Key`, `apiKey`.
    One that is longer than any text that is kept is taken for a secret unread.
    """
    return len(name) > LONGEST_TEXT or _is_secret(name)


@lru_cache(4096)
def _is_secret(name: str) -> bool:
    parts = _PARTS.findall(name)
    for words in ([part.lower() for part in parts], _humps(parts)):
        if not _SECRET.isdisjoint(words) or any(word.endswith(_SECRET_ENDING) for word in words):
            return True
        for before, word in pairwise(words):
            if (word in {"key", "keys"} and before in _OF_KEYS) or (
                word == "tokens" and before in _OF_TOKENS
            ):
                return True
    return False


def _humps(parts: Iterable[str]) -> list[str]:
    return [hump.lower() for part in parts for hump in _HUMPS.findall(part)]


class _Room:
    """How much of one request may still be kept."""

    __slots__ = ("left",)

    def __init__(self) -> None:
        self.left = MOST_CHARACTERS


def _message(message: Message, room: _Room, depth: int) -> Any:
    printing = _WELL_KNOWN.get(message.DESCRIPTOR.full_name)
    if printing is not None:
        return printing(message, room, depth)
    if depth > DEEPEST:
        return _left_out(0)
    room.left -= _EACH_VALUE
    fields = _fields_of(message.DESCRIPTOR)
    shown = {}
    for field, value in message.ListFields():
        name, print_value = fields[field.number]
        room.left -= len(name)
        shown[name] = print_value(value, room, depth + 1)
    return shown


def _text(text: str, room: _Room, depth: int) -> str:  # noqa: ARG001 the shape of `_Print`
    if room.left <= 0:
        return _left_out(len(text))
    shown = redacted_text(text)
    room.left -= len(shown) + _EACH_VALUE
    return shown


def _plain(value: Any, room: _Room, depth: int) -> Any:  # noqa: ARG001
    room.left -= _EACH_VALUE
    return value


def _large(value: int, room: _Room, depth: int) -> str:
    return str(_plain(value, room, depth))


def _fraction(value: float, room: _Room, depth: int) -> Any:
    return _plain(value if math.isfinite(value) else str(value), room, depth)


def _bytes(value: bytes, room: _Room, depth: int) -> str:
    return str(_plain(f"({len(value)} bytes)", room, depth))


def _secret(value: Any, room: _Room, depth: int) -> Any:  # noqa: ARG001
    return _plain(REDACTED, room, depth)


def _left_out(length: int) -> str:
    return f"… ({length} characters)" if length else "…"


def _list(values: Collection[Any], print_value: _Print, room: _Room, depth: int) -> Any:
    room.left -= _EACH_VALUE
    shown = []
    for value in islice(values, LONGEST_LIST):
        if room.left <= 0:
            break
        shown.append(print_value(value, room, depth + 1))
    if len(shown) < len(values):
        shown.append(f"… ({len(values) - len(shown)} more)")
    return shown


def _object(values: Mapping[Any, Any], print_value: _Print, room: _Room, depth: int) -> Any:
    room.left -= _EACH_VALUE
    shown: dict[str, Any] = {}
    passed = 0
    for key in islice(values, LONGEST_LIST):
        if room.left <= 0:
            break
        passed += 1
        name = _text(str(key), room, depth)
        printing = _secret if is_secret(str(key)) else print_value
        shown[name] = printing(values[key], room, depth + 1)
    if passed < len(values):
        shown["…"] = f"({len(values) - passed} more)"
    return shown


def _value(value: Value, room: _Room, depth: int) -> Any:
    kind = value.WhichOneof("kind")
    if kind == "string_value":
        return _text(value.string_value, room, depth)
    if kind == "struct_value":
        return _struct(value.struct_value, room, depth)
    if kind == "list_value":
        return _list_value(value.list_value, room, depth)
    if kind == "number_value":
        return _fraction(value.number_value, room, depth)
    return _plain(value.bool_value if kind == "bool_value" else None, room, depth)


def _struct(struct: Struct, room: _Room, depth: int) -> Any:
    return _left_out(0) if depth > DEEPEST else _object(struct.fields, _value, room, depth)


def _list_value(values: ListValue, room: _Room, depth: int) -> Any:
    return _left_out(0) if depth > DEEPEST else _list(values.values, _value, room, depth)


def _any(packed: AnyMessage, room: _Room, depth: int) -> Any:
    return {
        "@type": _text(packed.type_url, room, depth),
        "value": _bytes(packed.value, room, depth),
    }


def _time(value: Timestamp | Duration, room: _Room, depth: int) -> Any:
    try:
        return _plain(value.ToJsonString(), room, depth)
    except ValueError:
        return _plain(f"{value.seconds}s, {value.nanos}ns", room, depth)


def _mask(mask: FieldMask, room: _Room, depth: int) -> Any:
    return _list(mask.paths, _text, room, depth)


_WELL_KNOWN: Final[Mapping[str, _Print]] = {
    "google.protobuf.Any": _any,
    "google.protobuf.Duration": _time,
    "google.protobuf.FieldMask": _mask,
    "google.protobuf.ListValue": _list_value,
    "google.protobuf.Struct": _struct,
    "google.protobuf.Timestamp": _time,
    "google.protobuf.Value": _value,
}


@lru_cache(1024)
def _fields_of(descriptor: Descriptor) -> dict[int, tuple[str, _Print]]:
    """Find out, once for each message, how its fields are printed."""
    return {field.number: _field(field) for field in descriptor.fields}


def _field(field: FieldDescriptor) -> tuple[str, _Print]:
    if field.GetOptions().debug_redact or is_secret(field.name):
        return field.name, _secret
    message = field.message_type
    if message is not None and message.GetOptions().map_entry:
        one = _one(message.fields_by_name["value"])
        return field.name, lambda values, room, depth: _object(values, one, room, depth)
    one = _one(field)
    if field.is_repeated:
        return field.name, lambda values, room, depth: _list(values, one, room, depth)
    return field.name, one


def _one(field: FieldDescriptor) -> _Print:
    """Choose how one value of a field is printed."""
    if field.message_type is not None:
        return _message
    if field.type == FieldDescriptor.TYPE_STRING:
        return _text
    if field.type == FieldDescriptor.TYPE_BYTES:
        return _bytes
    if field.enum_type is not None:
        names = {value.number: value.name for value in field.enum_type.values}
        return lambda value, room, depth: _plain(names.get(value, value), room, depth)
    if field.type in _LARGE:
        return _large
    return _fraction if field.type in _FRACTIONS else _plain
