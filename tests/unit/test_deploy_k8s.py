"""The manifests of Kubernetes: to their schemas, complete, and each pod with small rights."""

from __future__ import annotations

import json
from typing import Any

import kubernetes_validate
import pytest
import yaml
from pydantic import SecretStr

from services.execution.settings import ExecutionSettings
from services.mesh.table import SERVICES
from tests.deployed import BASE, OVERLAYS, Mapped, containers, find, manifests, pod

OLDEST, NEWEST = "1.30", "1.37"
FOLDERS = [BASE, *OVERLAYS]
BUILT = manifests(BASE)
DEPLOYMENTS = sorted(one["metadata"]["name"] for one in BUILT if one["kind"] == "Deployment")
SECRETS = {
    f"CONDUCTOR_{name.upper()}"
    for name, field in ExecutionSettings.model_fields.items()
    if field.annotation is SecretStr
}


def deployment(name: str) -> Mapped:
    return find(BUILT, "Deployment", name)


def only_container(name: str) -> Mapped:
    (one,) = containers(deployment(name))
    return one


def variables(container: Mapped) -> dict[str, Mapped]:
    return {one["name"]: one for one in container["env"]}


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_every_manifest_keeps_to_its_schema(folder: Any, version: str) -> None:
    built = manifests(folder)

    assert len(built) > 10
    for one in built:
        kubernetes_validate.validate(one, version, strict=True)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_every_file_is_named_by_its_kustomization(folder: Any) -> None:
    told = yaml.safe_load((folder / "kustomization.yaml").read_text())
    named = {*told["resources"], *(one["path"] for one in told.get("patches", ()))}

    files = {path.name for path in folder.glob("*.yaml")} - {"kustomization.yaml"}
    assert files == {name for name in named if name.endswith(".yaml")}


@pytest.mark.parametrize("service", SERVICES, ids=lambda one: one.name)
def test_every_service_of_the_mesh_is_there_and_reached_by_the_edge(service: Any) -> None:
    told = only_container(service.name)
    (port,) = told["ports"]
    headless = find(BUILT, "Service", service.name)["spec"]

    assert told["command"] == ["python", "-P", "-m", f"services.{service.name}"]
    address = variables(told)[f"CONDUCTOR_{service.name.upper()}_ADDRESS"]["value"]
    assert address == f"0.0.0.0:{port['containerPort']}"
    # Envoy has to see every pod, so the name must not resolve to one address for all.
    assert headless["clusterIP"] == "None"
    assert headless["ports"][0]["port"] == port["containerPort"]
    endpoint = f"--endpoint={service.name}={service.name}:{port['containerPort']}"
    assert endpoint in only_container("edge")["command"]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert told[probe]["grpc"]["service"] in service.rpc_services
        assert told[probe]["grpc"]["port"] == port["containerPort"]


def test_nothing_else_is_deployed() -> None:
    assert set(DEPLOYMENTS) == {"edge", *(service.name for service in SERVICES)}


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_each_pod_may_do_little_and_takes_no_more_than_its_share(name: str) -> None:
    told, one = pod(deployment(name)), only_container(name)

    assert told["automountServiceAccountToken"] is False
    assert find(BUILT, "ServiceAccount", told["serviceAccountName"])
    assert told["securityContext"]["runAsNonRoot"] is True
    assert told["securityContext"]["runAsUser"] >= 10000
    assert told["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert one["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert {"mountPath": "/tmp", "name": "tmp"} in one["volumeMounts"]
    assert one["resources"]["limits"].keys() == {"cpu", "memory"}
    assert one["resources"]["requests"].keys() == {"cpu", "memory"}


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_each_is_probed_spread_and_never_gone_altogether(name: str) -> None:
    told, one = deployment(name)["spec"], only_container(name)
    labels = told["selector"]["matchLabels"]

    assert {"startupProbe", "readinessProbe", "livenessProbe"} <= one.keys()
    assert told["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    assert {
        (spread["topologyKey"], *spread["labelSelector"]["matchLabels"].items())
        for spread in told["template"]["spec"]["topologySpreadConstraints"]
    } == {
        ("kubernetes.io/hostname", *labels.items()),
        ("topology.kubernetes.io/zone", *labels.items()),
    }
    budget = find(BUILT, "PodDisruptionBudget", name)["spec"]
    assert budget == {"maxUnavailable": 1, "selector": {"matchLabels": labels}}
    scaler = find(BUILT, "HorizontalPodAutoscaler", name)["spec"]
    assert scaler["scaleTargetRef"]["name"] == name
    assert scaler["minReplicas"] >= 2
    # Else each `apply` would undo what the autoscaler did.
    assert "replicas" not in told


@pytest.mark.parametrize("kind", ["Service", "NetworkPolicy"])
def test_what_selects_pods_selects_some(kind: str) -> None:
    labels = {
        name: deployment(name)["spec"]["template"]["metadata"]["labels"] for name in DEPLOYMENTS
    }
    ports = {port["name"] for name in DEPLOYMENTS for port in only_container(name)["ports"]}

    for one in [one for one in BUILT if one["kind"] == kind]:
        spec = one["spec"]
        selector = spec["selector"] if kind == "Service" else spec["podSelector"]
        wanted = selector.get("matchLabels", selector)
        assert any(wanted.items() <= given.items() for given in labels.values()), one["metadata"]
        for port in spec.get("ports", ()):
            assert port["targetPort"] in ports


def test_nobody_reaches_a_service_but_the_edge_and_the_others() -> None:
    everybody = find(BUILT, "NetworkPolicy", "nobody")["spec"]
    assert everybody == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}

    pods = {name: {"podSelector": deployment(name)["spec"]["selector"]} for name in DEPLOYMENTS}
    for service in SERVICES:
        spec = find(BUILT, "NetworkPolicy", service.name)["spec"]
        others = [pods[one.name] for one in SERVICES if one != service]
        assert spec["podSelector"] == pods[service.name]["podSelector"]
        (ingress,) = spec["ingress"]
        assert ingress == {"from": [pods["edge"], *others], "ports": [{"port": "grpc"}]}
        assert {"to": others, "ports": [{"port": "grpc"}]} in spec["egress"]
    edge = find(BUILT, "NetworkPolicy", "edge")["spec"]
    reached = [pods[service.name] for service in SERVICES]
    assert {"to": reached, "ports": [{"port": "grpc"}]} in edge["egress"]


def test_services_find_one_another() -> None:
    agreed = find(BUILT, "ConfigMap", "conductor")["data"]

    assert json.loads(agreed["CONDUCTOR_PEERS"]) == {
        one.name: f"dns:///{one.name}:{only_container(one.name)['ports'][0]['containerPort']}"
        for one in SERVICES
    }


def test_a_process_that_stops_gets_the_time_it_takes() -> None:
    for service in SERVICES:
        drain = float(variables(only_container(service.name))["CONDUCTOR_DRAIN_SECONDS"]["value"])
        grace = pod(deployment(service.name))["terminationGracePeriodSeconds"]
        # Open calls get seven seconds at most, and the hand-over of runs comes before.
        assert grace >= drain + 7 + 10

    waits = only_container("edge")["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod(deployment("edge"))["terminationGracePeriodSeconds"] >= waits + 10


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_secrets_are_referred_to_and_never_written_down(folder: Any) -> None:
    built = manifests(folder)

    assert not [one for one in built if one["kind"] == "Secret"]
    for one in built:
        assert not SECRETS & one.get("data", {}).keys()
        for container in containers(one):
            for name, variable in variables(container).items():
                assert (name in SECRETS) is ("value" not in variable), name
                if name in SECRETS:
                    assert variable["valueFrom"]["secretKeyRef"].keys() == {"name", "key"}
    referred = {name for one in built for each in containers(one) for name in variables(each)}
    assert referred >= SECRETS


def test_callers_are_known_and_services_are_no_settings() -> None:
    agreed = find(BUILT, "ConfigMap", "conductor")["data"]

    assert agreed["CONDUCTOR_AUTH"] == "on"
    for name in DEPLOYMENTS:
        assert {"configMapRef": {"name": "conductor"}} in only_container(name)["envFrom"]
        # `CONDUCTOR_…` made from the name of a Service would be a setting that nobody set.
        assert pod(deployment(name))["enableServiceLinks"] is False
