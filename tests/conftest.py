"""At the end of a run: which real parts it exercised, with their versions, and what was skipped."""

from __future__ import annotations

import importlib.metadata
import shutil
import sqlite3
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.mesh import envoy
from tests.servers import mongo, redis
from tests.servers.mongo import MongoServer
from tests.servers.redis import RedisServer

ROOT = Path(__file__).parents[1]
GRPCURL = ROOT / ".tools" / "bin" / "grpcurl"

ANY = {"contract", "rpc", "edge", "mesh"}
NAMED = ("grpcurl", "redis", "mongodb", "pymongo", "ferretdb")
"""Parts that a test has in its name when it uses them."""

_passed: set[tuple[str, str]] = set()
"""Kinds of tests that passed, each with a named part or none."""


@pytest.fixture(scope="session")
def mongo_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MongoServer]:
    """The server for all tests of this process that keep something in MongoDB."""
    with mongo.shared(tmp_path_factory.mktemp("mongodb")) as server:
        yield server


def grpcurl() -> str | None:
    """Where grpcurl is: built by `make tools`, else on PATH."""
    return str(GRPCURL) if GRPCURL.exists() else shutil.which("grpcurl")


@pytest.fixture
def mongo_url(mongo_server: MongoServer) -> Iterator[str]:
    """A database of the test's own, on that server."""
    with mongo.database(mongo_server, f"t{uuid.uuid4().hex}") as url:
        yield url


@pytest.fixture(scope="session")
def _redis_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    yield server
    server.stop()


@pytest.fixture
def redis_server(_redis_process: RedisServer) -> RedisServer:
    """A Redis that runs and is empty; tests may stop it, freeze it and start it anew."""
    _redis_process.come_back()
    _redis_process.flush()
    return _redis_process


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Note the kind of each test that passed."""
    if report.when == "call" and report.passed:
        kind = report.nodeid.split("/")[1]
        _passed.update((kind, part) for part in ("", *NAMED) if part in report.nodeid)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the real parts that passing tests used."""
    motor, pymongo = (importlib.metadata.version(name) for name in ("motor", "pymongo"))
    parts = [
        (
            "",
            {"contract", "rpc", "mesh"},
            f"SQLite {sqlite3.sqlite_version} on disk, write-ahead log, synchronous=FULL",
        ),
        ("mongodb", ANY, f"MongoDB wire server {mongo.version()} through Motor {motor}"),
        ("pymongo", ANY, f"the same through PyMongo {pymongo} alone"),
        ("ferretdb", ANY, f"MongoDB wire server {mongo.ferretdb_version()} through Motor {motor}"),
        ("redis", ANY, f"Redis {_redis_version()}"),
        ("", {"rpc", "edge", "mesh"}, f"gRPC {importlib.metadata.version('grpcio')} on loopback"),
        ("", {"edge", "mesh"}, f"Envoy {_version([str(envoy.binary()), '--version'])}"),
        ("", {"mesh"}, "conductor up with processes of its own, killed and started again"),
        ("grpcurl", ANY, f"{_version([grpcurl() or 'grpcurl', '--version'])}"),
    ]
    terminalreporter.section("real parts exercised")
    for part, kinds, name in parts:
        used = sorted(kind for kind in kinds if (kind, part) in _passed)
        terminalreporter.write_line(f"{name}: {', '.join(used) if used else 'not exercised'}")


def _redis_version() -> str:
    said = _version([redis.binary(), "--version"])
    return said.partition("v=")[2].partition(" ")[0] or said


def _version(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
    except OSError:
        return "is not there"
    lines = (done.stdout + done.stderr).strip().splitlines()
    return lines[0].rpartition("version: ")[2] if lines else "does not say its version"
