"""Meshes as a user starts them."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.mesh.started import Mesh


@pytest.fixture(autouse=True)
def _obeys_hang_ups() -> Iterator[None]:
    """What the tests start is not under nohup, even where they are."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture
def new_mesh(tmp_path: Path) -> Iterator[Callable[..., Mesh]]:
    """Makes meshes that are not started yet: `new_mesh(name, SETTING="value", …)`."""
    made: list[Mesh] = []

    def make(name: str = "mesh", **settings: str) -> Mesh:
        made.append(Mesh(tmp_path / name, settings))
        return made[-1]

    yield make
    for mesh in made:
        mesh.clean_up()


@pytest_asyncio.fixture
async def mesh(new_mesh: Callable[..., Mesh]) -> AsyncIterator[Mesh]:
    """A mesh that is ready."""
    mesh = new_mesh()
    await mesh.start()
    yield mesh
