"""Ports: is the one people know free, and which are free for the services?"""

from __future__ import annotations

import asyncio
import errno
import random
import socket
import time
from pathlib import Path

from services.mesh.errors import CannotStart

_RANGE = range(20_000, 32_768)
_EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")


def free_ports(count: int, host: str = "127.0.0.1") -> list[int]:
    """Choose ports nobody listens on and no outgoing connection will be given.

    A service keeps its port over restarts, so the port must not be taken in between by the local
    end of somebody's connection: it lies below the range the system takes those from.
    """
    chosen: list[int] = []
    for port in random.sample(_candidates(), k=len(_candidates())):
        if len(chosen) == count:
            break
        if _bind_error(host, port) is None:
            chosen.append(port)
    if len(chosen) < count:
        raise CannotStart(f"No {count} free ports between {_RANGE.start} and {_RANGE.stop - 1}.")
    return chosen


async def claim(host: str, port: int, patience: float = 0.0) -> None:
    """Make sure that `port` can be listened on, waiting up to `patience` seconds for it.

    Raises:
        CannotStart: it is taken, or not for this user.
    """
    deadline = time.monotonic() + patience
    while (error := _bind_error(host, port)) is not None:
        if error == errno.EADDRINUSE and time.monotonic() < deadline:
            await asyncio.sleep(0.05)
            continue
        raise CannotStart(_sentence(host, port, error))


def _sentence(host: str, port: int, error: int) -> str:
    other = f"choose another with CONDUCTOR_HTTP_PORT, for example CONDUCTOR_HTTP_PORT={port + 1}"
    if port == 65535:
        other = "choose another with CONDUCTOR_HTTP_PORT"
    if error == errno.EADDRINUSE:
        return f"Port {port} on {host} is taken by another program; {other}."
    if error in (errno.EACCES, errno.EPERM):
        return f"Port {port} needs more rights than this user has; {other} or one above 1023."
    return f"Port {port} on {host} cannot be used: {errno.errorcode.get(error, error)}; {other}."


def _bind_error(host: str, port: int) -> int | None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        # Connections that ended lately hold the port a while, and Envoy may listen all the same.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError as error:
            return error.errno or errno.EADDRINUSE
    return None


def _candidates() -> range:
    try:
        low, high = map(int, _EPHEMERAL.read_text().split())
    except (OSError, ValueError):
        return _RANGE
    if low <= _RANGE.start and high >= _RANGE.stop - 1:
        return _RANGE
    if low <= _RANGE.start:
        return range(max(_RANGE.start, high + 1), _RANGE.stop)
    return range(_RANGE.start, min(_RANGE.stop, low))
