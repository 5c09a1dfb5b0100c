"""Keys over the real service: who is let in, to what, and what nobody sees of others."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
from google.protobuf import descriptor_pool
from google.protobuf.timestamp_pb2 import Timestamp
from grpc_channelz.v1 import channelz_pb2, channelz_pb2_grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from conductor.audit.v1.audit_service_pb2 import ListAuditRecordsRequest
from conductor.audit.v1.audit_service_pb2_grpc import AuditServiceStub
from conductor.auth.v1 import access_pb2
from conductor.auth.v1 import key_service_pb2 as pb
from conductor.auth.v1.key_pb2 import Key
from conductor.auth.v1.key_service_pb2_grpc import KeyServiceStub
from conductor.execution.v1 import execution_service_pb2 as execution_pb
from conductor.execution.v1.execution_service_pb2_grpc import ExecutionServiceStub
from conductor.gateway.v1 import gateway_service_pb2 as gateway_pb
from conductor.gateway.v1.gateway_service_pb2_grpc import GatewayServiceStub
from services.execution.app import compose
from services.execution.settings import ExecutionSettings
from services.execution.stores import StoredKeys
from services.kit import ids
from services.kit.guard import OpenGuard, access_of
from services.kit.keys import mint
from services.kit.principals import Principal, Scope
from services.kit.server import serving
from services.kit.settings import SettingsError
from services.kit.signing import PRINCIPAL, Signer, edge_proof
from services.kit.storage.ports import store_unavailable
from tests.fakes.content import FakeContent
from tests.patience import PATIENCE
from tests.rpc.serving import (
    Mesh,
    Refusal,
    body_of,
    frames,
    hosted,
    refusal,
    served,
    stream_refusal,
)

REFUSED_WITHIN = 10.0
"""Seconds after which no process takes a key that is no more: twice what is promised."""
SECRET = "the secret of this mesh, shared by its processes".replace(" ", "-")
BOOTSTRAP = "the-first-key-of-all-of-this-mesh-as-configured"
ISSUER, AUDIENCE = "https://issuer.example.org", "mesh"
AUTH: dict[str, Any] = {
    "auth": "on",
    "mesh_secret": SECRET,
    "bootstrap_key": BOOTSTRAP,
    "jwt_issuer": ISSUER,
    "jwt_audience": AUDIENCE,
}
UNAUTHENTICATED = (grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED")
DENIED = (grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED")
NO_EXECUTION = (grpc.StatusCode.NOT_FOUND, "EXECUTION_NOT_FOUND")
NO_KEY = (grpc.StatusCode.NOT_FOUND, "KEY_NOT_FOUND")
OPEN = {
    "/grpc.health.v1.Health/Check",
    "/grpc.health.v1.Health/List",
    "/grpc.health.v1.Health/Watch",
    "/conductor.gateway.v1.GatewayService/GetHealth",
}
FOREIGN = {
    "grpc.reflection.v1alpha.ServerReflection": Scope.READ,
    "grpc.channelz.v1.Channelz": Scope.OPERATOR,
}

Metadata = tuple[tuple[str, str], ...]


@dataclass
class Caller:
    """Somebody with a key, or without."""

    mesh: Mesh
    metadata: Metadata = ()

    def __post_init__(self) -> None:
        options = [("grpc.use_local_subchannel_pool", 1)]
        self.channel = grpc.aio.insecure_channel(
            f"127.0.0.1:{self.mesh.port}",
            options=options,
            interceptors=[_Unary(self.metadata), _Stream(self.metadata)],
        )
        self.keys = KeyServiceStub(self.channel)
        self.executions = ExecutionServiceStub(self.channel)
        self.gateway = GatewayServiceStub(self.channel)

    async def create(self, *scopes: str, org: str = "", **fields: Any) -> Key:
        wanted = [access_pb2.Scope.Value(f"SCOPE_{scope.upper()}") for scope in scopes or ["run"]]
        key = Key(name="tests", org_id=org, scopes=wanted, **fields)
        return await self.keys.CreateKey(pb.CreateKeyRequest(key=key), timeout=PATIENCE)

    async def listed(self, org: str = "", **fields: Any) -> list[str]:
        request = pb.ListKeysRequest(org_id=org, **fields)
        return [key.id for key in (await self.keys.ListKeys(request, timeout=PATIENCE)).keys]

    async def start(self, text: str = "Hello", **fields: Any) -> str:
        request = execution_pb.StartExecutionRequest(input=text, **fields)
        return (await self.executions.StartExecution(request, timeout=PATIENCE)).id


class _Unary(grpc.aio.UnaryUnaryClientInterceptor):
    def __init__(self, metadata: Metadata) -> None:
        self._metadata = metadata

    async def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        return await continuation(_with(details, self._metadata), request)


class _Stream(grpc.aio.UnaryStreamClientInterceptor):
    def __init__(self, metadata: Metadata) -> None:
        self._metadata = metadata

    async def intercept_unary_stream(self, continuation: Any, details: Any, request: Any) -> Any:
        return await continuation(_with(details, self._metadata), request)


def _with(details: Any, metadata: Metadata) -> Any:
    sent = grpc.aio.Metadata(*(details.metadata or ()), *metadata)
    return details._replace(metadata=sent)


class Callers:
    """The people of one mesh."""

    def __init__(self, mesh: Mesh) -> None:
        self.mesh = mesh
        self._all: list[Caller] = []
        self.nobody = self.showing()
        self.operator = self.showing(("x-api-key", BOOTSTRAP))

    def showing(self, *metadata: tuple[str, str]) -> Caller:
        self._all.append(Caller(self.mesh, metadata))
        return self._all[-1]

    def with_key(self, text: str) -> Caller:
        return self.showing(("x-api-key", text))

    async def of(self, org: str, *scopes: str) -> Caller:
        return self.with_key((await self.operator.create(*scopes, org=org)).secret)

    async def close(self) -> None:
        for caller in self._all:
            await caller.channel.close()


@pytest_asyncio.fixture
async def callers(tmp_path: Path) -> AsyncIterator[Callers]:
    """A mesh with authentication on, whose model `brisk` says 30 words, one each 10 ms."""
    models = {"brisk": {"tokens": 30, "delay_ms": 10}}
    async with served(tmp_path, execution_mock_models=models, **AUTH) as mesh:
        callers = Callers(mesh)
        yield callers
        await callers.close()


async def reflected(channel: grpc.aio.Channel, metadata: Metadata = ()) -> list[str]:
    """The services there are, asked of the mesh itself."""
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    requests = [reflection_pb2.ServerReflectionRequest(list_services="")]
    call = stub.ServerReflectionInfo(iter(requests), metadata=metadata, timeout=PATIENCE)
    answers = [answer async for answer in call]
    return [service.name for service in answers[0].list_services_response.service]


async def every_method(mesh: Mesh) -> dict[str, Any]:
    """The descriptors of all methods that are hosted, found by reflection and health."""
    told = await reflected(mesh.channel, (("x-api-key", BOOTSTRAP),))
    ours = set(await hosted(mesh.channel))
    assert ours <= set(told)
    names = [name for name in told if name in ours or not name.startswith("conductor.")]
    pool: Any = descriptor_pool.Default()
    return {
        f"/{name}/{method.name}": method
        for name in names
        for method in pool.FindServiceByName(name).methods
    }


async def outcome(mesh: Mesh, path: str, method: Any, *metadata: tuple[str, str]) -> Refusal:
    """How a call with an empty message is refused."""
    shape = {
        (False, False): mesh.channel.unary_unary,
        (False, True): mesh.channel.unary_stream,
        (True, True): mesh.channel.stream_stream,
    }[method.client_streaming, method.server_streaming]
    callable_: Any = shape(path)
    asked = iter([b""]) if method.client_streaming else b""
    call = callable_(asked, metadata=metadata, timeout=PATIENCE)
    return await (stream_refusal(call) if method.server_streaming else refusal(call))


def scope_of(path: str) -> Scope:
    _, service, method = path.split("/")
    if service in FOREIGN:
        return FOREIGN[service]
    scope = access_of(service, method).scope
    assert scope is not None
    return scope


async def test_without_a_key_every_rpc_of_every_service_is_refused(callers: Callers) -> None:
    methods = await every_method(callers.mesh)
    assert {path.split("/")[1] for path in methods} >= {
        "conductor.execution.v1.ExecutionService",
        "conductor.gateway.v1.GatewayService",
        "conductor.auth.v1.KeyService",
        *FOREIGN,
    }
    for path in methods.keys() - OPEN:
        for metadata in ((), (("x-api-key", "wrong"),), (("authorization", "Bearer wrong"),)):
            refused = await outcome(callers.mesh, path, methods[path], *metadata)
            assert refused.kind == UNAUTHENTICATED, path


async def test_with_too_small_a_scope_every_rpc_of_every_service_is_denied(
    callers: Callers,
) -> None:
    methods = await every_method(callers.mesh)
    signer, scopes = Signer(SECRET, ids.now), list(Scope)
    for path in methods.keys() - OPEN:
        needed = scope_of(path)
        smaller = frozenset(scopes[: scopes.index(needed)])
        signed = signer.principal(Principal("acme", "somebody", smaller))
        refused = await outcome(callers.mesh, path, methods[path], (PRINCIPAL, signed))
        assert refused.kind == DENIED, path
        assert needed.value in refused.message


async def test_what_strangers_send_is_not_even_parsed(callers: Callers) -> None:
    damaged = b"\x0a\xff"
    methods = await every_method(callers.mesh)
    unary = [path for path in methods if not methods[path].server_streaming]
    for path in set(unary) - OPEN:
        assert (await refusal(callers.mesh.raw(path, damaged))).kind == UNAUTHENTICATED, path
        known = callers.mesh.raw(path, damaged, metadata=(("x-api-key", BOOTSTRAP),))
        # No key opens what services alone may ask.
        internal = methods[path].GetOptions().Extensions[access_pb2.access].internal
        told = "PERMISSION_DENIED" if internal else "MALFORMED_REQUEST"
        assert (await refusal(known)).reason == told, path


async def test_strangers_leave_no_audit_record_whichever_way_their_calls_end(
    callers: Callers, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_up = asyncio.Event()

    async def endless(_: StoredKeys, key_id: str, digest: str) -> None:
        looked_up.set()
        await asyncio.Event().wait()

    async def away(_: StoredKeys, key_id: str, digest: str) -> None:
        raise store_unavailable()

    monkeypatch.setattr(StoredKeys, "find", endless)
    leaving = callers.with_key(mint().text).executions.StartExecution(
        execution_pb.StartExecutionRequest(input="a")
    )
    async with asyncio.timeout(PATIENCE):
        await looked_up.wait()
    leaving.cancel()
    monkeypatch.setattr(StoredKeys, "find", away)
    refused = await refusal(callers.with_key(mint().text).start())
    assert refused.reason == "STORE_UNAVAILABLE"
    # The store writes in order: what came before would be there with this one.
    id_ = await callers.operator.start()

    records = await AuditServiceStub(callers.operator.channel).ListAuditRecords(
        ListAuditRecordsRequest(org_id="-"), timeout=PATIENCE
    )
    assert [record.resource_id for record in records.audit_records] == [id_]


async def test_health_is_open_to_all(callers: Callers) -> None:
    health = health_pb2_grpc.HealthStub(callers.mesh.channel)
    answer = await health.Check(health_pb2.HealthCheckRequest(), timeout=PATIENCE)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING
    watch = health.Watch(health_pb2.HealthCheckRequest(), timeout=PATIENCE)
    assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
    watch.cancel()
    told = await callers.nobody.gateway.GetHealth(gateway_pb.GetHealthRequest(), timeout=PATIENCE)
    assert told.status == "healthy"


async def test_refused_callers_are_told_how_to_show_a_key(callers: Callers) -> None:
    call = callers.nobody.keys.ListKeys(pb.ListKeysRequest(), timeout=PATIENCE)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    assert "X-API-Key" in (caught.value.details() or "")
    assert ("www-authenticate", "Bearer") in list(caught.value.trailing_metadata() or ())


async def test_reflection_and_channelz_answer_who_may_ask(callers: Callers) -> None:
    reader = await callers.operator.create("read", org="acme")
    assert "conductor.auth.v1.KeyService" in await reflected(
        callers.mesh.channel, (("authorization", f"Bearer {reader.secret}"),)
    )
    channelz = channelz_pb2_grpc.ChannelzStub(callers.operator.channel)
    answer = await channelz.GetServers(channelz_pb2.GetServersRequest(), timeout=PATIENCE)
    assert answer.server


async def test_with_authentication_off_everyone_may_do_everything(tmp_path: Path) -> None:
    async with served(tmp_path) as mesh:
        callers = Callers(mesh)
        made = await callers.nobody.create("operator", org="acme")
        assert await callers.nobody.listed("acme") == [made.id]
        # A key is not looked at, be it right or wrong.
        assert await callers.with_key("wrong").listed("-") == [made.id]
        assert await reflected(mesh.channel)
        answer = await callers.nobody.gateway.StreamExecute(
            gateway_pb.ExecuteRequest(input="Hello"), timeout=PATIENCE
        )
        assert answer.stream_url == f"/api/v1/stream/{answer.job_id}"
        job = gateway_pb.StreamJobRequest(job_id=answer.job_id, token="not looked at")
        assert frames(await body_of(callers.nobody.gateway.StreamJob(job, timeout=PATIENCE)))
        await callers.close()
    # Keys can be made before authentication is switched on.
    async with served(tmp_path, **AUTH) as mesh:
        callers = Callers(mesh)
        assert await callers.with_key(made.secret).listed("acme") == [made.id]
        await callers.close()


async def test_authentication_without_a_secret_is_a_sentence(tmp_path: Path) -> None:
    settings = ExecutionSettings(data_dir=tmp_path, auth="on")
    async with AsyncExitStack() as stack:
        with pytest.raises(SettingsError, match="CONDUCTOR_MESH_SECRET"):
            await compose(settings, stack)


async def test_a_key_works_until_it_expires_or_is_revoked_on_every_replica(
    tmp_path: Path,
) -> None:
    async with served(tmp_path, **AUTH) as one, served(tmp_path, **AUTH) as other:
        callers, others = Callers(one), Callers(other)
        soon = Timestamp()
        soon.FromMicroseconds(ids.now() + 2_000_000)
        expiring = await callers.operator.create("admin", expire_time=soon)
        revoked = await callers.operator.create("admin")
        lasting = await callers.operator.create("admin")
        doomed = [
            house.with_key(key.secret) for house in (callers, others) for key in (expiring, revoked)
        ]
        for caller in doomed:
            assert expiring.id in await caller.listed()

        await callers.operator.keys.RevokeKey(pb.RevokeKeyRequest(key_id=revoked.id))

        async with asyncio.timeout(REFUSED_WITHIN):
            for caller in doomed:
                while not await is_refused(caller):
                    await asyncio.sleep(0.05)
        for house in (callers, others):
            assert len(await house.with_key(lasting.secret).listed()) == 3
        await callers.close()
        await others.close()


async def is_refused(caller: Caller) -> bool:
    call = caller.keys.ListKeys(pb.ListKeysRequest(), timeout=PATIENCE)
    return await call.code() == grpc.StatusCode.UNAUTHENTICATED


async def test_a_key_made_on_one_replica_works_on_the_other_at_once(tmp_path: Path) -> None:
    async with served(tmp_path, **AUTH) as one, served(tmp_path, **AUTH) as other:
        callers, others = Callers(one), Callers(other)
        made = await callers.operator.create("read", org="acme")
        request = execution_pb.ListExecutionsRequest()
        await others.with_key(made.secret).executions.ListExecutions(request, timeout=PATIENCE)
        await callers.close()
        await others.close()


async def test_the_secret_of_a_key_is_shown_once(callers: Callers, tmp_path: Path) -> None:
    made = await callers.operator.create("run", "read", org="acme")

    assert made.secret.startswith(f"cmk_{made.id}_")
    listed = await callers.operator.keys.ListKeys(pb.ListKeysRequest(org_id="acme"))
    revoked = await callers.operator.keys.RevokeKey(pb.RevokeKeyRequest(key_id=made.id))
    assert [key.secret for key in (*listed.keys, revoked)] == ["", ""]
    assert revoked.HasField("revoke_time")
    assert (made.creator, made.org_id, list(made.scopes)) == ("bootstrap", "acme", [1, 2])
    secret = made.secret.rpartition("_")[2].encode()
    for path in written(tmp_path):
        assert secret not in path.read_bytes()


def written(folder: Path) -> list[Path]:
    """The files of a mesh; there are some."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    return files


async def test_what_a_caller_may_not_set_of_a_key_is_not_taken(callers: Callers) -> None:
    chosen = f"cmk_{'a' * 32}_{'b' * 64}"
    made = await callers.operator.create(id="a" * 32, secret=chosen, creator="somebody")
    assert (made.id == "a" * 32, made.secret == chosen) == (False, False)
    assert made.creator == "bootstrap"


async def test_a_key_that_cannot_be_made_is_refused_by_its_field(callers: Callers) -> None:
    admin = await callers.of("acme", "admin")
    past = Timestamp(seconds=1)
    beyond = Timestamp(seconds=-(10**12))

    refused = await refusal(admin.create("operator"))
    assert (refused.kind, refused.fields) == (DENIED, ["key.scopes"])
    assert "operator" in refused.message
    refused = await refusal(admin.create("read", org="other"))
    assert (refused.kind, refused.fields) == (DENIED, ["key.org_id"])
    for time_ in (past, beyond):
        refused = await refusal(admin.create("read", expire_time=time_))
        assert refused.reason == "INVALID_REQUEST"
        assert refused.fields == ["key.expire_time"]
    refused = await refusal(admin.create("read", org="_mesh"))
    assert refused.fields == ["key.org_id"]
    refused = await refusal(admin.keys.CreateKey(pb.CreateKeyRequest(key=Key(name="x"))))
    assert refused.fields == ["key.scopes"]


async def test_keys_are_listed_page_by_page(callers: Callers) -> None:
    admin = await callers.of("acme", "admin")
    for _ in range(4):
        await admin.create("read")
    whole = await admin.listed()
    assert len(whole) == 5

    found: list[str] = []
    request = pb.ListKeysRequest(page_size=2)
    while True:
        page = await admin.keys.ListKeys(request, timeout=PATIENCE)
        found += [key.id for key in page.keys]
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    assert found == whole
    # A token is bound to whose keys it lists.
    first = await admin.keys.ListKeys(pb.ListKeysRequest(page_size=2), timeout=PATIENCE)
    refused = await refusal(callers.operator.listed("-", page_token=first.next_page_token))
    assert refused.reason == "PAGE_TOKEN_INVALID"


async def test_the_last_use_of_a_key_is_noted(callers: Callers) -> None:
    made = await callers.operator.create("admin", org="acme")
    admin = callers.with_key(made.secret)
    async with asyncio.timeout(PATIENCE):
        while True:
            key = (await admin.keys.ListKeys(pb.ListKeysRequest())).keys[0]
            if key.HasField("last_use_time"):
                break
            await asyncio.sleep(0.01)
    assert key.last_use_time.ToMicroseconds() >= key.create_time.ToMicroseconds()


async def test_nothing_of_another_organisation_can_be_read_listed_watched_or_changed(
    callers: Callers,
) -> None:
    ada, eve = await callers.of("acme", "admin"), await callers.of("evil", "admin")
    run = await ada.start("Hello", request_id="same")
    busy = await ada.start("Hello", model="brisk")
    get = execution_pb.GetExecutionRequest(execution_id=run)
    # What was read for its owner is warm when the other asks for it.
    for _ in range(2):
        await ada.executions.GetExecution(get, timeout=PATIENCE)

    for id_ in (run, busy, "exec_nobody"):
        get.execution_id = id_
        cancel = execution_pb.CancelExecutionRequest(execution_id=id_)
        delete = execution_pb.DeleteExecutionRequest(execution_id=id_)
        watch = execution_pb.WatchExecutionRequest(execution_id=id_)
        job = gateway_pb.StreamJobRequest(job_id=id_)
        for refused in (
            await refusal(eve.executions.GetExecution(get)),
            await refusal(eve.executions.CancelExecution(cancel)),
            await refusal(eve.executions.DeleteExecution(delete)),
            await stream_refusal(eve.executions.WatchExecution(watch)),
            await stream_refusal(eve.executions.WatchExecutionSse(watch)),
            await stream_refusal(eve.gateway.StreamJob(job)),
        ):
            assert refused.kind == NO_EXECUTION
            assert refused.message == f"No execution has the id {id_}."

    listed = await eve.executions.ListExecutions(execution_pb.ListExecutionsRequest())
    assert not listed.executions
    # The same request_id of another organisation starts a run of its own.
    own = await eve.start("Hello", request_id="same")
    assert own != run
    listed = await eve.executions.ListExecutions(execution_pb.ListExecutionsRequest())
    assert [one.id for one in listed.executions] == [own]
    # Nothing was changed.
    left = await ada.executions.ListExecutions(execution_pb.ListExecutionsRequest())
    assert {one.id for one in left.executions} == {run, busy}
    stream = ada.executions.WatchExecution(
        execution_pb.WatchExecutionRequest(execution_id=busy), timeout=PATIENCE
    )
    kinds = [one.event.WhichOneof("payload") async for one in stream if one.HasField("event")]
    assert kinds[-1] == "result"


async def test_keys_of_another_organisation_are_not_there_but_for_an_operator(
    callers: Callers,
) -> None:
    ada, eve = await callers.of("acme", "admin"), await callers.of("evil", "admin")
    key = await ada.create("read")

    for id_ in (key.id, "nobody"):
        refused = await refusal(eve.keys.RevokeKey(pb.RevokeKeyRequest(key_id=id_)))
        assert refused.kind == NO_KEY
        assert refused.message == f"No key has the id {id_}."
    assert key.id not in await eve.listed()
    for org in ("acme", "-", "default"):
        assert (await refusal(eve.listed(org))).kind == DENIED
    assert key.id in await callers.operator.listed("acme")
    assert key.id in await callers.operator.listed("-")
    assert key.id not in await callers.operator.listed()
    await callers.with_key(key.secret).executions.ListExecutions(
        execution_pb.ListExecutionsRequest()
    )


async def test_headers_of_the_mesh_made_up_outside_are_not_believed(callers: Callers) -> None:
    boss = Principal("acme", "boss", frozenset(Scope))
    other = Signer("the-secret-of-another-mesh-which-is-as-long", ids.now)
    stale = Signer(SECRET, lambda: ids.now() - 61_000_000)
    claims = ("x-conductor-jwt", jwt())
    for metadata in (
        ((PRINCIPAL, other.principal(boss)),),
        ((PRINCIPAL, stale.principal(boss)),),
        ((PRINCIPAL, "e30.x"), ("x-api-key", BOOTSTRAP)),
        (claims,),
        (claims, ("x-conductor-edge", "0" * 64)),
        (claims, ("x-conductor-edge", other.edge_proof)),
        (("x-conductor-edge", "0" * 64), ("x-api-key", BOOTSTRAP)),
        (("x-org-id", "acme"),),
    ):
        refused = await refusal(callers.showing(*metadata).listed())
        assert refused.kind == UNAUTHENTICATED, metadata


async def test_a_principal_another_service_signed_is_believed(callers: Callers) -> None:
    signed = Signer(SECRET, ids.now).principal(Principal("acme", "key:1", frozenset({Scope.ADMIN})))
    made = await callers.showing((PRINCIPAL, signed)).create("read")
    assert (made.org_id, made.creator) == ("acme", "key:1")


def jwt(**claims: Any) -> str:
    said = {
        "iss": ISSUER,
        "aud": [AUDIENCE],
        "exp": time.time() + 60,
        "sub": "ada",
        "org_id": "acme",
        "scope": "admin",
    } | claims
    return base64.urlsafe_b64encode(json.dumps(said).encode()).decode().rstrip("=")


async def test_claims_that_the_edge_hands_on_are_bound_to_their_organisation(
    callers: Callers,
) -> None:
    proof = ("x-conductor-edge", edge_proof(SECRET))
    made = await callers.showing(proof, ("x-conductor-jwt", jwt())).create("read")
    assert (made.org_id, made.creator) == ("acme", "jwt:ada")
    unbound = callers.showing(proof, ("x-conductor-jwt", jwt(org_id="")))
    refused = await refusal(unbound.listed())
    assert refused.kind == UNAUTHENTICATED
    assert "org_id" in refused.message


async def test_a_stream_is_watched_with_the_token_of_its_address(callers: Callers) -> None:
    ada = await callers.of("acme", "run")
    started = await ada.gateway.StreamExecute(
        gateway_pb.ExecuteRequest(input="Hello"), timeout=PATIENCE
    )
    path, _, token = started.stream_url.partition("?token=")
    assert path == f"/api/v1/stream/{started.job_id}"

    def stream(job_id: str, token: str, caller: Caller = callers.nobody) -> Any:
        request = gateway_pb.StreamJobRequest(job_id=job_id, token=token)
        return caller.gateway.StreamJob(request, timeout=PATIENCE)

    shown = frames(await body_of(stream(started.job_id, token)))
    assert shown[-1].event == "end_of_stream"

    another = await ada.start()
    expired = Signer(SECRET, ids.now).stream_token("acme", started.job_id, ids.now() - 1)
    foreign = Signer(SECRET, ids.now).stream_token("evil", started.job_id, ids.now() + 10**7)
    for job_id, wrong in (
        (started.job_id, ""),
        (started.job_id, token[:-1]),
        (started.job_id, expired),
        (another, token),
        ("", token),
    ):
        refused = await stream_refusal(stream(job_id, wrong))
        assert refused.kind == UNAUTHENTICATED
    # The token says whose stream it is.
    assert (await stream_refusal(stream(started.job_id, foreign))).kind == NO_EXECUTION
    # It is good for nothing else: no other rpc looks at it.
    get = execution_pb.GetExecutionRequest(execution_id=started.job_id)
    assert (await refusal(callers.nobody.executions.GetExecution(get))).kind == UNAUTHENTICATED
    # With a key, the key decides.
    eve = await callers.of("evil", "run")
    assert (await stream_refusal(stream(started.job_id, token, eve))).kind == NO_EXECUTION


async def test_the_key_is_in_no_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.DEBUG, logger="call")
    secrets = [BOOTSTRAP, SECRET]
    async with served(tmp_path, **AUTH) as mesh:
        callers = Callers(mesh)
        made = await callers.operator.create("read", org="acme")
        ada = callers.with_key(made.secret)
        bearer = callers.showing(("authorization", f"Bearer {made.secret}"))
        wrong = made.secret[:-1] + ("0" if made.secret[-1] != "0" else "1")
        secrets += [made.secret.rpartition("_")[2], wrong.rpartition("_")[2]]
        started = await callers.operator.gateway.StreamExecute(
            gateway_pb.ExecuteRequest(input="Hello"), timeout=PATIENCE
        )
        token = started.stream_url.partition("?token=")[2]
        secrets += [token, token.rpartition(".")[2]]
        refusals = [
            await refusal(ada.start()),
            await refusal(bearer.start()),
            await refusal(callers.with_key(wrong).start()),
            await refusal(
                callers.showing(
                    ("x-api-key", made.secret), ("authorization", f"Bearer {wrong}")
                ).start()
            ),
            await stream_refusal(
                callers.nobody.gateway.StreamJob(
                    gateway_pb.StreamJobRequest(job_id="other", token=token)
                )
            ),
            await refusal(callers.with_key(made.secret).keys.RevokeKey(pb.RevokeKeyRequest())),
        ]
        await callers.close()
    output = capsys.readouterr()
    assert "UNAUTHENTICATED" in output.err
    told = output.out + output.err + caplog.text + "".join(f"{one}" for one in refusals)
    for secret in secrets:
        assert secret not in told


class Twice:
    """Lets each organisation in twice."""

    def __init__(self) -> None:
        self.left: dict[str, int] = {}

    async def admit(self, org: str) -> float | None:
        self.left[org] = self.left.get(org, 2) - 1
        return None if self.left[org] >= 0 else 2.2


async def test_an_organisation_that_calls_too_often_is_told_when_to_come_back(
    tmp_path: Path,
) -> None:
    async with AsyncExitStack() as stack:
        content = await stack.enter_async_context(FakeContent())
        settings = ExecutionSettings(data_dir=tmp_path, peers={"content": content.target})
        app = replace(await compose(settings, stack), guard=OpenGuard(Twice()))
        server = await stack.enter_async_context(serving(app, grace_seconds=1))
        channel = grpc.aio.insecure_channel(f"127.0.0.1:{server.port}")
        mesh = Mesh(await stack.enter_async_context(channel), server.port)
        request = execution_pb.ListExecutionsRequest()
        for _ in range(2):
            await mesh.executions.ListExecutions(request, timeout=PATIENCE)
        refused = await refusal(mesh.executions.ListExecutions(request))
        assert refused.kind == (grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMITED")
        assert (refused.retry_after, refused.retry_header) == (2.2, "3")
        # Health is asked as often as anybody likes.
        await mesh.gateway.GetHealth(gateway_pb.GetHealthRequest(), timeout=PATIENCE)
