"""Whoever dies wherever, and whatever happens at the same time, versions and what names them agree."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from random import Random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from services.content.domain import personas
from services.content.domain.agents import Asked, Definition
from services.content.domain.personas import CleanUp, Draft, Persona, PersonaVersion
from services.content.stores.personas import PERSONAS, VERSIONS
from services.kit.errors import DomainError, Reason, reason_name
from services.kit.storage.ports import Collection, Document, Query, Write
from tests.fakes.cuts import Cut
from tests.fakes.desk import AGENT, COLLECTIONS, ORG, Desk
from tests.fakes.memory import Memory, MemoryStore
from tests.patience import PATIENCE

DAY = 24 * 3600 * 1_000_000

each_semantics = pytest.mark.parametrize("keeps_prefix", [False, True], ids=["atomic", "prefix"])


def desk() -> Desk:
    return Desk(MemoryStore(Memory(), COLLECTIONS))


async def refused(call: Awaitable[object]) -> DomainError:
    with pytest.raises(DomainError) as error:
        await call
    return error.value


# The rules


def test_an_alias_is_found_before_the_newest_version_and_the_first_is_looked_for() -> None:
    persona = Persona(ORG, AGENT, 7, 1, 7)
    named = personas.with_alias(persona, "production", 3, 9)

    assert personas.numbered(persona, "") == (7, "")
    assert personas.numbered(named, "") == (3, "production")
    assert personas.numbered(named, "latest") == (7, "")
    assert personas.numbered(named, "5") == (5, "")
    assert personas.numbered(named, "first") == (None, "")
    for unknown in ("canary", "٣"):
        with pytest.raises(DomainError, match="has no version"):
            personas.numbered(named, unknown)


def test_the_times_of_versions_grow_also_when_the_clock_does_not() -> None:
    persona = personas.begun(personas.first_version(ORG, AGENT, Draft("one"), 1_000))

    second = personas.next_version(persona, Draft("two"), 500)

    assert second.create_time == 1_001
    assert personas.succeeds(second, persona)
    assert not personas.succeeds(replace(second, create_time=1_000), persona)


def test_metadata_is_the_same_by_its_json_and_not_by_what_python_makes_of_it() -> None:
    persona = personas.begun(personas.first_version(ORG, AGENT, Draft("x", {"a": 1, "b": 2}), 1))

    assert personas.same(persona, Draft("x", {"b": 2, "a": 1}))
    assert not personas.same(persona, Draft("x", {"a": True, "b": 2}))
    assert not personas.same(persona, Draft("y", {"a": 1, "b": 2}))


def test_a_clean_up_counts_what_it_keeps_for_its_use_alone() -> None:
    versions = [
        PersonaVersion(ORG, AGENT, number, "", number, used=number == 2)
        for number in (6, 5, 4, 3, 2, 1)
    ]

    result = personas.to_clean_up(versions, {6, 3}, 2)

    assert [one.number for one in result.doomed] == [4, 1]
    assert (result.kept, result.kept_in_use) == (4, 2)


# One after the other


async def test_a_run_marks_its_version_used_once() -> None:
    house = desk()
    await house.write("one")

    first = await house.personas.resolve(ORG, AGENT, "")
    second = await house.personas.resolve(ORG, AGENT, "1")

    assert first is not None
    assert second is not None
    assert first[0].used
    assert second[0].version == first[0].version == 2


async def test_an_agent_without_a_persona_has_none_to_resolve() -> None:
    house = desk()
    await house.agents.create(ORG, Asked(Definition("Writer"), AGENT))

    assert await house.personas.resolve(ORG, AGENT, "") is None


async def test_what_is_planted_is_there_before_its_agent_and_whatever_was_left() -> None:
    house = desk()
    plant = house.personas.plant

    first = await plant(ORG, AGENT, "one", {"a": 1}, "ann", "why")
    again = await plant(ORG, AGENT, "one", {"a": 1}, "bob", "again")
    other = await plant(ORG, AGENT, "two", {}, "ann", "")
    await house.agents.create(ORG, Asked(Definition("Writer"), AGENT))

    assert (first.number, again.number, other.number) == (1, 1, 2)
    assert await house.texts() == ["one", "two"]
    await house.personas.delete(ORG, AGENT, "", purge=False)
    assert (await plant(ORG, AGENT, "three", {}, "ann", "")).life.live
    assert await house.texts() == ["one", "two", "three"]


async def test_what_was_deleted_long_ago_goes_for_good() -> None:
    house = desk()
    await house.write("one", "two")
    await house.personas.delete(ORG, AGENT, "", purge=False)

    house.now = 29 * DAY
    assert await house.purge.sweep() == 0
    house.now = 31 * DAY
    assert await house.purge.sweep() == 1

    missing = await refused(house.personas.undelete(ORG, AGENT))
    assert missing.reason == Reason.REASON_PERSONA_NOT_FOUND
    assert (await house.personas.create(ORG, AGENT, Draft("anew"))).number == 1


async def test_an_org_sees_nothing_of_another() -> None:
    house = desk()
    await house.write("one")
    await house.agents.create("other", Asked(Definition("Writer"), AGENT))

    missing = await refused(house.personas.get("other", AGENT))

    assert missing.reason == Reason.REASON_PERSONA_NOT_FOUND
    assert await house.personas.list("other", None, 10, deleted=False) == []
    assert (await house.personas.create("other", AGENT, Draft("two"))).number == 1
    assert (await house.personas.get(ORG, AGENT)).content == "one"


# Every cut


ABSENT = {"PERSONA_NOT_FOUND", "AGENT_NOT_FOUND"}
Change = Callable[[Desk], Awaitable[object]]


async def _create(house: Desk) -> None:
    await house.personas.create(ORG, AGENT, Draft("anew"))


async def _update(house: Desk) -> None:
    await house.update("four")


async def _restore(house: Desk) -> None:
    await house.personas.restore(ORG, AGENT, "1", "", author="ann", reason="")


async def _name(house: Desk) -> None:
    await house.personas.set_alias(ORG, AGENT, "production", "1")


async def _use(house: Desk) -> None:
    await house.personas.resolve(ORG, AGENT, "2")


async def _use_first(house: Desk) -> None:
    await house.personas.resolve(ORG, AGENT, "1")


async def _clean(house: Desk) -> CleanUp:
    return await house.personas.clean_up(ORG, AGENT, 1, dry_run=False)


async def _delete(house: Desk) -> None:
    await house.personas.delete(ORG, AGENT, "", purge=False)


async def _undelete(house: Desk) -> None:
    await house.personas.undelete(ORG, AGENT)


async def _purge(house: Desk) -> None:
    await house.personas.delete(ORG, AGENT, "", purge=True)


async def _delete_agent(house: Desk) -> None:
    await house.agents.delete(ORG, AGENT, "", purge=False)


async def _undelete_agent(house: Desk) -> None:
    await house.agents.undelete(ORG, AGENT)


async def _purge_agent(house: Desk) -> None:
    await house.agents.delete(ORG, AGENT, "", purge=True)


WRITTEN = "one two three"
STORIES: dict[str, tuple[list[Change], Change, str, str]] = {
    "create": ([_purge], _create, "absent", "anew"),
    "create again": ([_delete], _create, "absent", f"{WRITTEN} anew"),
    "update": ([], _update, WRITTEN, f"{WRITTEN} four"),
    "restore": ([], _restore, WRITTEN, f"{WRITTEN} one"),
    "name": ([], _name, WRITTEN, WRITTEN),
    "use": ([], _use, WRITTEN, WRITTEN),
    "clean up": ([_name], _clean, WRITTEN, "one three"),
    "delete": ([], _delete, WRITTEN, "absent"),
    "undelete": ([_delete], _undelete, "absent", WRITTEN),
    "purge": ([], _purge, WRITTEN, "absent"),
    "delete with the agent": ([], _delete_agent, WRITTEN, "absent"),
    "undelete with the agent": ([_delete_agent], _undelete_agent, "absent", WRITTEN),
    "purge with the agent": ([], _purge_agent, WRITTEN, "absent"),
}
"""What happened before, what is cut, and the texts that callers find if it did not happen and if it did."""


@each_semantics
@pytest.mark.parametrize("happens", [False, True], ids=["lost", "unanswered"])
@pytest.mark.parametrize("story", STORIES)
async def test_a_change_that_is_cut_anywhere_happened_or_did_not(
    story: str, happens: bool, keeps_prefix: bool
) -> None:
    before, change, absent, done = STORIES[story]
    seen = []
    for writes in itertools.count():
        memory = Memory()
        whole = Desk(MemoryStore(memory, COLLECTIONS))
        await whole.write("one", "two", "three")
        for earlier in before:
            await earlier(whole)
        cut = Cut(
            MemoryStore(memory, COLLECTIONS),
            writes,
            answered=not happens,
            keeps_prefix=keeps_prefix,
        )
        with suppress(DomainError):
            await change(Desk(cut))

        after = Desk(MemoryStore(memory, COLLECTIONS))
        found = await _shown(after)
        await _check(memory, after)
        await after.begin()
        seen.append(await _shown(after))
        assert seen[-1] == found
        await _check(memory, after)
        await _goes_on(after, memory)
        if not cut.is_cut:
            break
    assert len(seen) > 1
    assert happens or seen[0] == absent
    assert seen[-1] == done
    assert set(seen) <= {absent, done}


async def _shown(house: Desk) -> str:
    """The texts that callers see."""
    try:
        return " ".join(await house.texts())
    except DomainError as error:
        return "absent" if reason_name(error.reason) in ABSENT else f"{error.reason}"


async def _check(memory: Memory, house: Desk) -> None:
    stored = {document.id: document for document in _documents(memory, VERSIONS)}
    try:
        persona = await house.personas.get(ORG, AGENT)
    except DomainError:
        return
    stored = {document.id: document for document in _documents(memory, VERSIONS)}
    numbers = sorted(int(document.fields["number"]) for document in stored.values())
    assert numbers[-1] == persona.number
    assert {alias.number for alias in persona.aliases.values()} <= set(numbers)
    newest = stored[f"{AGENT}.{persona.number:010d}"]
    assert newest.content["content"] == persona.content
    assert newest.body["content_hash"] == persona.content_hash
    times = [stored[key].create_time for key in sorted(stored)]
    assert times == sorted(set(times))


async def _goes_on(house: Desk, memory: Memory) -> None:
    """Whatever happened, there can be a next version."""
    try:
        persona = await house.personas.get(ORG, AGENT)
    except DomainError as error:
        if error.reason == Reason.REASON_AGENT_NOT_FOUND:
            return
        persona = await house.personas.create(ORG, AGENT, Draft("begun again"))
    assert (await house.update("on and on", persona.etag)).number == persona.number + 1
    await _check(memory, house)


def _documents(memory: Memory, collection: Collection) -> list[Document]:
    return [one for (name, _, _), one in memory.documents.items() if name == collection.name]


async def test_a_change_that_was_not_answered_is_made_once_however_often_it_is_asked_for() -> None:
    house = Desk(MemoryStore(Memory(), COLLECTIONS))
    await house.write("one")

    once = await house.update("two", "1")
    again = await house.update("two", "1")

    assert again == once
    assert await house.numbers() == [1, 2]


async def test_a_writer_who_died_between_is_found_by_whoever_comes_next() -> None:
    memory = Memory()
    house = Desk(MemoryStore(memory, COLLECTIONS))
    await house.write("one")
    dying = Desk(Cut(MemoryStore(memory, COLLECTIONS), 1, answered=True, keeps_prefix=True))
    await refused(dying.update("two"))

    stale = await refused(house.update("three", "1"))

    assert stale.reason == Reason.REASON_ETAG_MISMATCH
    assert stale.metadata == {"etag": "2"}
    assert (await house.update("three", "2")).number == 3
    assert await house.texts() == ["one", "two", "three"]


async def test_what_a_dead_writer_left_of_a_purged_persona_is_not_taken_in() -> None:
    memory = Memory()
    store = MemoryStore(memory, COLLECTIONS)
    house = Desk(store)
    await house.write("old one")
    dying = Desk(Cut(MemoryStore(memory, COLLECTIONS), 1, answered=True, keeps_prefix=True))
    await refused(dying.update("old two"))
    left = await store.get(VERSIONS, ORG, f"{AGENT}.{2:010d}")
    await _purge(house)
    await _create(house)
    assert left is not None
    memory.documents[VERSIONS.name, ORG, left.id] = left

    assert (await house.personas.get(ORG, AGENT)).number == 1
    assert (await house.update("two")).number == 2
    assert await house.texts() == ["anew", "two"]


# Two at a time


class Held(MemoryStore):
    """The line of a process to the store that is held before a write, or after a query.

    Writes that are made at once happen one by one.

    Args:
        writes: how many writes it lets through before that.
    """

    def __init__(self, memory: Memory, writes: int, *, queries: bool) -> None:
        super().__init__(memory, COLLECTIONS)
        self._left = writes
        self._queries = queries
        self.reached = asyncio.Event()
        self.free = asyncio.Event()

    async def _hold(self) -> None:
        self.reached.set()
        await self.free.wait()

    async def write(self, *writes: Write) -> None:
        for one in writes:
            if self._left == 0 and not self._queries:
                await self._hold()
            self._left -= 1
            await super().write(one)

    async def query(self, query: Query) -> list[Document]:
        found = await super().query(query)
        if self._queries:
            await self._hold()
        return found


class Pair:
    """A process that is held in the middle of a change, and another one."""

    def __init__(self, change: Change, writes: int = 0, *, queries: bool = False) -> None:
        self.memory = Memory()
        self.other = Desk(MemoryStore(self.memory, COLLECTIONS))
        self._line = Held(self.memory, writes, queries=queries)
        self._change = change

    async def begin(self) -> None:
        """Let the change come to where it is held."""
        self._task = asyncio.ensure_future(self._change(Desk(self._line)))
        await asyncio.wait_for(self._line.reached.wait(), PATIENCE)

    async def end(self) -> object:
        """Let the change go on to its end."""
        self._line.free.set()
        return await asyncio.wait_for(self._task, PATIENCE)

    def left(self) -> tuple[int, int]:
        """How many personas and versions are stored."""
        return len(_documents(self.memory, PERSONAS)), len(_documents(self.memory, VERSIONS))


async def test_whoever_writes_while_the_persona_is_purged_leaves_nothing_behind() -> None:
    pair = Pair(_update)
    await pair.other.write("one", "two")
    await pair.begin()
    await _purge(pair.other)

    missing = await refused(pair.end())

    assert missing.reason == Reason.REASON_PERSONA_NOT_FOUND
    assert pair.left() == (0, 0)


async def test_whoever_creates_while_the_agent_is_purged_leaves_nothing_behind() -> None:
    pair = Pair(_create)
    await pair.other.agents.create(ORG, Asked(Definition("Writer"), AGENT))
    await pair.begin()
    await _purge_agent(pair.other)

    missing = await refused(pair.end())

    assert missing.reason == Reason.REASON_AGENT_NOT_FOUND
    assert pair.left() == (0, 0)


async def test_whoever_purges_late_takes_nothing_that_was_made_anew() -> None:
    pair = Pair(_purge, queries=True)
    await pair.other.write("one", "two")
    await pair.begin()
    await pair.other.begin()
    await _create(pair.other)

    await pair.end()

    assert await pair.other.texts() == ["anew"]


@pytest.mark.parametrize("change", [_name, _use_first], ids=["alias", "run"])
async def test_a_clean_up_leaves_what_came_into_use_since_it_looked(change: Change) -> None:
    pair = Pair(_clean, 1)
    await pair.other.write("one", "two", "three")
    await pair.begin()
    await change(pair.other)

    result = await pair.end()

    assert isinstance(result, CleanUp)
    assert (len(result.doomed), result.kept, result.kept_in_use) == (1, 2, 1)
    assert await pair.other.texts() == ["one", "three"]


@pytest.mark.parametrize("writes", [0, 1])
async def test_no_alias_comes_to_stand_for_what_was_cleaned_up_meanwhile(writes: int) -> None:
    pair = Pair(_name, writes)
    await pair.other.write("one", "two", "three")
    await pair.begin()
    await _clean(pair.other)

    missing = await refused(pair.end())

    assert missing.reason == Reason.REASON_PERSONA_VERSION_NOT_FOUND
    assert (await pair.other.personas.get(ORG, AGENT)).aliases == {}


async def test_nothing_is_created_while_the_one_before_is_purged() -> None:
    memory = Memory()
    house = Desk(MemoryStore(memory, COLLECTIONS))
    await house.write("one", "two")
    dying = Desk(Cut(MemoryStore(memory, COLLECTIONS), 1, answered=True, keeps_prefix=False))
    await refused(_purge(dying))

    busy = await refused(_create(house))
    await house.begin()
    await _create(house)

    assert busy.reason == Reason.REASON_CONFLICT
    assert await house.texts() == ["anew"]


# Everything at once


class Slow(MemoryStore):
    """The line of a process to the store, on which each step takes its time."""

    def __init__(self, memory: Memory, random: Random, *, keeps_prefix: bool) -> None:
        super().__init__(memory, COLLECTIONS)
        self._random = random
        self._keeps_prefix = keeps_prefix

    async def _wait(self) -> None:
        for _ in range(self._random.choice((0, 0, 1, 2, 5, 20))):
            await asyncio.sleep(0)

    async def write(self, *writes: Write) -> None:
        for part in [(one,) for one in writes] if self._keeps_prefix else [writes]:
            await self._wait()
            await super().write(*part)
        await self._wait()

    async def get(self, collection: Collection, org: str, id_: str) -> Document | None:
        await self._wait()
        found = await super().get(collection, org, id_)
        await self._wait()
        return found

    async def query(self, query: Query) -> list[Document]:
        await self._wait()
        found = await super().query(query)
        await self._wait()
        return found


async def _edit(house: Desk, text: str) -> Persona:
    seen = await house.personas.get(ORG, AGENT)
    return await house.update(text, seen.etag)


ACTIONS: dict[str, Callable[[Desk, int], Awaitable[object]]] = {
    "update": lambda house, n: house.update(f"text {n}"),
    "edit": lambda house, n: _edit(house, f"text {n}"),
    "name": lambda house, n: house.personas.set_alias(ORG, AGENT, f"a{n % 3}", str(n % 4 + 1)),
    "unname": lambda house, n: house.personas.delete_alias(ORG, AGENT, f"a{n % 3}"),
    "use": lambda house, n: house.personas.resolve(ORG, AGENT, f"a{n % 3}"),
    "run": lambda house, n: house.personas.resolve(ORG, AGENT, str(n % 4 + 1)),
    "clean": lambda house, _: _clean(house),
    "get": lambda house, _: house.personas.get(ORG, AGENT),
    "create": lambda house, n: house.personas.create(ORG, AGENT, Draft(f"text {n}")),
    "delete": lambda house, _: _delete(house),
    "undelete": lambda house, _: _undelete(house),
    "purge": lambda house, _: _purge(house),
}
EXPECTED = {
    "ETAG_MISMATCH",
    "PERSONA_VERSION_NOT_FOUND",
    "PERSONA_ALIAS_NOT_FOUND",
    "PERSONA_NOT_FOUND",
    "PERSONA_ALREADY_EXISTS",
    "CONFLICT",
}


async def _play(
    seed: int, actions: list[str], before: Iterable[Change] = (), *, keeps_prefix: bool
) -> tuple[Memory, Desk, list[object]]:
    """Do everything at once; returns what each was answered."""
    memory, random = Memory(), Random(seed)
    whole = Desk(MemoryStore(memory, COLLECTIONS))
    await whole.write("one", "two", "three", "four")
    for place in range(3):
        await whole.personas.set_alias(ORG, AGENT, f"a{place}", str(place + 1))
    for change in before:
        await change(whole)
    houses = [Desk(Slow(memory, random, keeps_prefix=keeps_prefix)) for _ in range(3)]
    acts = [ACTIONS[action](houses[n % 3], n) for n, action in enumerate(actions)]
    answers = await asyncio.wait_for(asyncio.gather(*acts, return_exceptions=True), PATIENCE)
    for answer in answers:
        if isinstance(answer, BaseException):
            assert isinstance(answer, DomainError), answer
            assert reason_name(answer.reason) in EXPECTED
    return memory, whole, answers


def _several(*actions: str) -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from(actions), min_size=2, max_size=12)


@each_semantics
@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), actions=_several("update", "edit", "name", "unname", "run"))
def test_each_change_that_was_answered_made_one_version_and_no_other_did(
    keeps_prefix: bool, seed: int, actions: list[str]
) -> None:
    async def story() -> None:
        memory, whole, answers = await _play(seed, actions, keeps_prefix=keeps_prefix)
        await _check(memory, whole)
        texts = (await whole.texts())[4:]
        numbers = await whole.numbers()
        assert numbers == list(range(1, numbers[-1] + 1))
        made = [
            f"text {place}"
            for place, action in enumerate(actions)
            if action in {"update", "edit"} and isinstance(answers[place], Persona)
        ]
        assert sorted(texts) == sorted(made)

    asyncio.run(story())


@each_semantics
@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    actions=_several("update", "name", "unname", "use", "run", "clean", "clean"),
)
def test_no_clean_up_takes_what_an_alias_or_a_run_names(
    keeps_prefix: bool, seed: int, actions: list[str]
) -> None:
    async def story() -> None:
        memory, whole, answers = await _play(seed, actions, keeps_prefix=keeps_prefix)
        await _check(memory, whole)
        kept = {int(one.fields["number"]): one for one in _documents(memory, VERSIONS)}
        for answer in answers:
            if isinstance(answer, tuple):
                version, _ = answer
                assert kept[version.number].body["used"]
                assert kept[version.number].content["content"] == version.content

    asyncio.run(story())


@each_semantics
@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), actions=_several("create", "get"))
def test_of_several_who_create_at_once_one_is_told_so(
    keeps_prefix: bool, seed: int, actions: list[str]
) -> None:
    async def story() -> None:
        memory, whole, answers = await _play(seed, actions, [_purge], keeps_prefix=keeps_prefix)
        await _check(memory, whole)
        made = [
            answer
            for action, answer in zip(actions, answers, strict=True)
            if action == "create" and isinstance(answer, Persona)
        ]
        assert len(made) == min(actions.count("create"), 1)
        assert [one.content for one in made] == (await whole.texts() if made else [])

    asyncio.run(story())


@each_semantics
@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    actions=_several("update", "name", "use", "delete", "undelete", "create", "purge"),
)
@example(
    seed=376715,
    actions=["name", "update", "delete", "purge", "update", "create", "create", "update"],
)
def test_whatever_comes_and_goes_a_persona_has_its_versions_and_none_are_left_over(
    keeps_prefix: bool, seed: int, actions: list[str]
) -> None:
    async def story() -> None:
        memory, whole, _ = await _play(seed, actions, keeps_prefix=keeps_prefix)
        await whole.begin()
        await _check(memory, whole)
        if not _documents(memory, PERSONAS):
            assert not _documents(memory, VERSIONS)
        await _goes_on(whole, memory)

    asyncio.run(story())
