"""The stand: one Envoy, and behind it the service and what it is measured against."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc
import httpx
from google.protobuf import json_format
from google.protobuf.message import Message
from grpc_tools import protoc

from conductor.gateway.v1.gateway_service_pb2 import StreamJobRequest
from conductor.gateway.v1.gateway_service_pb2_grpc import GatewayServiceStub
from services.execution.settings import KNOWN_PROVIDERS
from services.mesh.addresses import free_ports
from services.mesh.envoy import Edge, arguments, render
from services.mesh.logs import tail
from services.mesh.probes import listens
from services.mesh.process import Lifeline, Process
from services.mesh.table import SERVICES, Service
from tests.bench import reference, web
from tests.bench.process import Usage

HOST = "127.0.0.1"
_ROOT = Path(__file__).parents[2]
_API = _ROOT / "gen" / "api.binpb"
_PATIENCE = 30.0
M = TypeVar("M", bound=Message)

_REFERENCE = Service(name="reference", rpc_services=(reference.NAME,))


class Stand:
    """What runs while figures are measured; everything ends with the block.

    Args:
        folder: where it writes.
        processes: of the service.
        settings: what every service on this stand is told; variables of
            others are written in capital letters.
    """

    def __init__(
        self, folder: Path, processes: int = 1, settings: Mapping[str, object] | None = None
    ) -> None:
        self.folder = folder
        self._settings = dict(settings or {})
        self._lifeline = Lifeline()
        self._running: list[Process] = []
        (
            self.port,
            self._admin,
            self._bare,
            self._web,
            self._models,
            self._content,
            self._conversations,
            *self._services,
        ) = free_ports(7 + processes)
        self.envoy = Usage(0)
        self.conversations = Usage(0)
        self._http = httpx.AsyncClient(base_url=f"http://{HOST}:{self.port}", timeout=_PATIENCE)

    async def __aenter__(self) -> Self:
        """Start Envoy."""
        self.folder.mkdir(parents=True, exist_ok=True)
        api = await asyncio.to_thread(_described, self.folder)
        config = render(
            api,
            [*SERVICES, _REFERENCE],
            {
                "execution": [(HOST, port) for port in self._services],
                "content": [(HOST, self._content)],
                "conversations": [(HOST, self._conversations)],
                _REFERENCE.name: [(HOST, self._bare)],
            },
            Edge(HOST, self.port, self._admin, access_log="/dev/null"),
            extra_http={web.PREFIX: (HOST, self._web)},
        )
        written = self.folder / "envoy.json"
        written.write_text(json.dumps(config))
        self.envoy = Usage((await self._start("envoy", arguments(written))).pid)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End everything."""
        await self._http.aclose()
        await asyncio.gather(*(_end(process) for process in self._running))
        self._lifeline.close()
        if error is not None:
            for log in sorted(self.folder.glob("*.log")):
                for line in tail(log, 5):
                    print(f"{log.name}: {line}", file=sys.stderr)

    @asynccontextmanager
    async def service(self, data: Path, **settings: object) -> AsyncIterator[Usage]:
        """Run the mesh over a data directory, until the block ends; answers what execution takes."""
        told = {_variable(name): str(value) for name, value in (self._settings | settings).items()}
        # A key of whoever measures would add its SDK to the service.
        told |= {row.key_variable: "" for row in KNOWN_PROVIDERS.values() if row.key_variable}
        told |= {
            "CONDUCTOR_DATA_DIR": str(data),
            "CONDUCTOR_EXECUTION_PROCESSES": str(len(self._services)),
            "CONDUCTOR_PEERS": json.dumps(
                {
                    "execution": f"ipv4:{','.join(f'{HOST}:{port}' for port in self._services)}",
                    "content": f"ipv4:{HOST}:{self._content}",
                    "conversations": f"ipv4:{HOST}:{self._conversations}",
                }
            ),
        }
        processes = [
            await self._start(
                f"{name}-{port}",
                (sys.executable, "-m", f"services.{name}"),
                told | {f"CONDUCTOR_{name.upper()}_ADDRESS": f"{HOST}:{port}"},
            )
            for name, port in (
                *(("execution", port) for port in self._services),
                ("content", self._content),
                ("conversations", self._conversations),
            )
        ]
        self.conversations = Usage(processes[-1].pid)
        try:
            for port in (*self._services, self._content, self._conversations):
                await self._listens(port)
            await self._answers("/health")
            yield Usage(processes[0].pid)
        finally:
            for process in processes:
                await _end(process)
                self._running.remove(process)

    async def start_references(
        self, messages: Mapping[str, Message], streams: Mapping[str, Sequence[bytes]]
    ) -> None:
        """Start the bare server with what its unary rpcs and its streams answer."""
        for rpc, message in messages.items():
            reference.write_message(self.folder, rpc, message)
        for name, chunks in streams.items():
            reference.write_chunks(self.folder / f"{name}.chunks", chunks)
        command = (sys.executable, "-m", "tests.bench.reference")
        await self._start("bare", (*command, f"{HOST}:{self._bare}", str(self.folder)))
        await self._answers("/bench/executions/any")

    async def start_web(self, data: Path, execution_id: str) -> None:
        """Start FastAPI over the service's file."""
        command = (sys.executable, "-m", "tests.bench.web", str(self._web), str(database(data)))
        await self._start("web", command)
        await self._answers(f"{web.PREFIX}/executions/{execution_id}")

    async def start_models(self) -> str:
        """Start the server of models; answers its address."""
        await self.start_beside("models", self._models)
        return f"http://{HOST}:{self._models}"

    async def start_beside(self, module: str, port: int) -> None:
        """Start a module of the bench that serves on a port."""
        command = (sys.executable, "-m", f"tests.bench.{module}", str(port))
        await self._start(module, command)
        await self._listens(port)

    def channel(self) -> grpc.aio.Channel:
        """Connect to the service, past Envoy."""
        return grpc.aio.insecure_channel(f"{HOST}:{self._services[0]}")

    def conversations_channel(self) -> grpc.aio.Channel:
        """Connect to the conversations service, past Envoy."""
        return grpc.aio.insecure_channel(f"{HOST}:{self._conversations}")

    async def message(self, path: str, kind: type[M]) -> M:
        """Get a path as the rpc behind it answers."""
        answer = await self._http.get(path)
        return json_format.Parse(answer.raise_for_status().content, kind())

    async def read(self, path: str, query: Mapping[str, str] | None = None) -> Any:
        """Get a path as JSON."""
        answer = await self._http.get(path, params=query)
        return answer.raise_for_status().json()

    async def chunks(self, job_id: str) -> list[bytes]:
        """Read a stream as the chunks the service sends it in."""
        async with self.channel() as channel:
            call = GatewayServiceStub(channel).StreamJob(StreamJobRequest(job_id=job_id))
            return [body.data async for body in call]

    async def start_run(self, model: str) -> str:
        """Start a run; answers its id."""
        answer = await self._http.post(
            "/api/executions", json={"input": "Count for me.", "model": model}
        )
        return str(answer.raise_for_status().json()["id"])

    async def in_state(self, state: str) -> set[str]:
        """List the ids of the runs in a state."""
        found: set[str] = set()
        query = {"state": f"STATE_{state}", "page_size": "200"}
        while True:
            page = (await self._http.get("/api/executions", params=query)).raise_for_status().json()
            found.update(execution["id"] for execution in page["executions"])
            if not page["next_page_token"]:
                return found
            query["page_token"] = page["next_page_token"]

    async def all_ended(self) -> None:
        """Wait until no run waits or runs."""
        for state in ("QUEUED", "RUNNING"):
            query = {"state": f"STATE_{state}", "page_size": "1"}
            async with asyncio.timeout(_PATIENCE):
                while (await self._http.get("/api/executions", params=query)).json()["executions"]:
                    await asyncio.sleep(0.02)

    async def _start(
        self, name: str, command: Sequence[str], env: Mapping[str, str] | None = None
    ) -> Process:
        environment = {**os.environ, **(env or {})}
        log = self.folder / f"{name}.log"
        process = await Process.start(command, environment, log, self._lifeline)
        self._running.append(process)
        return process

    @staticmethod
    async def _listens(port: int) -> None:
        async with asyncio.timeout(_PATIENCE):
            while not await listens(HOST, port):
                await asyncio.sleep(0.02)

    async def _answers(self, path: str) -> None:
        async with asyncio.timeout(_PATIENCE):
            while True:
                try:
                    if (await self._http.get(path)).is_success:
                        return
                except httpx.TransportError:
                    pass
                await asyncio.sleep(0.02)


def database(data: Path) -> Path:
    """Where the service keeps its rows under a data directory."""
    return data / "execution" / "execution.db"


async def _end(process: Process) -> None:
    process.interrupt()
    try:
        await asyncio.wait_for(process.wait(), 10)
    except TimeoutError:
        process.kill()
        await process.wait()


def _described(folder: Path) -> bytes:
    """The descriptor set of the mesh and the reference."""
    described = folder / "reference.binpb"
    here = Path(__file__).parent
    status = protoc.main(
        [
            "protoc",
            f"--descriptor_set_in={_API}",
            f"--proto_path={here}",
            f"--descriptor_set_out={described}",
            "bench.proto",
        ]
    )
    if status != 0:
        raise RuntimeError("bench.proto cannot be compiled")
    # Descriptor sets are merged by writing one after the other.
    return _API.read_bytes() + described.read_bytes()


def _variable(name: str) -> str:
    return name if name.isupper() else f"CONDUCTOR_{name.upper()}"
