"""Texts in the editor of whoever sits at the terminal, and what happens when two edit one.

Nothing that was written gets lost: whatever keeps it from being saved, the file stays, and its name
is told.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from typing import Annotated, Final

import grpc
import typer

from conductor_ai.cli.asking import agreed, can_ask, handling
from conductor_ai.cli.exits import Exit, complain
from conductor_ai.cli.merging import first_marker, is_terminated, merge
from conductor_ai.cli.output import tell
from conductor_ai.errors import ConductorError

Force = Annotated[
    bool, typer.Option("--force", help="Save over what others saved in the meantime.")
]

_FALLBACK: Final = "vi"
_MISMATCH: Final = "ETAG_MISMATCH"


@dataclass(frozen=True)
class Draft:
    """A text as the mesh has it, and the etag it has there."""

    text: str
    etag: str


class UnreadableError(Exception):
    """A text that cannot be saved as it is; the sentence says where and why."""


class OutdatedError(Exception):
    """Somebody else saved since the text was fetched."""


@dataclass(frozen=True)
class Subject:
    """What is edited.

    Args:
        name: what it is called in sentences.
        file_name: what its file is called, for the sake of the editor.
        fetch: gets it as it is now.
        save: stores a text where the etag is still this one, or with force whatever it is, and says
            so. Raises UnreadableError, OutdatedError, and ConductorError as the mesh answers.
        rescue: the command that saves a file later.
    """

    name: str
    file_name: str
    fetch: Callable[[], Awaitable[Draft]]
    save: Callable[[str, str, bool], Awaitable[None]]
    rescue: str


class _Outcome(Enum):
    SAVED = auto()
    CONFLICT = auto()
    REFUSED = auto()


async def edit(subject: Subject, *, force: bool) -> Exit:
    """Edit a text until it is saved or given up.

    When somebody else saved in the meantime both edits are merged, and shown where they meet.

    Raises:
        ConductorError: it could not be fetched or saved; then the file is kept and named.
    """
    draft = await subject.fetch()
    file = _File(subject, draft.text)
    is_saved = False
    try:
        is_saved = await _Session(subject, file, draft, force=force).run()
    finally:
        file.close(keep=not is_saved)
    return Exit.SUCCEEDED if is_saved else Exit.FAILED


class _Session:
    """One text, from the first look at it to its end."""

    def __init__(self, subject: Subject, file: _File, draft: Draft, *, force: bool) -> None:
        self._subject = subject
        self._file = file
        self._base = draft
        self._force = force
        self._markers = 0

    async def run(self) -> bool:
        """Edit and save; answers whether nothing is left to be saved."""
        while True:
            try:
                self._file.edit()
                text = self._read()
                if text == self._base.text:
                    tell(f"{self._subject.name} is as it was")
                    return True
                outcome = await self._save(text)
            except UnreadableError as problem:
                tell(f"error: {problem}")
                outcome = _Outcome.REFUSED
            if outcome is _Outcome.SAVED:
                return True
            if outcome is _Outcome.REFUSED and not (
                can_ask() and agreed("Edit it again?", default=True)
            ):
                return False

    def _read(self) -> str:
        text = self._file.read()
        if left := first_marker(text, self._markers):
            raise UnreadableError(f"line {left} is a marker of the conflict, so nothing was saved")
        return text

    async def _save(self, text: str) -> _Outcome:
        """Save, together with what others saved in the meantime."""
        while True:
            try:
                await self._subject.save(text, self._base.etag, self._force)
            except OutdatedError:
                pass
            except ConductorError as error:
                if error.code is grpc.StatusCode.INVALID_ARGUMENT and can_ask():
                    complain(error)
                    return _Outcome.REFUSED
                if error.reason != _MISMATCH:
                    raise
            else:
                return _Outcome.SAVED
            theirs = await self._subject.fetch()
            merged = merge(self._base.text, text, theirs.text)
            self._base, self._markers = theirs, merged.width
            if merged.width:
                self._file.write(merged.text, is_terminated(theirs.text))
                tell(
                    f"somebody else saved {self._subject.name} in the meantime and changed the same "
                    "lines: make one of both where the markers are"
                )
                return _Outcome.CONFLICT
            tell("somebody else saved in the meantime; both changes are merged")
            text = merged.text
            self._file.write(text, is_terminated(text))


class _File:
    """A text in a file that only its owner reads."""

    def __init__(self, subject: Subject, text: str) -> None:
        self._subject = subject
        self._path = Path(tempfile.mkdtemp(prefix="conductor-")) / subject.file_name
        self._first = text
        self._is_terminated = True
        self.write(text, is_terminated(text))

    def write(self, text: str, terminated: bool) -> None:
        """Fill the file; `terminated` tells whether the last line of what is read again ends."""
        # Editors end the last line whether or not it did.
        self._is_terminated = terminated
        content = text if is_terminated(text) else f"{text}\n"
        fresh = self._path.with_name(f"{self._path.name}.new")
        fresh.write_bytes(content.encode())
        fresh.replace(self._path)

    def read(self) -> str:
        """Read the file.

        Raises:
            UnreadableError: it is gone, or no text.
        """
        try:
            text = self._path.read_bytes().decode()
        except UnicodeDecodeError:
            raise UnreadableError("the text is not UTF-8") from None
        except OSError as error:
            raise UnreadableError(f"the file cannot be read: {error}") from None
        return text if self._is_terminated else text.removesuffix("\n")

    def edit(self) -> None:
        """Open the editor and wait until it ends.

        Raises:
            UnreadableError: there is no editor, or it ended as if something were wrong.
        """
        wish = os.environ.get("VISUAL") or os.environ.get("EDITOR") or _FALLBACK
        try:
            command = [*shlex.split(wish), os.fspath(self._path)]
            # Ctrl-C is the editor's while it is there.
            with handling(lambda *_: None):
                ended = subprocess.run(command, check=False)  # noqa: S603  # chosen by who runs this
        except (OSError, ValueError) as error:
            raise UnreadableError(
                f"the editor {wish!r} cannot be started ({error}); name another in EDITOR"
            ) from None
        if ended.returncode:
            raise UnreadableError(
                f"the editor {wish!r} ended with {ended.returncode}, so nothing was saved"
            )

    def close(self, *, keep: bool) -> None:
        """Remove the file, or leave it when it holds what is nowhere else, and say where."""
        if keep and not self._is_untouched():
            tell(f"your text is kept in {self._path}")
            tell(f"  {self._subject.rescue} {shlex.quote(os.fspath(self._path))} saves it")
        else:
            shutil.rmtree(self._path.parent, ignore_errors=True)

    def _is_untouched(self) -> bool:
        try:
            return self.read() == self._first
        except UnreadableError:
            return False
