"""`conductor up`: the command that starts the mesh on this machine."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import TextIO

import typer

from services.kit.settings import SettingsError, load
from services.mesh.errors import CannotStart
from services.mesh.mesh import Mesh, Stop
from services.mesh.settings import MeshSettings


def up() -> None:
    """Start every service and Envoy on this machine, and keep them running until Ctrl-C.

    CONDUCTOR_HTTP_PORT (8080) is the one port, CONDUCTOR_DATA_DIR (.conductor) keeps the data;
    the README names the other settings.
    """
    # Logs and configuration are nobody else's on this machine.
    os.umask(0o077)
    try:
        asyncio.run(_run(load(MeshSettings)))
    except (SettingsError, CannotStart) as error:
        _line(sys.stderr, f"error: {error}")
        raise typer.Exit(1) from None


async def _run(settings: MeshSettings) -> None:
    stop = Stop()
    stop.listen()
    await Mesh(settings, lambda text: _line(sys.stdout, text)).run(stop)


def _line(stream: TextIO, text: str) -> None:
    try:
        stream.write(f"{text}\n")
        stream.flush()
    except OSError:
        # The terminal or the reader is gone; the mesh goes on without it, to its own exit status.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def main() -> None:
    """Run `conductor up` alone."""
    typer.run(up)
