"""Where work is done that keeps a processor busy."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, Protocol, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Workbench(Protocol):
    """Does such work beside the event loop."""

    async def do(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Do some work once there is room for it; who is cancelled meanwhile waits for its end."""
        ...
