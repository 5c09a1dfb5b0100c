"""How a command ends: its exit status, and the sentence that goes with it."""

from __future__ import annotations

from enum import IntEnum
from typing import NoReturn

import grpc
import typer

from conductor_ai.cli.output import tell
from conductor_ai.errors import ConductorError


class Exit(IntEnum):
    """What the exit status of a command says."""

    SUCCEEDED = 0
    FAILED = 1
    REFUSED = 2
    UNREACHABLE = 3
    LEFT = 4
    CANCELLED = 130
    BROKEN_PIPE = 141


_EXITS = {
    grpc.StatusCode.UNAVAILABLE: Exit.UNREACHABLE,
    grpc.StatusCode.INVALID_ARGUMENT: Exit.REFUSED,
    grpc.StatusCode.NOT_FOUND: Exit.REFUSED,
    grpc.StatusCode.ALREADY_EXISTS: Exit.REFUSED,
    grpc.StatusCode.FAILED_PRECONDITION: Exit.REFUSED,
    grpc.StatusCode.OUT_OF_RANGE: Exit.REFUSED,
    grpc.StatusCode.UNAUTHENTICATED: Exit.REFUSED,
    grpc.StatusCode.PERMISSION_DENIED: Exit.REFUSED,
    grpc.StatusCode.UNIMPLEMENTED: Exit.REFUSED,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Exit.REFUSED,
}


def explain(error: ConductorError, address: str, about: str = "") -> Exit:
    """Say on stderr what went wrong, and with which of several things; answers the exit status."""
    status = _EXITS.get(error.code, Exit.FAILED)
    subject = f"{about}: " if about else ""
    if status is Exit.UNREACHABLE and not error.reason:
        tell(
            f"error: {subject}no mesh answers at {address}; start one with `make run`, or name "
            f"another with --address ({error.message})"
        )
        return status
    complain(error, about)
    if error.code is grpc.StatusCode.UNAUTHENTICATED:
        tell("  set CONDUCTOR_API_KEY to a key of this mesh; `conductor keys create` makes one")
    return status


def complain(error: ConductorError, about: str = "") -> None:
    """Say on stderr what the mesh said."""
    subject = f"{about}: " if about else ""
    tell(f"error: {subject}{error.message}" + (f" ({error.reason})" if error.reason else ""))
    for violation in error.field_violations:
        if violation.description not in error.message:
            tell(f"  {violation.field}: {violation.description}")


def refuse(sentence: str) -> NoReturn:
    """Leave, because what was asked for makes no sense."""
    tell(f"error: {sentence}")
    raise typer.Exit(Exit.REFUSED)
