"""Files that somebody named: read, and written without a trace of a half."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Final

import typer

from conductor_ai.cli.exits import refuse

STANDARD: Final = "-"
"""What stands for stdin or stdout."""

File = Annotated[str, typer.Argument(help="The file; - is stdin.", metavar="FILE")]
"""A file to read."""

_UNFIT = re.compile(r"[^\w.-]+")
_LONGEST_STEM = 80
_SHOWN_STEM = 40
"""Characters of a name in that of the file before it is whole: 160 bytes at most, as all takes 255."""


def read_text(name: str) -> str:
    """Read a text in UTF-8, from stdin for `-`; leaves with a sentence when that cannot be."""
    try:
        content = sys.stdin.buffer.read() if name == STANDARD else Path(name).read_bytes()
        return content.decode()
    except UnicodeDecodeError:
        refuse(f"{_called(name)} is not UTF-8")
    except OSError as error:
        refuse(f"{_called(name)} cannot be read: {error.strerror}")


def write(path: Path, content: bytes) -> None:
    """Write a file that is either there as a whole or as it was; follows no link at its place.

    Raises:
        OSError: it cannot be written.
    """
    handle, fresh = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:_SHOWN_STEM]}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        # As a file of the user's, not the secret that mkstemp makes.
        Path(fresh).chmod(0o666 & ~_umask())
        Path(fresh).replace(path)
    except BaseException:
        with suppress(OSError):
            Path(fresh).unlink()
        raise


def file_name(name: str, ending: str) -> str:
    """Make a file name of any text."""
    stem = _UNFIT.sub("-", name).strip("-. ")[:_LONGEST_STEM]
    return f"{stem or 'text'}{ending}"


def _called(name: str) -> str:
    return "stdin" if name == STANDARD else name


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
