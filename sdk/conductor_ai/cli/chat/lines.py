"""What somebody says, a line at a time: typed at a terminal, or from a pipe."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from conductor_ai.cli.asking import interrupting

_PROMPT: Final = "you> "


class Lines:
    """Lines as they come, from a pipe above all."""

    is_typed = False
    """Whether somebody types them, and may be told something."""

    def read(self) -> str | None:
        """Read a line; None at the end.

        Raises:
            ValueError: it is not UTF-8.
            KeyboardInterrupt: Ctrl-C came instead.
        """
        with interrupting():
            line = sys.stdin.buffer.readline()
        return line.decode() if line else None

    def remember(self, line: str) -> None:
        """Let a line be found where the keys go back to what was typed before."""


class _Typed(Lines):
    """Lines typed while what is printed goes elsewhere."""

    is_typed = True

    def read(self) -> str | None:
        sys.stderr.write(_PROMPT)
        sys.stderr.flush()
        return super().read()


class _Edited(Lines):
    """Lines typed on a screen: the keys edit them, and go back to earlier ones."""

    is_typed = True

    def __init__(self, words: Sequence[str]) -> None:
        with suppress(ImportError):
            import readline  # noqa: PLC0415  # not every Python has it, and only a screen needs it

            def complete(beginning: str, number: int) -> str | None:
                fitting = [word for word in words if beginning and word.startswith(beginning)]
                return fitting[number] if number < len(fitting) else None

            readline.set_completer(complete)
            readline.set_completer_delims(" ")
            libedit = "libedit" in (readline.__doc__ or "")
            readline.parse_and_bind("bind ^I rl_complete" if libedit else "tab: complete")
            if not libedit:
                # Several lines that are pasted are one message.
                readline.parse_and_bind("set enable-bracketed-paste on")

    def read(self) -> str | None:
        with interrupting():
            try:
                line = input(_PROMPT)
            except EOFError:
                sys.stdout.write("\n")
                return None
            except KeyboardInterrupt:
                sys.stdout.write("\n")
                raise
        # What is no text came in as something that no message can carry.
        line.encode()
        return line

    def remember(self, line: str) -> None:
        with suppress(ImportError):
            import readline  # noqa: PLC0415  # see above

            readline.add_history(line)


def lines(words: Sequence[str]) -> Lines:
    """Choose the lines for whoever speaks.

    Args:
        words: what a line may begin with, to be completed.
    """
    if not (sys.stdin is not None and sys.stdin.isatty()):
        return Lines()
    return _Edited(words) if sys.stdout.isatty() else _Typed()
