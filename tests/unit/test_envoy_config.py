"""Envoy's configuration follows from the protos and the table of services."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from google.api import annotations_pb2
from google.protobuf import descriptor_pb2

from conductor.auth.v1 import access_pb2
from services.mesh.clusters import Config
from services.mesh.envoy import PROOF_VARIABLE, Edge, arguments, binary, render
from services.mesh.table import SERVICES, Service
from services.mesh.tokens import Tokens

API = (Path(__file__).parents[2] / "gen" / "api.binpb").read_bytes()
ENDPOINTS = {
    "execution": [("127.0.0.1", 9001), ("127.0.0.1", 9002)],
    "content": [("127.0.0.1", 9003)],
    "conversations": [("127.0.0.1", 9004)],
}
_TURN_RPCS = ("AppendTurn", "ReadTurn", "ReadHistory", "FillAnswer", "WithdrawTurn")
_KIN_RPCS = ("MarkKin", "UnmarkKin", "PurgeKin")
EDGE = Edge(http_host="127.0.0.1", http_port=8080, admin_port=9901)


def test_the_configuration_is_json() -> None:
    config = render(API, SERVICES, ENDPOINTS, EDGE)

    assert json.loads(json.dumps(config)) == config


def test_every_service_of_the_protos_has_one_home_and_is_transcoded() -> None:
    named = [name for service in SERVICES for name in service.rpc_services]
    hosted = set(named)

    assert len(named) == len(hosted)
    assert {name for name, _, method in _methods()} == hosted
    assert set(_transcoder(render(API, SERVICES, ENDPOINTS, EDGE))["services"]) == hosted


def test_every_rpc_of_the_table_exists() -> None:
    known = {f"{name}/{method.name}" for name, _, method in _methods()}

    for service in SERVICES:
        assert set(service.long_rpcs) <= known


def test_streams_and_long_calls_have_no_timeout_and_others_do() -> None:
    config = render(API, SERVICES, ENDPOINTS, EDGE)
    long = {name for service in SERVICES for name in service.long_rpcs}
    homes = {name: service.name for service in SERVICES for name in service.rpc_services}

    for service, _, method in _methods():
        if _is_internal(method):
            continue
        action = _route_of(config, f"/{service}/{method.name}")["route"]
        assert action["cluster"] == homes[service]
        endless = method.server_streaming or f"{service}/{method.name}" in long
        assert (action["timeout"] == "0s") is endless, method.name
        assert action["idle_timeout"] in ({"0s", "3600s"} if endless else {"60s"})
        # Without it a caller's own deadline has no limit.
        assert action["max_stream_duration"]["grpc_timeout_header_max"] != "0s"


def test_only_what_changes_nothing_is_repeated_once_a_process_has_seen_it() -> None:
    config = render(API, SERVICES, ENDPOINTS, EDGE)
    host = _manager(config)["route_config"]["virtual_hosts"][0]
    unseen = {"connect-failure", "refused-stream"}

    assert set(host["retry_policy"]["retry_on"].split(",")) == unseen
    for service, _, method in _methods():
        if _is_internal(method):
            continue
        action = _route_of(config, f"/{service}/{method.name}")["route"]
        policy = action.get("retry_policy", host["retry_policy"])
        safe = method.options.idempotency_level == method.options.NO_SIDE_EFFECTS
        more = {"reset", "unavailable"} if safe else set()
        assert set(policy["retry_on"].split(",")) == unseen | more, method.name
        assert policy["num_retries"] == 2


@pytest.mark.parametrize(
    "path",
    [
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        "/grpc.health.v1.Health/Watch",
    ],
)
def test_reflection_and_health_come_from_the_first_service(path: str) -> None:
    services = (*SERVICES, Service("second", ("conductor.gateway.v1.GatewayService",)))
    endpoints = {**ENDPOINTS, "second": [("127.0.0.1", 9004)]}

    action = _route_of(render(API, services, endpoints, EDGE), path)["route"]

    assert (action["cluster"], action["timeout"]) == ("execution", "0s")


def test_only_rest_bodies_are_buffered() -> None:
    routes = _routes(render(API, SERVICES, ENDPOINTS, EDGE))

    buffered = [
        route["match"]
        for route in routes
        if "envoy.filters.http.buffer" in route.get("typed_per_filter_config", {})
    ]
    upload = {
        "safe_regex": {"regex": "/api/conversations/[^/]+/context/upload"},
        "headers": [{"name": ":method", "string_match": {"exact": "POST"}}],
    }
    assert buffered == [upload, {"prefix": "/"}]
    assert routes[-1]["match"] == {"prefix": "/"}


def test_what_services_ask_of_each_other_is_asked_by_nobody_else() -> None:
    config = render(API, SERVICES, ENDPOINTS, EDGE)
    internal = {f"{name}/{method.name}" for name, _, method in _methods() if _is_internal(method)}

    for path in internal:
        refusal = _route_of(config, f"/{path}")["typed_per_filter_config"]
        assert refusal["envoy.filters.http.fault"]["abort"]["http_status"] == 404, path
    assert internal == {
        "conductor.auth.v1.KeyService/ResolveKey",
        "conductor.content.v1.AgentService/ResolveAgent",
        *(f"conductor.conversations.v1.TurnService/{rpc}" for rpc in _TURN_RPCS),
        *(f"conductor.conversations.v1.KinService/{rpc}" for rpc in _KIN_RPCS),
    }
    # A route of REST would lead there past the refusal.
    assert not any(_has_route(method) for _, _, method in _methods() if _is_internal(method))


def test_every_process_of_a_service_is_an_endpoint() -> None:
    cluster = _cluster(render(API, SERVICES, ENDPOINTS, EDGE), "execution")

    assert cluster["type"] == "STATIC"
    assert [
        endpoint["endpoint"]["address"]["socket_address"]
        for endpoint in cluster["load_assignment"]["endpoints"][0]["lb_endpoints"]
    ] == [
        {"address": "127.0.0.1", "port_value": 9001},
        {"address": "127.0.0.1", "port_value": 9002},
    ]


def test_a_host_name_is_looked_up() -> None:
    endpoints = {**ENDPOINTS, "execution": [("execution.local", 9001)]}
    config = render(API, SERVICES, endpoints, EDGE)

    assert _cluster(config, "execution")["type"] == "STRICT_DNS"


def test_admin_is_on_the_loopback_whatever_the_public_address() -> None:
    edge = Edge(http_host="0.0.0.0", http_port=8080, admin_port=9901)

    config = render(API, SERVICES, ENDPOINTS, edge)

    assert config["admin"]["address"]["socket_address"]["address"] == "127.0.0.1"


def test_no_secret_is_in_the_configuration() -> None:
    edge = replace(EDGE, proves_itself=True, tokens=Tokens("me", "you", "https://me.example/keys"))

    config = render(API, SERVICES, ENDPOINTS, edge)

    (header,) = _manager(config)["route_config"]["request_headers_to_add"]
    assert header["header"] == {
        "key": "x-conductor-edge",
        "value": f"%ENVIRONMENT({PROOF_VARIABLE})%",
    }


def test_keys_of_tokens_are_fetched_from_where_they_are_published() -> None:
    edge = replace(EDGE, tokens=Tokens("me", "you", "https://me.example/keys"))

    cluster = _cluster(render(API, SERVICES, ENDPOINTS, edge), "jwks")

    tls = cluster["transport_socket"]["typed_config"]
    trust = tls["common_tls_context"]["validation_context"]
    assert tls["sni"] == "me.example"
    assert trust["match_typed_subject_alt_names"] == [
        {"san_type": "DNS", "matcher": {"exact": "me.example"}}
    ]
    assert Path(trust["trusted_ca"]["filename"]).is_file()


def test_plain_http_servers_come_before_rest() -> None:
    config = render(API, SERVICES, ENDPOINTS, EDGE, extra_http={"/plain/": ("127.0.0.1", 9100)})

    route = _route_of(config, "/plain/any")
    cluster = _cluster(config, route["route"]["cluster"])
    protocol = next(iter(cluster["typed_extension_protocol_options"].values()))
    assert protocol["explicit_http_config"] == {"http_protocol_options": {}}


def test_a_service_without_protos_or_processes_is_refused() -> None:
    with pytest.raises(ValueError, match=r"nope\.v1\.Nope of service nope"):
        render(API, (Service("nope", ("nope.v1.Nope",)),), {"nope": [("127.0.0.1", 1)]}, EDGE)
    with pytest.raises(ValueError, match="execution has no endpoint"):
        render(API, SERVICES, {}, EDGE)


def test_envoy_is_there_and_runs_without_shared_memory() -> None:
    command = arguments(Path("envoy.json"))

    assert binary().is_file()
    assert command[0] == str(binary())
    assert {"--disable-hot-restart", "envoy.json"} <= set(command)


def _methods() -> list[
    tuple[str, descriptor_pb2.FileDescriptorProto, descriptor_pb2.MethodDescriptorProto]
]:
    return [
        (f"{file.package}.{service.name}", file, method)
        for file in descriptor_pb2.FileDescriptorSet.FromString(API).file
        if file.package.startswith("conductor.")
        for service in file.service
        for method in service.method
    ]


def _is_internal(method: descriptor_pb2.MethodDescriptorProto) -> bool:
    return method.options.Extensions[access_pb2.access].internal


def _has_route(method: descriptor_pb2.MethodDescriptorProto) -> bool:
    return method.options.HasExtension(annotations_pb2.http)


def _manager(config: Config) -> Config:
    chains = config["static_resources"]["listeners"][0]["filter_chains"]
    manager: Config = chains[0]["filters"][0]["typed_config"]
    return manager


def _routes(config: Config) -> list[Config]:
    routes: list[Config] = _manager(config)["route_config"]["virtual_hosts"][0]["routes"]
    return routes


def _route_of(config: Config, path: str) -> Config:
    """The route Envoy takes, of those that match by path alone."""
    for route in _routes(config):
        match: dict[str, Any] = route["match"]
        if "headers" in match:
            continue
        if match.get("path") == path or ("prefix" in match and path.startswith(match["prefix"])):
            return route
    raise AssertionError(path)


def _transcoder(config: Config) -> Config:
    for http_filter in _manager(config)["http_filters"]:
        if http_filter["name"] == "envoy.filters.http.grpc_json_transcoder":
            transcoder: Config = http_filter["typed_config"]
            return transcoder
    raise AssertionError


def _cluster(config: Config, name: str) -> Config:
    clusters: list[Config] = config["static_resources"]["clusters"]
    return next(cluster for cluster in clusters if cluster["name"] == name)
