"""A real Envoy, configured as in the mesh, on free ports in front of given services."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import socket
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import httpx
import pytest
import pytest_asyncio

from services.mesh.clusters import Config, Endpoints
from services.mesh.envoy import PROOF_VARIABLE, Edge, arguments, render
from services.mesh.table import SERVICES, Service
from tests.edge.stub import Stub, serve
from tests.patience import PATIENCE

API = Path(__file__).parents[2] / "gen" / "api.binpb"
PROOF = "what-only-the-edge-knows"


@dataclass(frozen=True, slots=True)
class RunningEdge:
    """An Envoy that answers."""

    url: str
    target: str
    """Where gRPC clients connect."""
    admin_url: str
    access_log: Path
    pid: int

    def memory(self) -> int:
        """Resident bytes of the process."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * resource.getpagesize()

    async def counts(self, name: str) -> None:
        """Wait until Envoy has counted what it calls `name`."""
        async with (
            asyncio.timeout(PATIENCE),
            httpx.AsyncClient(base_url=self.admin_url, trust_env=False) as admin,
        ):
            while (
                int(
                    (await admin.get("/stats", params={"filter": f"^{name}$"})).text.rpartition(
                        ": "
                    )[2]
                    or 0
                )
                == 0
            ):
                await asyncio.sleep(0.05)

    async def logged(self, request_id: str) -> dict[str, Any]:
        """The line of the access log about one request, once it is written."""
        async with asyncio.timeout(PATIENCE):
            while True:
                for line in self.access_log.read_text().splitlines():
                    entry: dict[str, Any] = json.loads(line)
                    if entry["request_id"] == request_id:
                        return entry
                await asyncio.sleep(0.05)


class StartEdge(Protocol):
    """Starts an Envoy that ends with the test; what is `decided` are fields of Edge."""

    async def __call__(
        self,
        services: Sequence[Service],
        endpoints: Endpoints,
        *,
        adjust: Callable[[Config], None] | None = None,
        extra_http: Mapping[str, tuple[str, int]] | None = None,
        **decided: Any,
    ) -> RunningEdge: ...


@pytest_asyncio.fixture
async def start_edge(tmp_path: Path) -> AsyncIterator[StartEdge]:
    """Puts a real Envoy in front of given services; `adjust` may shorten what it waits for."""
    async with AsyncExitStack() as stack:

        async def start(
            services: Sequence[Service],
            endpoints: Endpoints,
            *,
            adjust: Callable[[Config], None] | None = None,
            extra_http: Mapping[str, tuple[str, int]] | None = None,
            **decided: Any,
        ) -> RunningEdge:
            access_log = tmp_path / "access.log"
            edge = Edge(
                http_host="127.0.0.1",
                http_port=0,
                admin_port=0,
                access_log=str(access_log),
                **decided,
            )
            # What a test is not about listens where the rest does.
            (where, *_) = endpoints.values()
            every = {service.name: where for service in services} | dict(endpoints)
            config = render(API.read_bytes(), services, every, edge, extra_http=extra_http)
            if adjust is not None:
                adjust(config)
            return await _start(stack, tmp_path, config, access_log)

        yield start


async def _start(
    stack: AsyncExitStack, folder: Path, config: Config, access_log: Path
) -> RunningEdge:
    written, address = folder / "envoy.json", folder / "admin-address"
    written.write_text(json.dumps(config))
    # A group of its own: a signal for the tests' group is not for Envoy, which stack ends.
    process = await asyncio.create_subprocess_exec(
        *(*arguments(written), "--admin-address-path", str(address)),
        env={**os.environ, PROOF_VARIABLE: PROOF},
        start_new_session=True,
    )
    stack.push_async_callback(_end, process)
    async with asyncio.timeout(PATIENCE):
        while not (address.exists() and address.read_text()):
            if process.returncode is not None:
                raise RuntimeError(f"Envoy ended with {process.returncode}")
            await asyncio.sleep(0.01)
        admin_url = f"http://{address.read_text()}"
        async with httpx.AsyncClient(base_url=admin_url) as admin:
            while (await admin.get("/ready")).status_code != httpx.codes.OK:
                await asyncio.sleep(0.01)
            listeners = (await admin.get("/listeners", params={"format": "json"})).json()
    bound = listeners["listener_statuses"][0]["local_address"]["socket_address"]
    target = f"127.0.0.1:{bound['port_value']}"
    return RunningEdge(f"http://{target}", target, admin_url, access_log, process.pid)


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.terminate()
    try:
        await asyncio.wait_for(process.wait(), 10)
    except TimeoutError:
        process.kill()
        await process.wait()


@pytest_asyncio.fixture
async def stub() -> Stub:
    """What stands in for the services."""
    return Stub()


@pytest_asyncio.fixture
async def upstream(stub: Stub) -> AsyncIterator[int]:
    """The port of a server of the stub."""
    async with serve(stub) as port:
        yield port


@pytest_asyncio.fixture
async def edge(start_edge: StartEdge, upstream: int) -> RunningEdge:
    """Envoy in front of the stub."""
    return await start_edge(SERVICES, {"execution": [("127.0.0.1", upstream)]})


@pytest_asyncio.fixture
async def client(edge: RunningEdge) -> AsyncIterator[httpx.AsyncClient]:
    """A browser, or so: an HTTP/1.1 client of the edge."""
    async with httpx.AsyncClient(base_url=edge.url, timeout=PATIENCE) as client:
        yield client


@pytest.fixture
def closed_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def assert_error(response: httpx.Response, status: int, code: int) -> None:
    """The response is an error in the one envelope of REST."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    error = response.json()
    assert set(error) == {"code", "message", "details"}
    assert error["code"] == code
    assert error["message"]
    assert isinstance(error["details"], list)
