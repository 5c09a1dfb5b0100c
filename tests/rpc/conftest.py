from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from services.mesh.addresses import free_ports
from tests.rpc.commanded import Commands, content_process, talks_process
from tests.rpc.scripted import Scripted, serving
from tests.rpc.serving import Mesh, served
from tests.rpc.terminal import Terminal


@pytest_asyncio.fixture
async def mesh(tmp_path: Path) -> AsyncIterator[Mesh]:
    """A mesh as it comes, and a model `brisk` that says 30 words, one each 10 ms."""
    models = {"brisk": {"tokens": 30, "delay_ms": 10}}
    async with served(tmp_path, execution_mock_models=models) as mesh:
        yield mesh


@pytest_asyncio.fixture
async def waiting_mesh(tmp_path: Path) -> AsyncIterator[Mesh]:
    """A mesh that accepts runs and begins none."""
    async with served(tmp_path, execution_concurrency=0) as mesh:
        yield mesh


@pytest.fixture
def scripted() -> Scripted:
    """A mesh that plays what a test wrote down; served by `terminal`."""
    return Scripted()


@pytest_asyncio.fixture
async def terminal(scripted: Scripted) -> AsyncIterator[Terminal]:
    """The command line, used against the scripted mesh."""
    async with serving(scripted) as address:
        yield Terminal(address)


@pytest.fixture(scope="module")
def content_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The content service in a process of its own, for all tests of a module."""
    with content_process(tmp_path_factory.mktemp("content")) as address:
        yield address


@pytest.fixture
def conductor(content_address: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Commands:
    """The command line, used in a directory of the test's own against that service."""
    monkeypatch.chdir(tmp_path)
    return Commands(content_address, monkeypatch)


@pytest.fixture(scope="module")
def talks_address() -> Iterator[str]:
    """The conversations service in a process of its own, for all tests of a module."""
    with talks_process() as address:
        yield address


@pytest.fixture
def talker(talks_address: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Commands:
    """The command line, used in a directory of the test's own against that service."""
    monkeypatch.chdir(tmp_path)
    return Commands(talks_address, monkeypatch)


@pytest.fixture
def free_port() -> int:
    """A port nobody listens on."""
    return free_ports(1)[0]
