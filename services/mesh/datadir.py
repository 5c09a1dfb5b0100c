"""The data directory: one mesh at a time, a layout that is written down, a version."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from services.mesh.errors import CannotStart

LAYOUT = 1
"""The layout this release writes, and the newest it reads."""

_PAGE = """\
# Data of a Conductor Mesh

Everything one mesh keeps on this machine. Stop the mesh before copying or moving it; delete it to
forget everything.

| path | holds |
| --- | --- |
| `VERSION` | the layout of this directory; an older release refuses a newer one |
| `lock` | locked by the running mesh, with its pid; a second one on this directory is refused |
| `mesh.secret` | what the mesh signs with, when authentication is on and it is not set |
| `bootstrap.key` | the first key, likewise |
| `<service>/` | the embedded store of a service (SQLite) |
| `logs/<name>.log` | output of each process; `.log.1` is the part before, 32 MiB at most |
| `logs/access.log` | one line for each request |
| `run/` | made anew at each start: Envoy's configuration, addresses and pids |
"""


class DataDir:
    """A directory the mesh keeps everything in.

    Args:
        path: where; made, with its parents, when it does not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.expanduser().absolute()
        self.logs = self.path / "logs"
        self.run = self.path / "run"
        self.mesh_secret = self.path / "mesh.secret"
        self.bootstrap_key = self.path / "bootstrap.key"
        self._state = self.run / "mesh.json"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Prepare the directory and keep every other mesh out of it.

        The lock lives and dies with this process: its descriptor is closed in children, so none
        of them carries it on after a crash.

        Raises:
            CannotStart: another mesh runs on it, a newer release wrote it, or it cannot be used.
        """
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise CannotStart(
                f"The data directory {self.path} cannot be used: {error.strerror}; "
                "choose another with CONDUCTOR_DATA_DIR."
            ) from None
        try:
            self._lock(lock)
            self._prepare()
            yield
        finally:
            # Said aloud: a child between fork and exec still has the descriptor.
            fcntl.flock(lock, fcntl.LOCK_UN)
            os.close(lock)

    @property
    def log_paths(self) -> list[Path]:
        """The logs there are."""
        return sorted(self.logs.glob("*.log"))

    def log(self, name: str) -> Path:
        """The log of a process."""
        return self.logs / f"{name}.log"

    def kept(self, path: Path, make: Callable[[], str]) -> str:
        """Read a secret; the first time it is made, and written for its owner alone.

        Raises:
            CannotStart: it cannot be read or written.
        """
        try:
            if path.exists() and (text := path.read_text().strip()):
                return text
            text, draft = make(), path.with_name(path.name + ".new")
            draft.unlink(missing_ok=True)
            with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as new:
                new.write(f"{text}\n")
            draft.replace(path)
        except OSError as error:
            raise CannotStart(f"{path} cannot be read or written: {error.strerror}.") from None
        return text

    def interrupted(self) -> bool:
        """Whether the mesh before was killed and its processes may be ending just now."""
        return self._state.exists()

    def record(self, state: Mapping[str, object]) -> None:
        """Write down addresses and pids, for people and tools."""
        draft = self._state.with_suffix(".new")
        draft.write_text(json.dumps(state, indent=2) + "\n")
        draft.replace(self._state)

    def forget(self) -> None:
        """Everything is stopped: there is nothing running to be written down."""
        self._state.unlink(missing_ok=True)

    def _lock(self, lock: int) -> None:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(lock, 32, 0).decode("ascii", "replace").strip() or "unknown"
            raise CannotStart(
                f"Another mesh (pid {holder}) runs on the data directory {self.path}; "
                "stop it, or choose another directory with CONDUCTOR_DATA_DIR."
            ) from None
        except OSError as error:
            raise CannotStart(
                f"The data directory {self.path} cannot be locked: {error.strerror}; "
                "choose one on a local disk with CONDUCTOR_DATA_DIR."
            ) from None
        os.truncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)

    def _prepare(self) -> None:
        version = self.path / "VERSION"
        try:
            if version.exists():
                self._check(version.read_text(errors="replace").strip())
            (self.path / "README.md").write_text(_PAGE)
            version.write_text(f"{LAYOUT}\n")
            self.logs.mkdir(mode=0o700, exist_ok=True)
            self.run.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise CannotStart(
                f"The data directory {self.path} cannot be written: {error.strerror}; "
                "choose another with CONDUCTOR_DATA_DIR."
            ) from None

    def _check(self, found: str) -> None:
        if not found.isdecimal() or int(found) == 0:
            raise CannotStart(
                f"{self.path}/VERSION says {found[:40]!r}, which is not the layout of a data "
                "directory; choose another directory with CONDUCTOR_DATA_DIR."
            )
        if int(found) > LAYOUT:
            raise CannotStart(
                f"The data directory {self.path} was written by a newer release (layout {found}; "
                f"this release reads up to {LAYOUT}); use that release, or choose another "
                "directory with CONDUCTOR_DATA_DIR."
            )
