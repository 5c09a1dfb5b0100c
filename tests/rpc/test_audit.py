"""Every call that changes something leaves one record, and its caller hears only then."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import sqlite3
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from conductor.audit.v1.audit_record_pb2 import AuditRecord
from conductor.audit.v1.audit_service_pb2 import ListAuditRecordsRequest
from conductor.audit.v1.audit_service_pb2_grpc import AuditServiceStub
from conductor.auth.v1.access_pb2 import SCOPE_READ
from conductor.auth.v1.key_pb2 import Key
from conductor.auth.v1.key_service_pb2 import CreateKeyRequest, RevokeKeyRequest
from conductor.auth.v1.key_service_pb2_grpc import KeyServiceStub
from conductor.execution.v1 import execution_service_pb2 as pb
from conductor.gateway.v1 import gateway_service_pb2 as gateway_pb
from services.execution.app import compose
from services.execution.settings import ExecutionSettings
from services.kit.audit import AUDIT
from services.kit.call import Call
from services.kit.guard import Access
from services.kit.principals import Principal, Scope
from services.kit.server import serving
from services.kit.storage.ports import Insert, Write, store_unavailable
from services.kit.storage.sqlite import SqliteStore
from tests.fakes.content import FakeContent
from tests.patience import PATIENCE
from tests.rpc.serving import Mesh, hosted, refusal, served

START = "conductor.execution.v1.ExecutionService/StartExecution"
CANCEL = "conductor.execution.v1.ExecutionService/CancelExecution"
EXECUTE = "conductor.gateway.v1.GatewayService/Execute"
TRACE = "0af7651916cd43dd8448eb211c80319c"
UNICODE = "π 𝄞 \u0000 \u2028 \"\\'\r\n ﷽ e\u0301"

SUCCEEDING: dict[str, Message] = {
    "StartExecution": pb.StartExecutionRequest(input="a"),
    "RunExecution": pb.StartExecutionRequest(input="a"),
    "RunExecutionSse": pb.StartExecutionRequest(input="a"),
    "CancelExecution": pb.CancelExecutionRequest(execution_id="stalling"),
    "DeleteExecution": pb.DeleteExecutionRequest(execution_id="finished"),
    "Execute": gateway_pb.ExecuteRequest(input="a"),
    "ExecuteAgent": gateway_pb.ExecuteAgentRequest(agent_id="default", input_text="a"),
    "StreamExecute": gateway_pb.ExecuteRequest(input="a"),
    "CreateKey": CreateKeyRequest(key=Key(name="ci", scopes=[SCOPE_READ])),
    "RevokeKey": RevokeKeyRequest(key_id="created"),
}
"""A request that works for each rpc that changes something; ids stand for what the test made."""
FAILING: dict[str, tuple[Message, str]] = {
    "StartExecution": (pb.StartExecutionRequest(input="a", agent_id="x"), "AGENT_NOT_FOUND"),
    "RunExecution": (pb.StartExecutionRequest(input="a", agent_id="x"), "AGENT_NOT_FOUND"),
    "RunExecutionSse": (pb.StartExecutionRequest(input="a", model="x"), "MODEL_NOT_FOUND"),
    "CancelExecution": (pb.CancelExecutionRequest(execution_id="x"), "EXECUTION_NOT_FOUND"),
    "DeleteExecution": (pb.DeleteExecutionRequest(), "INVALID_REQUEST"),
    "Execute": (gateway_pb.ExecuteRequest(input="a", model="mock-fail"), "MODEL_FAILED"),
    "ExecuteAgent": (
        gateway_pb.ExecuteAgentRequest(agent_id="x", input_text="a"),
        "AGENT_NOT_FOUND",
    ),
    "StreamExecute": (gateway_pb.ExecuteRequest(input="a", agent_id="x"), "AGENT_NOT_FOUND"),
    "CreateKey": (CreateKeyRequest(), "INVALID_REQUEST"),
    "RevokeKey": (RevokeKeyRequest(key_id="x"), "KEY_NOT_FOUND"),
}


def audit_of(mesh: Mesh) -> AuditServiceStub:
    return AuditServiceStub(mesh.channel)


async def listed(mesh: Mesh, **conditions: Any) -> list[AuditRecord]:
    """Every page, one after the other."""
    request = ListAuditRecordsRequest(**conditions)
    found: list[AuditRecord] = []
    while True:
        response = await audit_of(mesh).ListAuditRecords(request, timeout=PATIENCE)
        found += response.audit_records
        if not response.next_page_token:
            return found
        assert len(response.audit_records) == (conditions.get("page_size") or 50)
        request.page_token = response.next_page_token


async def methods(mesh: Mesh, *, changing: bool) -> list[Any]:
    """The descriptors of every rpc of ours that the mesh hosts; dialogues have tests of their own."""
    pool: Any = descriptor_pool.Default()
    return [
        method
        for name in await hosted(mesh.channel)
        for method in pool.FindServiceByName(name).methods
        if not method.client_streaming and (method.GetOptions().idempotency_level != 1) == changing
    ]


def rpc_of(method: Any) -> str:
    return f"{method.containing_service.full_name}/{method.name}"


async def called(mesh: Mesh, method: Any, request: Message) -> list[Any]:
    """Call any rpc; gives its answers."""
    kinds: dict[str, Any] = {
        "request_serializer": type(request).SerializeToString,
        "response_deserializer": message_factory.GetMessageClass(method.output_type).FromString,
    }
    path = f"/{rpc_of(method)}"
    if method.server_streaming:
        stream: Any = mesh.channel.unary_stream(path, **kinds)
        return [one async for one in stream(request, timeout=PATIENCE)]
    unary: Any = mesh.channel.unary_unary(path, **kinds)
    return [await unary(request, timeout=PATIENCE)]


async def test_every_rpc_that_changes_something_leaves_one_record_of_its_success(
    mesh: Mesh,
) -> None:
    made = {
        "stalling": (await mesh.start(model="mock-stall")).id,
        "finished": (await mesh.finished()).id,
    }
    changing = await methods(mesh, changing=True)
    assert {method.name for method in changing} <= SUCCEEDING.keys()
    for method in changing:
        request = type(SUCCEEDING[method.name])()
        request.CopyFrom(SUCCEEDING[method.name])
        for field in ("execution_id", "key_id"):
            if field in request.DESCRIPTOR.fields_by_name:
                setattr(request, field, made[getattr(request, field)])
        before = await listed(mesh)

        answers = await called(mesh, method, request)

        record, *others = await listed(mesh)
        assert others == before
        assert (record.rpc, record.outcome, record.reason) == (rpc_of(method), "OK", "")
        assert (record.principal, record.org_id) == ("anonymous", "default")
        assert record.resource_id, method.name
        assert MessageToDict(record)["request"] == MessageToDict(
            request, preserving_proto_field_name=True
        )
        if method.name == "CreateKey":
            made["created"] = record.resource_id
            assert answers[0].secret not in str(record)


async def test_every_rpc_that_changes_something_leaves_one_record_of_its_error(
    mesh: Mesh,
) -> None:
    changing = await methods(mesh, changing=True)
    assert {method.name for method in changing} <= FAILING.keys()
    for method in changing:
        request, reason = FAILING[method.name]
        before = await listed(mesh)

        refused = await refusal(called(mesh, method, request))

        record, *others = await listed(mesh)
        assert others == before
        assert refused.reason == record.reason == reason
        assert (record.rpc, record.outcome) == (rpc_of(method), refused.code.name)


async def test_rpcs_that_only_read_leave_none(mesh: Mesh) -> None:
    execution = await mesh.finished()
    key = Key(name="ci", scopes=[SCOPE_READ])
    made = await KeyServiceStub(mesh.channel).CreateKey(CreateKeyRequest(key=key), timeout=PATIENCE)
    ids = {"execution_id": execution.id, "job_id": execution.id, "key_id": made.id}
    before = await listed(mesh)
    for method in await methods(mesh, changing=False):
        kind = message_factory.GetMessageClass(method.input_type)
        request = kind()
        for field in ids.keys() & kind.DESCRIPTOR.fields_by_name.keys():
            setattr(request, field, ids[field])
        await called(mesh, method, request)
        if "page_token" in kind.DESCRIPTOR.fields_by_name:
            await refusal(called(mesh, method, kind(page_token="made up")))
    assert await listed(mesh) == before


async def test_a_record_holds_the_ids_and_the_caller_of_its_call(mesh: Mesh) -> None:
    request = pb.StartExecutionRequest(input="a").SerializeToString()
    metadata = [
        ("traceparent", f"00-{TRACE}-b7ad6b7169203331-01"),
        ("x-request-id", "call-1"),
        ("x-envoy-external-address", "203.0.113.9"),
    ]

    answer = await mesh.raw(f"/{START}", request, metadata=metadata)

    (record,) = await listed(mesh)
    assert record.id.startswith("audit_")
    assert (record.trace_id, record.call_id) == (TRACE, "call-1")
    assert record.client == "203.0.113.9"
    assert record.resource_id.encode() in answer
    assert record.create_time.ToMicroseconds() > 0


async def test_requests_are_kept_in_any_script_and_without_their_secrets(
    waiting_mesh: Mesh,
) -> None:
    await waiting_mesh.start(
        f"{UNICODE} cmk_hunter2 " + "é" * 1000,
        metadata={"ключ": UNICODE, "X-Api-Key": "hunter3", "max_output_tokens": "5"},
    )

    (record,) = await listed(waiting_mesh)
    request = MessageToDict(record.request)
    assert request["input"].startswith(f"{UNICODE} [redacted] ééé")
    assert request["input"].endswith(f"… ({len(UNICODE) + 1013} characters)")
    assert request["metadata"] == {
        "ключ": UNICODE,
        "X-Api-Key": "[redacted]",
        "max_output_tokens": "5",
    }
    assert "hunter" not in str(record)


async def recorded(mesh: Mesh, **conditions: Any) -> list[AuditRecord]:
    """Wait for a record of a call that nobody waits for."""
    async with asyncio.timeout(PATIENCE):
        while not (found := await listed(mesh, **conditions)):
            await asyncio.sleep(0.01)
    return found


async def test_a_call_that_is_cancelled_leaves_one_record(mesh: Mesh) -> None:
    call = mesh.gateway.Execute(gateway_pb.ExecuteRequest(input="a", model="mock-stall"))
    async with asyncio.timeout(PATIENCE):
        while not (await mesh.executions.ListExecutions(pb.ListExecutionsRequest())).executions:
            await asyncio.sleep(0.01)

    call.cancel()

    (record,) = await recorded(mesh, rpc=EXECUTE)
    assert (record.outcome, record.reason) == ("CANCELLED", "")
    assert record.resource_id.startswith("exec_")


async def test_a_stream_that_is_left_has_one_record_from_its_beginning_on(mesh: Mesh) -> None:
    stream = mesh.executions.RunExecution(
        pb.StartExecutionRequest(input="a", model="mock-stall"), timeout=PATIENCE
    )
    first = await stream.read()
    assert isinstance(first, pb.WatchExecutionResponse)

    (record,) = await listed(mesh)
    assert (record.outcome, record.resource_id) == ("OK", first.event.execution_id)
    stream.cancel()
    await mesh.get(first.event.execution_id)
    assert await listed(mesh) == [record]


async def test_a_call_that_is_repeated_leaves_a_record_each_time(waiting_mesh: Mesh) -> None:
    execution = await waiting_mesh.start(request_id="r")
    await waiting_mesh.start(request_id="r")

    records = await listed(waiting_mesh)
    assert [record.resource_id for record in records] == [execution.id] * 2


def on_disk(folder: Path) -> list[tuple[str, ...]]:
    """What a process killed at this moment leaves behind."""
    db = sqlite3.connect(f"file:{folder / 'execution' / 'execution.db'}?mode=ro", uri=True)
    rows = db.execute("SELECT rpc, json_extract(body, '$.outcome') FROM audit_records").fetchall()
    db.close()
    return rows


async def test_a_record_is_on_disk_before_its_call_is_answered_and_stays_there(
    tmp_path: Path,
) -> None:
    async with served(tmp_path, execution_concurrency=0) as mesh:
        for number in range(1, 6):
            await mesh.start()
            assert on_disk(tmp_path).count((START, "OK")) == number
            missing = pb.CancelExecutionRequest(execution_id="x")
            await refusal(mesh.executions.CancelExecution(missing))
            assert on_disk(tmp_path).count((CANCEL, "NOT_FOUND")) == number
        before = await listed(mesh)
    async with served(tmp_path, execution_concurrency=0) as mesh:
        assert await listed(mesh) == before
        assert len(before) == 10


async def test_a_record_that_cannot_be_stored_leaves_the_answer_as_it_is(
    waiting_mesh: Mesh, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write = SqliteStore.write

    async def failing(store: SqliteStore, *writes: Write) -> None:
        if any(isinstance(one, Insert) and one.collection is AUDIT for one in writes):
            raise store_unavailable()
        await write(store, *writes)

    monkeypatch.setattr(SqliteStore, "write", failing)

    execution = await waiting_mesh.start("my key is cmk_hunter2")

    assert (await waiting_mesh.get(execution.id)).id == execution.id
    missing = pb.CancelExecutionRequest(execution_id="x")
    refused = await refusal(waiting_mesh.executions.CancelExecution(missing))
    assert refused.reason == "EXECUTION_NOT_FOUND"
    assert await listed(waiting_mesh) == []
    started, cancelled = [
        record.facts["audit"]  # type: ignore[attr-defined]  # what `extra` adds
        for record in caplog.records
        if record.levelno == logging.ERROR
    ]
    assert (started["rpc"], started["resource_id"]) == (START, execution.id)
    assert started["request"] == {"input": "my key is [redacted]"}
    assert (cancelled["rpc"], cancelled["reason"]) == (CANCEL, "EXECUTION_NOT_FOUND")


async def test_pages_hold_every_record_once_newest_first(waiting_mesh: Mesh) -> None:
    started = [(await waiting_mesh.start()).id for _ in range(7)]

    for size in (1, 3, 7, 0):
        records = await listed(waiting_mesh, page_size=size)
        assert [record.resource_id for record in records] == started[::-1]


async def test_a_page_that_would_be_too_large_for_clients_is_shorter(waiting_mesh: Mesh) -> None:
    metadata = {f"{number:02}": "𝄞" * 300 for number in range(30)}
    await asyncio.gather(*(waiting_mesh.start(metadata=metadata) for _ in range(200)))

    request = ListAuditRecordsRequest(page_size=200)
    seen = pages = 0
    while True:
        page = await audit_of(waiting_mesh).ListAuditRecords(request, timeout=PATIENCE)
        assert page.ByteSize() < 3 * 1024 * 1024
        seen, pages = seen + len(page.audit_records), pages + 1
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    assert seen == 200
    assert pages > 1


async def test_records_are_found_by_principal_rpc_and_time(waiting_mesh: Mesh) -> None:
    execution = await waiting_mesh.start()
    await waiting_mesh.executions.CancelExecution(
        pb.CancelExecutionRequest(execution_id=execution.id), timeout=PATIENCE
    )
    cancelled, started = await listed(waiting_mesh)

    assert await listed(waiting_mesh, rpc=CANCEL) == [cancelled]
    assert await listed(waiting_mesh, principal="anonymous") == [cancelled, started]
    assert await listed(waiting_mesh, principal="bootstrap") == []
    assert await listed(waiting_mesh, create_time_from=cancelled.create_time) == [cancelled]
    assert await listed(waiting_mesh, create_time_before=cancelled.create_time) == [started]


async def test_a_token_is_good_for_the_same_filters_only(waiting_mesh: Mesh) -> None:
    for _ in range(2):
        await waiting_mesh.start()
    audit = audit_of(waiting_mesh)
    page = await audit.ListAuditRecords(ListAuditRecordsRequest(page_size=1), timeout=PATIENCE)

    for conditions in ({"rpc": START}, {"org_id": "-"}, {"principal": "anonymous"}):
        request = ListAuditRecordsRequest(page_token=page.next_page_token, **conditions)  # type: ignore[arg-type]  # texts, all of them
        refused = await refusal(audit.ListAuditRecords(request))
        assert refused.reason == "PAGE_TOKEN_INVALID"


class Believing:
    """Believes who callers say they are: `org/name/scope`."""

    async def admit(self, served: Call, access: Access, request: Message | None) -> None:
        org, name, scope = served.metadata["caller"].split("/")
        served.principal = Principal(org, name, frozenset({Scope(scope)}))

    async def pace(self, served: Call) -> None:
        """Count nothing."""


@asynccontextmanager
async def guarded(folder: Path) -> AsyncIterator[Mesh]:
    async with AsyncExitStack() as stack:
        content = await stack.enter_async_context(FakeContent())
        settings = ExecutionSettings(
            data_dir=folder,
            execution_address="127.0.0.1:0",
            execution_concurrency=0,
            peers={"content": content.target},
        )
        app = dataclasses.replace(await compose(settings, stack), guard=Believing())
        server = await stack.enter_async_context(serving(app, grace_seconds=1))
        target = f"127.0.0.1:{server.port}"
        yield Mesh(await stack.enter_async_context(grpc.aio.insecure_channel(target)), server.port)


async def test_an_organisation_sees_its_own_records_and_an_operator_all(tmp_path: Path) -> None:
    async with guarded(tmp_path) as mesh:
        started = {}
        for org in ("acme", "other"):
            execution = await mesh.executions.StartExecution(
                pb.StartExecutionRequest(input="a"),
                metadata=[("caller", f"{org}/jwt:alice/run")],
                timeout=PATIENCE,
            )
            started[org] = execution.id

        async def seen(caller: str, org_id: str) -> list[tuple[str, str]]:
            response = await audit_of(mesh).ListAuditRecords(
                ListAuditRecordsRequest(org_id=org_id),
                metadata=[("caller", caller)],
                timeout=PATIENCE,
            )
            return [(record.org_id, record.resource_id) for record in response.audit_records]

        acme, other = ("acme", started["acme"]), ("other", started["other"])
        assert await seen("acme/key:1/admin", "") == [acme]
        assert await seen("acme/key:1/admin", "acme") == [acme]
        for org_id in ("other", "-", "nobody"):
            refused = await refusal(seen("acme/key:1/admin", org_id))
            assert refused.kind == (grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED")
            assert refused.fields == ["org_id"]
        assert await seen("acme/bootstrap/operator", "") == [acme]
        assert await seen("acme/bootstrap/operator", "other") == [other]
        assert await seen("acme/bootstrap/operator", "-") == [other, acme]
        assert await seen("acme/bootstrap/operator", "nobody") == []


async def test_old_records_are_deleted_at_the_start_and_kept_when_all_are_to_be(
    tmp_path: Path,
) -> None:
    async with served(tmp_path, execution_concurrency=0) as mesh:
        for _ in range(3):
            await mesh.start()
        new = (await listed(mesh))[0]
    db = sqlite3.connect(tmp_path / "execution" / "execution.db")
    db.execute("UPDATE audit_records SET create_time = 0 WHERE id != ?", (new.id,))
    db.commit()
    db.close()
    async with served(tmp_path, execution_concurrency=0, audit_retention_days=0) as mesh:
        assert len(await listed(mesh)) == 3
    async with served(tmp_path, execution_concurrency=0, audit_retention_days=1) as mesh:
        async with asyncio.timeout(PATIENCE):
            while len(records := await listed(mesh)) > 1:
                await asyncio.sleep(0.01)
        assert records == [new]
