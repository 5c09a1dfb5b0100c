"""REST through Envoy: what is a request, and how its answer reads."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from tests.edge.conftest import RunningEdge, assert_error
from tests.edge.stub import Stub

JSON = {"content-type": "application/json"}
BODY = b'{"input": "Hi"}'


async def test_an_answer_has_every_field_by_its_name_in_the_protos(
    client: httpx.AsyncClient,
) -> None:
    response = await client.get("/api/executions")

    assert response.status_code == httpx.codes.OK
    assert response.headers["content-type"] == "application/json"
    assert response.json() == {"executions": [], "next_page_token": ""}


async def test_every_verb_of_the_protos_arrives(client: httpx.AsyncClient, stub: Stub) -> None:
    for method, path, body in (
        ("POST", "/api/executions", BODY),
        ("GET", "/api/executions/one?", None),
        ("POST", "/api/executions/one:cancel", b"{}"),
        ("DELETE", "/api/executions/one", None),
        ("POST", "/api/conversations/c/executions", BODY),
    ):
        response = await client.request(method, path, content=body, headers=JSON)
        assert response.status_code == httpx.codes.OK, (method, path, response.text)

    assert stub.calls == [
        *("StartExecution", "GetExecution", "CancelExecution", "DeleteExecution"),
        "StartExecution",
    ]


async def test_both_cases_of_a_field_are_understood(client: httpx.AsyncClient) -> None:
    for body in ('{"input": "Hi", "agent_id": "a"}', '{"input": "Hi", "agentId": "a"}'):
        response = await client.post("/api/executions", content=body, headers=JSON)
        assert response.json()["id"] == "Hi"


async def test_an_answer_of_many_mebibytes_arrives_whole(client: httpx.AsyncClient) -> None:
    response = await client.get("/api/executions/big")

    assert response.status_code == httpx.codes.OK
    assert len(response.content) > 18_000_000
    assert response.json()["result"] == "\x01" * 2 * 1024 * 1024


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json",
        "Application/JSON",
        "application/json; charset=utf-8",
        "application/json;charset=UTF-8",
    ],
)
async def test_a_body_declared_as_json_is_taken(
    client: httpx.AsyncClient, content_type: str
) -> None:
    response = await client.post(
        "/api/executions", content=BODY, headers={"content-type": content_type}
    )

    assert response.status_code == httpx.codes.OK


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"content-type": ""},
        {"content-type": "text/plain"},
        {"content-type": "text/plain; application/json"},
        {"content-type": "application/x-www-form-urlencoded"},
        {"content-type": "multipart/form-data; boundary=x"},
        {"content-type": "application/jsonx"},
        {"content-type": "application/json, text/plain"},
    ],
)
@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_not_declared_as_json_is_refused(
    client: httpx.AsyncClient, stub: Stub, headers: dict[str, str], *, chunked: bool
) -> None:
    response = await client.post(
        "/api/executions", content=_chunks(BODY) if chunked else BODY, headers=headers
    )

    assert_error(response, httpx.codes.UNSUPPORTED_MEDIA_TYPE, 3)
    assert "application/json" in response.json()["message"]
    assert stub.calls == []


@pytest.mark.parametrize("headers", [{}, {"content-type": "application/x-www-form-urlencoded"}])
async def test_a_request_without_a_body_needs_no_content_type(
    client: httpx.AsyncClient, headers: dict[str, str]
) -> None:
    response = await client.post("/api/executions/one:cancel", headers=headers)

    assert response.status_code == httpx.codes.OK


async def test_a_body_of_four_mebibytes_is_taken_and_a_larger_one_refused(
    client: httpx.AsyncClient, stub: Stub
) -> None:
    most = 4 * 1024 * 1024
    for length, status in ((most, 200), (most + 1, 413), (most + 1024 * 1024, 413)):
        body = b'{"request_id": "' + b"x" * (length - 18) + b'"}'
        assert len(body) == length
        for content in (body, _chunks(body)):
            response = await client.post("/api/executions", content=content, headers=JSON)
            assert response.status_code == status
            if status != httpx.codes.OK:
                assert_error(response, status, 3)

    assert stub.calls == ["StartExecution"] * 2


@pytest.mark.parametrize(
    "body",
    [
        b"nope",
        b'{"input":',
        b"[]",
        b"null",
        b'"text"',
        b'{"input": 1}',
        b'{"input": {"a": 1}}',
        b'{"input": "\xff\xfe"}',
        b'{"\xc3(": "\x00"}',
        b'{"input": "\\ud800"}',
        b'"\\"}\n\r\t<script>',
        b"\x00\x01\x02",
    ],
)
async def test_a_body_that_cannot_be_read_is_a_clear_error(
    client: httpx.AsyncClient, stub: Stub, body: bytes
) -> None:
    response = await client.post("/api/executions", content=body, headers=JSON)

    assert_error(response, httpx.codes.BAD_REQUEST, 3)
    assert stub.calls == []


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("unknown=1", "unknown"),
        ("page_size=many", "page_size"),
        ("page_size=99999999999", "page_size"),
        ("state=queued", "state"),
        ("create_time_from=yesterday", "create_time_from"),
        ('"<\\>=%22%0a', ""),
    ],
)
async def test_a_query_that_cannot_be_read_names_what_is_wrong(
    client: httpx.AsyncClient, stub: Stub, query: str, named: str
) -> None:
    response = await client.get(f"/api/executions?{query}")

    assert_error(response, httpx.codes.BAD_REQUEST, 3)
    assert named in response.json()["message"]
    assert stub.calls == []


async def test_fields_of_a_body_that_nobody_knows_are_ignored(
    client: httpx.AsyncClient, stub: Stub
) -> None:
    body = {"input": "hello", "inputs": ["hello"], "nobody": {"knows": 1}}

    response = await client.post("/api/executions", json=body)

    assert response.status_code == httpx.codes.OK
    assert stub.calls == ["StartExecution"]


async def test_path_and_body_cannot_name_different_things(client: httpx.AsyncClient) -> None:
    response = await client.post("/api/executions/one:cancel", json={"execution_id": "other"})

    assert_error(response, httpx.codes.BAD_REQUEST, 3)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"),
        ("GET", "/nope"),
        ("GET", "/nope/%ff%22%3Cscript%3E"),
        ("GET", "/api/executions/"),
        ("GET", "/api/executions/one/"),
        ("GET", "/api/executions/one/two"),
        ("POST", "/api/executions/one:burn"),
        ("PUT", "/api/executions"),
        ("PATCH", "/api/executions/one"),
        ("POST", "/conductor.execution.v1.ExecutionService/GetExecution"),
        ("GET", "/conductor.execution.v1.ExecutionService/GetExecution"),
    ],
)
async def test_what_is_no_route_is_not_found(
    client: httpx.AsyncClient, stub: Stub, method: str, path: str
) -> None:
    response = await client.request(method, path)

    assert_error(response, httpx.codes.NOT_FOUND, 5)
    assert response.json()["message"] == f"There is no such route: {method} {path}"
    assert stub.calls == []


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/api/executions/a%2Fb", "a/b"),
        ("/api/executions/%C3%BC%F0%9F%A6%8A", "ü🦊"),
        ("/api/executions/%22%3C%5C", '"<\\'),
        ("/api/executions/x/../one", "one"),
        ("/api///executions/one", "one"),
    ],
)
async def test_an_odd_id_arrives_as_it_was_meant(
    client: httpx.AsyncClient, path: str, name: str
) -> None:
    response = await client.get(path)

    assert response.json()["id"] == name


@pytest.mark.parametrize("path", ["/api/executions/%00", "/api/executions/a%00b"])
async def test_a_path_that_cannot_be_read_is_a_clear_error(
    client: httpx.AsyncClient, path: str
) -> None:
    assert_error(await client.get(path), httpx.codes.BAD_REQUEST, 3)


async def test_headers_beyond_the_limit_are_refused(client: httpx.AsyncClient) -> None:
    taken = await client.get("/api/executions/one", headers={"authorization": "x" * 14_000})
    refused = await client.get("/api/executions/one", headers={"authorization": "x" * 17_000})

    assert taken.status_code == httpx.codes.OK
    assert_error(refused, httpx.codes.REQUEST_HEADER_FIELDS_TOO_LARGE, 3)


@pytest.mark.parametrize("path", ["/api/executions/missing", "/api/executions/missing:watch"])
async def test_an_error_of_a_service_keeps_its_details(
    client: httpx.AsyncClient, path: str
) -> None:
    response = await client.get(path)

    assert_error(response, httpx.codes.NOT_FOUND, 5)
    assert response.json()["message"] == "There is no `missing`."
    info, resource, bad_request, retry = response.json()["details"]
    assert info["@type"] == "type.googleapis.com/google.rpc.ErrorInfo"
    assert (info["reason"], info["domain"]) == ("EXECUTION_NOT_FOUND", "conductor")
    assert resource["resource_name"] == "missing"
    assert bad_request["field_violations"][0]["field"] == "execution_id"
    assert retry["retry_delay"] == "7s"
    assert response.headers["retry-after"] == "7"


async def test_the_server_does_not_introduce_itself(
    client: httpx.AsyncClient, edge: RunningEdge
) -> None:
    for path in ("/api/executions/one", "/nope"):
        response = await client.get(path)
        assert "server" not in response.headers
        assert not [name for name in response.headers if name.startswith("x-envoy")]


async def _chunks(body: bytes) -> AsyncIterator[bytes]:
    middle = len(body) // 2
    yield body[:middle]
    yield body[middle:]
