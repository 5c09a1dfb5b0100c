"""What the patterns of the protos ask for, in words."""

from __future__ import annotations

IN_WORDS = {
    r"^(#[0-9A-Fa-f]{6})?$": "must be a colour such as #1f6feb, or empty",
    r"^(/.*)?$": "must be an absolute path, or empty",
    r"^(/[^\x00-\x1f\x7f]*)?$": "must be an absolute path without control characters, or empty",
    r"^[A-Za-z0-9_-]{0,64}$": "must be at most 64 letters, digits, `_` and `-`",
    r"^[A-Za-z0-9_-]{1,64}$": "must be 1 to 64 letters, digits, `_` and `-`",
    r"^[A-Za-z0-9_.:-]{1,64}$": "must be 1 to 64 letters, digits, `_`, `.`, `:` and `-`",
    r"^([A-Za-z0-9][A-Za-z0-9_-]{0,63})?$": (
        "must be at most 64 letters, digits, `_` and `-`, and begin with a letter or a digit"
    ),
    r"^[a-z][a-z0-9-]{0,31}$": (
        "must be 1 to 32 small letters, digits and `-`, and begin with a letter"
    ),
    r"^([1-9][0-9]{0,8}|[a-z][a-z0-9-]{0,31})$": (
        "must be a number of a version, `latest`, `first` or an alias such as `production`"
    ),
    r"^([1-9][0-9]{0,8}|[a-z][a-z0-9-]{0,31})?$": (
        "must be a number of a version, `latest`, `first` or an alias such as `production`, or empty"
    ),
}
"""By the pattern: the sentence that callers get in its place, after the name of the field."""
