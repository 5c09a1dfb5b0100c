"""Records of calls: what is in them, what happens when they cannot be stored, how long they stay."""

from __future__ import annotations

import asyncio
import logging

import pytest
from google.protobuf.empty_pb2 import Empty
from google.protobuf.json_format import ParseDict
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct

from conductor.content.v1.agent_pb2 import Agent
from conductor.content.v1.agent_service_pb2 import DeleteAgentRequest, UpdateAgentRequest
from conductor.content.v1.persona_pb2 import Persona
from conductor.content.v1.persona_service_pb2 import UpdatePersonaRequest
from conductor.content.v1.screenplay_pb2 import Screenplay
from conductor.content.v1.screenplay_service_pb2 import (
    ImportScreenplayRequest,
    UpdateScreenplayRequest,
)
from conductor.execution.v1.execution_pb2 import Execution
from conductor.execution.v1.execution_service_pb2 import (
    CancelExecutionRequest,
    StartExecutionRequest,
)
from conductor.gateway.v1.gateway_service_pb2 import StreamExecuteResponse
from services.kit.audit import AUDIT, AuditFilter, AuditRecord, AuditRetention, StoredAudit
from services.kit.call import Call
from services.kit.errors import DomainError
from services.kit.principals import Principal, Scope
from services.kit.redaction import REDACTED
from services.kit.storage.ports import Query, Replace, Write, store_full, store_unavailable
from services.kit.tasks import ended
from tests.fakes.memory import Memory, MemoryStore
from tests.fakes.virtual import EPOCH, clock, in_virtual_time

HOUR = 3600 * 1_000_000
DAY = 24 * HOUR
CANCEL = "conductor.execution.v1.ExecutionService/CancelExecution"
SECRET = "cmk_0123456789"


class Failing(MemoryStore):
    """Fails when it is told to, and can be held up."""

    def __init__(self) -> None:
        super().__init__(Memory(), [AUDIT])
        self.failure: Exception | None = None
        self.open = asyncio.Event()
        self.open.set()

    async def write(self, *writes: Write) -> None:
        await self.open.wait()
        if self.failure is not None:
            raise self.failure
        await super().write(*writes)


def made_by(name: str = "jwt:alice", org: str = "acme", **metadata: str) -> Call:
    headers = {key.replace("_", "-"): value for key, value in metadata.items()}
    principal = Principal(org, name, frozenset({Scope.RUN}))
    return Call(f"/{CANCEL}", headers, "call-1", "0" * 32, principal=principal)


async def kept(
    audit: StoredAudit, call: Call, request: Message, response: Message | bytes | None = None
) -> AuditRecord:
    await audit.record(call, request, response, "OK", "")
    return (await audit.list(AuditFilter(None), None, 1))[0]


async def test_a_record_says_who_did_what_and_how_it_ended() -> None:
    audit = StoredAudit(Failing(), "execution", clock=lambda: EPOCH)
    call = made_by(x_envoy_external_address="203.0.113.9", x_forwarded_for="claimed")

    await audit.record(
        call, CancelExecutionRequest(execution_id="exec_1"), None, "NOT_FOUND", "GONE"
    )

    (record,) = await audit.list(AuditFilter("acme"), None, 10)
    assert record.id.startswith("audit_")
    assert record == AuditRecord(
        record.id,
        EPOCH,
        "acme",
        "jwt:alice",
        CANCEL,
        "NOT_FOUND",
        {"execution_id": "exec_1"},
        "GONE",
        "0" * 32,
        "call-1",
        "203.0.113.9",
        "exec_1",
    )


@pytest.mark.parametrize(
    ("response", "named"),
    [
        (Execution(id="exec_2"), "exec_2"),
        (StreamExecuteResponse(job_id="exec_3"), "exec_3"),
        (Execution(), "exec_1"),
        (Execution(id="exec_2").SerializeToString(), "exec_1"),
        (None, "exec_1"),
    ],
    ids=["id", "job_id", "empty", "serialized", "none"],
)
async def test_the_resource_is_that_of_the_answer_or_else_of_the_request(
    response: Message | bytes | None, named: str
) -> None:
    audit = StoredAudit(Failing(), "execution")
    request = CancelExecutionRequest(execution_id="exec_1")

    assert (await kept(audit, made_by(), request, response)).resource_id == named
    said = made_by()
    said.resource_id = "exec_4"
    assert (await kept(audit, said, request, response)).resource_id == "exec_4"
    nothing = StartExecutionRequest(input="a", agent_id="writer")
    assert (await kept(audit, made_by(), nothing)).resource_id == ""
    updated = UpdateAgentRequest(agent=Agent(id="writer", name="W"))
    assert (await kept(audit, made_by(), updated)).resource_id == "writer"
    deleted = DeleteAgentRequest(agent_id="writer")
    assert (await kept(audit, made_by(), deleted, Empty())).resource_id == "writer"


@pytest.mark.parametrize(
    "request_",
    [
        UpdateAgentRequest(agent=Agent(id="a", instructions="Confide.")),
        UpdatePersonaRequest(persona=Persona(agent_id="a", content="Confide.")),
        UpdatePersonaRequest(persona=Persona(metadata=ParseDict({"why": "Confide."}, Struct()))),
        UpdateScreenplayRequest(screenplay=Screenplay(id="play_1", content="Confide.")),
        ImportScreenplayRequest(import_path="a.md", content="Confide."),
    ],
)
async def test_what_people_write_is_not_kept_for_longer_than_they_keep_it(
    request_: Message,
) -> None:
    record = await kept(StoredAudit(Failing(), "content"), made_by(), request_)

    assert "Confide" not in str(record)
    assert REDACTED in str(record.request)


async def test_no_header_or_id_brings_a_secret_in_or_makes_a_record_large() -> None:
    call = made_by(x_envoy_external_address=f"Bearer {SECRET}")
    call.call_id = SECRET + "x" * 10_000

    record = await kept(
        StoredAudit(Failing(), "execution"), call, CancelExecutionRequest(execution_id=SECRET)
    )

    assert SECRET not in str(record)
    assert len(str(record)) < 1000


@pytest.mark.parametrize("failure", [store_unavailable(), store_full(), RuntimeError("hunter2")])
async def test_a_record_that_cannot_be_stored_goes_to_the_log_whole_and_redacted(
    failure: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    store = Failing()
    store.failure = failure
    request = StartExecutionRequest(input=f"use {SECRET}", metadata={"password": "hunter3"})

    await StoredAudit(store, "execution").record(made_by(), request, None, "OK", "")

    (line,) = caplog.records
    assert line.levelno == logging.ERROR
    facts = line.facts["audit"]  # type: ignore[attr-defined]  # what `extra` adds
    assert facts["request"] == {
        "input": "use [redacted]",
        "metadata": {"password": "[redacted]"},
    }
    assert (facts["org"], facts["principal"], facts["rpc"]) == ("acme", "jwt:alice", CANCEL)


async def test_a_call_that_is_cancelled_while_its_record_is_stored_keeps_it() -> None:
    store = Failing()
    store.open.clear()
    audit = StoredAudit(store, "execution")
    request = CancelExecutionRequest(execution_id="exec_1")
    recording = asyncio.create_task(audit.record(made_by(), request, None, "OK", ""))
    await asyncio.sleep(0)
    await asyncio.sleep(0)

    recording.cancel()
    with pytest.raises(asyncio.CancelledError):
        await recording
    closing = asyncio.create_task(audit.close())
    await asyncio.sleep(0)
    assert not closing.done()
    store.open.set()
    await closing

    assert len(await audit.list(AuditFilter("acme"), None, 10)) == 1


async def test_records_are_found_by_every_filter_and_by_all_of_them() -> None:
    now = EPOCH
    audit = StoredAudit(Failing(), "execution", clock=lambda: now)
    for org, name in (("acme", "jwt:alice"), ("acme", "bootstrap"), ("other", "jwt:alice")):
        await audit.record(made_by(name, org), CancelExecutionRequest(), None, "OK", "")
        now += 1

    async def found(**conditions: object) -> list[int]:
        where = AuditFilter(**({"org": None} | conditions))  # type: ignore[arg-type]  # a test says which
        return [record.create_time - EPOCH for record in await audit.list(where, None, 10)]

    assert await found() == [2, 1, 0]
    assert await found(org="acme") == [1, 0]
    assert await found(org="nobody") == []
    assert await found(principal="jwt:alice") == [2, 0]
    assert await found(rpc=CANCEL) == [2, 1, 0]
    assert await found(rpc="CancelExecution") == []
    assert await found(from_time=EPOCH + 1, before_time=EPOCH + 2) == [1]
    assert await found(org="acme", principal="jwt:alice", rpc=CANCEL, from_time=EPOCH) == [0]


async def filled(store: MemoryStore, *ages: int) -> None:
    """Store a record for each age, of organisations in turn."""
    for number, age in enumerate(ages):
        audit = StoredAudit(store, "execution", clock=lambda age=age: EPOCH - age)  # type: ignore[misc]  # mypy cannot infer it
        await audit.record(made_by(org=f"org{number % 3}"), CancelExecutionRequest(), None, "", "")


async def ages(store: MemoryStore) -> list[int]:
    documents = await store.query(Query(AUDIT, None, limit=10_000))
    return sorted(EPOCH - document.create_time for document in documents)


def retention(store: MemoryStore) -> AuditRetention:
    return AuditRetention(store, "execution", keep_days=1, clock=lambda: EPOCH)


async def test_only_records_that_are_old_enough_are_deleted_of_every_organisation() -> None:
    store = Failing()
    await filled(store, *range(DAY - 250, DAY + 250))

    await retention(store).sweep()

    assert await ages(store) == list(range(DAY - 250, DAY + 1))


class Raced(Failing):
    """Somebody else changes or deletes each second document at the same time."""

    async def query(self, query: Query) -> list[object]:  # type: ignore[override]  # documents all the same
        page = await super().query(query)
        for document in page[::2] if query.keys_only else ():
            await super().write(Replace(AUDIT, document))
        return list(page)


async def test_sweeps_of_several_processes_do_not_mind_each_other() -> None:
    store = Failing()
    await filled(store, *range(2 * DAY, 2 * DAY + 300))
    await asyncio.gather(*(retention(store).sweep() for _ in range(3)))
    assert await ages(store) == []

    raced = Raced()
    await filled(raced, 2 * DAY, 2 * DAY + 1)
    await retention(raced).sweep()
    assert await ages(raced) == [2 * DAY + 1]


@in_virtual_time
async def test_records_are_swept_at_the_start_and_every_hour_whatever_the_store_does() -> None:
    store = Failing()
    await filled(store, DAY - HOUR, DAY - HOUR // 2, DAY + HOUR)
    serving = asyncio.create_task(
        AuditRetention(store, "execution", keep_days=1, clock=clock).serve()
    )
    await asyncio.sleep(1)
    assert len(await ages(store)) == 2
    store.failure = store_unavailable()
    await asyncio.sleep(3601)
    assert len(await ages(store)) == 2
    store.failure = None
    await asyncio.sleep(3600)
    assert await ages(store) == []
    await ended(serving)


def test_only_an_operator_lists_what_is_not_its_own_organisations() -> None:
    admin = Principal("acme", "key:1", frozenset({Scope.ADMIN}))
    assert admin.org_to_list("") == admin.org_to_list("acme") == "acme"
    for asked in ("other", "-"):
        with pytest.raises(DomainError, match="org_id") as caught:
            admin.org_to_list(asked)
        assert [violation.field for violation in caught.value.violations] == ["org_id"]
    operator = Principal("acme", "bootstrap", frozenset({Scope.OPERATOR}))
    assert operator.org_to_list("other") == "other"
    assert operator.org_to_list("-") is None
