"""Writing for two readers: people at a terminal, and programs behind a pipe."""

from __future__ import annotations

import sys
import textwrap
from contextlib import suppress
from typing import Annotated, Any

import typer
from google.protobuf.json_format import MessageToJson
from google.protobuf.message import Message

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs, an object a line.")]
"""Whether a command writes for programs; the fields are named as in the protos."""

# What turns the direction of writing, beyond the text it stands in. Marks of the direction may stay.
_DIRECTION = (*range(0x202A, 0x202F), *range(0x2066, 0x206A))
_SHOWN_DIRECTION = {code: f"\\u{code:04x}" for code in _DIRECTION}
# What a terminal obeys instead of showing: a model's answer must not move the cursor or worse.
_OBEYED = dict.fromkeys([*range(9), 11, 12, *range(13, 32), *range(127, 160), *_DIRECTION])
# What JSON may hold as it is, and terminals obey or other readers take for the end of a line.
_ESCAPED = {code: f"\\u{code:04x}" for code in (*range(127, 160), 0x2028, 0x2029)}


def enum_name(kind: Any, number: int, prefix: str) -> str:
    """Name a value of an enum as people write it; one that this release does not know, by its number.

    Args:
        kind: the enum, as generated.
        prefix: what the names of its values begin with, such as `STATE_`.
    """
    try:
        return str(kind.Name(number)).removeprefix(prefix).lower()
    except ValueError:
        return str(number)


def harmless(text: str) -> str:
    """Take out what a terminal would obey; line breaks and tabs stay."""
    return text.translate(_OBEYED)


def one_line(text: str) -> str:
    """Make a text fit for a cell: harmless, and on one line."""
    return harmless(" ".join(text.split()))


def plain_order(text: str) -> str:
    """Make a text harmless, and show what turns the direction of writing instead of obeying it."""
    return harmless(text.translate(_SHOWN_DIRECTION))


def write_said(header: str, text: str) -> None:
    """Write on stdout what somebody says, below a line that says who it is.

    Each of its lines is indented, so that none of them can be taken for such a line. At a terminal, where
    lines that are too long begin anew at its edge, that line is bold, too.
    """
    if sys.stdout.isatty():
        # Not at the top: see `whisper`.
        from rich.console import Console  # noqa: PLC0415
        from rich.text import Text  # noqa: PLC0415

        Console(file=sys.stdout).print(Text(one_line(header), style="bold"), soft_wrap=True)
        text = harmless(text)
    else:
        print(one_line(header))
    if text:
        print(textwrap.indent(text.removesuffix("\n"), "  "))
    print()


def write_text(text: str) -> None:
    """Write a text of somebody's on stdout: to the byte behind a pipe, harmless at a terminal."""
    if sys.stdout.isatty():
        shown = harmless(text)
        sys.stdout.write(shown if shown.endswith("\n") or not shown else f"{shown}\n")
    else:
        write_bytes(text.encode())


def write_bytes(content: bytes) -> None:
    """Write bytes on stdout, as they are."""
    sys.stdout.flush()
    sys.stdout.buffer.write(content)
    sys.stdout.buffer.flush()


def tell(sentence: str) -> None:
    """Say something on stderr, whether or not somebody listens."""
    with suppress(OSError):
        print(harmless(sentence), file=sys.stderr, flush=True)


def whisper(sentence: str) -> None:
    """Say something on stderr that is there for whoever wants it."""
    # Not at the top: rich costs time that most commands have no use for.
    from rich.console import Console  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    with suppress(OSError):
        Console(stderr=True).print(Text(harmless(sentence), style="dim"), soft_wrap=True)


def json_line(message: Message) -> str:
    """Write a message as one line of JSON, the fields named as in the proto."""
    line = MessageToJson(
        message,
        preserving_proto_field_name=True,
        indent=None,
        # A question mark for what the encoding lacks would be another text.
        ensure_ascii=not _is_unicode(sys.stdout),
    )
    return line.translate(_ESCAPED)


def _is_unicode(stream: Any) -> bool:
    return str(getattr(stream, "encoding", "")).lower().replace("-", "").startswith("utf")
