"""The mesh on one machine: the data directory, the ports, every service, and Envoy in front."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Final

from services.kit import VERSION
from services.mesh import api, envoy, logs, probes
from services.mesh.addresses import claim, free_ports
from services.mesh.datadir import DataDir
from services.mesh.errors import CannotStart
from services.mesh.settings import MeshSettings
from services.mesh.supervisor import Program, Say, Supervisor
from services.mesh.table import SERVICES, Service

_LOOPBACK: Final = "127.0.0.1"
_ENVOY: Final = "envoy"
_START_TIMEOUT: Final = 30.0
_SERVICE_GRACE: Final = 7.5
"""Seconds the services have to end; with Envoy's it stays below the ten that are promised."""
_ENVOY_GRACE: Final = 1.5
_DRAIN: Final = 0.5
_LOG_CHECK: Final = 2.0
_PORT_PATIENCE: Final = 5.0
"""Seconds that the port of a killed mesh may take to be free."""


@dataclass(frozen=True)
class Ports:
    """Which port is whose."""

    services: Mapping[str, int]
    admin: int

    @classmethod
    def choose(cls, services: Sequence[Service]) -> Ports:
        """Choose a free port for every service and for Envoy's admin page."""
        admin, *others = free_ports(len(services) + 1)
        return cls(dict(zip((s.name for s in services), others, strict=True)), admin)


class Stop:
    """What the signals ask for: the first ends the mesh in order, a second Ctrl-C at once."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.at_once = asyncio.Event()

    def listen(self) -> None:
        """Take the signals of this process."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGINT, self._interrupted)
        # A SIGTERM comes twice when a group is told and make tells its child once more.
        loop.add_signal_handler(signal.SIGTERM, self.asked.set)
        # Under nohup it is ignored, and stays so.
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            loop.add_signal_handler(signal.SIGHUP, self.asked.set)

    def _interrupted(self) -> None:
        (self.at_once if self.asked.is_set() else self.asked).set()


class Mesh:
    """Every process of one mesh.

    Args:
        settings: where it listens and keeps its data.
        say: told each fact in one line.
        services: what to run.
    """

    def __init__(
        self, settings: MeshSettings, say: Say, services: Sequence[Service] = SERVICES
    ) -> None:
        self._settings = settings
        self._say = say
        self._services = services
        self._data = DataDir(settings.data_dir)

    async def run(self, stop: Stop) -> None:
        """Start everything, keep it running until `stop`, end everything.

        Raises:
            CannotStart: it does not start; nothing of it runs then.
        """
        begin = time.monotonic()
        with self._data.locked():
            await claim(
                self._settings.listen_host,
                self._settings.http_port,
                patience=_PORT_PATIENCE if self._data.interrupted() else 0.0,
            )
            ports = Ports.choose(self._services)
            programs = self._programs(ports)
            try:
                async with Supervisor(
                    self._say,
                    start_timeout=_START_TIMEOUT,
                    changed=lambda: self._record(supervisor, ports),
                ) as supervisor:
                    for program in programs:
                        supervisor.add(program)
                    await _until(stop.asked, self._serve(supervisor, begin), self._bound_logs())
                    await self._stop(supervisor, ports, stop)
            finally:
                self._data.forget()
        self._say("stopped")

    async def _serve(self, supervisor: Supervisor, begin: float) -> None:
        await supervisor.serving()
        await self._answering()
        host, port = _in_url(self._settings.listen_host), self._settings.http_port
        self._say(f"conductor mesh {VERSION}, pid {os.getpid()}")
        self._say(f"REST and SSE  http://{host}:{port}")
        self._say(f"gRPC          {host}:{port} (plaintext, with reflection)")
        self._say(f"data          {self._data.path}")
        self._say(f"logs          {self._data.logs}")
        self._say(f"ready: http://{host}:{port} after {time.monotonic() - begin:.1f} s")
        await supervisor.broken()

    async def _answering(self) -> None:
        """Wait until the mesh says through Envoy that it is healthy."""
        end = time.monotonic() + _START_TIMEOUT
        host, port = self._settings.listen_host, self._settings.http_port
        while (answer := await probes.http("GET", host, port, "/health")).status != 200:
            if time.monotonic() > end:
                raise CannotStart(
                    f"The mesh is not healthy after {_START_TIMEOUT:g} s: GET /health answers "
                    f"{answer.status or 'nothing'}: {answer.body[:500]}"
                )
            await asyncio.sleep(0.05)

    async def _stop(self, supervisor: Supervisor, ports: Ports, stop: Stop) -> None:
        """End the mesh from the outside in: no new connections, then the services, then Envoy."""
        self._say("stopping; Ctrl-C once more ends everything at once")

        async def in_order() -> None:
            # Connections that are open stay, so that the services can end their streams cleanly.
            await probes.http("POST", _LOOPBACK, ports.admin, "/drain_listeners", timeout=_DRAIN)
            await supervisor.stop(*ports.services, grace=_SERVICE_GRACE)
            await supervisor.stop(_ENVOY, grace=_ENVOY_GRACE)

        await _until(stop.at_once, in_order())
        supervisor.kill()

    def _programs(self, ports: Ports) -> list[Program]:
        addresses = {
            f"CONDUCTOR_{name.upper()}_ADDRESS": f"{_LOOPBACK}:{port}"
            for name, port in ports.services.items()
        }
        env = {**os.environ, **addresses, "CONDUCTOR_DATA_DIR": str(self._data.path)}
        programs = [
            Program(
                name=service.name,
                # Safe path: a folder `services` where the mesh is started is not ours.
                command=(sys.executable, "-P", "-m", f"services.{service.name}"),
                env=env,
                log=self._data.log(service.name),
                healthy=partial(probes.serves_grpc, _LOOPBACK, ports.services[service.name]),
            )
            for service in self._services
        ]
        return [*programs, self._envoy(ports)]

    def _envoy(self, ports: Ports) -> Program:
        config = envoy.render(
            api.descriptors(),
            self._services,
            {name: [(_LOOPBACK, port)] for name, port in ports.services.items()},
            envoy.Edge(
                http_host=self._settings.listen_host,
                http_port=self._settings.http_port,
                admin_port=ports.admin,
                cors_origins=self._settings.cors_origins,
                hosts=self._settings.hosts,
                access_log=str(self._data.log("access")),
            ),
        )
        path = self._data.run / "envoy.json"
        path.write_text(json.dumps(config, indent=1))

        async def live() -> bool:
            # Its own state alone: a service that restarts must not make Envoy look hung.
            return (await probes.http("GET", _LOOPBACK, ports.admin, "/ready")).status == 200

        return Program(
            name=_ENVOY,
            command=envoy.arguments(path),
            env=os.environ,
            log=self._data.log(_ENVOY),
            healthy=live,
        )

    def _record(self, supervisor: Supervisor, ports: Ports) -> None:
        pids = supervisor.pids
        processes: dict[str, dict[str, object]] = {
            name: {"address": f"{_LOOPBACK}:{port}", "pid": pids.get(name)}
            for name, port in ports.services.items()
        }
        processes[_ENVOY] = {
            "address": f"{_in_url(self._settings.listen_host)}:{self._settings.http_port}",
            "admin": f"{_LOOPBACK}:{ports.admin}",
            "pid": pids.get(_ENVOY),
        }
        with suppress(OSError):
            # For people and tools only; a full disk must not end what runs.
            self._data.record({"pid": os.getpid(), "processes": processes})

    async def _bound_logs(self) -> None:
        while True:
            for path in self._data.log_paths:
                await asyncio.to_thread(logs.bound, path)
            await asyncio.sleep(_LOG_CHECK)


async def _until(stop: asyncio.Event, *work: Coroutine[object, object, None]) -> None:
    """Work until it is done or `stop` is set; what one of the works raises is raised."""
    tasks = [asyncio.create_task(one) for one in work]
    stopped = asyncio.create_task(stop.wait())
    try:
        done, _ = await asyncio.wait({stopped, *tasks}, return_when=asyncio.FIRST_COMPLETED)
        for task in done - {stopped}:
            task.result()
    finally:
        for task in (stopped, *tasks):
            task.cancel()
        await asyncio.gather(stopped, *tasks, return_exceptions=True)


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host
