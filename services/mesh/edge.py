"""`python -m services.mesh.edge`: Envoy alone, in front of services that run elsewhere.

It prints the configuration, or with `--run` becomes an Envoy that runs on it. Settings are those of
`conductor up`, and its code renders both.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from services.kit import api
from services.kit.settings import SettingsError, load
from services.kit.signing import edge_proof
from services.mesh import envoy, tracing
from services.mesh.clusters import Address, Config
from services.mesh.errors import CannotStart
from services.mesh.settings import MeshSettings
from services.mesh.table import SERVICES

_Endpoint = Annotated[
    list[str] | None,
    typer.Option(
        "--endpoint",
        metavar="SERVICE=HOST:PORT",
        help="Where a process of a service listens; once for each. A name is looked up again and "
        "again, and every address it has is a process.",
    ),
]
_Admin = Annotated[
    str,
    typer.Option(
        metavar="HOST:PORT",
        help="Where Envoy's own pages are. Who reaches them can end it.",
    ),
]
_AccessLog = Annotated[str, typer.Option(help="The file that gets one line for each request.")]
_Concurrency = Annotated[int, typer.Option(min=1, max=256, help="How many threads serve.")]
_Run = Annotated[bool, typer.Option("--run", help="Run Envoy instead of printing.")]


def edge(
    endpoint: _Endpoint = None,
    admin: _Admin = "127.0.0.1:9901",
    access_log: _AccessLog = "/dev/stdout",
    concurrency: _Concurrency = 1,
    run: _Run = False,
) -> None:
    """Print the configuration of Envoy in front of the given processes, or run it.

    CONDUCTOR_LISTEN_HOST, CONDUCTOR_HTTP_PORT and the other settings of `conductor up` say the rest.
    An Envoy that is started without --run gets its proof of being ours as CONDUCTOR_EDGE_PROOF: the
    hexadecimal HMAC-SHA256 of `edge` under CONDUCTOR_MESH_SECRET.
    """
    try:
        settings = load(MeshSettings)
        rendered = json.dumps(
            _config(settings, endpoint or [], _address(admin), access_log), indent=1
        )
        if run:
            _become_envoy(settings, rendered, concurrency)
    except (SettingsError, CannotStart, ValueError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None
    typer.echo(rendered)


def _config(settings: MeshSettings, given: list[str], admin: Address, access_log: str) -> Config:
    endpoints: dict[str, list[Address]] = {}
    known = [service.name for service in SERVICES]
    for one in given:
        service, _, where = one.partition("=")
        if service not in known:
            raise ValueError(f"--endpoint {one!r} names no service of {', '.join(known)}")
        endpoints.setdefault(service, []).append(_address(where))
    return envoy.render(
        api.descriptors(),
        SERVICES,
        endpoints,
        envoy.Edge(
            http_host=settings.listen_host,
            http_port=settings.http_port,
            admin_host=admin[0],
            admin_port=admin[1],
            certificate=settings.certificate,
            proves_itself=settings.has_auth,
            tokens=settings.tokens,
            export=tracing.wanted(lambda text: typer.echo(text, err=True)),
            trusted_hops=settings.trusted_hops,
            cors_origins=settings.cors_origins,
            hosts=settings.hosts,
            access_log=access_log,
        ),
    )


def _become_envoy(settings: MeshSettings, rendered: str, concurrency: int) -> None:
    settings.check_files()
    env = dict(os.environ)
    if settings.has_auth:
        secret = settings.mesh_secret.get_secret_value()
        if not secret:
            raise SettingsError(
                "CONDUCTOR_MESH_SECRET is missing; with CONDUCTOR_AUTH=on Envoy and every service "
                "need the same one."
            )
        env[envoy.PROOF_VARIABLE] = edge_proof(secret)
    path = Path(tempfile.mkdtemp(prefix="conductor-edge-")) / "envoy.json"
    path.write_text(rendered)
    command = envoy.arguments(path, concurrency)
    sys.stdout.flush()
    os.execve(command[0], command, env)


def _address(text: str) -> Address:
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) <= 65535:
        raise ValueError(f"{text!r} is not an address like execution:7000")
    return host.strip("[]"), int(port)


if __name__ == "__main__":
    typer.run(edge)
