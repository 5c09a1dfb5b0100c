"""Personas over every store."""

from __future__ import annotations

import asyncio

import pytest

from services.content.domain import personas
from services.content.domain.personas import Draft, Wanted
from services.content.stores.personas import StoredPersonas, StoredVersions
from services.kit.resources.ports import FencedError, TakenError
from services.kit.storage.ports import Store
from tests.contract.conftest import OpenStore
from tests.fakes.desk import AGENT, COLLECTIONS, ORG, Desk

DRAFT = Draft("# Ü 🎈\r\n\f", {"a.b": 1, "$set": {"x": [0.5, None, True]}}, "ann", "why", 0)


@pytest.fixture
async def store(open_store: OpenStore) -> Store:
    return await open_store(COLLECTIONS, ())


async def test_a_persona_comes_back_as_it_was_stored(store: Store) -> None:
    stored, versions = StoredPersonas(store), StoredVersions(store)
    first = personas.first_version(ORG, AGENT, DRAFT, 7)
    persona = await stored.begin(personas.begun(first), first)
    named = personas.with_alias(persona, "production", 1, 9)
    second = personas.next_version(named, Draft("two"), 8)

    saved = await stored.append(personas.followed(named, second), second)

    assert await versions.get(ORG, AGENT, 1) == first
    assert await versions.get(ORG, AGENT, 2) == second
    found = await stored.get(ORG, AGENT)
    assert found is not None
    assert personas.same(found, Draft("two"))
    assert (found.aliases, found.number, found.update_time) == (named.aliases, 2, 8)
    assert (found.create_time, found.version) == (7, saved.version)
    assert await stored.list(ORG, None, 9, deleted=False) == [found]


async def test_a_number_is_taken_once(store: Store) -> None:
    stored = StoredPersonas(store)
    first = personas.first_version(ORG, AGENT, DRAFT, 7)
    persona = await stored.begin(personas.begun(first), first)
    second = personas.next_version(persona, Draft("two"), 8)
    await stored.append(personas.followed(persona, second), second)

    with pytest.raises(TakenError):
        await stored.begin(personas.begun(first), first)
    with pytest.raises(TakenError):
        await stored.append(personas.followed(persona, second), second)

    found = await stored.get(ORG, AGENT)
    assert found is not None
    assert found.number == 2


async def test_versions_are_removed_but_for_those_stored_anew(store: Store) -> None:
    versions = StoredVersions(store)
    house = Desk(store)
    await house.write("one", "two", "three", "four")
    read = await versions.list(ORG, AGENT, None, 9)
    touched = await versions.get(ORG, AGENT, 2)
    assert touched is not None
    await versions.save(touched)

    gone = await versions.remove([one for one in read if one.number < 4])

    assert gone == 2
    assert await house.numbers() == [2, 4]
    with pytest.raises(FencedError):
        await versions.save(read[-1])
    assert await house.texts() == ["two", "four"]


async def test_twenty_writers_at_once_make_twenty_versions_without_gaps(store: Store) -> None:
    house = Desk(store)
    await house.write("0")

    made = await asyncio.gather(*(house.update(str(number)) for number in range(1, 21)))

    assert len(made) == 20
    assert await house.numbers() == list(range(1, 22))
    assert sorted(await house.texts(), key=int) == [str(number) for number in range(21)]
    assert (await house.personas.get(ORG, AGENT)).number == 21


async def test_versions_are_listed_in_the_order_of_their_numbers(store: Store) -> None:
    house = Desk(store)
    await house.write(*(f"# {number}" for number in range(1, 13)))

    async def listed(wanted: Wanted, beyond: int | None = None, limit: int = 5) -> list[int]:
        _, found = await house.personas.versions(ORG, AGENT, wanted, beyond, limit)
        return [one.number for one in found]

    assert await listed(Wanted()) == [12, 11, 10, 9, 8]
    assert await listed(Wanted(), beyond=8) == [7, 6, 5, 4, 3]
    assert await listed(Wanted(ascending=True), beyond=8) == [9, 10, 11, 12]
    assert await listed(Wanted(9, 11, ascending=True)) == [9, 10, 11]
    assert await listed(Wanted(2, 10)) == [10, 9, 8, 7, 6]
    assert await listed(Wanted(2, 10), beyond=4) == [3, 2]


async def test_deleted_personas_are_listed_apart(store: Store) -> None:
    house = Desk(store)
    await house.write("one")
    await house.personas.delete(ORG, AGENT, "", purge=False)

    assert await house.personas.list(ORG, None, 9, deleted=False) == []
    (found,) = await house.personas.list(ORG, None, 9, deleted=True)
    assert (found.agent_id, found.life.live) == (AGENT, False)
    await house.personas.delete(ORG, AGENT, "", purge=True)
    assert await house.personas.list(ORG, None, 9, deleted=True) == []
    assert await StoredVersions(store).list(ORG, AGENT, None, 9) == []
