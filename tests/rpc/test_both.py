"""Two services as one mesh: keys, principals, audit records, health."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from conductor.audit.v1.audit_record_pb2 import AuditRecord
from conductor.audit.v1.audit_service_pb2 import ListAuditRecordsRequest, ListAuditRecordsResponse
from conductor.auth.v1 import access_pb2
from conductor.auth.v1 import key_service_pb2 as keys_pb
from conductor.auth.v1.key_pb2 import Key
from conductor.execution.v1 import execution_service_pb2 as pb
from conductor.gateway.v1.gateway_service_pb2 import GetHealthRequest
from services.content.app import compose
from services.content.settings import ContentSettings
from services.kit import ids, messages
from services.kit.audit import AUDIT, StoredAudit
from services.kit.audit_service import merged
from services.kit.call import Call
from services.kit.principals import Principal, Scope
from services.kit.settings import SettingsError
from services.kit.signing import PRINCIPAL, Signer
from services.kit.storage.opening import open_store
from services.kit.telemetry import Telemetry
from services.kit.tracing import Kind
from tests.fakes.tracer import Spans
from tests.patience import PATIENCE
from tests.rpc.both import CONTENT, EXECUTION, Both, both_served
from tests.rpc.serving import refusal

BOOTSTRAP = "the-first-key-of-all-of-this-mesh-as-configured"
SECRET = "the-secret-of-this-mesh,-shared-by-its-processes"
AUTH: dict[str, Any] = {"auth": "on", "mesh_secret": SECRET, "bootstrap_key": BOOTSTRAP}
UNAUTHENTICATED = (grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED")
AWAY = (grpc.StatusCode.UNAVAILABLE, "SERVICE_UNAVAILABLE")
LIST = "conductor.audit.v1.AuditService/ListAuditRecords"
ANYONE = ""
SECOND = 1_000_000


@pytest.fixture
async def open_both(tmp_path: Path) -> AsyncIterator[Both]:
    """Without authentication; no run begins."""
    async with both_served(tmp_path, execution_concurrency=0) as both:
        yield both


@pytest.fixture
async def both(tmp_path: Path) -> AsyncIterator[Both]:
    """With authentication; no run begins."""
    async with both_served(tmp_path, execution_concurrency=0, **AUTH) as both:
        yield both


def shown(key: str) -> tuple[tuple[str, str], ...]:
    return (("x-api-key", key),) if key else ()


async def new_key(both: Both, org: str = "acme", *scopes: str) -> Key:
    wanted = [access_pb2.Scope.Value(f"SCOPE_{scope}") for scope in scopes or ("ADMIN",)]
    request = keys_pb.CreateKeyRequest(key=Key(name="tests", org_id=org, scopes=wanted))
    return await both.keys.CreateKey(request, metadata=shown(BOOTSTRAP), timeout=PATIENCE)


async def page(
    both: Both, key: str = ANYONE, service: str = EXECUTION, **conditions: Any
) -> ListAuditRecordsResponse:
    request = ListAuditRecordsRequest(**conditions)
    stub = both.audit(service)
    return await stub.ListAuditRecords(request, metadata=shown(key), timeout=PATIENCE)


async def listed(both: Both, key: str = ANYONE, **conditions: Any) -> list[AuditRecord]:
    """Every page, one after the other."""
    found: list[AuditRecord] = []
    token = ""
    while True:
        response = await page(both, key, page_token=token, **conditions)
        size = conditions.get("page_size") or 50
        found += response.audit_records
        token = response.next_page_token
        if not token:
            return found
        assert len(response.audit_records) == size


async def record(
    both: Both, service: str, org: str, times: Iterable[int], text: str = "a"
) -> list[str]:
    """Have a service keep records made at these times; gives their ids."""
    made: list[str] = []
    async with AsyncExitStack() as stack:
        store = await open_store(ContentSettings(data_dir=both.folder), service, [AUDIT], [], stack)
        audit = StoredAudit(store, service, clock=lambda: time)
        for time in times:
            served = Call(f"/{service}/Changes", {}, "call", "0" * 32)
            served.principal = Principal(org, "tests")
            served.resource_id = f"{service}-{time}-{len(made)}"
            request = pb.StartExecutionRequest(input=text)
            await audit.record(served, request, None, "OK", "")
            made.append(served.resource_id)
    return made


async def test_a_key_made_at_one_service_opens_the_other_and_counts_as_used(both: Both) -> None:
    key = await new_key(both)

    await page(both, key.secret, CONTENT)

    async def used() -> bool:
        request = keys_pb.ListKeysRequest(org_id="acme")
        answer = await both.keys.ListKeys(request, metadata=shown(BOOTSTRAP), timeout=PATIENCE)
        return answer.keys[0].HasField("last_use_time")

    async with asyncio.timeout(PATIENCE):
        while not await used():
            await asyncio.sleep(0.01)


async def test_what_is_no_key_any_more_opens_neither(both: Both) -> None:
    key = await new_key(both)
    await both.keys.RevokeKey(
        keys_pb.RevokeKeyRequest(key_id=key.id), metadata=shown(BOOTSTRAP), timeout=PATIENCE
    )
    other = f"cmk_{key.id}_{'0' * 64}"

    for wrong in (ANYONE, "cmk_nothing", key.secret, other, f"cmk_{'0' * 32}_{'0' * 64}"):
        for service in (CONTENT, EXECUTION):
            refused = await refusal(page(both, wrong, service))
            assert refused.kind == UNAUTHENTICATED, (wrong, service)


async def test_scopes_of_a_key_hold_at_the_other_service(both: Both) -> None:
    key = await new_key(both, "acme", "RUN")

    refused = await refusal(page(both, key.secret, CONTENT))

    assert refused.kind == (grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED")


async def test_what_is_known_of_keys_outlives_the_service_that_stores_them(both: Both) -> None:
    known, unknown = await new_key(both), await new_key(both)
    await page(both, known.secret, CONTENT)
    await both.stop(EXECUTION)

    await page(both, known.secret, CONTENT)
    await page(both, BOOTSTRAP, CONTENT)
    refused = await refusal(page(both, unknown.secret, CONTENT))
    assert refused.kind == AWAY
    assert refused.resources == [("service", "execution")]

    await both.start(EXECUTION)

    async def let_in() -> bool:
        try:
            await page(both, unknown.secret, CONTENT)
        except grpc.aio.AioRpcError:
            return False
        return True

    async with asyncio.timeout(PATIENCE):
        while not await let_in():
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("scope", ["ADMIN", "OPERATOR"])
async def test_what_services_know_of_a_key_is_told_to_nobody_else(both: Both, scope: str) -> None:
    key = await new_key(both, "acme", scope)
    request = keys_pb.ResolveKeyRequest(key_id=key.id)

    refused = await refusal(
        both.keys.ResolveKey(request, metadata=shown(key.secret), timeout=PATIENCE)
    )

    assert refused.kind == (grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED")


async def test_records_of_all_services_are_one_list(open_both: Both) -> None:
    mine = await record(open_both, EXECUTION, "default", [1, 5, 5, 5, 9, 40])
    others = await record(open_both, CONTENT, "default", [2, 5, 5, 8, 30, 31, 32, 33])

    whole = await listed(open_both)

    assert {one.resource_id for one in whole} == {*mine, *others}
    places = [(one.create_time.ToMicroseconds(), one.id) for one in whole]
    assert places == sorted(places, reverse=True)
    for size in range(1, len(whole) + 1):
        assert await listed(open_both, page_size=size) == whole, size


async def test_filters_and_tokens_hold_for_all_services(open_both: Both) -> None:
    await record(open_both, EXECUTION, "default", range(0, 20 * SECOND, SECOND))
    await record(open_both, CONTENT, "default", range(0, 20 * SECOND, SECOND))
    since, until = Timestamp(seconds=5), Timestamp(seconds=10)

    for rpc, expected in (("", 10), (f"{CONTENT}/Changes", 5), (f"{EXECUTION}/Changes", 5)):
        conditions: dict[str, Any] = {
            "create_time_from": since,
            "create_time_before": until,
            "rpc": rpc,
        }
        whole = await listed(open_both, page_size=3, **conditions)
        assert len(whole) == len({one.id for one in whole}) == expected
    token = (await page(open_both, page_size=3)).next_page_token
    refused = await refusal(page(open_both, page_token=token, rpc="x/Y"))
    assert refused.kind == (grpc.StatusCode.INVALID_ARGUMENT, "PAGE_TOKEN_INVALID")


async def test_what_does_not_fit_a_page_is_on_the_next(open_both: Both) -> None:
    for service in (EXECUTION, CONTENT):
        await record(open_both, service, "default", range(150), text="x" * 40_000)

    found: list[AuditRecord] = []
    token = ""
    async with asyncio.timeout(PATIENCE):
        while token or not found:
            answer = await page(open_both, page_size=200, page_token=token)
            found += answer.audit_records
            token = answer.next_page_token

    assert len(found) == len({one.id for one in found}) == 300
    places = [(one.create_time.ToMicroseconds(), one.id) for one in found]
    assert places == sorted(places, reverse=True)


async def test_a_service_that_is_asked_by_another_answers_for_itself(open_both: Both) -> None:
    await record(open_both, EXECUTION, "default", [1])
    (own,) = await record(open_both, CONTENT, "default", [2])

    answer = await page(open_both, service=CONTENT)

    assert [one.resource_id for one in answer.audit_records] == [own]


async def test_half_a_list_is_no_list(open_both: Both) -> None:
    await record(open_both, EXECUTION, "default", [1])
    await open_both.stop(CONTENT)

    refused = await refusal(page(open_both))

    assert refused.kind == AWAY
    assert refused.resources == [("service", "content")]


async def test_everybody_sees_the_records_of_their_organisation_alone(both: Both) -> None:
    acme, bolt = await new_key(both, "acme"), await new_key(both, "bolt")
    mine = await record(both, CONTENT, "acme", [1, 2])
    theirs = await record(both, CONTENT, "bolt", [3])
    await record(both, EXECUTION, "bolt", [4])

    assert [one.resource_id for one in await listed(both, acme.secret)] == mine[::-1]
    assert len(await listed(both, bolt.secret)) == 2
    everything = await listed(both, BOOTSTRAP, org_id="-")
    assert {*mine, *theirs} < {one.resource_id for one in everything}
    assert len({one.id for one in everything}) == len(everything)


@pytest.mark.parametrize("auth", ["on", "off"])
async def test_a_call_that_is_passed_on_is_counted_once(tmp_path: Path, auth: str) -> None:
    settings = AUTH if auth == "on" else {}
    key = BOOTSTRAP if auth == "on" else ANYONE
    # One call, and the next one in a quarter of an hour.
    async with both_served(tmp_path, execution_concurrency=0, rate_limit=0.001, **settings) as both:
        await page(both, key)
        limited = (grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMITED")
        assert (await refusal(page(both, key))).kind == limited
        # Passed on to content it was not counted there, and each service counts for itself.
        await page(both, key, CONTENT)
        assert (await refusal(page(both, key, CONTENT))).kind == limited


async def test_only_who_was_signed_for_is_believed(both: Both) -> None:
    ada = Principal("acme", "key:ada", frozenset({Scope.ADMIN}))
    signed = Signer(SECRET, ids.now).principal(ada)
    forged = Signer("of another mesh", ids.now).principal(ada)
    stub = both.audit(CONTENT)

    await stub.ListAuditRecords(
        ListAuditRecordsRequest(), metadata=((PRINCIPAL, signed),), timeout=PATIENCE
    )
    refused = await refusal(
        stub.ListAuditRecords(
            ListAuditRecordsRequest(),
            metadata=((PRINCIPAL, forged), *shown(BOOTSTRAP)),
            timeout=PATIENCE,
        )
    )

    assert refused.kind == UNAUTHENTICATED


async def test_a_service_that_is_down_is_named_by_health(open_both: Both) -> None:
    gateway = open_both.mesh.gateway
    health = await gateway.GetHealth(GetHealthRequest(), timeout=PATIENCE)
    assert [one.name for one in health.parts] == ["store", "worker", "content"]

    await open_both.stop(CONTENT)

    refused = await refusal(gateway.GetHealth(GetHealthRequest(), timeout=PATIENCE))
    assert refused.kind == (grpc.StatusCode.UNAVAILABLE, "UNHEALTHY")
    assert refused.resources == [("part", "content")]


async def test_a_trace_goes_from_service_to_service(tmp_path: Path) -> None:
    spans = Spans()
    trace, caller = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    async with both_served(tmp_path, Telemetry(tracer=spans), execution_concurrency=0) as both:
        await both.audit(EXECUTION).ListAuditRecords(
            ListAuditRecordsRequest(),
            metadata=(("traceparent", f"00-{trace}-{caller}-01"),),
            timeout=PATIENCE,
        )

    calls = [one for one in spans.ended if one.name == LIST]
    by_id = {one.span_id: one for one in calls}
    there = next(
        one
        for one in calls
        if one.parent and one.parent.span_id in by_id and one.kind is Kind.SERVER
    )
    assert there.parent is not None
    between = by_id[there.parent.span_id]
    assert between.parent is not None
    here = by_id[between.parent.span_id]
    assert (between.kind, here.kind) == (Kind.CLIENT, Kind.SERVER)
    assert here.parent is not None
    assert here.parent.span_id == caller
    assert {one.trace_id for one in calls} == {trace}


async def test_a_service_that_needs_another_one_is_told_where_it_is(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"data_dir": tmp_path}
    async with AsyncExitStack() as stack:
        await compose(ContentSettings(**settings), stack)
    async with AsyncExitStack() as stack:
        with pytest.raises(SettingsError, match="content calls execution, and CONDUCTOR_PEERS"):
            await compose(ContentSettings(**settings, **AUTH), stack)


def test_what_follows_a_part_that_was_cut_waits_for_the_rest_of_it() -> None:
    def rows(*times: int) -> list[AuditRecord]:
        return [
            AuditRecord(id=f"audit_{time}", create_time=messages.timestamp(time)) for time in times
        ]

    cut, whole = (rows(9, 7), True), (rows(8, 6, 5), False)

    for parts in itertools.permutations([cut, whole]):
        found, more = merged(parts, 10)
        assert (found, more) == (rows(9, 8, 7), True)
    assert merged([(rows(9, 7), False), whole], 10) == (rows(9, 8, 7, 6, 5), False)
    assert merged([(rows(9, 7), False), whole], 2) == (rows(9, 8), True)
    assert merged([([], False), whole], 3) == (rows(8, 6, 5), False)
    assert merged([([], False)], 3) == ([], False)
