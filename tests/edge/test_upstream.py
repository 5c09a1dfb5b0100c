"""What callers see while a service dies, comes back, or takes its time."""

from __future__ import annotations

import asyncio

import grpc
import httpx
import pytest

from conductor.execution.v1 import execution_service_pb2 as pb
from conductor.execution.v1.execution_service_pb2_grpc import ExecutionServiceStub
from services.mesh.clusters import Config
from services.mesh.table import SERVICES
from tests.edge.conftest import StartEdge, assert_error
from tests.edge.stub import FIRST_FRAME, LAST_FRAME, Stub
from tests.fakes.relay import Process
from tests.patience import PATIENCE

SHORT = "0.5s"


async def test_a_service_that_is_not_there_is_unavailable(
    start_edge: StartEdge, closed_port: int
) -> None:
    edge = await start_edge(SERVICES, {"execution": [("127.0.0.1", closed_port)]})

    async with httpx.AsyncClient(base_url=edge.url, timeout=PATIENCE) as client:
        for path in ("/api/executions/one", "/api/executions/one:watch", "/health"):
            response = await client.get(path, headers={"origin": "http://localhost"})
            assert_error(response, httpx.codes.SERVICE_UNAVAILABLE, 14)
            assert response.headers["access-control-allow-origin"] == "http://localhost"
            assert response.headers["retry-after"] == "1"


async def test_a_large_request_to_a_service_that_is_not_there_is_told_the_same(
    start_edge: StartEdge, closed_port: int
) -> None:
    # Larger than what Envoy keeps to send it again.
    large = "x" * 1024 * 1024
    edge = await start_edge(SERVICES, {"execution": [("127.0.0.1", closed_port)]})

    async with httpx.AsyncClient(base_url=edge.url, timeout=PATIENCE) as client:
        response = await client.post("/api/executions", json={"input": large})
    async with grpc.aio.insecure_channel(edge.target) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await ExecutionServiceStub(channel).StartExecution(
                pb.StartExecutionRequest(input=large), timeout=PATIENCE
            )

    assert_error(response, httpx.codes.SERVICE_UNAVAILABLE, 14)
    assert response.headers["retry-after"] == "1"
    assert failure.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_service_that_dies_and_comes_back_is_used_again_at_once(
    start_edge: StartEdge, upstream: int, stub: Stub
) -> None:
    process = Process(upstream)
    port = await process.start()
    edge = await start_edge(SERVICES, {"execution": [("127.0.0.1", port)]})

    async with httpx.AsyncClient(base_url=edge.url, timeout=PATIENCE) as client:
        call = asyncio.create_task(client.get("/api/executions/held"))
        watch = asyncio.create_task(client.get("/api/executions/one:watch"))
        await _until_held(stub, 2)
        process.kill()
        assert_error(await call, httpx.codes.SERVICE_UNAVAILABLE, 14)
        # A stream that has begun has no status left to change: it is cut.
        with pytest.raises(httpx.RemoteProtocolError):
            await watch
        for _ in range(20):
            gone = await client.get("/api/executions/one")
            assert_error(gone, httpx.codes.SERVICE_UNAVAILABLE, 14)

        await process.start(port)
        assert (await client.get("/api/executions/one")).status_code == httpx.codes.OK
        process.kill()


async def test_one_dead_process_of_two_is_not_noticed(
    start_edge: StartEdge, upstream: int, closed_port: int
) -> None:
    endpoints = {"execution": [("127.0.0.1", closed_port), ("127.0.0.1", upstream)]}
    edge = await start_edge(SERVICES, endpoints)

    async with httpx.AsyncClient(base_url=edge.url, timeout=PATIENCE) as client:
        for _ in range(20):
            assert (await client.get("/api/executions/one")).status_code == httpx.codes.OK


async def test_a_call_that_takes_too_long_times_out_and_long_ones_do_not(
    start_edge: StartEdge, upstream: int, stub: Stub
) -> None:
    edge = await start_edge(
        SERVICES, {"execution": [("127.0.0.1", upstream)]}, adjust=_shorten_unary_timeouts
    )

    async with httpx.AsyncClient(base_url=edge.url, timeout=PATIENCE) as client:
        execute = asyncio.create_task(client.post("/execute", json={"input": "Hi"}))
        watch = asyncio.create_task(client.get("/api/executions/one:watch"))
        run = asyncio.create_task(client.post("/api/executions:run", json={"input": "Hi"}))
        await _until_held(stub, 3)

        for _ in range(3):
            late = await client.get("/api/executions/held")
            assert_error(late, httpx.codes.GATEWAY_TIMEOUT, 4)

        stub.last_words.set()
        assert (await execute).json()["result"] == "Hi"
        assert (await watch).content == (await run).content == FIRST_FRAME + LAST_FRAME


async def test_a_callers_deadline_is_capped(
    start_edge: StartEdge, upstream: int, stub: Stub
) -> None:
    edge = await start_edge(
        SERVICES, {"execution": [("127.0.0.1", upstream)]}, adjust=_shorten_unary_timeouts
    )

    async with grpc.aio.insecure_channel(edge.target) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await ExecutionServiceStub(channel).GetExecution(
                pb.GetExecutionRequest(execution_id="held"), timeout=10 * PATIENCE
            )
    async with httpx.AsyncClient(base_url=edge.url, timeout=PATIENCE) as client:
        late = await client.get("/api/executions/held", headers={"grpc-timeout": "99999999H"})

    assert failure.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert_error(late, httpx.codes.GATEWAY_TIMEOUT, 4)


async def test_a_request_that_never_ends_is_given_up(start_edge: StartEdge, upstream: int) -> None:
    edge = await start_edge(
        SERVICES, {"execution": [("127.0.0.1", upstream)]}, adjust=_shorten_arrivals
    )
    head = b"POST /api/executions HTTP/1.1\r\nhost: localhost\r\n"
    for beginning in (
        head,
        head + b'content-type: application/json\r\ncontent-length: 100\r\n\r\n{"input',
    ):
        reader, writer = await asyncio.open_connection(*edge.target.split(":"))
        writer.write(beginning)
        async with asyncio.timeout(PATIENCE):
            answer = await reader.read()
        writer.close()
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b'"code":4' in answer


async def test_a_plain_http_server_is_passed_through(start_edge: StartEdge, upstream: int) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        line = request.split(b"\r\n")[0]
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(line), line))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        edge = await start_edge(
            SERVICES,
            {"execution": [("127.0.0.1", upstream)]},
            extra_http={"/plain/": server.sockets[0].getsockname()},
        )
        async with httpx.AsyncClient(base_url=edge.url, timeout=PATIENCE) as client:
            response = await client.post(
                "/plain/any?x=1", content=b"x", headers={"content-type": "text/plain"}
            )
            assert (await client.get("/api/executions/one")).status_code == httpx.codes.OK

    assert response.text == "POST /plain/any?x=1 HTTP/1.1"


def _shorten_unary_timeouts(config: Config) -> None:
    manager = _manager(config)
    manager["stream_idle_timeout"] = SHORT
    for route in manager["route_config"]["virtual_hosts"][0]["routes"]:
        action = route.get("route", {"timeout": "0s"})
        if action["timeout"] != "0s":
            action["timeout"] = action["idle_timeout"] = SHORT
            action["max_stream_duration"]["grpc_timeout_header_max"] = SHORT


def _shorten_arrivals(config: Config) -> None:
    _manager(config)["request_headers_timeout"] = SHORT
    _manager(config)["request_timeout"] = SHORT


def _manager(config: Config) -> Config:
    chains = config["static_resources"]["listeners"][0]["filter_chains"]
    manager: Config = chains[0]["filters"][0]["typed_config"]
    return manager


async def _until_held(stub: Stub, count: int) -> None:
    async with asyncio.timeout(PATIENCE):
        while stub.held < count:
            await asyncio.sleep(0.01)
