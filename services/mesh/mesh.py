"""The mesh on one machine: the data directory, the ports, every service, and Envoy in front."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import os
import secrets
import signal
import sys
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Final

from services.kit import VERSION, api
from services.kit.signing import edge_proof
from services.mesh import envoy, logs, probes, tracing
from services.mesh.addresses import claim, free_ports
from services.mesh.clusters import Endpoints
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
_LAME_DUCK: Final = 1.5
"""Seconds that a process, one of several, serves on after SIGTERM: Envoy has noticed by then."""
_LOG_CHECK: Final = 2.0
_PORT_PATIENCE: Final = 5.0
"""Seconds that the port of a killed mesh may take to be free."""


@dataclass(frozen=True)
class Replica:
    """One process of a service."""

    name: str
    """`execution`, or `execution-2` where there are several."""
    service: str
    port: int

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"{_LOOPBACK}:{self.port}"


@dataclass(frozen=True)
class Ports:
    """Which port is whose."""

    replicas: Sequence[Replica]
    admin: int

    @classmethod
    def choose(cls, services: Sequence[Service], processes: Callable[[str], int]) -> Ports:
        """Choose a free port for each process of every service and for Envoy's admin page."""
        names = [
            (service.name if count == 1 else f"{service.name}-{number + 1}", service.name)
            for service in services
            for count in [processes(service.name)]
            for number in range(count)
        ]
        admin, *others = free_ports(len(names) + 1)
        replicas = [Replica(*name, port) for name, port in zip(names, others, strict=True)]
        return cls(replicas, admin)

    @property
    def peers(self) -> Mapping[str, str]:
        """Where the services call one another, as `CONDUCTOR_PEERS` has it."""
        found: dict[str, list[str]] = {}
        for replica in self.replicas:
            found.setdefault(replica.service, []).append(replica.address)
        return {name: f"ipv4:{','.join(addresses)}" for name, addresses in found.items()}

    @property
    def endpoints(self) -> Endpoints:
        """Where the processes of each service listen."""
        found: dict[str, list[tuple[str, int]]] = {}
        for replica in self.replicas:
            found.setdefault(replica.service, []).append((_LOOPBACK, replica.port))
        return found


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
            SettingsError: a file that is needed or that the settings name cannot be used.
        """
        begin = time.monotonic()
        self._settings.check_files()
        with self._data.locked():
            await claim(
                self._settings.listen_host,
                self._settings.http_port,
                patience=_PORT_PATIENCE if self._data.interrupted() else 0.0,
            )
            ports = Ports.choose(self._services, self._settings.processes)
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
        address = f"{_in_url(self._host)}:{self._settings.http_port}"
        tls = self._settings.certificate is not None
        url = f"{'https' if tls else 'http'}://{address}"
        self._say(f"conductor mesh {VERSION}, pid {os.getpid()}")
        self._say(f"REST and SSE  {url}")
        self._say(f"gRPC          {address} ({'TLS' if tls else 'plaintext'}, with reflection)")
        self._say(f"data          {self._data.path}")
        self._say(f"logs          {self._data.logs}")
        if self._settings.has_auth:
            self._say(f"first key     {self._where_the_first_key_is}")
        self._say(f"ready: {url} after {time.monotonic() - begin:.1f} s")
        await supervisor.broken()

    async def _answering(self) -> None:
        """Wait until the mesh says through Envoy that it is healthy."""
        end = time.monotonic() + _START_TIMEOUT
        certificate = self._settings.certificate
        ask = partial(
            probes.http,
            *("GET", self._host, self._settings.http_port, "/health"),
            tls=probes.trusting(certificate[0]) if certificate else None,
        )
        while (answer := await ask()).status != 200:
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
            services = (replica.name for replica in ports.replicas)
            await supervisor.stop(*services, grace=_SERVICE_GRACE)
            await supervisor.stop(_ENVOY, grace=_ENVOY_GRACE)

        await _until(stop.at_once, in_order())
        supervisor.kill()

    def _programs(self, ports: Ports) -> list[Program]:
        secret, key = self._secrets()
        env = {
            **os.environ,
            "CONDUCTOR_DATA_DIR": str(self._data.path),
            "CONDUCTOR_PEERS": json.dumps(ports.peers),
        }
        if self._settings.has_auth:
            env |= {"CONDUCTOR_MESH_SECRET": secret, "CONDUCTOR_BOOTSTRAP_KEY": key}
        programs = [
            Program(
                name=replica.name,
                # Safe path: a folder `services` where the mesh is started is not ours.
                command=(sys.executable, "-P", "-m", f"services.{replica.service}"),
                env={**env, **self._env_of(replica)},
                log=self._data.log(replica.name),
                healthy=partial(probes.serves_grpc, _LOOPBACK, replica.port),
                answers=partial(probes.answers_grpc, _LOOPBACK, replica.port),
            )
            for replica in ports.replicas
        ]
        proof = {envoy.PROOF_VARIABLE: edge_proof(secret)} if secret else {}
        return [*programs, self._envoy(ports, {**os.environ, **proof})]

    def _env_of(self, replica: Replica) -> dict[str, str]:
        env = {f"CONDUCTOR_{replica.service.upper()}_ADDRESS": replica.address}
        several = self._settings.processes(replica.service) > 1
        if several and "drain_seconds" not in self._settings.model_fields_set:
            env["CONDUCTOR_DRAIN_SECONDS"] = str(_LAME_DUCK)
        return env

    def _secrets(self) -> tuple[str, str]:
        """The secret of the mesh and its first key: those that were set, else made once and kept."""
        if not self._settings.has_auth:
            return "", ""
        secret = self._settings.mesh_secret.get_secret_value()
        key = self._settings.bootstrap_key.get_secret_value()
        return (
            secret or self._data.kept(self._data.mesh_secret, partial(secrets.token_hex, 32)),
            key or self._data.kept(self._data.bootstrap_key, _new_key),
        )

    @property
    def _where_the_first_key_is(self) -> str:
        if self._settings.bootstrap_key.get_secret_value():
            return "as CONDUCTOR_BOOTSTRAP_KEY says"
        return f"in {self._data.bootstrap_key}"

    @property
    def _host(self) -> str:
        """An address that this machine reaches Envoy by."""
        host = self._settings.listen_host
        if not ipaddress.ip_address(host).is_unspecified:
            return host
        return "::1" if ":" in host else _LOOPBACK

    def _envoy(self, ports: Ports, env: Mapping[str, str]) -> Program:
        config = envoy.render(
            api.descriptors(),
            self._services,
            ports.endpoints,
            envoy.Edge(
                http_host=self._settings.listen_host,
                http_port=self._settings.http_port,
                admin_port=ports.admin,
                certificate=self._settings.certificate,
                proves_itself=self._settings.has_auth,
                tokens=self._settings.tokens,
                export=tracing.wanted(self._say),
                trusted_hops=self._settings.trusted_hops,
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
            env=env,
            log=self._data.log(_ENVOY),
            healthy=live,
            answers=live,
        )

    def _record(self, supervisor: Supervisor, ports: Ports) -> None:
        pids = supervisor.pids
        processes: dict[str, dict[str, object]] = {
            replica.name: {"address": replica.address, "pid": pids.get(replica.name)}
            for replica in ports.replicas
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


def _new_key() -> str:
    return f"cmk_bootstrap_{secrets.token_hex(32)}"


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host
