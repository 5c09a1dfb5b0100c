"""`python -m services.mesh.edge`: Envoy for services that run elsewhere."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from services.kit.signing import edge_proof
from services.mesh.addresses import free_ports
from services.mesh.envoy import binary
from services.mesh.table import SERVICES
from tests.fakes.certificates import new_certificate
from tests.patience import PATIENCE

SECRET = "of-the-mesh" * 4
COMMAND = (sys.executable, "-m", "services.mesh.edge")
ENDPOINTS = [f"--endpoint={service.name}={service.name}:7000" for service in SERVICES]
OPEN = {"LISTEN_HOST": "0.0.0.0", "AUTH": "on"}
TOKENS = {
    "JWT_ISSUER": "https://me.example/",
    "JWT_AUDIENCE": "conductor",
    "JWT_JWKS": "https://me.example/keys",
}


def environment(settings: dict[str, str], **others: str) -> dict[str, str]:
    theirs = {k: v for k, v in os.environ.items() if not k.startswith(("CONDUCTOR_", "OTEL_"))}
    return theirs | {f"CONDUCTOR_{name}": value for name, value in settings.items()} | others


def told(
    *options: str, settings: dict[str, str] | None = None, **others: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *options],
        capture_output=True,
        text=True,
        check=False,
        env=environment(settings or {}, **others),
        timeout=PATIENCE,
    )


@pytest.mark.parametrize(
    "settings", [{}, OPEN, OPEN | TOKENS, {"TLS_CERT": "tls.crt", "TLS_KEY": "tls.key"}]
)
def test_what_it_prints_is_a_configuration_of_envoy(
    settings: dict[str, str], tmp_path: Path
) -> None:
    certificate = new_certificate(tmp_path)
    if "TLS_CERT" in settings:
        settings = {"TLS_CERT": str(certificate.chain), "TLS_KEY": str(certificate.key)}
    done = told(
        *(*ENDPOINTS, "--admin=0.0.0.0:9901"),
        settings=settings,
        OTEL_EXPORTER_OTLP_ENDPOINT="https://collector:4317",
        OTEL_EXPORTER_OTLP_CERTIFICATE=str(certificate.chain),
    )
    config: dict[str, Any] = json.loads(done.stdout)
    path = tmp_path / "envoy.json"
    path.write_text(done.stdout)

    checked = subprocess.run(
        [binary(), "--mode", "validate", "--config-path", path, "--log-level", "warn"],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )

    assert checked.returncode == 0, checked.stderr
    assert config["admin"]["address"]["socket_address"]["address"] == "0.0.0.0"
    named = {cluster["name"]: cluster for cluster in config["static_resources"]["clusters"]}
    for service in SERVICES:
        assert named[service.name]["type"] == "STRICT_DNS"


@pytest.mark.parametrize(
    ("options", "settings", "why"),
    [
        ([], {}, "execution has no endpoint"),
        (["--endpoint=other=other:1"], {}, "'other=other:1' names no service of execution"),
        (["--endpoint=execution=nowhere"], {}, "'nowhere' is not an address"),
        (ENDPOINTS, {"LISTEN_HOST": "0.0.0.0"}, "CONDUCTOR_LISTEN_HOST"),
        ([*ENDPOINTS, "--run"], OPEN, "CONDUCTOR_MESH_SECRET is missing"),
        (
            [*ENDPOINTS, "--run"],
            {"TLS_CERT": "/nowhere", "TLS_KEY": "/nowhere"},
            "CONDUCTOR_TLS_CERT names /nowhere",
        ),
    ],
)
def test_what_cannot_be_done_is_said_in_a_sentence(
    options: list[str], settings: dict[str, str], why: str
) -> None:
    done = told(*options, settings=settings)

    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert why in done.stderr


async def test_it_becomes_an_envoy_that_proves_itself(upstream: int, tmp_path: Path) -> None:
    port, admin = free_ports(2)
    settings = {"HTTP_PORT": str(port), "AUTH": "on", "MESH_SECRET": SECRET}
    process = await asyncio.create_subprocess_exec(
        *COMMAND,
        *(f"--endpoint={service.name}=127.0.0.1:{upstream}" for service in SERVICES),
        f"--admin=127.0.0.1:{admin}",
        f"--access-log={tmp_path / 'access.log'}",
        "--run",
        env=environment(settings, TMPDIR=str(tmp_path)),
        start_new_session=True,
    )
    try:
        url = f"http://127.0.0.1:{port}/api/executions/one"
        async with asyncio.timeout(PATIENCE), httpx.AsyncClient(trust_env=False) as client:
            while (answer := await _asked(client, url)) is None:
                await asyncio.sleep(0.05)
    finally:
        process.terminate()
        await process.wait()

    assert answer.json()["metadata"]["x-conductor-edge"] == edge_proof(SECRET)
    written = await asyncio.to_thread(_written, tmp_path)
    assert edge_proof(SECRET) not in written


def _written(folder: Path) -> str:
    (path,) = folder.rglob("envoy.json")
    return path.read_text()


async def _asked(client: httpx.AsyncClient, url: str) -> httpx.Response | None:
    try:
        return await client.get(url)
    except httpx.TransportError:
        return None
