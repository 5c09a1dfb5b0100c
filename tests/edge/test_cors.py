"""What pages of other origins may do."""

from __future__ import annotations

import httpx
import pytest

from services.mesh.table import SERVICES
from tests.edge.conftest import RunningEdge, StartEdge

PREFLIGHT = {
    "access-control-request-method": "POST",
    "access-control-request-headers": "content-type, x-api-key, last-event-id",
}


@pytest.mark.parametrize(
    "origin", ["http://localhost", "http://localhost:4321", "http://127.0.0.1:65535"]
)
@pytest.mark.parametrize(
    "path", ["/api/executions", "/api/v1/stream-execute", "/health", "/nope", "/"]
)
async def test_a_preflight_from_this_machine_is_granted_on_every_route(
    client: httpx.AsyncClient, origin: str, path: str
) -> None:
    response = await client.options(path, headers={"origin": origin, **PREFLIGHT})

    assert response.status_code == httpx.codes.OK
    assert response.headers["access-control-allow-origin"] == origin
    assert _names(response, "allow-methods") >= {"get", "post", "put", "patch", "delete", "options"}
    assert _names(response, "allow-headers") >= {
        "content-type",
        "x-api-key",
        "x-user-id",
        "x-session-id",
        "x-org-id",
        "last-event-id",
        "authorization",
        "traceparent",
        "x-grpc-web",
        "grpc-timeout",
    }


@pytest.mark.parametrize(
    "origin",
    [
        "http://example.org",
        "https://localhost:4321",
        "http://localhost.example.org",
        "http://example.org:4321/http://localhost",
        "http://localhost:4321.example.org",
        "http://127x0x0x1:80",
        "null",
    ],
)
async def test_another_origin_is_granted_nothing(client: httpx.AsyncClient, origin: str) -> None:
    preflight = await client.options("/api/executions", headers={"origin": origin, **PREFLIGHT})
    response = await client.get("/api/executions", headers={"origin": origin})

    assert preflight.status_code == httpx.codes.FORBIDDEN
    for answer in (preflight, response):
        assert not [name for name in answer.headers if name.startswith("access-control-")]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"origin": "http://example.org", "sec-fetch-site": "cross-site"}, 403),
        ({"origin": "null", "sec-fetch-site": "cross-site"}, 403),
        ({"origin": "http://app.localhost", "sec-fetch-site": "same-site"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"origin": "http://localhost:4321", "sec-fetch-site": "cross-site"}, 200),
        ({"origin": "http://mesh.example.org", "sec-fetch-site": "same-origin"}, 200),
        ({"origin": "http://example.org"}, 200),
        ({}, 200),
    ],
)
async def test_a_page_of_another_origin_changes_nothing_though_it_need_not_ask_first(
    client: httpx.AsyncClient, headers: dict[str, str], status: int
) -> None:
    changed = await client.post("/api/executions/one:cancel", headers=headers)
    read = await client.get("/api/executions/one", headers=headers)

    assert (changed.status_code, read.status_code) == (status, 200), changed.text
    if status == 403:
        assert "CONDUCTOR_CORS_ORIGINS" in changed.text


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/api/executions/one", 200),
        ("GET", "/api/executions/missing", 404),
        ("GET", "/nope", 404),
        ("GET", "/api/executions/one/", 404),
        ("GET", "/api/executions?unknown=1", 400),
    ],
)
async def test_a_page_can_read_every_answer_and_what_it_says_beside(
    client: httpx.AsyncClient, method: str, path: str, status: int
) -> None:
    response = await client.request(method, path, headers={"origin": "http://localhost:4321"})

    assert response.status_code == status
    assert response.headers["access-control-allow-origin"] == "http://localhost:4321"
    assert _names(response, "expose-headers") >= {
        "grpc-status",
        "grpc-message",
        "retry-after",
        "x-request-id",
    }


async def test_origins_are_what_the_operator_says(start_edge: StartEdge, upstream: int) -> None:
    edge = await start_edge(
        SERVICES,
        {"execution": [("127.0.0.1", upstream)]},
        cors_origins=("https://app.example.org", "regex:https://[a-z]+[.]example[.]com"),
    )

    async with httpx.AsyncClient(base_url=edge.url) as client:
        for origin, granted in (
            ("https://app.example.org", True),
            ("https://any.example.com", True),
            ("https://any.example.com.evil.org", False),
            ("http://localhost:4321", False),
        ):
            response = await client.get("/api/executions", headers={"origin": origin})
            assert ("access-control-allow-origin" in response.headers) is granted


async def test_options_without_an_origin_is_answered(client: httpx.AsyncClient) -> None:
    response = await client.options("/health")

    assert response.status_code == httpx.codes.OK
    assert response.content == b""


async def test_a_cookie_is_no_credential(client: httpx.AsyncClient, edge: RunningEdge) -> None:
    response = await client.get(
        "/api/executions/one", headers={"origin": "http://localhost:4321", "cookie": "a=b"}
    )

    assert "access-control-allow-credentials" not in response.headers
    assert "cookie" not in response.json()["metadata"]


def _names(response: httpx.Response, header: str) -> set[str]:
    values = response.headers[f"access-control-{header}"].split(",")
    return {value.strip().lower() for value in values}
