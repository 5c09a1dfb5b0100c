"""Conversations and instances go and come with what they belong to, whoever dies or comes late."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.conversations.domain import parents
from services.conversations.domain.histories import Ended, Outcome
from services.conversations.domain.parents import Kind, Parent
from services.conversations.stores.conversations import CONVERSATIONS
from services.conversations.stores.instances import INSTANCES
from services.kit.errors import DomainError, Reason
from services.kit.resources import deletions, ties
from services.kit.resources.deletions import Life
from services.kit.storage.ports import Write
from tests.fakes.cuts import Cut
from tests.fakes.memory import Memory, MemoryStore
from tests.fakes.placing import COLLECTIONS, ORG, Placing

PLAY = "play_a"


@pytest.fixture
def placing() -> Placing:
    return Placing()


# Ties


def test_what_is_tied_to_several_comes_back_once_none_of_them_is_deleted() -> None:
    held = ties.marked({}, "agent/a", "del_2", 5)
    assert held is not None
    held = ties.marked(held, "screenplay/b", "del_1", 3)
    assert held is not None
    assert ties.fate(Life(), held).delete_time == 3

    held = ties.unmarked(held, "screenplay/b", "del_1")
    assert held is not None
    assert ties.fate(Life(), held) == Life("del_2", 5, inherited=True)

    held = ties.unmarked(held, "agent/a", "del_2")
    assert held is not None
    assert ties.fate(Life(), held).live


def test_what_was_deleted_by_itself_does_not_come_back_with_others() -> None:
    own = Life("del_3", 9)
    held = ties.marked({}, "agent/a", "del_2", 5)
    assert held is not None

    assert ties.fate(own, held) == own


def test_a_tie_takes_no_deletion_that_was_taken_back_before_it_came() -> None:
    back = ties.unmarked({}, "agent/a", "del_2")
    assert back is not None

    assert ties.marked(back, "agent/a", "del_2", 5) is None
    assert ties.marked(back, "agent/a", "del_1", 5) is None
    assert ties.unmarked(back, "agent/a", "del_2") is None


def test_the_return_from_the_second_deletion_is_one_from_the_first_too() -> None:
    held = ties.marked({}, "agent/a", "del_1", 5)
    assert held is not None
    assert ties.unmarked(held, "agent/a", "del_0") is None

    back = ties.unmarked(held, "agent/a", "del_2")

    assert back == {"agent/a": Life(last_deletion="del_2")}


# With a conversation


async def test_instances_go_and_come_with_their_conversation(placing: Placing) -> None:
    talk = await placing.talk()
    kept, gone = [(await placing.place(conversation_id=talk.id)).id for _ in range(2)]
    other = await placing.place()
    await placing.delete(gone)

    await placing.conversations.delete(ORG, talk.id, "", purge=False)
    assert await placing.listed() == [other.id]
    with pytest.raises(DomainError) as refused:
        await placing.instances.undelete(ORG, kept)
    assert refused.value.reason == Reason.REASON_CONVERSATION_NOT_FOUND

    await placing.conversations.undelete(ORG, talk.id)
    assert sorted(await placing.listed()) == sorted([kept, other.id])

    await placing.conversations.delete(ORG, talk.id, "", purge=True)
    assert await placing.listed(deleted=True) == []
    assert await placing.listed() == [other.id]


async def _seen(memory: Memory, talk_id: str, placed_id: str, *, by: str) -> tuple[bool, bool]:
    """What a process sees that is started anew and has swept nothing: conversation and instance."""
    fresh = Placing(MemoryStore(_copy(memory), COLLECTIONS), prefix="n")
    if by == "list":
        shown = placed_id in await fresh.listed()
    else:
        try:
            await fresh.get(placed_id)
            shown = True
        except DomainError:
            shown = False
    return talk_id in await fresh.talks(), shown


@pytest.mark.parametrize("answered", [True, False], ids=["before", "after"])
@pytest.mark.parametrize("change", ["delete", "undelete", "purge"])
async def test_a_conversation_and_its_instances_are_seen_together_whoever_dies(
    change: str, answered: bool
) -> None:
    async def act(placing: Placing, how: str) -> None:
        if how == "undelete":
            await placing.conversations.undelete(ORG, talk.id)
        else:
            await placing.conversations.delete(ORG, talk.id, "", purge=how == "purge")

    first = Memory()
    calm = Placing(MemoryStore(first, COLLECTIONS))
    talk = await calm.talk()
    placed = await calm.place(conversation_id=talk.id)
    if change == "undelete":
        await act(calm, "delete")
    for writes in itertools.count():
        memory = _copy(first)
        line = Cut(MemoryStore(memory, COLLECTIONS), writes, answered=answered, keeps_prefix=True)
        with suppress(DomainError):
            await act(Placing(line, prefix="v"), change)
        if not line.is_cut:
            break
        seen = await _seen(memory, talk.id, placed.id, by="list")
        assert seen == await _seen(memory, talk.id, placed.id, by="get")
        assert len(set(seen)) == 1
        await Placing(MemoryStore(memory, COLLECTIONS), prefix="z").sweep()
        assert await _seen(memory, talk.id, placed.id, by="list") == seen
        _is_tidy(memory)
    assert writes >= 3


# With a screenplay or an agent


def test_what_was_heard_of_a_thing_is_never_older_than_before() -> None:
    first = parents.deleted(Parent(ORG, Kind.AGENT, "writer", 1), "del_2", 7)
    assert first is not None

    assert parents.deleted(first, "del_1", 6) is None
    assert parents.back(first, "del_1") is None
    assert parents.deleted(first, "del_2", 7) == first
    back = parents.back(first, "del_2")
    assert back is not None
    assert not back.gone
    assert parents.deleted(back, "del_2", 7) is None
    assert parents.deleted(back, "del_3", 8) is not None


@dataclass
class House:
    """Two conversations of a screenplay, one elsewhere, and instances in all of them."""

    placing: Placing
    talks: list[str]
    placed: dict[str, str]

    @classmethod
    async def built(cls, placing: Placing) -> House:
        first, second = await placing.talk(PLAY), await placing.talk(PLAY)
        other = await placing.talk()
        named = {
            "first": {"conversation_id": first.id},
            "own": {"conversation_id": second.id},
            "guest": {"conversation_id": first.id, "screenplay_id": "play_b"},
            "stray": {"conversation_id": other.id, "screenplay_id": PLAY},
            "alone": {"screenplay_id": PLAY, "agent_id": "editor"},
            "other": {"conversation_id": other.id},
        }
        placed = {}
        for name, values in named.items():
            placed[name] = (await placing.place(**values)).id
        await placing.delete(placed["own"])
        return cls(placing, [first.id, second.id, other.id], placed)

    def after(self, memory: Memory) -> House:
        """The same, as a process sees it that is started anew."""
        return replace(self, placing=Placing(MemoryStore(memory, COLLECTIONS), prefix="n"))

    async def seen(self) -> set[str]:
        """The names of the instances, and the numbers of the conversations, that lists show."""
        shown = {*await self.placing.listed(), *await self.placing.talks()}
        names = {name for name, id_ in self.placed.items() if id_ in shown}
        return names | {str(number) for number, id_ in enumerate(self.talks) if id_ in shown}


ALL = {"0", "1", "2", "first", "guest", "stray", "alone", "other"}
REST = {"2", "other"}


async def test_conversations_and_instances_go_and_come_with_their_screenplay(
    placing: Placing,
) -> None:
    house = await House.built(placing)
    assert await house.seen() == ALL

    await placing.mark(PLAY, "del_1")
    assert await house.seen() == REST

    await placing.unmark(PLAY, "del_1")
    assert await house.seen() == ALL
    await placing.instances.undelete(ORG, house.placed["own"])


async def test_instances_go_and_come_with_their_agent(placing: Placing) -> None:
    house = await House.built(placing)

    await placing.mark("writer", "del_1", Kind.AGENT)
    assert await house.seen() == {"0", "1", "2", "alone"}
    await placing.mark(PLAY, "del_1")
    await placing.unmark("writer", "del_1", Kind.AGENT)
    assert await house.seen() == REST

    await placing.unmark(PLAY, "del_1")
    assert await house.seen() == ALL


async def test_a_conversation_that_was_deleted_by_itself_stays_so(placing: Placing) -> None:
    house = await House.built(placing)
    await placing.conversations.delete(ORG, house.talks[0], "", purge=False)

    await placing.mark(PLAY, "del_1")
    await placing.unmark(PLAY, "del_1")
    assert await house.seen() == ALL - {"0", "first", "guest"}

    await placing.conversations.undelete(ORG, house.talks[0])
    assert await house.seen() == ALL


async def test_a_deleted_conversation_is_said_to_come_back_with_what_it_went_with(
    placing: Placing,
) -> None:
    own, along = await placing.talk(), await placing.talk(PLAY)
    await placing.conversations.delete(ORG, own.id, "", purge=False)
    await placing.mark(PLAY, "del_1")

    with pytest.raises(DomainError, match="is deleted; take it back with UndeleteConversation"):
        await placing.conversations.get(ORG, own.id)
    with pytest.raises(DomainError, match=f"its screenplay {PLAY} is, and it comes back with that"):
        await placing.conversations.get(ORG, along.id)


async def test_the_ids_of_a_conversations_own_deletions_hide_none_of_its_screenplay(
    placing: Placing,
) -> None:
    talk = await placing.talk(PLAY)
    await placing.conversations.delete(ORG, talk.id, "", purge=False)
    await placing.conversations.undelete(ORG, talk.id)

    # Made by a clock that is far behind.
    await placing.mark(PLAY, "aaa_1")
    assert await placing.talks() == []

    await placing.unmark(PLAY, "aaa_1")
    assert await placing.talks() == [talk.id]
    await placing.mark(PLAY, "aaa_2")
    assert await placing.talks() == []


async def test_a_purge_takes_all_that_belongs_to_a_screenplay(placing: Placing) -> None:
    house = await House.built(placing)
    await placing.conversations.delete(ORG, house.talks[1], "", purge=False)
    run = Ended(
        ORG, "exec_1", "writer", Outcome.SUCCEEDED, duration=1, instance_id=house.placed["first"]
    )
    await placing.histories.record(run)

    await placing.purge(PLAY, "del_1")

    assert await house.seen() == REST
    assert await placing.histories.statistics(ORG, house.placed["first"]) == (
        await placing.histories.statistics(ORG, "nobody")
    )
    for id_ in (*house.talks[:2], *house.placed.values()):
        gone = await placing.homes.get(ORG, id_), await placing.placed.get(ORG, id_)
        assert (gone == (None, None)) == (id_ != house.placed["other"])


async def test_a_purge_that_comes_late_leaves_what_was_made_anew_under_the_id(
    placing: Placing,
) -> None:
    old = await placing.place()
    await placing.purge("writer", "del_1", Kind.AGENT)
    new = await placing.place()

    for _ in range(2):
        await placing.purge("writer", "del_1", Kind.AGENT)
        await placing.mark("writer", "del_1", Kind.AGENT)

    assert await placing.listed() == [new.id]
    assert old.id != new.id


@pytest.mark.parametrize("late", ["del_1", "del_2"])
async def test_a_deletion_that_comes_after_its_return_changes_nothing(
    placing: Placing, late: str
) -> None:
    house = await House.built(placing)
    await placing.unmark(PLAY, "del_2")

    await placing.mark(PLAY, late)

    assert await house.seen() == ALL
    await placing.mark(PLAY, "del_3")
    await placing.unmark(PLAY, "del_2")
    assert await house.seen() == REST


async def test_organisations_keep_their_own(placing: Placing) -> None:
    house = await House.built(placing)

    await placing.kin.mark("other", Kind.SCREENPLAY, PLAY, "del_1", 7)

    assert await house.seen() == ALL


# Made meanwhile


class Detour(MemoryStore):
    """The line of a process that goes another way around once, just before or after a write."""

    def __init__(self, memory: Memory, detour: Callable[[], Awaitable[object]], *, after: bool):
        super().__init__(memory, COLLECTIONS)
        self._detour: Callable[[], Awaitable[object]] | None = detour
        self._after = after

    async def write(self, *writes: Write) -> None:
        detour, self._detour = self._detour, None
        if detour is not None and not self._after:
            await detour()
        await super().write(*writes)
        if detour is not None and self._after:
            await detour()


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("kind", [Kind.SCREENPLAY, Kind.AGENT])
async def test_what_is_made_while_its_parent_is_deleted_follows_it(kind: Kind, after: bool) -> None:
    memory = Memory()
    other = Placing(MemoryStore(memory, COLLECTIONS))
    talk = await other.talk(PLAY)
    id_ = PLAY if kind is Kind.SCREENPLAY else "writer"

    async def delete() -> None:
        shelf = other.shelf.screenplays if kind is Kind.SCREENPLAY else other.shelf.agents
        shelf.pop(id_)
        await other.mark(id_, "del_1", kind)

    line = Detour(memory, delete, after=after)
    slow = Placing(line, prefix="s", shelf=other.shelf)
    placed = await slow.place(conversation_id=talk.id)

    assert await other.listed() == []
    await other.unmark(id_, "del_1", kind)
    assert await other.listed() == [placed.id]


async def test_what_is_made_after_its_parent_came_back_stays_although_that_is_not_told_yet(
    placing: Placing,
) -> None:
    talk = await placing.talk(PLAY)
    await placing.mark(PLAY, "del_1")
    # It was taken back just now, and the message is on its way.
    made, placed = await placing.talk(PLAY), await placing.place(screenplay_id=PLAY)
    assert (await placing.talks(), await placing.listed()) == ([made.id], [placed.id])

    await placing.unmark(PLAY, "del_1")
    await placing.mark(PLAY, "del_1")

    assert await placing.talks() == sorted([talk.id, made.id])
    assert await placing.listed() == [placed.id]


async def test_what_is_made_after_a_return_takes_no_deletion_from_before(placing: Placing) -> None:
    await placing.mark(PLAY, "del_1")
    await placing.unmark(PLAY, "del_1")
    talk, placed = await placing.talk(PLAY), await placing.place(screenplay_id=PLAY)

    found = await placing.placed.get(ORG, placed.id)
    home = await placing.homes.get(ORG, talk.id)

    assert found is not None
    assert home is not None
    assert ties.marked(found.ties, f"screenplay/{PLAY}", "del_1", 7) is None
    assert home.screenplay_deletion == "del_1"


@pytest.mark.parametrize("after", [False, True])
async def test_a_conversation_made_or_taken_back_while_its_screenplay_is_deleted_follows_it(
    after: bool,
) -> None:
    memory = Memory()
    other = Placing(MemoryStore(memory, COLLECTIONS))
    back = await other.talk(PLAY)
    await other.conversations.delete(ORG, back.id, "", purge=False)

    async def delete() -> None:
        other.shelf.screenplays.pop(PLAY, None)
        await other.mark(PLAY, "del_1")

    slow = Placing(Detour(memory, delete, after=after), prefix="s", shelf=other.shelf)
    with suppress(DomainError):
        await slow.conversations.undelete(ORG, back.id)
    assert await other.talks() == []

    await other.unmark(PLAY, "del_1")
    other.shelf.screenplays[PLAY] = ""
    assert await other.talks() == [back.id]

    async def again() -> None:
        other.shelf.screenplays.pop(PLAY, None)
        await other.mark(PLAY, "del_2")

    slow = Placing(Detour(memory, again, after=after), prefix="t", shelf=other.shelf)
    made = await slow.talk(PLAY)
    assert await other.talks() == []
    await other.unmark(PLAY, "del_2")
    assert await other.talks() == sorted([back.id, made.id])


@pytest.mark.parametrize("purge", [False, True])
async def test_an_instance_made_while_its_conversation_is_deleted_follows_it(purge: bool) -> None:
    memory = Memory()
    other = Placing(MemoryStore(memory, COLLECTIONS))
    talk = await other.talk()

    async def delete() -> None:
        await other.conversations.delete(ORG, talk.id, "", purge=purge)

    slow = Placing(Detour(memory, delete, after=False), prefix="s")
    if purge:
        with pytest.raises(DomainError) as refused:
            await slow.place("late", conversation_id=talk.id)
        assert refused.value.reason == Reason.REASON_CONVERSATION_NOT_FOUND
        assert await other.placed.get(ORG, "late") is None
        return
    placed = await slow.place(conversation_id=talk.id)
    assert await other.listed() == []
    await other.conversations.undelete(ORG, talk.id)
    assert await other.listed() == [placed.id]


# Copies


async def test_copies_of_instances_begin_with_the_copy_of_their_conversation(
    placing: Placing,
) -> None:
    talk = await placing.talk(PLAY)
    kept = await placing.place(conversation_id=talk.id, config={"a": 1}, emoji="x")
    gone = await placing.place(conversation_id=talk.id)
    await placing.delete(gone.id)
    staged = await placing.homes.add(
        replace(talk, id="conv_copy", life=deletions.staged("del_9", placing.clock()))
    )

    copies = await placing.instances.copy(ORG, talk.id, staged)
    assert list(copies) == [kept.id]
    assert await placing.listed() == [kept.id]

    begun = await placing.homes.save(replace(staged, life=deletions.begun(staged.life)))
    await placing.cascades.finish(begun, begun.id)
    copy = await placing.get(copies[kept.id])
    assert (copy.conversation_id, copy.config, copy.emoji) == ("conv_copy", {"a": 1}, "x")


# Every cut


Change = Callable[[Placing], Awaitable[object]]


CHANGES: dict[str, tuple[list[Change], Change]] = {
    "mark": ([], lambda one: one.mark(PLAY, "del_1")),
    "unmark": ([lambda one: one.mark(PLAY, "del_1")], lambda one: one.unmark(PLAY, "del_1")),
    "mark again": (
        [lambda one: one.mark(PLAY, "del_1"), lambda one: one.unmark(PLAY, "del_1")],
        lambda one: one.mark(PLAY, "del_2"),
    ),
    "purge": ([lambda one: one.mark(PLAY, "del_1")], lambda one: one.purge(PLAY, "del_1")),
    "purge at once": ([], lambda one: one.purge(PLAY, "del_1")),
    "mark an agent": ([], lambda one: one.mark("writer", "del_1", Kind.AGENT)),
    "purge an agent": ([], lambda one: one.purge("writer", "del_1", Kind.AGENT)),
}


@pytest.mark.parametrize("keeps_prefix", [False, True], ids=["atomic", "prefix"])
@pytest.mark.parametrize("answered", [True, False], ids=["before", "after"])
@pytest.mark.parametrize("name", CHANGES)
async def test_a_change_that_is_cut_anywhere_and_asked_again_is_whole(
    name: str, answered: bool, keeps_prefix: bool
) -> None:
    before, change = CHANGES[name]
    first = Memory()
    house = await House.built(Placing(MemoryStore(first, COLLECTIONS)))
    for one in before:
        await one(house.placing)
    calm = _copy(first)
    await change(Placing(MemoryStore(calm, COLLECTIONS), prefix="c"))
    wanted = await house.after(calm).seen()

    for writes in itertools.count():
        memory = _copy(first)
        store = MemoryStore(memory, COLLECTIONS)
        line = Cut(store, writes, answered=answered, keeps_prefix=keeps_prefix)
        with suppress(DomainError):
            await change(Placing(line, prefix="v"))
        if not line.is_cut:
            break

        await change(Placing(store, prefix="y"))
        await Placing(store, prefix="z").sweep()
        assert await house.after(memory).seen() == wanted
        _is_tidy(memory)
    assert writes >= 3


def _copy(memory: Memory) -> Memory:
    return replace(memory, documents=dict(memory.documents))


def _is_tidy(memory: Memory) -> None:
    for (name, _, _), document in memory.documents.items():
        if name in (CONVERSATIONS.name, INSTANCES.name):
            assert document.fields["cascade"] == ""


# Every order


@settings(max_examples=60, deadline=None, database=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    kinds=st.lists(st.sampled_from([Kind.SCREENPLAY, Kind.AGENT]), min_size=1, max_size=4),
    back=st.booleans(),
    copies=st.integers(1, 3),
)
def test_messages_in_any_order_and_number_come_to_the_newest(
    seed: int, kinds: list[Kind], back: bool, copies: int
) -> None:
    async def play() -> None:
        random, memory = Random(seed), Memory()
        house = await House.built(Placing(MemoryStore(memory, COLLECTIONS)))
        sent = []
        for number, kind in enumerate(kinds):
            id_ = PLAY if kind is Kind.SCREENPLAY else "writer"
            sent += [(kind, id_, f"del_{number}", True), (kind, id_, f"del_{number}", False)]
        if not back:
            sent.pop()
        sent = sent * copies
        random.shuffle(sent)

        class Slow(MemoryStore):
            async def write(self, *writes: Write) -> None:
                for _ in range(random.randrange(4)):
                    await asyncio.sleep(0)
                await super().write(*writes)

        async def send(number: int, kind: Kind, id_: str, deletion: str, gone: bool) -> None:
            process = Placing(Slow(memory, COLLECTIONS), prefix=str(number))
            await (process.mark if gone else process.unmark)(id_, deletion, kind)

        await asyncio.gather(*(send(number, *one) for number, one in enumerate(sent)))
        gone = set() if back else {kinds[-1]}
        hidden: set[str] = set()
        if Kind.SCREENPLAY in gone:
            hidden |= ALL - REST
        if Kind.AGENT in gone:
            hidden |= {"first", "guest", "stray", "other"}
        assert await house.seen() == ALL - hidden

    asyncio.run(play())
