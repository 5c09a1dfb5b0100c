from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from services.mesh.addresses import free_ports
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


@pytest.fixture
def free_port() -> int:
    """A port nobody listens on."""
    return free_ports(1)[0]
