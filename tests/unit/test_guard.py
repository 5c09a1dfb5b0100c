"""Who is let in, by what they show, and for how long it is believed."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Coroutine
from typing import Any

import orjson
import pytest

from conductor.gateway.v1 import gateway_service_pb2 as gateway_pb
from services.kit import call, keys
from services.kit.errors import DomainError, Reason
from services.kit.guard import Access, KeyGuard, OpenGuard, TokenRules
from services.kit.keys import KeyRecord, Minted
from services.kit.principals import ANYONE, Principal, Scope
from services.kit.signing import PRINCIPAL, Signer
from services.kit.storage.ports import store_unavailable
from tests.fakes.virtual import EPOCH, clock, in_virtual_time, monotonic

READ, RUN, ADMIN = Access(Scope.READ), Access(Scope.RUN), Access(Scope.ADMIN)
STREAM = Access(Scope.READ, token_for="job_id")
BOOTSTRAP = "the first key of all of this mesh, as said"
SECRET = "the secret of this mesh, shared by its processes"
ISSUER, AUDIENCE = "https://issuer.example.org", "mesh"
SECOND = 1_000_000
SIGNER = Signer(SECRET, clock)


class House:
    """A guard, the keys behind it, and what it did with them."""

    def __init__(self, rates: Rates | None = None, cached: int = 1000) -> None:
        self.known: dict[str, KeyRecord] = {}
        self.reads: list[str] = []
        self.used: list[str] = []
        self.away = False
        self.slow = 0.0
        self.guard = KeyGuard(
            SIGNER,
            self,
            TokenRules(ISSUER, AUDIENCE, "org_id", "scope"),
            bootstrap=keys.digest(BOOTSTRAP),
            rates=rates,
            used=self.used.append,
            clock=clock,
            monotonic=monotonic,
            cached=cached,
        )

    def key(self, *scopes: Scope, org: str = "acme", expire_time: int | None = None) -> Minted:
        minted = keys.mint()
        given = frozenset(scopes or {Scope.RUN})
        self.known[minted.id] = KeyRecord(minted.id, org, given, minted.digest, expire_time)
        return minted

    def revoke(self, key: Minted) -> None:
        record = self.known[key.id]
        self.known[key.id] = KeyRecord(
            record.id, record.org_id, record.scopes, record.digest, revoke_time=clock()
        )

    async def find(self, key_id: str, digest: str) -> KeyRecord | None:
        self.reads.append(key_id)
        found = self.known.get(key_id)
        await asyncio.sleep(self.slow)
        if self.away:
            raise store_unavailable()
        return found

    async def admit(self, access: Any = READ, request: Any = None, /, **metadata: str) -> Principal:
        """Call with metadata, an underscore in place of a dash."""
        named = {name.replace("_", "-"): value for name, value in metadata.items()}
        served = call.begin("/x/Y", named)
        await self.guard.admit(served, access, request)
        return served.principal


class Rates:
    """Lets so many calls in."""

    def __init__(self, left: int) -> None:
        self.left = left
        self.counted: list[str] = []

    async def admit(self, org: str) -> float | None:
        self.counted.append(org)
        return None if len(self.counted) <= self.left else 1.5


class OneASecond(Rates):
    """Lets a call in each second."""

    def __init__(self) -> None:
        super().__init__(0)
        self.next = 0.0

    async def admit(self, org: str) -> float | None:
        self.counted.append(org)
        if monotonic() < self.next:
            return self.next - monotonic()
        self.next = monotonic() + 1
        return None


async def refused(admitting: Coroutine[Any, Any, object]) -> DomainError:
    with pytest.raises(DomainError) as caught:
        await admitting
    return caught.value


async def unauthenticated(admitting: Coroutine[Any, Any, object]) -> str:
    error = await refused(admitting)
    assert error.reason == Reason.REASON_UNAUTHENTICATED
    return error.message


def payload(**claims: Any) -> str:
    """Claims as Envoy hands them on; what is None is left out."""
    said = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "exp": (EPOCH // SECOND) + 60,
        "sub": "ada",
        "org_id": "acme",
        "scope": "run",
    } | claims
    known = {name: value for name, value in said.items() if value is not None}
    return base64.urlsafe_b64encode(orjson.dumps(known)).decode().rstrip("=")


@in_virtual_time
async def test_a_key_says_who_calls_in_either_header() -> None:
    house = House()
    key = house.key(Scope.RUN)
    expected = Principal("acme", f"key:{key.id}", frozenset({Scope.RUN}))

    assert await house.admit(x_api_key=key.text) == expected
    assert await house.admit(authorization=f"Bearer {key.text}") == expected
    assert await house.admit(authorization=f"bearer  {key.text} ") == expected
    assert await house.admit(authorization=f"Bearer {key.text}", x_api_key=key.text) == expected
    assert await house.admit(authorization="Basic YTpi", x_api_key=key.text) == expected


@in_virtual_time
async def test_two_different_keys_are_refused() -> None:
    house = House()
    one, other = house.key(), house.key()

    told = await unauthenticated(
        house.admit(authorization=f"Bearer {one.text}", x_api_key=other.text)
    )

    assert "different keys" in told


@in_virtual_time
async def test_without_a_key_nobody_is_let_in_and_the_way_is_told() -> None:
    house = House()

    for metadata in ({}, {"x_api_key": ""}, {"authorization": "Basic YTpi"}):
        assert "X-API-Key" in await unauthenticated(house.admit(**metadata))
    assert not house.reads


@in_virtual_time
async def test_wrong_keys_are_refused_and_not_repeated() -> None:
    house = House()
    key = house.key()
    wrong_secret = f"cmk_{key.id}_{'0' * 64}"

    for text in (wrong_secret, keys.mint().text, "cmk_", "x", key.text[:-1], f"{key.text}0", "ä"):
        assert text not in (await unauthenticated(house.admit(x_api_key=text))).split()


@in_virtual_time
async def test_a_caller_who_is_refused_is_nobody() -> None:
    house = House()
    served = call.begin("/x/Y", {})

    await unauthenticated(house.guard.admit(served, READ, None))

    assert (served.principal.org_id, served.principal.scopes) == ("", frozenset())


@pytest.mark.parametrize("held", list(Scope))
@pytest.mark.parametrize("needed", list(Scope))
def test_a_scope_has_in_it_what_stands_before_it(held: Scope, needed: Scope) -> None:
    @in_virtual_time
    async def story() -> None:
        house = House()
        key = house.key(held)
        if list(Scope).index(held) >= list(Scope).index(needed):
            await house.admit(Access(needed), x_api_key=key.text)
        else:
            error = await refused(house.admit(Access(needed), x_api_key=key.text))
            assert error.reason == Reason.REASON_PERMISSION_DENIED
            assert needed.value in error.message
            assert error.metadata == {"scope": needed.value}

    story()


@in_virtual_time
async def test_a_key_is_read_once_in_five_seconds() -> None:
    house = House()
    key = house.key()

    for _ in range(10):
        await house.admit(x_api_key=key.text)
    await asyncio.sleep(4.9)
    await house.admit(x_api_key=key.text)
    assert house.reads == [key.id]
    await asyncio.sleep(0.2)
    await house.admit(x_api_key=key.text)
    assert house.reads == [key.id] * 2


@in_virtual_time
async def test_a_revoked_key_is_refused_within_five_seconds() -> None:
    house = House()
    key = house.key()
    await house.admit(x_api_key=key.text)

    house.revoke(key)
    await asyncio.sleep(5)

    assert "revoked" in await unauthenticated(house.admit(x_api_key=key.text))


@in_virtual_time
async def test_what_is_believed_of_a_key_is_as_old_as_the_beginning_of_its_read() -> None:
    house = House()
    house.slow = 3.0
    key = house.key()
    await house.admit(x_api_key=key.text)
    house.revoke(key)

    await asyncio.sleep(2)

    await unauthenticated(house.admit(x_api_key=key.text))


@in_virtual_time
async def test_an_expired_key_is_refused_at_once() -> None:
    house = House()
    key = house.key(expire_time=EPOCH + 2 * SECOND)
    await house.admit(x_api_key=key.text)

    await asyncio.sleep(2)

    assert "expired" in await unauthenticated(house.admit(x_api_key=key.text))
    assert house.reads == [key.id]


@in_virtual_time
async def test_a_wrong_key_is_looked_up_once_in_five_seconds() -> None:
    house = House()
    wrong = keys.mint()

    for _ in range(10):
        await unauthenticated(house.admit(x_api_key=wrong.text))
    assert house.reads == [wrong.id]

    house.known[wrong.id] = KeyRecord(wrong.id, "acme", frozenset({Scope.READ}), wrong.digest)
    await asyncio.sleep(5)
    await house.admit(x_api_key=wrong.text)


@in_virtual_time
async def test_a_flood_of_wrong_keys_does_not_push_out_the_right_ones() -> None:
    house = House(cached=10)
    key = house.key()
    await house.admit(x_api_key=key.text)

    wrong = [keys.mint() for _ in range(20)]
    for one in wrong:
        await unauthenticated(house.admit(x_api_key=one.text))
    await house.admit(x_api_key=key.text)
    await unauthenticated(house.admit(x_api_key=wrong[0].text))

    assert house.reads.count(key.id) == 1
    # What is kept of them is bounded.
    assert house.reads.count(wrong[0].id) == 2


@in_virtual_time
async def test_callers_with_the_same_key_share_a_read() -> None:
    house = House()
    house.slow = 1.0
    key = house.key()

    callers = [asyncio.create_task(house.admit(x_api_key=key.text)) for _ in range(50)]
    await asyncio.sleep(0.5)
    callers[0].cancel()
    answers = await asyncio.gather(*callers, return_exceptions=True)

    assert house.reads == [key.id]
    assert isinstance(answers[0], asyncio.CancelledError)
    assert {answer.name for answer in answers if isinstance(answer, Principal)} == {f"key:{key.id}"}
    assert len(answers) == 50


@in_virtual_time
async def test_while_the_store_is_away_a_key_works_that_was_read_lately() -> None:
    house = House()
    key = house.key()
    await house.admit(x_api_key=key.text)

    house.away = True

    await house.admit(x_api_key=key.text)
    await asyncio.sleep(5)
    assert (
        await refused(house.admit(x_api_key=key.text))
    ).reason == Reason.REASON_STORE_UNAVAILABLE
    house.away = False
    await house.admit(x_api_key=key.text)


@in_virtual_time
async def test_a_guard_that_ends_leaves_nothing_behind() -> None:
    house = House()
    house.slow = 1000.0
    caller = asyncio.create_task(house.admit(x_api_key=house.key().text))
    await asyncio.sleep(0)

    await house.guard.close()

    with pytest.raises(asyncio.CancelledError):
        await caller


@in_virtual_time
async def test_the_bootstrap_key_is_an_operators_and_needs_no_store() -> None:
    house = House()
    house.away = True

    caller = await house.admit(Access(Scope.OPERATOR), x_api_key=BOOTSTRAP)

    assert (caller.org_id, caller.name) == ("default", "bootstrap")
    assert not house.reads
    assert not house.used


@in_virtual_time
async def test_uses_of_stored_keys_are_told() -> None:
    house = House()
    key = house.key()

    await house.admit(x_api_key=key.text)
    await house.admit(x_api_key=key.text)
    await unauthenticated(house.admit(x_api_key=keys.mint().text))

    assert house.used == [key.id] * 2


@in_virtual_time
async def test_a_principal_is_believed_when_this_mesh_signed_it() -> None:
    house = House()
    ada = Principal("acme", "key:1", frozenset({Scope.RUN}))

    assert await house.admit(RUN, **{PRINCIPAL: SIGNER.principal(ada)}) == ada

    forged = Signer("another secret of another mesh, as long", clock).principal(ada)
    for text in (forged, "", "x"):
        assert PRINCIPAL in await unauthenticated(house.admit(**{PRINCIPAL: text}))
        # What is forged is refused, whatever else is shown.
        await unauthenticated(house.admit(**{PRINCIPAL: text}, x_api_key=BOOTSTRAP))


@in_virtual_time
async def test_a_principal_passed_on_may_no_more_than_it_may() -> None:
    house = House()
    ada = Principal("acme", "key:1", frozenset({Scope.READ}))

    error = await refused(house.admit(RUN, **{PRINCIPAL: SIGNER.principal(ada)}))

    assert error.reason == Reason.REASON_PERMISSION_DENIED


@in_virtual_time
async def test_what_is_internal_is_for_whom_another_service_calls_and_for_no_key() -> None:
    house = House()
    ada = Principal("acme", "key:1", frozenset({Scope.RUN}))
    internal = Access(Scope.RUN, internal=True)

    assert await house.admit(internal, **{PRINCIPAL: SIGNER.principal(ada)}) == ada
    for key in (house.key(Scope.OPERATOR).text, BOOTSTRAP):
        error = await refused(house.admit(internal, x_api_key=key))
        assert error.reason == Reason.REASON_PERMISSION_DENIED
    reader = Principal("acme", "key:2", frozenset({Scope.READ}))
    await refused(house.admit(internal, **{PRINCIPAL: SIGNER.principal(reader)}))


@in_virtual_time
async def test_the_claims_of_a_token_are_believed_from_the_edge() -> None:
    house = House()
    edge = {"x-conductor-edge": SIGNER.edge_proof}

    caller = await house.admit(RUN, **edge, **{"x-conductor-jwt": payload()})

    assert caller == Principal("acme", "jwt:ada", frozenset({Scope.RUN}))
    listed = payload(aud=["other", AUDIENCE], scope=["admin", "profile"])
    caller = await house.admit(ADMIN, **edge, **{"x-conductor-jwt": listed})
    assert caller.scopes == {Scope.ADMIN}


@in_virtual_time
async def test_the_claims_of_a_token_are_not_believed_from_anybody_else() -> None:
    house = House()

    await unauthenticated(house.admit(**{"x-conductor-jwt": payload()}))
    for proof in ("", "0" * 64, SIGNER.edge_proof[:-1], "ä"):
        forged = {"x-conductor-edge": proof}
        await unauthenticated(house.admit(**forged, **{"x-conductor-jwt": payload()}))
        await unauthenticated(house.admit(**forged, x_api_key=BOOTSTRAP))


@pytest.mark.parametrize(
    ("claims", "named"),
    [
        ({"iss": "https://else.example.org"}, "iss"),
        ({"iss": None}, "iss"),
        ({"aud": "other"}, "aud"),
        ({"aud": None}, "aud"),
        ({"exp": EPOCH // SECOND}, "exp"),
        ({"exp": None}, "exp"),
        ({"exp": "tomorrow"}, "exp"),
        ({"org_id": None}, "org_id"),
        ({"org_id": "_mesh"}, "org_id"),
        ({"org_id": "a/b"}, "org_id"),
        ({"org_id": "acme\n"}, "org_id"),
        ({"org_id": 7}, "org_id"),
    ],
)
def test_a_token_that_does_not_fit_is_refused_by_its_claim(
    claims: dict[str, Any], named: str
) -> None:
    @in_virtual_time
    async def story() -> None:
        metadata = {
            "x-conductor-edge": SIGNER.edge_proof,
            "x-conductor-jwt": payload(**claims),
        }
        assert named in await unauthenticated(House().admit(**metadata))

    story()


@pytest.mark.parametrize("text", ["", "!", "bm8", "W10", "ä"])
def test_claims_that_cannot_be_read_are_refused(text: str) -> None:
    @in_virtual_time
    async def story() -> None:
        metadata = {"x-conductor-edge": SIGNER.edge_proof, "x-conductor-jwt": text}
        await unauthenticated(House().admit(**metadata))

    story()


@in_virtual_time
async def test_a_token_without_a_known_scope_may_nothing() -> None:
    house = House()
    edge = {"x-conductor-edge": SIGNER.edge_proof}

    unknown: list[Any] = [None, "profile openid", [], 7, ""]
    for scope in unknown:
        error = await refused(house.admit(**edge, **{"x-conductor-jwt": payload(scope=scope)}))
        assert error.reason == Reason.REASON_PERMISSION_DENIED


@in_virtual_time
async def test_a_key_beside_a_token_is_refused() -> None:
    house = House()
    metadata = {"x-conductor-edge": SIGNER.edge_proof, "x-conductor-jwt": payload()}

    assert "one of them" in await unauthenticated(
        house.admit(**metadata, x_api_key=house.key().text)
    )


@in_virtual_time
async def test_a_stream_token_stands_in_for_a_key_where_the_rpc_says_so() -> None:
    house = House()
    token = SIGNER.stream_token("acme", "exec_1", EPOCH + SECOND)
    request = gateway_pb.StreamJobRequest(job_id="exec_1", token=token)

    caller = await house.admit(STREAM, request)

    assert caller == Principal("acme", "stream:exec_1", frozenset({Scope.READ}))
    await unauthenticated(house.admit(READ, request))
    other = gateway_pb.StreamJobRequest(job_id="exec_2", token=token)
    await unauthenticated(house.admit(STREAM, other))
    await asyncio.sleep(1)
    assert "expired" in await unauthenticated(house.admit(STREAM, request))


@in_virtual_time
async def test_with_a_key_the_key_decides_and_the_token_does_not() -> None:
    house = House()
    token = SIGNER.stream_token("acme", "exec_1", EPOCH + SECOND)
    request = gateway_pb.StreamJobRequest(job_id="exec_1", token=token)

    caller = await house.admit(STREAM, request, x_api_key=house.key(org="other").text)
    assert caller.org_id == "other"
    await unauthenticated(house.admit(STREAM, request, x_api_key="wrong"))


@in_virtual_time
async def test_an_organisation_that_calls_too_often_is_told_when_to_come_back() -> None:
    rates = Rates(1)
    house = House(rates)
    key = house.key()
    await house.admit(x_api_key=key.text)

    error = await refused(house.admit(x_api_key=key.text))

    assert error.reason == Reason.REASON_RATE_LIMITED
    assert error.retry_after == 1.5
    assert "acme" in error.message
    assert rates.counted == ["acme"] * 2


@in_virtual_time
async def test_calls_without_a_key_and_those_of_services_are_not_counted() -> None:
    rates = Rates(0)
    house = House(rates)

    await unauthenticated(house.admit())
    await house.admit(**{PRINCIPAL: SIGNER.principal(Principal("acme"))})

    assert not rates.counted


@in_virtual_time
async def test_calls_that_lack_a_scope_are_counted() -> None:
    rates = Rates(1)
    house = House(rates)
    key = house.key(Scope.READ)

    assert (
        await refused(house.admit(RUN, x_api_key=key.text))
    ).reason == Reason.REASON_PERMISSION_DENIED
    assert (
        await refused(house.admit(RUN, x_api_key=key.text))
    ).reason == Reason.REASON_RATE_LIMITED


@in_virtual_time
async def test_while_authentication_is_off_only_the_rate_is_judged() -> None:
    rates = Rates(1)
    guard = OpenGuard(rates)
    served = call.begin("/x/Y", {"x-api-key": "anything", "x-conductor-principal": "x"})

    await guard.admit(served, ADMIN, None)
    assert served.principal is ANYONE
    assert (await refused(guard.admit(served, ADMIN, None))).reason == Reason.REASON_RATE_LIMITED
    assert rates.counted == ["default"] * 2


@in_virtual_time
async def test_whoever_asks_more_in_one_call_waits_until_it_may_be_asked() -> None:
    house = House(OneASecond())
    served = call.begin("/x/Y", {"x-api-key": house.key().text})
    await house.guard.admit(served, RUN, None)
    began = monotonic()

    for _ in range(3):
        await house.guard.pace(served)

    assert monotonic() - began == 3
    passed_on = call.begin("/x/Y", {PRINCIPAL: SIGNER.principal(Principal("acme"))})
    await house.guard.pace(passed_on)
    assert monotonic() - began == 3
