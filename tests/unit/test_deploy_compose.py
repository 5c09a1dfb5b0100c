"""The compose files: to their schema, complete, and each container with small rights."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

from services.execution.settings import KNOWN_PROVIDERS
from services.mesh.table import SERVICES
from tests.deployed import COMPOSE, LAYERS, ROOT, Mapped, VariableMissingError, compose

SECRETS = {"CONDUCTOR_MESH_SECRET": "m" * 32, "CONDUCTOR_BOOTSTRAP_KEY": "b" * 32}
GIVEN = {**SECRETS, "CONDUCTOR_TLS_CERT": "/tls.crt", "CONDUCTOR_TLS_KEY": "/tls.key"}
EVERYTHING = compose(*LAYERS, given=GIVEN)
CONTAINERS = sorted(EVERYTHING["services"])

NO_HEALTH = {"collector"}
"""Images that hold no program that could ask."""


def container(name: str) -> Mapped:
    found: Mapped = EVERYTHING["services"][name]
    return found


def seconds(text: str) -> float:
    found = re.fullmatch(r"(\d+)s", text)
    assert found, text
    return float(found[1])


def test_every_file_and_every_choice_of_layers_keeps_to_the_schema(tmp_path: Path) -> None:
    files = [COMPOSE, *LAYERS]
    for number in range(len(LAYERS) + 1):
        for chosen in combinations(LAYERS, number):
            merged = tmp_path / f"{'-'.join(one.stem for one in chosen) or 'alone'}.json"
            merged.write_text(json.dumps(compose(*chosen, given=GIVEN)))
            files.append(merged)

    judged = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
        + [str(file) for file in files],
        capture_output=True,
        text=True,
        check=False,
    )

    assert judged.returncode == 0, judged.stdout + judged.stderr


@pytest.mark.parametrize("missing", sorted(SECRETS))
def test_without_its_secrets_nothing_starts(missing: str) -> None:
    with pytest.raises(VariableMissingError, match=f"{missing}: .*docs/operations.md"):
        compose(given={name: value for name, value in GIVEN.items() if name != missing})


@pytest.mark.parametrize("service", SERVICES, ids=lambda one: one.name)
def test_every_service_of_the_mesh_is_there_and_reached_by_the_edge(service: Any) -> None:
    told = container(service.name)
    address = told["environment"][f"CONDUCTOR_{service.name.upper()}_ADDRESS"]
    host, _, port = address.rpartition(":")

    assert told["command"] == ["python", "-P", "-m", f"services.{service.name}"]
    assert host == "0.0.0.0"
    assert f"--endpoint={service.name}={service.name}:{port}" in container("edge")["command"]
    assert set(told["networks"]) & set(container("edge")["networks"])
    assert told["healthcheck"]["test"][-1] == f"grpc://127.0.0.1:{port}"


@pytest.mark.parametrize(
    ("service", "processes"), [("execution", "2"), ("content", "1"), ("conversations", "1")]
)
def test_there_are_as_many_processes_as_they_are_told(service: str, processes: str) -> None:
    variable = f"CONDUCTOR_{service.upper()}_PROCESSES"
    told = container(service)

    assert told["deploy"]["replicas"] == processes
    assert told["environment"][variable] == processes
    more = compose(given={**GIVEN, variable: "5"})["services"][service]
    assert more["deploy"]["replicas"] == "5"
    assert more["environment"][variable] == "5"


def test_services_find_one_another() -> None:
    listening = {
        one.name: container(one.name)["environment"][f"CONDUCTOR_{one.name.upper()}_ADDRESS"]
        for one in SERVICES
    }
    targets = {
        name: f"dns:///{name}:{address.rpartition(':')[2]}" for name, address in listening.items()
    }

    for name in listening:
        assert json.loads(container(name)["environment"]["CONDUCTOR_PEERS"]) == targets


def test_only_the_edge_is_published_and_on_the_loopback_alone() -> None:
    told = compose(given=GIVEN)["services"]

    published = {name: one["ports"] for name, one in told.items() if "ports" in one}
    assert published == {"edge": ["127.0.0.1:8080:8080"]}
    for name in CONTAINERS:
        for port in container(name).get("ports", ()):
            assert port.startswith("127.0.0.1:"), name


@pytest.mark.parametrize(
    ("service", "variable", "value"),
    [
        ("edge", "CONDUCTOR_TRUSTED_HOPS", "2"),
        ("conversations", "CONDUCTOR_CONVERSATIONS_PORTFOLIO_AGENT", "editor"),
        ("conversations", "CONDUCTOR_CONVERSATIONS_VISITOR_DAYS", "7"),
    ],
)
def test_the_chat_for_visitors_is_set_up_from_outside(
    service: str, variable: str, value: str
) -> None:
    told = compose(given={**GIVEN, variable: value})["services"][service]["environment"]

    assert told[variable] == value


def test_only_services_reach_the_stores() -> None:
    reach = {name for name in CONTAINERS if "stores" in container(name)["networks"]}

    assert EVERYTHING["networks"]["stores"]["internal"] is True
    assert reach == {"mongodb", "redis", *(service.name for service in SERVICES)}


@pytest.mark.parametrize("name", CONTAINERS)
def test_each_container_may_do_little_and_takes_no_more_than_its_share(name: str) -> None:
    told = container(name)

    assert told["read_only"] is True
    assert told["cap_drop"] == ["ALL"]
    assert told["security_opt"] == ["no-new-privileges:true"]
    assert int(told["user"].split(":")[0]) > 0
    assert re.fullmatch(r"\d+[mg]", told["mem_limit"])
    assert told["restart"] == "unless-stopped"
    assert told["logging"]["options"].keys() == {"max-size", "max-file"}


@pytest.mark.parametrize("name", CONTAINERS)
def test_each_container_is_asked_for_its_health(name: str) -> None:
    assert ("healthcheck" in container(name)) is (name not in NO_HEALTH)


@pytest.mark.parametrize("name", CONTAINERS)
def test_each_image_is_pinned(name: str) -> None:
    _, _, tag = container(name)["image"].rpartition(":")

    assert re.match(r"\d+\.\d+\.\d+", tag)


@pytest.mark.parametrize("service", SERVICES, ids=lambda one: one.name)
def test_a_process_that_stops_gets_the_time_it_takes(service: Any) -> None:
    told = container(service.name)
    drain = float(told["environment"]["CONDUCTOR_DRAIN_SECONDS"])

    # Open calls get seven seconds at most, and the hand-over of runs comes before.
    assert seconds(told["stop_grace_period"]) >= drain + 7 + 10


def test_the_key_of_every_known_provider_is_handed_on() -> None:
    keys = {one.key_variable for one in KNOWN_PROVIDERS.values() if one.key_variable}

    assert keys <= container("execution")["environment"].keys()


@pytest.mark.parametrize("service", SERVICES, ids=lambda one: one.name)
def test_who_has_to_agree_is_told_the_same(service: Any) -> None:
    edge, told = container("edge")["environment"], container(service.name)["environment"]
    shared = {name for name in edge.keys() & told.keys() if name.startswith("CONDUCTOR_")}

    assert {"CONDUCTOR_AUTH", "CONDUCTOR_MESH_SECRET", "CONDUCTOR_JWT_AUDIENCE"} <= shared
    assert {name for name in shared if edge[name] != told[name]} == set()
    assert edge["CONDUCTOR_AUTH"] == "on"


def test_redis_keeps_a_file_and_drops_nothing_by_itself() -> None:
    command = container("redis")["command"]
    told = dict(zip(command[::2], command[1::2], strict=True))

    assert told["--appendonly"] == "yes"
    assert told["--maxmemory-policy"] == "noeviction"
    assert container("redis")["volumes"] == ["redis:/data"]


def test_mongodb_is_a_replica_set_that_makes_itself() -> None:
    told = container("mongodb")
    name = told["command"][told["command"].index("--replSet") + 1]

    assert f'rs.initiate({{_id: "{name}"' in told["healthcheck"]["test"][-1]
    for service in SERVICES:
        one = container(service.name)
        url = one["environment"]["CONDUCTOR_STORE_URL"]
        assert url == f"mongodb://mongodb:27017/conductor?replicaSet={name}"
        assert one["depends_on"]["mongodb"] == {"condition": "service_healthy"}


def test_the_layer_of_observability_sends_to_the_collector_it_brings() -> None:
    collector = yaml.safe_load((ROOT / "deploy" / "otel" / "collector.yaml").read_text())
    port = collector["receivers"]["otlp"]["protocols"]["grpc"]["endpoint"].rpartition(":")[2]
    service = collector["service"]

    assert set(service["extensions"]) == collector["extensions"].keys()
    for kind in ("receivers", "processors", "exporters"):
        used = {name for one in service["pipelines"].values() for name in one[kind]}
        assert used == collector[kind].keys(), kind
    for name in ("edge", *(one.name for one in SERVICES)):
        told: Mapping[str, str] = container(name)["environment"]
        assert told["OTEL_EXPORTER_OTLP_ENDPOINT"] == f"http://collector:{port}"
        assert set(container(name)["networks"]) & set(container("collector")["networks"])
    jaeger = collector["exporters"]["otlp_grpc/jaeger"]["endpoint"]
    assert jaeger.split(":")[0] in CONTAINERS
    for mount in container("collector")["volumes"]:
        assert (ROOT / mount.split(":")[0]).is_file()
