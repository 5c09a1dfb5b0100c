"""Files that are the body of a request, as they are."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
import httpx
import pytest
import pytest_asyncio

from conductor.conversations.v1 import conversation_service_pb2 as pb
from conductor.conversations.v1.conversation_pb2 import Conversation
from conductor.conversations.v1.conversation_service_pb2_grpc import (
    ConversationServiceServicer,
    add_ConversationServiceServicer_to_server,
)
from services.mesh.table import SERVICES
from tests.edge.conftest import StartEdge, assert_error
from tests.patience import PATIENCE

Context = grpc.aio.ServicerContext[Any, Any]

PATH = "/api/conversations/conv_1/context/upload"


class Uploaded(ConversationServiceServicer):
    """Keeps what it is sent; answers nothing else."""

    def __init__(self) -> None:
        self.requests: list[pb.UploadConversationContextRequest] = []

    async def UploadConversationContext(
        self, request: pb.UploadConversationContextRequest, context: Context
    ) -> Conversation:
        self.requests.append(request)
        return Conversation(id=request.conversation_id, context=request.file.data.decode())


@pytest.fixture
def uploaded() -> Uploaded:
    return Uploaded()  # type: ignore[abstract] # what is not asked for


@pytest_asyncio.fixture
async def client(start_edge: StartEdge, uploaded: Uploaded) -> AsyncIterator[httpx.AsyncClient]:
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", -1)])
    add_ConversationServiceServicer_to_server(uploaded, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    edge = await start_edge(SERVICES, {"conversations": [("127.0.0.1", port)]})
    async with httpx.AsyncClient(base_url=edge.url, timeout=PATIENCE) as client:
        yield client
    await server.stop(None)


@pytest.mark.parametrize("content_type", ["text/markdown", "Text/Markdown; charset=utf-8"])
@pytest.mark.parametrize("chunked", [False, True])
async def test_a_file_arrives_as_it_is(
    client: httpx.AsyncClient, uploaded: Uploaded, content_type: str, *, chunked: bool
) -> None:
    text = '{"not": "JSON"\n# 港 ' + "x" * 100_000
    body = text.encode()

    response = await client.post(
        PATH, content=_chunks(body) if chunked else body, headers={"content-type": content_type}
    )

    assert response.status_code == httpx.codes.OK, response.text
    assert response.json()["context"] == text
    (request,) = uploaded.requests
    assert request.conversation_id == "conv_1"
    assert request.file.content_type == content_type


@pytest.mark.parametrize(
    "content_type", ["", "text/plain", "application/json", "multipart/form-data; boundary=x"]
)
async def test_what_does_not_say_that_it_is_markdown_is_refused(
    client: httpx.AsyncClient, uploaded: Uploaded, content_type: str
) -> None:
    response = await client.post(PATH, content=b"{}", headers={"content-type": content_type})

    assert_error(response, httpx.codes.UNSUPPORTED_MEDIA_TYPE, 3)
    assert "text/markdown" in response.json()["message"]
    assert uploaded.requests == []


async def test_a_file_larger_than_any_body_is_refused(
    client: httpx.AsyncClient, uploaded: Uploaded
) -> None:
    body = b"x" * (4 * 1024 * 1024 + 1)

    response = await client.post(PATH, content=body, headers={"content-type": "text/markdown"})

    assert_error(response, httpx.codes.REQUEST_ENTITY_TOO_LARGE, 3)
    assert uploaded.requests == []


async def _chunks(body: bytes) -> AsyncIterator[bytes]:
    for begin in range(0, len(body), 10_000):
        yield body[begin : begin + 10_000]
