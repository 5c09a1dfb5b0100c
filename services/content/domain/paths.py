"""Paths of files, as they are kept: relative, with slashes, always in the same form."""

from __future__ import annotations

import unicodedata

from services.kit.errors import invalid
from services.kit.resources.controls import has_controls

LONGEST = 500
LONGEST_SEGMENT = 250
"""The most bytes in UTF-8 of a name between slashes that file systems take, with `.yaml` behind it."""
ENDINGS = (".md", ".markdown", ".txt")
NOT_IN_NAMES = frozenset('<>:"|?*')
"""What no file may be named by on some system; names of screenplays become names of files."""
_SHOWN = " ".join('<>:"|?*')


def normal(path: str, at: str) -> str:
    """Bring a path to the form it is kept in; an empty one stays empty.

    Blanks around it, slashes at its beginning, empty segments and `.` go, backslashes become slashes,
    and letters with marks become one character where there is one. Done again it changes nothing.

    Args:
        at: the field of the request, for the error.

    Raises:
        DomainError: INVALID_REQUEST.
    """
    if not path.strip():
        return ""
    before, after = "", path
    while before != after:
        before, after = after, _tidied(after)
    _check(after, at)
    return after


def parted(path: str) -> tuple[str, str, str]:
    """Part a path into its folder with the slash after it, the name of the file, and its ending."""
    folder, slash, file = path.rpartition("/")
    stem, dot, ending = file.rpartition(".")
    return folder + slash, stem, dot + ending


def fits_files(path: str) -> bool:
    """Tell whether file systems take a path; they count bytes."""
    return all(len(segment.encode()) <= LONGEST_SEGMENT for segment in path.split("/"))


def _tidied(path: str) -> str:
    path = unicodedata.normalize("NFC", path).strip().replace("\\", "/")
    return "/".join(segment for segment in path.split("/") if segment.strip() not in {"", "."})


def _check(path: str, at: str) -> None:
    problem = ""
    if any(segment.strip() == ".." for segment in path.split("/")):
        problem = "must not hold `..`; name the file from the top folder on"
    elif NOT_IN_NAMES.intersection(path):
        problem = f"must hold none of {_SHOWN}"
    elif has_controls(path):
        problem = "must not hold control characters"
    elif not path.lower().endswith(ENDINGS):
        problem = f"must name a file that ends in {', '.join(ENDINGS[:-1])} or {ENDINGS[-1]}"
    elif len(path) > LONGEST:
        problem = f"must have at most {LONGEST} characters, and has {len(path)}"
    if problem:
        raise invalid(at, problem)
