"""Watching runs over the wire: typed, and as server-sent events byte by byte."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.api.httpbody_pb2 import HttpBody
from google.protobuf import json_format

from conductor.execution.v1 import execution_service_pb2 as pb
from conductor.execution.v1.event_pb2 import ExecutionEvent
from conductor.execution.v1.execution_pb2 import Execution
from conductor.gateway.v1 import gateway_service_pb2 as gateway_pb
from tests.patience import PATIENCE
from tests.rpc.modelled import followed
from tests.rpc.serving import (
    CLOSED,
    Mesh,
    Refusal,
    body_of,
    frames,
    refusal,
    served,
    stream_refusal,
)

NOT_FOUND = (grpc.StatusCode.NOT_FOUND, "EXECUTION_NOT_FOUND")


def job_stream(mesh: Mesh, id_: str, after: int = 0, header: str | None = None) -> Any:
    request = gateway_pb.StreamJobRequest(job_id=id_, after_sequence=after)
    metadata = [] if header is None else [("last-event-id", header)]
    return mesh.gateway.StreamJob(request, metadata=metadata, timeout=PATIENCE)


def event_stream(mesh: Mesh, id_: str, after: int = 0, header: str | None = None) -> Any:
    request = pb.WatchExecutionRequest(execution_id=id_, after_sequence=after)
    metadata = [] if header is None else [("last-event-id", header)]
    return mesh.executions.WatchExecutionSse(request, metadata=metadata, timeout=PATIENCE)


def watch(mesh: Mesh, id_: str, after: int = 0) -> Any:
    request = pb.WatchExecutionRequest(execution_id=id_, after_sequence=after)
    return mesh.executions.WatchExecution(request, timeout=PATIENCE)


STREAMS = pytest.mark.parametrize("stream", [watch, event_stream, job_stream])
BROWSER_STREAMS = pytest.mark.parametrize("stream", [event_stream, job_stream])


def answer_of(events: list[ExecutionEvent]) -> str:
    return "".join(one.on_llm_new_token.chunk for one in events)


class TestTypedWatch:
    async def test_a_finished_run_is_replayed_from_any_cursor(self, mesh: Mesh) -> None:
        execution = await mesh.finished("π")
        events = await mesh.watch(execution.id)
        assert [one.sequence for one in events] == list(range(1, len(events) + 1))
        assert [one.WhichOneof("payload") for one in events][:3] == [
            "job_started",
            "status_update",
            "on_llm_start",
        ]
        assert events[1].status_update.state == Execution.STATE_RUNNING
        assert [one.WhichOneof("payload") for one in events][-2:] == ["on_llm_end", "result"]
        assert answer_of(events) == events[-1].result.result == execution.result
        assert {one.execution_id for one in events} == {execution.id}
        times = [one.create_time.ToMicroseconds() for one in events]
        assert times == sorted(times)
        for after in range(len(events)):
            assert await mesh.watch(execution.id, after) == events[after:]

    async def test_a_run_started_and_watched_in_one_call_is_seen_whole(self, mesh: Mesh) -> None:
        request = pb.StartExecutionRequest(input="Hello", model="brisk")
        stream = mesh.executions.RunExecution(request, timeout=PATIENCE)
        events = [one.event async for one in stream]
        execution = await mesh.get(events[0].execution_id)
        assert execution.state == Execution.STATE_SUCCEEDED
        assert answer_of(events) == execution.result
        assert await mesh.watch(execution.id) == events
        # Live: pieces came as they were said, not at the end.
        assert sum(one.HasField("on_llm_new_token") for one in events) > 5

    async def test_who_goes_away_leaves_the_run_going(self, mesh: Mesh) -> None:
        request = pb.StartExecutionRequest(input="Hello", model="brisk")
        stream = mesh.executions.RunExecution(request, timeout=PATIENCE)
        seen = []
        async for one in stream:
            seen.append(one.event)
            if one.event.HasField("on_llm_new_token"):
                break
        stream.cancel()
        rest = await mesh.watch(seen[0].execution_id, seen[-1].sequence)
        assert [one.sequence for one in seen + rest] == list(range(1, len(seen + rest) + 1))
        assert rest[-1].HasField("result")

    async def test_many_watchers_see_the_same(self, mesh: Mesh) -> None:
        execution = await mesh.start(model="brisk")
        watched = await asyncio.gather(*(mesh.watch(execution.id) for _ in range(50)))
        assert all(events == watched[0] for events in watched)
        assert watched[0][-1].HasField("result")

    async def test_a_long_run_is_replayed_whole(self, mesh: Mesh) -> None:
        execution = await mesh.finished(model="mock-long")
        events = await mesh.watch(execution.id)
        assert [one.sequence for one in events] == list(range(1, len(events) + 1))
        assert answer_of(events) == execution.result
        assert len(execution.result.split()) == 10_000

    async def test_a_run_that_is_silent_sends_signs_of_life(self, tmp_path: Path) -> None:
        async with served(tmp_path, execution_heartbeat_seconds=0.05) as mesh:
            execution = await mesh.start(model="mock-stall")
            beats = 0
            stream = watch(mesh, execution.id)
            async for one in stream:
                beats += one.HasField("heartbeat")
                if beats == 3:
                    assert one.heartbeat.time.seconds > 0
                    break
            stream.cancel()


class TestRefusals:
    @STREAMS
    async def test_an_unknown_run_is_not_found(self, mesh: Mesh, stream: Any) -> None:
        refused = await stream_refusal(stream(mesh, "exec_none"))
        assert refused.kind == NOT_FOUND
        assert refused.resources == [("execution", "exec_none")]

    @STREAMS
    async def test_an_id_that_cannot_be_one_is_refused(self, mesh: Mesh, stream: Any) -> None:
        for id_ in ("", "x" * 65):
            refused = await stream_refusal(stream(mesh, id_))
            assert refused.kind == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")

    @STREAMS
    async def test_a_cursor_beyond_the_end_is_out_of_range(self, mesh: Mesh, stream: Any) -> None:
        execution = await mesh.finished()
        last = len(await mesh.watch(execution.id))
        for beyond in (last + 1, 2**32 - 1):
            refused = await stream_refusal(stream(mesh, execution.id, beyond))
            assert refused.kind == (grpc.StatusCode.OUT_OF_RANGE, "CURSOR_OUT_OF_RANGE")
            assert refused.metadata == {"last_sequence": str(last)}

    @BROWSER_STREAMS
    @pytest.mark.parametrize("header", ["x", "-1", "1.5", "4294967296", "0" * 5000, "9" * 30])
    async def test_a_garbage_last_event_id_is_refused(
        self, mesh: Mesh, stream: Any, header: str
    ) -> None:
        execution = await mesh.finished()
        refused = await stream_refusal(stream(mesh, execution.id, 0, header))
        assert refused.kind == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
        assert refused.fields == ["Last-Event-ID"]

    async def test_a_run_that_cannot_be_started_is_not_streamed(self, mesh: Mesh) -> None:
        request = pb.StartExecutionRequest(input="Hello", model="none")
        for rpc in (mesh.executions.RunExecution, mesh.executions.RunExecutionSse):
            refused = await stream_refusal(rpc(request, timeout=PATIENCE))
            assert refused.kind == (grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND")


class TestServerSentEvents:
    async def test_each_event_of_a_job_is_one_frame_byte_by_byte(self, mesh: Mesh) -> None:
        execution = await mesh.finished('Say "hi"\n\r\u2028π𝄞\u0000')
        events = await mesh.watch(execution.id)
        content = await body_of(job_stream(mesh, execution.id))
        opening, *rest, end = frames(content)
        assert opening.raw == b"retry: 1000\n: events of %b\n\n" % execution.id.encode()
        assert [frame.id for frame in rest] == [one.sequence for one in events]
        for frame, one in zip(rest, events, strict=True):
            seconds, micros = divmod(one.create_time.ToMicroseconds(), 1_000_000)
            data = frame.raw.partition(b'"data":')[2].rpartition(b',"timestamp"')[0]
            assert frame.raw.decode() == (
                f'id: {one.sequence}\ndata: {{"event":"{frame.data["event"]}",'
                f'"data":{data.decode()},"timestamp":{seconds}.{micros:06d},'
                f'"job_id":"{execution.id}"}}\n\n'
            )
            assert frame.raw.count(b"\n") == 3
            assert frame.data["event"] in CLOSED
            assert list(frame.data) == ["event", "data", "timestamp", "job_id"]
            assert isinstance(frame.data["timestamp"], float)
        shown = [(frame.data["event"], frame.data["data"]) for frame in rest]
        assert shown[0][0] == "job_started"
        assert shown[0][1]["agent_id"] == "default"
        assert shown[1][0] == "status_update"
        assert shown[1][1]["message"]
        assert shown[2] == (
            "on_llm_start",
            {"step": 1, "attempt": 1, "ai_provider": "mock", "model": "mock"},
        )
        chunks = [data for kind, data in shown if kind == "on_llm_new_token"]
        assert "".join(data["chunk"] for data in chunks) == execution.result
        assert shown[-1][0] == "result"
        assert shown[-1][1]["result"] == execution.result
        assert shown[-1][1]["message"]
        assert end.id is None
        assert end.event == "end_of_stream"
        assert end.raw.startswith(b'event: end_of_stream\ndata: {"event":"end_of_stream","data":{')
        assert end.data["job_id"] == execution.id
        assert end.data["data"]["message"]

    async def test_a_failed_and_a_cancelled_job_end_in_an_error(self, mesh: Mesh) -> None:
        failed = await mesh.finished(model="mock-fail")
        cancelled = await mesh.start(model="mock-stall")
        request = pb.CancelExecutionRequest(execution_id=cancelled.id)
        await mesh.executions.CancelExecution(request)
        for execution in (failed, cancelled):
            *_, error, end = frames(await body_of(job_stream(mesh, execution.id)))
            assert error.data["event"] == "error"
            assert error.data["data"]["error"]
            assert end.event == "end_of_stream"

    async def test_an_event_that_is_not_in_the_list_is_shown_as_a_status(
        self, tmp_path: Path
    ) -> None:
        async with served(tmp_path) as mesh:
            execution = await mesh.start(model="mock-stall")
            stream = watch(mesh, execution.id)
            async for one in stream:
                if one.event.HasField("on_llm_start"):
                    break
            stream.cancel()
        async with served(tmp_path) as mesh:
            stream = job_stream(mesh, execution.id)
            resumed = None
            async for body in stream:
                for frame in frames(body.data):
                    if frame.data and "another worker" in frame.data["data"].get("message", ""):
                        resumed = frame
                if resumed is not None:
                    break
            stream.cancel()
            assert resumed is not None
            assert resumed.data["event"] == "status_update"

    async def test_each_event_of_an_execution_is_its_message_as_json(self, mesh: Mesh) -> None:
        execution = await mesh.finished('Say "hi"\nπ𝄞')
        events = await mesh.watch(execution.id)
        content = await body_of(event_stream(mesh, execution.id))
        opening, *rest, end = frames(content)
        assert opening.raw.startswith(b"retry: ")
        assert [frame.id for frame in rest] == [one.sequence for one in events]
        for frame, one in zip(rest, events, strict=True):
            assert json_format.Parse(json.dumps(frame.data), ExecutionEvent()) == one
            assert json_format.MessageToDict(one, preserving_proto_field_name=True) == frame.data
        assert end.id is None
        assert end.event == "end_of_stream"
        assert end.data["execution_id"] == execution.id

    async def test_a_run_started_by_a_browser_is_streamed_to_it(self, mesh: Mesh) -> None:
        request = pb.StartExecutionRequest(input="Hello", model="brisk")
        content = await body_of(mesh.executions.RunExecutionSse(request, timeout=PATIENCE))
        _, first, *_, end = frames(content)
        assert end.event == "end_of_stream"
        # It was told live: a late reader gets the same but for the comments.
        again = await body_of(event_stream(mesh, first.data["execution_id"]))
        assert again == content

    @BROWSER_STREAMS
    async def test_the_header_wins_over_the_query(self, mesh: Mesh, stream: Any) -> None:
        execution = await mesh.finished()
        last = len(await mesh.watch(execution.id))
        for after, header, first in ((0, "3", 4), (5, "2", 3), (2**32 - 1, "1", 2), (3, "", 4)):
            _, *rest, end = frames(await body_of(stream(mesh, execution.id, after, header)))
            assert [frame.id for frame in rest] == list(range(first, last + 1))
            assert end.event == "end_of_stream"

    @BROWSER_STREAMS
    async def test_a_cursor_at_the_end_gets_the_end_again(self, mesh: Mesh, stream: Any) -> None:
        execution = await mesh.finished()
        last = len(await mesh.watch(execution.id))
        whole = frames(await body_of(stream(mesh, execution.id)))
        opening, end = frames(await body_of(stream(mesh, execution.id, last)))
        assert opening == whole[0]
        assert (end.id, end.event) == (None, "end_of_stream")
        assert list(end.data) == list(whole[-1].data)

    @BROWSER_STREAMS
    async def test_a_silent_stream_opens_at_once_and_then_beats(
        self, tmp_path: Path, stream: Any
    ) -> None:
        async with served(
            tmp_path, execution_concurrency=0, execution_heartbeat_seconds=0.05
        ) as mesh:
            execution = await mesh.start()
            # Nothing more is said after its place.
            *_, place = await followed(mesh, execution.id, until="job_queued")
            call = stream(mesh, execution.id, place.sequence)
            bodies: list[bytes] = []
            async with asyncio.timeout(PATIENCE):
                while len(bodies) < 4:
                    body: HttpBody = await call.read()
                    bodies.append(body.data)
            call.cancel()
            assert bodies[0].startswith(b"retry: 1000\n: ")
            assert bodies[1:] == [b": heartbeat\n\n"] * 3

    @BROWSER_STREAMS
    async def test_large_events_come_in_pieces_that_fit_the_edge(
        self, tmp_path: Path, stream: Any
    ) -> None:
        models = {"large": {"tokens": 12, "token_bytes": 150_000, "delay_ms": 1}}
        async with served(tmp_path, execution_mock_models=models, execution_flush_ms=0) as mesh:
            execution = await mesh.finished(model="large")
            call = stream(mesh, execution.id)
            sizes, content = [], b""
            async for body in call:
                sizes.append(len(body.data))
                content += body.data
            assert max(sizes) <= 128 * 1024
            payloads = [frame.data for frame in frames(content) if frame.id]
            chunks = [
                (one.get("data") or one.get("on_llm_new_token") or {}).get("chunk", "")
                for one in payloads
            ]
            assert "".join(chunks) == execution.result == "x" * 1_800_000


async def collect(stream: Any, into: list[ExecutionEvent]) -> Refusal:
    """Read a typed stream to its end and answer how it ended."""

    async def read() -> None:
        while isinstance(one := await stream.read(), pb.WatchExecutionResponse):
            if one.HasField("event"):
                into.append(one.event)

    return await refusal(read())


async def rest_of(stream: Any) -> bytes:
    """All bytes that are left of a browser's stream, which has to end well."""
    content = b""
    async with asyncio.timeout(PATIENCE):
        while isinstance(body := await stream.read(), HttpBody):
            content += body.data
    assert await stream.code() == grpc.StatusCode.OK
    return content


class TestStop:
    async def test_streams_end_as_told_and_the_run_goes_on_in_the_next_server(
        self, tmp_path: Path
    ) -> None:
        models = {"brisk": {"tokens": 60, "delay_ms": 10}}
        seen: list[ExecutionEvent] = []
        async with AsyncExitStack() as stack:
            mesh = await stack.enter_async_context(served(tmp_path, execution_mock_models=models))
            execution = await mesh.start(model="brisk")
            typed, browser = watch(mesh, execution.id), job_stream(mesh, execution.id)
            while not (seen and seen[-1].HasField("on_llm_new_token")):
                seen.append((await typed.read()).event)
            typed_end = asyncio.create_task(collect(typed, seen))
            browser_end = asyncio.create_task(rest_of(browser))
            asked = gateway_pb.ExecuteRequest(input="Hello", model="mock-stall")
            asking = asyncio.create_task(refusal(mesh.gateway.Execute(asked)))
            running = pb.ListExecutionsRequest(state=Execution.STATE_RUNNING)
            while len((await mesh.executions.ListExecutions(running)).executions) < 2:
                await asyncio.sleep(0)
            await stack.aclose()
            for refused in (await typed_end, await asking):
                assert refused.kind == (grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN")
                assert refused.retry_after is not None
                assert refused.retry_header is not None
            shown = frames(await browser_end)
        # No end of the stream: a browser comes back with its cursor.
        assert all(frame.event is None for frame in shown)
        async with served(tmp_path, execution_mock_models=models) as mesh:
            rest = await mesh.watch(execution.id, seen[-1].sequence)
            finished = await mesh.get(execution.id)
            assert finished.state == Execution.STATE_SUCCEEDED
            assert rest[0].sequence == seen[-1].sequence + 1
            (resumed,) = [one for one in rest if one.HasField("job_resumed")]
            # At once: well before any lease can have run out.
            waited = resumed.create_time.ToMicroseconds() - seen[-1].create_time.ToMicroseconds()
            assert waited < 4_000_000
            tokens = [one.on_llm_new_token for one in rest]
            assert "".join(one.chunk for one in tokens if one.attempt == 2) == finished.result
            last = max(frame.id or 0 for frame in shown)
            _, *more, end = frames(await body_of(job_stream(mesh, execution.id, 0, str(last))))
            assert [frame.id for frame in more] == list(range(last + 1, rest[-1].sequence + 1))
            assert end.event == "end_of_stream"
