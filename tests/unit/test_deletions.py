"""Whoever dies wherever, a deletion has happened whole or not at all; and so has its undoing."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from random import Random
from typing import TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.content.domain.agents import Asked, Definition
from services.content.domain.personas import Draft
from services.content.domain.templates import Choice
from services.content.stores.agents import AGENTS
from services.content.stores.personas import PERSONAS, VERSIONS
from services.content.usecases.personas import PersonaKin
from services.kit.errors import DomainError, Reason
from services.kit.resources import deletions
from services.kit.resources.deletions import Cascade, Life
from services.kit.storage.ports import (
    Collection,
    Document,
    Query,
    Write,
)
from tests.fakes.catalogue import COLLECTIONS, ORG, Catalogue
from tests.fakes.cuts import Cut
from tests.fakes.memory import Memory, MemoryStore
from tests.fakes.virtual import VirtualLoop
from tests.patience import PATIENCE

T = TypeVar("T")
DAY = 24 * 3600 * 1_000_000


# The rules


def test_what_went_with_another_comes_back_with_that_deletion_alone() -> None:
    gone = deletions.marked(Life(), "del_2", 7)

    assert gone == Life("del_2", 7, "del_2", inherited=True)
    assert deletions.unmarked(gone, "del_1") is None
    assert deletions.unmarked(gone, "del_2") == Life(last_deletion="del_2")
    assert deletions.undeleted(gone) is gone


def test_what_was_deleted_by_itself_keeps_its_own_deletion() -> None:
    own = deletions.deleted(Life(), "del_1", 5, Cascade.NONE)

    assert deletions.marked(own, "del_2", 7) is None
    assert deletions.unmarked(own, "del_2") is None
    assert deletions.undeleted(own) == Life()


@pytest.mark.parametrize("late", ["del_1", "del_2"])
def test_whoever_is_late_with_a_deletion_that_was_taken_back_marks_nothing(late: str) -> None:
    gone = deletions.marked(Life(), "del_2", 7)
    assert gone is not None
    back = deletions.unmarked(gone, "del_2")
    assert back is not None

    assert deletions.marked(back, late, 9) is None
    assert deletions.marked(back, "del_3", 9) is not None


def test_the_deletions_of_a_thing_have_an_order_also_when_the_clock_does_not() -> None:
    life = deletions.deleted(Life(), "del_5", 1)
    life = deletions.undeleted(deletions.done(life))
    life = deletions.deleted(deletions.done(life), "del_3", 2)

    assert life.deletion > "del_5"
    assert life.last_deletion == life.deletion


def test_what_hands_its_deletion_on_hands_its_return_on() -> None:
    with_others = deletions.done(deletions.deleted(Life(), "del_1", 5))
    alone = deletions.deleted(Life(), "del_1", 5, Cascade.NONE)

    assert deletions.undeleted(with_others).cascade is Cascade.UNMARK
    assert deletions.undeleted(alone).cascade is Cascade.NONE


def test_only_what_is_deleted_goes_for_good_and_then_never_comes_back() -> None:
    with pytest.raises(ValueError, match="deleted first"):
        deletions.purging(Life())

    going = deletions.purging(deletions.deleted(Life(), "del_1", 5))

    assert going.purging
    assert deletions.undeleted(going) is going


def test_what_is_left_to_do_afar_is_noted_once_the_rest_is_done() -> None:
    gone = deletions.deleted(Life(), "del_1", 5)

    assert deletions.done(gone).cascade is Cascade.NONE
    assert deletions.done(gone, afar=True).cascade is Cascade.MARK_AFAR
    back = deletions.undeleted(deletions.done(gone, afar=True))
    assert deletions.done(back, afar=True) == Life(
        last_deletion="del_1", cascade=Cascade.UNMARK_AFAR
    )


def test_a_life_from_a_backup_is_followed_afar_by_what_it_changes() -> None:
    gone = deletions.done(deletions.deleted(Life(), "del_2", 5))
    back = deletions.overwritten(gone, Life(last_deletion="del_1"))

    assert back == Life(last_deletion="del_2", cascade=Cascade.UNMARK_AFAR)
    assert deletions.overwritten(back, Life()) == back
    assert deletions.overwritten(Life(), gone).cascade is Cascade.MARK_AFAR
    assert deletions.overwritten(gone, gone) == gone
    assert deletions.overwritten(Life(), Life()) == Life()


# Every cut


Change = Callable[[Catalogue], Awaitable[object]]


async def _delete(catalogue: Catalogue) -> None:
    await catalogue.service.delete(ORG, "writer", "", purge=False)


async def _undelete(catalogue: Catalogue) -> None:
    await catalogue.service.undelete(ORG, "writer")


async def _purge(catalogue: Catalogue) -> None:
    await catalogue.service.delete(ORG, "writer", "", purge=True)


async def _install(catalogue: Catalogue) -> None:
    await catalogue.templates.install(ORG, Choice(("editor",)), "ann")


async def _expire(catalogue: Catalogue) -> None:
    catalogue.now += 31 * DAY
    await catalogue.purge.sweep()


STORIES: dict[str, tuple[list[Change], Change, str, str, str]] = {
    "delete": ([], _delete, "writer", "live", "deleted"),
    "delete again": ([_delete, _undelete], _delete, "writer", "live", "deleted"),
    "undelete": ([_delete], _undelete, "writer", "deleted", "live"),
    "purge": ([], _purge, "writer", "live", "absent"),
    "purge what is deleted": ([_delete], _purge, "writer", "deleted", "absent"),
    "expire": ([_delete], _expire, "writer", "deleted", "absent"),
    "install": ([], _install, "editor", "absent", "live"),
}
each_story = pytest.mark.parametrize("story", STORIES)
each_semantics = pytest.mark.parametrize("keeps_prefix", [False, True], ids=["atomic", "prefix"])


def _copy(memory: Memory) -> Memory:
    return replace(memory, documents=dict(memory.documents))


async def _seen(memory: Memory, agent_id: str, *, personas_first: bool) -> tuple[str, bool]:
    """What a process sees that is started anew and has swept nothing yet."""
    fresh = Catalogue(MemoryStore(_copy(memory), COLLECTIONS), prefix="z")
    if personas_first:
        has_persona = await fresh.has_persona(agent_id)
        return await fresh.state(agent_id), has_persona
    state = await fresh.state(agent_id)
    shown = await fresh.lives.list(ORG, None, 100, deleted=False)
    return state, agent_id in {persona.agent_id for persona in shown}


@each_semantics
@each_story
@pytest.mark.parametrize("answered", [True, False], ids=["before", "after"])
async def test_a_change_that_is_cut_anywhere_is_seen_whole_or_not_at_all(
    story: str, keeps_prefix: bool, answered: bool
) -> None:
    before, change, agent_id, old, new = STORIES[story]
    for writes in itertools.count():
        memory = Memory()
        calm = Catalogue(MemoryStore(memory, COLLECTIONS))
        await calm.create()
        for one in before:
            await one(calm)
        calm.now += 1

        line = Cut(
            MemoryStore(memory, COLLECTIONS), writes, answered=answered, keeps_prefix=keeps_prefix
        )
        victim = Catalogue(line, prefix="v")
        victim.now = calm.now
        with suppress(DomainError):
            await change(victim)
        if not line.is_cut:
            break

        seen = await _seen(memory, agent_id, personas_first=True)
        assert seen in {(old, old == "live"), (new, new == "live")}
        if new != "absent" and old != "absent":
            # Whoever asks for the agent first sees its persona follow it.
            assert await _seen(memory, agent_id, personas_first=False) == seen
        after = Catalogue(MemoryStore(memory, COLLECTIONS), prefix="y")
        await after.sweep(alone=True)
        assert await _seen(memory, agent_id, personas_first=False) == seen
        _is_tidy(memory)
    assert writes >= 3


def _is_tidy(memory: Memory) -> None:
    """Nothing is left to be done, and every persona is where its agent is."""
    agents = _documents(memory, AGENTS)
    personas = _documents(memory, PERSONAS)
    for thing in (*agents.values(), *personas.values()):
        assert thing.fields["cascade"] == ""
    for id_, persona in personas.items():
        life = persona.body.get("life", {})
        agent_life = agents[id_].body.get("life", {})
        if persona.fields["life"] != "deleted" or life.get("inherited"):
            assert life.get("deletion") == agent_life.get("deletion")
    for version in _documents(memory, VERSIONS).values():
        # A version whose maker died is a persona for whoever reads it, as long as there is the agent.
        assert version.fields["agent_id"] in agents


def _documents(memory: Memory, collection: Collection) -> dict[str, Document]:
    return {key[2]: one for key, one in memory.documents.items() if key[0] == collection.name}


# Whoever comes late


class Gate:
    """Those that belong to a thing, one of whose calls waits in front of them until it may go on."""

    def __init__(self, personas: PersonaKin, held: str) -> None:
        self._personas = personas
        self._held = held
        self.reached = asyncio.Event()
        self.open = asyncio.Event()

    async def mark(self, org: str, parent_id: str, deletion: str, time: int) -> None:
        await self._pass("mark")
        await self._personas.mark(org, parent_id, deletion, time)

    async def unmark(self, org: str, parent_id: str, deletion: str) -> None:
        await self._pass("unmark")
        await self._personas.unmark(org, parent_id, deletion)

    async def purge(self, org: str, parent_id: str) -> None:
        await self._pass("purge")
        await self._personas.purge(org, parent_id)

    async def _pass(self, call: str) -> None:
        if call == self._held and not self.reached.is_set():
            self.reached.set()
            async with asyncio.timeout(PATIENCE):
                await self.open.wait()


async def _held(memory: Memory, call: str, change: Change) -> tuple[Gate, asyncio.Task[object]]:
    """Begin a change in a process that is frozen before a call to those that belong to the agent."""
    store = MemoryStore(memory, COLLECTIONS)
    gate = Gate(Catalogue(store).kin, call)
    frozen = Catalogue(store, prefix="f", kin=gate)

    async def go() -> object:
        with suppress(DomainError):
            await change(frozen)
        return None

    task = asyncio.create_task(go())
    async with asyncio.timeout(PATIENCE):
        await gate.reached.wait()
    return gate, task


async def test_a_deletion_that_was_taken_back_meanwhile_marks_nothing() -> None:
    memory = Memory()
    other = Catalogue(MemoryStore(memory, COLLECTIONS))
    await other.create()
    gate, frozen = await _held(memory, "mark", _delete)

    await _undelete(other)
    gate.open.set()
    await frozen

    assert await _seen(memory, "writer", personas_first=True) == ("live", True)


async def test_a_return_that_was_followed_by_another_deletion_brings_nothing_back() -> None:
    memory = Memory()
    other = Catalogue(MemoryStore(memory, COLLECTIONS))
    await other.create()
    await _delete(other)
    gate, frozen = await _held(memory, "unmark", _undelete)

    await other.state("writer")
    other.now += 1
    await _delete(other)
    gate.open.set()
    await frozen

    assert await _seen(memory, "writer", personas_first=True) == ("deleted", False)
    _is_tidy(memory)


async def test_what_was_made_anew_under_an_id_is_not_deleted_with_its_forerunner() -> None:
    memory = Memory()
    other = Catalogue(MemoryStore(memory, COLLECTIONS))
    await other.create()
    gate, frozen = await _held(memory, "mark", _delete)

    await _purge(other)
    await other.create()
    gate.open.set()
    await frozen

    assert await _seen(memory, "writer", personas_first=True) == ("live", True)
    _is_tidy(memory)


async def test_a_purge_belongs_to_who_began_it_until_nothing_happens_for_a_while() -> None:
    memory = Memory()
    other = Catalogue(MemoryStore(memory, COLLECTIONS))
    await other.create()
    _, frozen = await _held(memory, "purge", _purge)

    await other.cascades.sweep()
    other.seconds = 4.9
    await other.cascades.sweep()
    assert await other.agents.get(ORG, "writer") is not None
    assert await other.state("writer") == "absent"
    with pytest.raises(DomainError, match="just being made or purged"):
        await other.create()

    other.seconds = 5.1
    await other.cascades.sweep()
    frozen.cancel()
    assert memory.documents == {}


async def test_whoever_takes_a_purge_over_keeps_the_others_waiting_again() -> None:
    memory = Memory()
    store = MemoryStore(memory, COLLECTIONS)
    watching = Catalogue(store, prefix="w")
    await watching.create()
    _, dead = await _held(memory, "purge", _purge)
    gate = Gate(Catalogue(store).kin, "purge")
    successor = Catalogue(store, prefix="t", kin=gate)
    for catalogue in (watching, successor):
        await catalogue.cascades.sweep()
        catalogue.seconds = 6

    taking_over = asyncio.create_task(successor.cascades.sweep())
    async with asyncio.timeout(PATIENCE):
        await gate.reached.wait()
    await watching.cascades.sweep()
    assert await watching.agents.get(ORG, "writer") is not None

    gate.open.set()
    await taking_over
    dead.cancel()
    assert memory.documents == {}


async def test_an_installation_that_was_held_for_dead_says_so_and_leaves_nothing() -> None:
    memory = Memory()
    other = Catalogue(MemoryStore(memory, COLLECTIONS))
    store = MemoryStore(memory, COLLECTIONS)
    gate = Gate(Catalogue(store).kin, "mark")
    slow = Catalogue(store, prefix="f", kin=gate)
    installing = asyncio.create_task(_install(slow))
    async with asyncio.timeout(PATIENCE):
        await gate.reached.wait()

    with pytest.raises(DomainError, match="just being made") as raised:
        await _install(other)
    assert raised.value.reason == Reason.REASON_CONFLICT
    await other.cascades.sweep()
    other.seconds = 6
    await other.cascades.sweep()
    gate.open.set()

    with pytest.raises(DomainError, match="removed while") as raised:
        await installing
    assert raised.value.reason == Reason.REASON_CONFLICT
    assert memory.documents == {}


class Detour(Cut):
    """The line of a process that goes another way around once, just before its next write."""

    def __init__(self, memory: Memory, detour: Callable[[], Awaitable[object]]) -> None:
        store = MemoryStore(memory, COLLECTIONS)
        super().__init__(store, -1, answered=True, keeps_prefix=False)
        self._detour: Callable[[], Awaitable[object]] | None = detour

    async def write(self, *writes: Write) -> None:
        detour, self._detour = self._detour, None
        if detour is not None:
            await detour()
        await super().write(*writes)


async def test_a_persona_that_is_made_while_its_agent_is_deleted_goes_and_comes_with_it() -> None:
    memory = Memory()
    other = Catalogue(MemoryStore(memory, COLLECTIONS))
    await other.service.create(ORG, Asked(Definition("writer"), "writer"))
    slow = Catalogue(Detour(memory, lambda: _delete(other)), prefix="w")

    await slow.personas.create(ORG, "writer", Draft("# writer", author="ann"))

    assert await _seen(memory, "writer", personas_first=True) == ("deleted", False)
    _is_tidy(memory)
    await _undelete(other)
    assert await _seen(memory, "writer", personas_first=True) == ("live", True)


# Every order


class Line(Cut):
    """The line of a process to the store that is slow, and dead when the process is."""

    def __init__(self, memory: Memory, random: Random, *, keeps_prefix: bool) -> None:
        store = MemoryStore(memory, COLLECTIONS)
        super().__init__(store, -1, answered=True, keeps_prefix=keeps_prefix)
        self._random = random
        self.dead = False

    async def write(self, *writes: Write) -> None:
        for part in self._parts(writes):
            await self._pass()
            await super().write(*part)
        await self._pass()

    async def get(self, collection: Collection, org: str, id_: str) -> Document | None:
        await self._pass()
        found = await super().get(collection, org, id_)
        await self._pass()
        return found

    async def version(self, collection: Collection, org: str, id_: str) -> int | None:
        await self._pass()
        return await super().version(collection, org, id_)

    async def query(self, query: Query) -> list[Document]:
        await self._pass()
        found = await super().query(query)
        await self._pass()
        return found

    def die(self) -> None:
        self.dead = True

    async def _pass(self) -> None:
        await asyncio.sleep(self._random.choice((0, 0, 0.001, 0.01, 0.1, 0.4)))
        if self.dead:
            await asyncio.Event().wait()


async def _create(catalogue: Catalogue) -> None:
    await catalogue.create()


async def _read(catalogue: Catalogue) -> None:
    await catalogue.service.get(ORG, "writer")


async def _list(catalogue: Catalogue) -> None:
    await catalogue.has_persona("writer")


async def _reinstall(catalogue: Catalogue) -> None:
    await catalogue.templates.install(ORG, Choice(("editor",)), "ann")


async def _remove_editor(catalogue: Catalogue) -> None:
    await catalogue.service.delete(ORG, "editor", "", purge=True)


CHANGES: list[Change] = [
    _delete,
    _undelete,
    _purge,
    _create,
    _read,
    _list,
    _reinstall,
    _remove_editor,
]


async def _serve(catalogue: Catalogue) -> None:
    while True:
        catalogue.seconds = asyncio.get_running_loop().time()
        with suppress(DomainError):
            await catalogue.sweep()
        await asyncio.sleep(1)


async def _play(
    seed: int, acts: list[tuple[float, int, Change]], crashes: list[int], *, keeps_prefix: bool
) -> None:
    random, memory = Random(seed), Memory()
    calm = Catalogue(MemoryStore(memory, COLLECTIONS))
    await calm.create()
    lines = [Line(memory, random, keeps_prefix=keeps_prefix) for _ in range(3)]
    processes = [Catalogue(line, prefix=str(number)) for number, line in enumerate(lines)]
    for number, process in enumerate(processes):
        process.now += number * 1_000_000  # their clocks differ
    serving = [asyncio.create_task(_serve(process)) for process in processes]

    async def act(number: int, change: Change) -> None:
        with suppress(DomainError):
            await change(processes[number])

    acting = []
    for step, (gap, number, change) in enumerate(acts):
        await asyncio.sleep(gap)
        acting.append(asyncio.create_task(act(number, change)))
        if step in crashes:
            delay = random.choice((0.01, 0.1, 0.3, 0.6, 1.0, 2.0))
            asyncio.get_running_loop().call_later(delay, lines[number].die)
    await asyncio.sleep(60)
    # The dead ones wait for ever; all others have come to their end.
    for task in acting:
        if task.done():
            task.result()
    survivor = asyncio.create_task(_serve(Catalogue(MemoryStore(memory, COLLECTIONS), prefix="s")))
    await asyncio.sleep(30)
    _is_tidy(memory)
    for id_ in ("writer", "editor"):
        assert await _seen(memory, id_, personas_first=True) in {
            ("live", True),
            # Its maker died, or it was gone, before it got one.
            *([("live", False)] if id_ == "writer" else []),
            ("deleted", False),
            ("absent", False),
        }
    for task in (*acting, *serving, survivor):
        task.cancel()
    await asyncio.wait([*acting, *serving, survivor], timeout=1)


@settings(max_examples=40, deadline=None, database=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    acts=st.lists(
        st.tuples(
            st.sampled_from((0.0, 0.01, 0.2, 1.0)), st.integers(0, 2), st.sampled_from(CHANGES)
        ),
        min_size=2,
        max_size=10,
    ),
    crashes=st.lists(st.integers(0, 9), max_size=2),
    keeps_prefix=st.booleans(),
)
def test_any_order_of_changes_and_crashes_leaves_every_persona_where_its_agent_is(
    seed: int, acts: list[tuple[float, int, Change]], crashes: list[int], keeps_prefix: bool
) -> None:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(_play(seed, acts, crashes, keeps_prefix=keeps_prefix))
