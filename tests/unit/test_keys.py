"""Making, listing and revoking keys, and noting their uses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from services.execution.domain import Key, KeyAsked
from services.execution.stores import COLLECTIONS, StoredKeys
from services.execution.usecases.keys import KeyKeeper, KeyUses
from services.kit.errors import DomainError, Reason
from services.kit.keys import digest, mint, parts
from services.kit.principals import Principal, Scope
from services.kit.tasks import ended
from tests.fakes.memory import Memory, MemoryStore
from tests.fakes.virtual import EPOCH, clock, in_virtual_time

SECOND = 1_000_000


def caller(scope: Scope, org: str = "acme") -> Principal:
    return Principal(org, f"{org}'s {scope}", frozenset({scope}))


OPERATOR = caller(Scope.OPERATOR, "default")


def asked(*scopes: Scope, org: str = "", expire_time: int | None = None) -> KeyAsked:
    return KeyAsked("tests", org, frozenset(scopes or {Scope.READ}), expire_time)


class House:
    """The use cases over a store in memory."""

    def __init__(self) -> None:
        self.memory = Memory()
        self.store = MemoryStore(self.memory, COLLECTIONS)
        self.keys = StoredKeys(self.store)
        self.used: list[str] = []
        self.keeper = KeyKeeper(self.keys, mint=mint, used=self.used.append, clock=clock)
        self.uses = KeyUses(self.keys, clock=clock)

    async def key(self, org: str = "acme") -> Key:
        return (await self.keeper.create(caller(Scope.ADMIN, org), asked()))[0]

    async def stored(self, key: Key) -> Key:
        found = await self.keys.get(key.id)
        assert found is not None
        return found


async def reason_of(error: object) -> tuple[Reason.ValueType, list[str]]:
    with pytest.raises(DomainError) as caught:
        await error  # type: ignore[misc]  # whatever can be awaited
    return caught.value.reason, [violation.field for violation in caught.value.violations]


@asynccontextmanager
async def noting(house: House) -> AsyncIterator[None]:
    serving = asyncio.create_task(house.uses.serve())
    yield
    await ended(serving)


@in_virtual_time
async def test_a_key_is_shown_once_and_stored_as_a_digest() -> None:
    house = House()

    key, text = await house.keeper.create(caller(Scope.ADMIN), asked(Scope.RUN, Scope.READ))

    shown = parts(text)
    assert shown is not None
    id_, secret = shown
    assert (key.id, key.digest) == (id_, digest(secret))
    assert (key.org, key.creator, key.create_time) == ("acme", "acme's admin", EPOCH)
    assert await house.stored(key) == key
    assert secret not in repr(house.memory)
    record = await house.keys.find(key.id, "")
    assert record is not None
    assert (record.org_id, record.scopes, record.digest) == ("acme", key.scopes, key.digest)


@in_virtual_time
async def test_only_an_operator_makes_keys_of_other_organisations() -> None:
    house = House()

    refused = await reason_of(house.keeper.create(caller(Scope.ADMIN), asked(org="other")))
    assert refused == (Reason.REASON_PERMISSION_DENIED, ["key.org_id"])
    own, _ = await house.keeper.create(caller(Scope.ADMIN), asked(org="acme"))
    other, _ = await house.keeper.create(OPERATOR, asked(org="other"))
    assert (own.org, other.org) == ("acme", "other")


@pytest.mark.parametrize("given", list(Scope))
@pytest.mark.parametrize("own", list(Scope))
def test_nobody_gives_a_scope_they_do_not_have(own: Scope, given: Scope) -> None:
    @in_virtual_time
    async def story() -> None:
        making = House().keeper.create(caller(own), asked(given))
        if caller(own).may(given):
            key, _ = await making
            assert key.scopes == {given}
        else:
            refused = await reason_of(making)
            assert refused == (Reason.REASON_PERMISSION_DENIED, ["key.scopes"])

    story()


@in_virtual_time
async def test_a_key_expires_in_the_time_to_come() -> None:
    house = House()
    admin = caller(Scope.ADMIN)

    for time in (EPOCH, EPOCH - 1, 0):
        refused = await reason_of(house.keeper.create(admin, asked(expire_time=time)))
        assert refused == (Reason.REASON_INVALID_REQUEST, ["key.expire_time"])
    key, _ = await house.keeper.create(admin, asked(expire_time=EPOCH + 1))
    assert (await house.stored(key)).expire_time == EPOCH + 1


@in_virtual_time
async def test_a_name_of_white_space_is_refused() -> None:
    blank = replace(asked(), name=" \t")
    refused = await reason_of(House().keeper.create(OPERATOR, blank))
    assert refused == (Reason.REASON_INVALID_REQUEST, ["key.name"])


@in_virtual_time
async def test_a_revoked_key_stays_revoked_at_the_first_time() -> None:
    house = House()
    key = await house.key()

    first = await house.keeper.revoke(caller(Scope.ADMIN), key.id)
    await asyncio.sleep(1)
    again = await house.keeper.revoke(caller(Scope.ADMIN), key.id)

    assert first.revoke_time == again.revoke_time == EPOCH
    record = await house.keys.find(key.id, "")
    assert record is not None
    assert record.revoke_time == EPOCH


@in_virtual_time
async def test_a_key_of_another_organisation_does_not_exist_except_for_an_operator() -> None:
    house = House()
    key = await house.key("other")

    refused = await reason_of(house.keeper.revoke(caller(Scope.ADMIN), key.id))
    assert refused[0] == Reason.REASON_KEY_NOT_FOUND
    assert await reason_of(house.keeper.revoke(caller(Scope.ADMIN), "nobody")) == refused
    assert (await house.stored(key)).revoke_time is None
    assert (await house.keeper.revoke(OPERATOR, key.id)).revoke_time == EPOCH


@in_virtual_time
async def test_a_key_that_was_shown_elsewhere_counts_as_used_only_where_it_opens_something() -> (
    None
):
    house = House()
    key = await house.key()
    minute_long = asked(expire_time=EPOCH + 60 * SECOND)
    passing, _ = await house.keeper.create(caller(Scope.ADMIN), minute_long)
    revoked = await house.key()
    await house.keeper.revoke(OPERATOR, revoked.id)
    await asyncio.sleep(60)

    for one in (key, passing, revoked):
        for shown in ("", digest("something else"), one.digest):
            assert await house.keeper.resolve(one.id, shown) == await house.stored(one)

    assert house.used == [key.id]
    refused = await reason_of(house.keeper.resolve("nobody", key.digest))
    assert refused[0] == Reason.REASON_KEY_NOT_FOUND


@in_virtual_time
async def test_keys_are_listed_by_holder_newest_first() -> None:
    house = House()
    made = []
    for org in ("acme", "other", "acme"):
        made.append(await house.key(org))
        await asyncio.sleep(1)
    first, foreign, last = made

    assert await house.keeper.list("acme", None, 10) == [last, first]
    assert await house.keeper.list("acme", (last.create_time, last.id), 10) == [first]
    assert await house.keeper.list(None, None, 10) == [last, foreign, first]


@in_virtual_time
async def test_uses_are_noted_once_a_minute() -> None:
    house = House()
    key = await house.key()
    async with noting(house):
        for _ in range(5):
            house.uses.note(key.id)
            await asyncio.sleep(10)
        assert await house.stored(key) == replace(key, last_use_time=EPOCH, version=2)
        await asyncio.sleep(20)
        house.uses.note(key.id)
        await asyncio.sleep(1)
        noted = await house.stored(key)
        assert noted.last_use_time == EPOCH + 70 * SECOND
        assert noted.version == 3


@in_virtual_time
async def test_a_use_noted_while_a_key_is_revoked_leaves_it_revoked() -> None:
    house = House()
    key = await house.key()

    class Slow(StoredKeys):
        """Somebody revokes the key between the read and the write."""

        async def save(self, key: Key) -> Key:
            await house.keeper.revoke(OPERATOR, key.id)
            return await super().save(key)

    house.uses = KeyUses(Slow(house.store), clock=clock)
    async with noting(house):
        house.uses.note(key.id)
        await asyncio.sleep(1)
    assert (await house.stored(key)).revoke_time == EPOCH
    assert (await house.stored(key)).last_use_time is None


@in_virtual_time
async def test_a_key_that_is_used_meanwhile_is_revoked_all_the_same() -> None:
    house = House()
    key = await house.key()

    class Busy(StoredKeys):
        """Somebody uses the key between the read and the write, once."""

        used = False

        async def save(self, key: Key) -> Key:
            if not self.used:
                self.used = True
                await super().save(replace(key, revoke_time=None, last_use_time=EPOCH))
            return await super().save(key)

    keeper = KeyKeeper(Busy(house.store), mint=mint, used=lambda _: None, clock=clock)
    revoked = await keeper.revoke(OPERATOR, key.id)
    assert (revoked.revoke_time, revoked.last_use_time) == (EPOCH, EPOCH)
    assert await house.stored(key) == revoked


@in_virtual_time
async def test_noting_goes_on_after_the_store_was_away(caplog: pytest.LogCaptureFixture) -> None:
    house = House()
    key = await house.key()
    store = house.store
    async with noting(house):
        await store.close()
        house.uses.note(key.id)
        await asyncio.sleep(61)
        assert "could not be noted" in caplog.text
        house.keys._store = MemoryStore(house.memory, COLLECTIONS)
        house.uses.note(key.id)
        await asyncio.sleep(1)
    assert (await house.stored(key)).last_use_time == EPOCH + 61 * SECOND


def test_minted_keys_differ_and_sort_by_creation() -> None:
    minted = [mint() for _ in range(100)]

    assert len({one.text for one in minted}) == len({one.digest for one in minted}) == 100
    assert [one.id for one in minted] == sorted(one.id for one in minted)
    assert all(parts(one.text) == (one.id, one.text.rpartition("_")[2]) for one in minted)


@pytest.mark.parametrize(
    "text", ["", "cmk_", "cmk_a_b", f"CMK_{'a' * 32}_{'b' * 64}", f"cmk_{'a' * 32}_{'b' * 64}\n"]
)
def test_what_is_no_key_is_not_taken_for_one(text: str) -> None:
    assert parts(text) is None
