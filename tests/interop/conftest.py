"""One proxy for all tests of the providers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.interop.serving import Proxy, started


@pytest.fixture(scope="session")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    with started(tmp_path_factory.mktemp("litellm") / "log") as running:
        yield running
