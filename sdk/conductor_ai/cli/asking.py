"""Questions to whoever sits at the terminal."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, TypeAlias

import typer

from conductor_ai.cli.exits import Exit, refuse
from conductor_ai.cli.output import harmless, tell

_Handler: TypeAlias = Callable[[int, FrameType | None], Any] | int | None


def can_ask() -> bool:
    """Whether somebody can answer."""
    return sys.stdin is not None and sys.stdin.isatty()


def agreed(question: str, *, default: bool = False) -> bool:
    """Ask for a yes; nothing but Enter is the default, and the end of input a no."""
    sys.stderr.write(f"{harmless(question)} {'[Y/n]' if default else '[y/N]'} ")
    sys.stderr.flush()
    with interrupting():
        line = sys.stdin.buffer.readline()
    answer = line.strip().lower()
    return answer in {b"y", b"yes"} or (default and bool(line) and not answer)


def confirm(question: str, *, unasked: str, declined: str) -> None:
    """Go on only after a yes.

    Args:
        question: what is asked.
        unasked: why it makes no sense where nobody can be asked.
        declined: what is said after a no.
    """
    if not can_ask():
        refuse(f"{unasked}, and nobody can be asked at stdin: say --yes")
    if not agreed(question):
        tell(declined)
        raise typer.Exit(Exit.FAILED)


@contextmanager
def handling(handler: _Handler) -> Iterator[None]:
    """Let Ctrl-C do this in the block.

    An event loop that is busy waiting for a person would notice Ctrl-C only after the answer.
    """
    before = signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def interrupting() -> Any:
    """Let Ctrl-C leave the block at once."""
    return handling(signal.default_int_handler)


@contextmanager
def noticing(interrupt: Callable[[], None]) -> Iterator[None]:
    """Call this at Ctrl-C, while the running event loop works in the block."""
    loop, before = asyncio.get_running_loop(), signal.getsignal(signal.SIGINT)
    loop.add_signal_handler(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGINT)
        signal.signal(signal.SIGINT, before)
