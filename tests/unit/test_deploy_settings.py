"""What each container is told can be read by what runs in it, and Envoy can use what it renders."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import pytest

from services.content.settings import ContentSettings
from services.conversations.settings import ConversationsSettings
from services.execution.settings import ExecutionSettings
from services.kit.settings import PREFIX, ServiceSettings, load
from services.mesh.envoy import binary
from services.mesh.settings import MeshSettings
from services.mesh.table import SERVICES
from tests.deployed import (
    BASE,
    LAYERS,
    OVERLAYS,
    ROOT,
    Mapped,
    compose,
    containers,
    find,
    manifests,
)
from tests.fakes.certificates import new_certificate

SECRETS = {
    "CONDUCTOR_MESH_SECRET": "m" * 32,
    "CONDUCTOR_BOOTSTRAP_KEY": "b" * 32,
    "CONDUCTOR_STORE_URL": "mongodb://mongo.example.org/conductor",
    "CONDUCTOR_QUEUE_URL": "redis://redis.example.org:6379/0",
}
IMAGE = re.findall(
    r"(CONDUCTOR_\w+)=(\S+)", (ROOT / "deploy" / "docker" / "Dockerfile").read_text()
)
SETTINGS: Mapping[str, type[ServiceSettings | MeshSettings]] = {
    "content": ContentSettings,
    "conversations": ConversationsSettings,
    "execution": ExecutionSettings,
    "edge": MeshSettings,
}


def told() -> dict[str, tuple[list[str], dict[str, str]]]:
    """The command and variables of each container that is ours, by deployment and name."""
    found = {}
    for layers in ([], LAYERS):
        given = {**SECRETS, "CONDUCTOR_TLS_CERT": "/tls.crt", "CONDUCTOR_TLS_KEY": "/tls.key"}
        for name, one in compose(*layers, given=given)["services"].items():
            if "build" in one:
                where = f"compose with {len(layers)} layers, {name}"
                found[where] = (one["command"], dict(one["environment"]))
    for folder in (BASE, *OVERLAYS):
        built = manifests(folder)
        for manifest in built:
            for one in containers(manifest):
                found[f"{folder.name}, {one['name']}"] = (one["command"], _variables(built, one))
    return found


def _variables(built: list[Mapped], container: Mapped) -> dict[str, str]:
    agreed = find(built, "ConfigMap", "conductor")["data"]
    own = {one["name"]: one.get("value", SECRETS.get(one["name"])) for one in container["env"]}
    return {**agreed, **own}


TOLD = told()


@pytest.fixture(params=sorted(TOLD))
def container(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> tuple[str, list[str]]:
    """The name and command of a container, whose variables are set as in it."""
    command, variables = TOLD[request.param]
    for name in [name for name in os.environ if name.startswith((PREFIX, "OTEL_"))]:
        monkeypatch.delenv(name)
    for name, value in {**dict(IMAGE), **variables}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    return request.param.rpartition(", ")[2], command


def test_every_variable_is_a_setting(container: tuple[str, list[str]]) -> None:
    known = {name for kind in SETTINGS.values() for name in kind.model_fields}

    assert SETTINGS.keys() == {"edge", *(service.name for service in SERVICES)}
    for variable in [name for name in os.environ if name.startswith(PREFIX)]:
        assert variable.removeprefix(PREFIX).lower() in known, variable


def test_every_value_is_accepted(container: tuple[str, list[str]]) -> None:
    name, _ = container
    settings = load(SETTINGS[name])

    assert settings.auth == "on"
    assert settings.mesh_secret.get_secret_value() == SECRETS["CONDUCTOR_MESH_SECRET"]
    if isinstance(settings, ServiceSettings):
        assert settings.store_url.get_secret_value().startswith("mongodb://")
        assert settings.queue_url.get_secret_value().startswith("redis://")


def test_the_module_that_is_run_is_there(container: tuple[str, list[str]]) -> None:
    _, command = container

    assert command[:3] == ["python", "-P", "-m"]
    assert find_spec(command[3]) is not None


@pytest.mark.parametrize("where", [where for where in sorted(TOLD) if where.endswith(", edge")])
def test_envoy_can_use_what_the_edge_renders(where: str, tmp_path: Path) -> None:
    command, variables = TOLD[where]
    if "CONDUCTOR_TLS_CERT" in variables:
        made = new_certificate(tmp_path)
        files = {"CONDUCTOR_TLS_CERT": str(made.chain), "CONDUCTOR_TLS_KEY": str(made.key)}
        variables = {**variables, **files}
    env = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}

    assert command[-1] == "--run"
    rendered = subprocess.run(
        [sys.executable, *command[1:-1]],
        env={**env, **dict(IMAGE), **variables},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    ).stdout

    for secret in SECRETS.values():
        assert secret not in rendered
    config = json.loads(rendered)
    clusters = {one["name"]: one for one in config["static_resources"]["clusters"]}
    for service in SERVICES:
        # Every address that the name has is a process.
        assert clusters[service.name]["type"] == "STRICT_DNS"
    (listener,) = config["static_resources"]["listeners"]
    assert listener["address"]["socket_address"] == {"address": "0.0.0.0", "port_value": 8080}
    encrypted = "transport_socket" in listener["filter_chains"][0]
    assert encrypted is ("CONDUCTOR_TLS_CERT" in variables)

    file = tmp_path / "envoy.json"
    file.write_text(rendered)
    judged = subprocess.run(
        [str(binary()), "--mode", "validate", "--config-path", str(file)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert judged.returncode == 0, judged.stderr
