"""What Envoy takes from a request, adds to it, and writes down about it."""

from __future__ import annotations

import re

import httpx
import pytest

from services.mesh.table import SERVICES
from tests.edge.conftest import RunningEdge, StartEdge

TRACE = "0af7651916cd43dd8448eb211c80319c"


async def test_what_only_the_mesh_may_say_is_taken_away(client: httpx.AsyncClient) -> None:
    response = await client.get(
        "/api/executions/one",
        headers={
            "X-Conductor-Org": "theirs",
            "x-conductor-": "theirs",
            "x_conductor_org": "theirs",
            "cookie": "a=b",
            "x-envoy-original-path": "theirs",
            "x-envoy-external-address": "theirs",
            "x-envoy-upstream-rq-timeout-ms": "1",
            "x-request-id": "theirs",
        },
    )

    metadata = response.json()["metadata"]
    assert "theirs" not in metadata.values()
    assert not metadata.keys() & {"cookie", "x-envoy-upstream-rq-timeout-ms"}
    assert not [name for name in metadata if "conductor" in name]


async def test_what_clients_say_arrives(client: httpx.AsyncClient) -> None:
    said = {
        "authorization": "Bearer token",
        "x-api-key": "key",
        "x-org-id": "org",
        "x-user-id": "user",
        "x-session-id": "session",
        "last-event-id": "7",
    }

    response = await client.get("/api/executions/one", headers=said)

    assert said.items() <= response.json()["metadata"].items()


async def test_every_answer_names_its_call(client: httpx.AsyncClient) -> None:
    response = await client.get("/api/executions/one")
    error = await client.get("/nope")

    assert response.headers["x-request-id"] == response.json()["metadata"]["x-request-id"]
    assert error.headers["x-request-id"] != response.headers["x-request-id"]


@pytest.mark.parametrize("sampled", ["00", "01"])
async def test_a_trace_goes_on_as_it_came(client: httpx.AsyncClient, sampled: str) -> None:
    response = await client.get(
        "/api/executions/one",
        headers={"traceparent": f"00-{TRACE}-b7ad6b7169203331-{sampled}", "tracestate": "a=b"},
    )

    metadata = response.json()["metadata"]
    version, trace, parent, flags = metadata["traceparent"].split("-")
    assert (version, trace, flags) == ("00", TRACE, sampled)
    assert parent != "b7ad6b7169203331"
    assert metadata["tracestate"] == "a=b"


async def test_a_call_without_a_trace_begins_one(client: httpx.AsyncClient) -> None:
    response = await client.get("/api/executions/one")

    traceparent = response.json()["metadata"]["traceparent"]
    assert re.fullmatch("00-[0-9a-f]{32}-[0-9a-f]{16}-00", traceparent)


async def test_the_access_log_tells_what_happened_without_secrets(
    client: httpx.AsyncClient, edge: RunningEdge
) -> None:
    response = await client.get(
        "/api/executions?page_token=secret",
        headers={"traceparent": f"00-{TRACE}-b7ad6b7169203331-00", "authorization": "secret"},
    )

    entry = await edge.logged(response.headers["x-request-id"])
    assert "secret" not in edge.access_log.read_text()
    assert entry["trace_id"] == TRACE
    assert entry["method"] == "GET"
    assert entry["path"] == "/api/executions"
    assert entry["rpc"] == "/conductor.execution.v1.ExecutionService/ListExecutions"
    assert (entry["status"], entry["grpc_status"]) == (200, 0)
    assert entry["bytes_sent"] == len(response.content)
    assert entry["duration_ms"] >= 0
    assert entry["upstream"].startswith("127.0.0.1:")
    assert entry["client"] == "127.0.0.1"


async def test_the_access_log_tells_of_what_no_service_saw(
    client: httpx.AsyncClient, edge: RunningEdge
) -> None:
    response = await client.get('/nope"%22\\?secret', headers={"user-agent": '"\\'})

    entry = await edge.logged(response.headers["x-request-id"])
    assert entry["path"].startswith("/nope")
    assert entry["status"] == httpx.codes.NOT_FOUND
    assert entry["upstream"] is None


@pytest.mark.parametrize(("trusted_hops", "client_address"), [(0, "127.0.0.1"), (1, "203.0.113.9")])
async def test_the_client_is_known_by_trusted_hops(
    start_edge: StartEdge, upstream: int, trusted_hops: int, client_address: str
) -> None:
    edge = await start_edge(
        SERVICES, {"execution": [("127.0.0.1", upstream)]}, trusted_hops=trusted_hops
    )

    async with httpx.AsyncClient(base_url=edge.url) as client:
        response = await client.get(
            "/api/executions/one", headers={"x-forwarded-for": "198.51.100.1, 203.0.113.9"}
        )

    assert response.json()["metadata"]["x-envoy-external-address"] == client_address
    entry = await edge.logged(response.headers["x-request-id"])
    assert entry["client"] == client_address


async def test_a_host_that_is_not_ours_is_refused(client: httpx.AsyncClient) -> None:
    rebound = await client.get("/api/executions/one", headers={"host": "rebound.example:8080"})
    local = await client.get("/api/executions/one", headers={"host": "localhost:1234"})

    assert rebound.status_code == 421
    assert rebound.json()["message"] == (
        "rebound.example is not a host of this mesh. CONDUCTOR_HOSTS names them."
    )
    assert local.status_code == 200


async def test_a_host_that_was_named_is_served(start_edge: StartEdge, upstream: int) -> None:
    endpoints = {SERVICES[0].name: [("127.0.0.1", upstream)]}
    edge = await start_edge(SERVICES, endpoints, hosts=("mesh.example",))

    async with httpx.AsyncClient(base_url=edge.url, trust_env=False) as client:
        named = await client.get("/api/executions/one", headers={"host": "mesh.example"})
        other = await client.get("/api/executions/one", headers={"host": "other.example"})

    assert (named.status_code, other.status_code) == (200, 421)


async def test_the_admin_pages_are_not_on_the_public_port(client: httpx.AsyncClient) -> None:
    for path in ("/config_dump", "/quitquitquit", "/stats"):
        assert (await client.post(path)).status_code == httpx.codes.NOT_FOUND
