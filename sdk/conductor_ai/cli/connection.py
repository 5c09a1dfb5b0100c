"""The way to a mesh, the same for every command."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Annotated, Any, NoReturn, TypeAlias

import typer

from conductor_ai.cli.exits import Exit, explain
from conductor_ai.cli.output import tell
from conductor_ai.client import Client, ConductorError

_PORT = "CONDUCTOR_HTTP_PORT"
_DEFAULT_PORT = "8080"

Work: TypeAlias = Callable[[Client], Coroutine[Any, Any, Exit]]


def _resolve(address: str) -> str:
    if address:
        return address
    port = os.environ.get(_PORT) or _DEFAULT_PORT
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise typer.BadParameter(f"{_PORT} is {port!r}, which is no port")
    return f"localhost:{port}"


Address = Annotated[
    str,
    typer.Option(
        "--address",
        envvar="CONDUCTOR_ADDRESS",
        callback=_resolve,
        help="Where the mesh listens.",
        show_default=f"localhost and {_PORT}, else {_DEFAULT_PORT}",
    ),
]
"""Where the mesh listens; given to a command, it is never empty."""


ApiKey = Annotated[
    str,
    typer.Option(
        "--api-key",
        envvar="CONDUCTOR_API_KEY",
        help="The key to show. Better set in the environment: others on the machine see arguments.",
        show_default=False,
    ),
]
"""What a mesh that authenticates its callers is shown; may be empty."""


def call(address: str, api_key: str, work: Work) -> NoReturn:
    """Do some work with a mesh and leave with its outcome; what went wrong is told on stderr."""
    try:
        status = asyncio.run(_call(address, api_key, work))
        sys.stdout.flush()
    except BrokenPipeError:
        # Nobody reads any more; the interpreter must not say so again when it flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = Exit.BROKEN_PIPE
    raise typer.Exit(status)


def call_each(
    ids: Sequence[str],
    work: Callable[[Client, str], Awaitable[None]],
    address: str,
    api_key: str,
) -> NoReturn:
    """Do the same with several things; the exit status is that of the first that failed."""

    async def all_of_them(client: Client) -> Exit:
        status = Exit.SUCCEEDED
        waiting = list(dict.fromkeys(ids))
        while waiting:
            id_ = waiting.pop(0)
            try:
                await work(client, id_)
                sys.stdout.flush()
            except ConductorError as error:
                failed = explain(error, address, id_)
                status = status or failed
                if failed is Exit.UNREACHABLE and waiting:
                    tell(f"not tried: {' '.join(waiting)}")
                    break
        return status

    call(address, api_key, all_of_them)


async def _call(address: str, api_key: str, work: Work) -> Exit:
    try:
        client = Client(address, api_key=api_key)
    except ValueError as error:
        tell(f"error: {error}")
        return Exit.REFUSED
    async with client:
        try:
            return await work(client)
        except ConductorError as error:
            return explain(error, address)
