"""Real servers that speak MongoDB's protocol, on free ports with directories of their own.

Which is there, in this order: what `MONGODB_URI` names; `mongod` on PATH, as a replica set of one; the
wheel `nx-27017`, which keeps its documents in SQLite. All suites run on that one.

FerretDB 1.x, built by `make tools` when Go is there, runs the contract suite beside it: another
implementation of the protocol shows what we only believe of it. The rest cannot go by it, because its
SQLite backend lets several of those who replace one version at the same moment win.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from pymongo import MongoClient
from pymongo.errors import OperationFailure, PyMongoError

from tests.patience import PATIENCE

ROOT = Path(__file__).parents[2]
FERRETDB = ROOT / ".tools" / "bin" / "ferretdb"


class MongoServer(Protocol):
    """A server to test with."""

    def url(self, database: str) -> str:
        """The address of one of its databases."""
        ...


class GivenServer:
    """The server of `MONGODB_URI`, which is not ours to stop."""

    def __init__(self, uri: str) -> None:
        self._scheme, _, rest = uri.partition("://")
        self._authority, _, path = rest.partition("/")
        _, _, self._options = path.partition("?")

    def url(self, database: str) -> str:
        return f"{self._scheme}://{self._authority}/{database}?{self._options}"


class OwnServer:
    """A server started on a free port; it can be stopped, and started again where it was."""

    def __init__(self, program: list[str], directory: Path) -> None:
        self._program = program
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]

    def url(self, database: str) -> str:
        return f"mongodb://127.0.0.1:{self._port}/{database}"

    def start(self) -> None:
        """Start it and wait until it answers."""
        data = self._directory / "data"
        data.mkdir(exist_ok=True)
        values = {"port": str(self._port), "data": str(data), "directory": str(self._directory)}
        command = [word.format(**values) for word in self._program]
        with (self._directory / "output").open("ab") as output:
            self._process = subprocess.Popen(command, stdout=output, stderr=output)
        end = time.monotonic() + PATIENCE
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > end:
                said = (self._directory / "output").read_text(errors="replace")[-2000:]
                self.stop()
                raise RuntimeError(f"{command[0]} did not start: {said}")
            time.sleep(0.05)

    def _answers(self) -> bool:
        try:
            with MongoClient[dict[str, object]](
                "127.0.0.1", self._port, directConnection=True, serverSelectionTimeoutMS=200
            ) as client:
                if "--replSet" in self._program and not client.is_primary:
                    _make_primary(client)
                    return False
                client.admin.command("ping")
        except PyMongoError:
            return False
        return True

    def stop(self) -> None:
        """Stop it at once; what it was asked to keep, it keeps."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


def _make_primary(client: MongoClient[dict[str, object]]) -> None:
    try:
        client.admin.command("replSetInitiate")
    except OperationFailure:
        return  # It is one already, and about to elect itself.


def _own_program() -> list[str]:
    if mongod := shutil.which("mongod"):
        options = "--replSet rs --bind_ip 127.0.0.1 --port {port} --dbpath {data} --quiet"
        return [mongod, *options.split()]
    options = "--data-dir {data} -p {port} --log-file {directory}/log --pid-file {directory}/pid"
    return [str(Path(sys.executable).parent / "nx-27017"), *options.split()]


def version() -> str:
    """Name the server that all suites run on."""
    if "MONGODB_URI" in os.environ:
        return "at MONGODB_URI"
    if mongod := shutil.which("mongod"):
        done = subprocess.run([mongod, "--version"], capture_output=True, text=True, check=True)
        return f"mongod {done.stdout.splitlines()[0].rpartition(' ')[2]}"
    return f"nx-27017 {importlib.metadata.version('nx-27017')}"


def ferretdb_version() -> str:
    """Name the FerretDB that `make tools` builds."""
    module = (Path(__file__).parent / "ferretdb" / "go.mod").read_text()
    found = re.search(r"FerretDB/FerretDB (\S+)", module)
    assert found
    return f"FerretDB {found[1]}" + ("" if FERRETDB.exists() else ", which is not built,")


@contextmanager
def own(directory: Path) -> Iterator[OwnServer]:
    """A server of one's own, which may be stopped."""
    yield from _running(OwnServer(_own_program(), directory))


@contextmanager
def shared(directory: Path) -> Iterator[MongoServer]:
    """The server that all suites run on, each test in a database of its own."""
    if uri := os.environ.get("MONGODB_URI"):
        yield GivenServer(uri)
    else:
        yield from _running(OwnServer(_own_program(), directory))


@contextmanager
def ferretdb(directory: Path) -> Iterator[MongoServer]:
    """FerretDB on SQLite, which has to be built."""
    options = "-listen 127.0.0.1:{port} -directory {data}"
    yield from _running(OwnServer([str(FERRETDB), *options.split()], directory))


@contextmanager
def database(server: MongoServer, name: str) -> Iterator[str]:
    """The address of an empty database, dropped at the end."""
    url = server.url(name)
    try:
        yield url
    finally:
        with MongoClient[dict[str, object]](url) as client:
            client.drop_database(name)


def _running(server: OwnServer) -> Iterator[OwnServer]:
    server.start()
    try:
        yield server
    finally:
        server.stop()
