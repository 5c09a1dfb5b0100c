"""Whoever dies wherever, and whatever happens at once, conversations and their messages agree."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from random import Random

import pytest

from services.conversations.domain import conversations, copies, messages
from services.conversations.domain.conversations import Wanted
from services.conversations.domain.histories import Whose
from services.conversations.domain.messages import Showing
from services.conversations.stores.conversations import CONVERSATIONS
from services.conversations.stores.messages import MESSAGES
from services.kit.errors import DomainError, Reason
from services.kit.resources import deletions
from services.kit.storage.ports import Collection, Document, Query, Write
from tests.fakes.cuts import Cut
from tests.fakes.memory import Memory, MemoryStore
from tests.fakes.parlour import COLLECTIONS, ORG, Parlour
from tests.patience import PATIENCE

Change = Callable[[Parlour, str], Awaitable[object]]

each_semantics = pytest.mark.parametrize("keeps_prefix", [False, True], ids=["atomic", "prefix"])


def parlour() -> Parlour:
    return Parlour(MemoryStore(Memory(), COLLECTIONS))


async def refused(call: Awaitable[object]) -> DomainError:
    with pytest.raises(DomainError) as error:
        await call
    return error.value


def left(memory: Memory, collection: Collection) -> int:
    return sum(name == collection.name for name, _, _ in memory.documents)


# The rules


def test_previews_do_not_part_letters_from_their_marks() -> None:
    cut = messages.preview("e" * 199 + "e\u0301 and more")

    assert cut == "e" * 199
    assert messages.preview("x" * 500) == "x" * 200
    assert messages.preview("\u0301" * 500) == "\u0301" * 200


def test_titles_may_hold_marks_of_scripts_and_nothing_that_turns_them_around() -> None:
    marked = "\u05e9\u05dc\u05d5\u05dd\u200f (2)"

    assert conversations.normal_title(marked, "title") == marked
    with pytest.raises(DomainError, match="control"):
        conversations.normal_title("gnp.\u202eexe", "title")


async def test_what_is_made_while_its_request_is_being_purged_is_told_to_try_again() -> None:
    memory = Memory()
    house = Parlour(MemoryStore(memory, COLLECTIONS))
    made = await house.create("r")
    going = deletions.purging(deletions.deleted(made.life, "del_1", 1))
    await house.stored.save(replace(made, life=going))

    error = await refused(house.create("r"))

    assert error.reason == Reason.REASON_CONFLICT
    assert str(error.message).startswith("What the new conversation is to have was taken")
    assert error.resources == ()


def test_titles_of_copies_fit() -> None:
    assert copies.copied_title("Harbour") == "Harbour (copy)"
    assert len(copies.copied_title("x" * 100)) == 100


async def test_an_answer_counts_once_its_run_has_left_the_turns() -> None:
    house = parlour()
    id_ = (await house.create()).id
    await house.ask(id_, "run1")
    before = await house.conversations.get(ORG, id_)
    found = await house.said.of_turn(ORG, "run1", messages.Part.ANSWER)
    assert found is not None
    await house.said.save(messages.filled(found, messages.Status.COMPLETED, "An answer", 7))
    await house.check(id_)

    await house.fill(id_, "run1", content="late")

    after = await house.conversations.get(ORG, id_)
    assert (before.message_count, before.told_count, before.preview) == (2, 1, "Q run1")
    assert (after.message_count, after.told_count, after.preview) == (2, 2, "An answer")
    assert [one.agent_id for one in after.participants] == ["writer"]
    await house.check(id_)


async def test_what_is_hidden_while_it_is_awaited_is_never_told() -> None:
    house = parlour()
    id_ = (await house.create()).id
    answer = (await house.ask(id_, "run1")).answer
    await house.messages.hide(ORG, id_, answer.id, hidden=None)

    await house.fill(id_, "run1")

    assert (await house.check(id_))["told"] == ["Q run1"]
    await house.messages.hide(ORG, id_, answer.id, hidden=None)
    assert (await house.check(id_))["told"] == ["Q run1", "A run1"]


async def test_a_copy_has_no_answer_that_is_awaited() -> None:
    house = parlour()
    id_ = (await house.create()).id
    for run in ("run1", "run2"):
        await house.ask(id_, run)
    found = await house.said.of_turn(ORG, "run1", messages.Part.ANSWER)
    assert found is not None
    await house.said.save(messages.filled(found, messages.Status.COMPLETED, "Almost", 7))

    copy = await house.cloner.clone(ORG, id_, "", "")

    assert await house.texts(copy.id) == ["Q run1", "Q run2"]
    assert copy.turns == ()
    await house.check(copy.id)


async def test_times_follow_the_order_also_when_the_clock_goes_back() -> None:
    house = parlour()
    id_ = (await house.create()).id
    await house.say(id_, "one")
    house.now = -(10**12)

    await house.say(id_, "two")

    assert (await house.check(id_))["kept"] == ["one", "two"]


async def test_organisations_share_nothing() -> None:
    store = MemoryStore(Memory(), COLLECTIONS)
    ours, theirs = Parlour(store, "ours"), Parlour(store, "theirs")
    made, same = await ours.create("r"), await theirs.create("r")
    said = await ours.say(made.id, "harbour", "s")
    await theirs.say(same.id, "night", "s")

    for call in (
        theirs.conversations.get("theirs", made.id),
        theirs.say(made.id, "no"),
        theirs.messages.delete("theirs", made.id, said.id),
        theirs.cloner.clone("theirs", made.id, "", ""),
    ):
        assert (await refused(call)).reason == Reason.REASON_CONVERSATION_NOT_FOUND
    elsewhere = await refused(theirs.messages.get("theirs", same.id, said.id))
    assert elsewhere.reason == Reason.REASON_MESSAGE_NOT_FOUND
    assert elsewhere.message.startswith(f"The conversation {same.id} has no message")
    assert not (await theirs.messages.search("theirs", "harbour", "", None, 9)).messages
    assert len(await theirs.conversations.list("theirs", Wanted(), None, 9)) == 1


class Reading(MemoryStore):
    """Counts the documents that queries read."""

    documents = 0

    async def query(self, query: Query) -> list[Document]:
        found = await super().query(query)
        self.documents += len(found)
        return found


async def test_a_search_reads_no_more_than_its_page_has_however_many_there_are() -> None:
    store = Reading(Memory(), COLLECTIONS)
    house = Parlour(store)
    id_ = (await house.create()).id
    for number in range(30):
        await house.say(id_, f"harbour {number}")
    store.documents = 0

    page = await house.messages.search(ORG, "harbour", id_, None, 5)

    assert [one.content for one in page.messages] == [f"harbour {29 - n}" for n in range(5)]
    assert page.next is not None
    assert store.documents == 6


async def test_a_search_goes_on_behind_messages_it_must_not_show() -> None:
    house = parlour()
    found, gone = (await house.create()).id, (await house.create()).id
    for number in range(3):
        await house.say(found, f"harbour {number}")
    for number in range(30):
        await house.say(gone, f"harbour {number}")
    await house.conversations.delete(ORG, gone, "", purge=False)

    page = await house.messages.search(ORG, "harbour", "", None, 2)
    rest = await house.messages.search(ORG, "harbour", "", page.next, 2)

    shown = [one.content for one in (*page.messages, *rest.messages)]
    assert shown == ["harbour 2", "harbour 1", "harbour 0"]
    assert rest.next is None


# Cut anywhere


async def _say(house: Parlour, id_: str) -> None:
    await house.say(id_, "four", "request")


async def _delete(house: Parlour, id_: str) -> None:
    await _on(house, id_, 3, house.messages.delete)


async def _undelete(house: Parlour, id_: str) -> None:
    await _on(house, id_, 3, house.messages.undelete)


async def _hide(house: Parlour, id_: str) -> None:
    message = await house.said.at(ORG, id_, 2)
    assert message is not None
    await house.messages.hide(ORG, id_, message.id, hidden=True)


async def _delete_asked(house: Parlour, id_: str) -> None:
    message = await house.said.of_turn(ORG, "run1", messages.Part.USER)
    assert message is not None
    await house.messages.delete(ORG, id_, message.id)


async def _on(
    house: Parlour, id_: str, position: int, change: Callable[[str, str, str], Awaitable[object]]
) -> None:
    message = await house.said.at(ORG, id_, position)
    assert message is not None
    await change(ORG, id_, message.id)


async def _turn(house: Parlour, id_: str) -> None:
    await house.turn(id_, "run1")


THREE = "one two three"
STORIES: dict[str, tuple[list[Change], Change, set[str]]] = {
    "say": ([], _say, {f"{THREE}|{THREE}", f"{THREE} four|{THREE} four"}),
    "delete": ([], _delete, {f"{THREE}|{THREE}", "one two|one two"}),
    "undelete": ([_delete], _undelete, {"one two|one two", f"{THREE}|{THREE}"}),
    "hide": ([], _hide, {f"{THREE}|{THREE}", f"{THREE}|one three"}),
    "delete of a turn": (
        [_turn],
        _delete_asked,
        {
            f"{THREE} Q run1 A run1|{THREE} Q run1 A run1",
            f"{THREE} A run1|{THREE} A run1",
        },
    ),
    "turn": (
        [],
        _turn,
        {
            f"{THREE}|{THREE}",
            f"{THREE} Q run1|{THREE} Q run1",
            f"{THREE} Q run1 |{THREE} Q run1",
            f"{THREE} Q run1 A run1|{THREE} Q run1",
            f"{THREE} Q run1 A run1|{THREE} Q run1 A run1",
        },
    ),
}
"""What happened before, what is cut, and what may be found: what is kept, and what is told."""


@each_semantics
@pytest.mark.parametrize("answered", [False, True], ids=["unanswered", "lost"])
@pytest.mark.parametrize("story", STORIES)
async def test_what_is_cut_anywhere_happened_or_did_not_and_can_be_done_again(
    story: str, answered: bool, keeps_prefix: bool
) -> None:
    before, change, allowed = STORIES[story]
    seen, last = set(), ""
    for writes in itertools.count():
        memory = Memory()
        whole = Parlour(MemoryStore(memory, COLLECTIONS))
        id_ = (await whole.create()).id
        for text in THREE.split():
            await whole.say(id_, text)
        for earlier in before:
            await earlier(whole, id_)
        cut = Cut(
            MemoryStore(memory, COLLECTIONS), writes, answered=answered, keeps_prefix=keeps_prefix
        )
        with suppress(DomainError):
            await change(Parlour(cut), id_)

        after = Parlour(MemoryStore(memory, COLLECTIONS))
        seen.add(await _shown(after, id_))
        await change(after, id_)
        last = await _shown(after, id_)
        await after.say(id_, "on")
        await after.check(id_)
        if not cut.is_cut:
            break
    assert writes > 0
    assert last in seen <= allowed
    assert len(seen) > 1 or not answered


async def _shown(house: Parlour, id_: str) -> str:
    found = await house.check(id_)
    return f"{' '.join(found['kept'])}|{' '.join(found['told'])}"


@each_semantics
@pytest.mark.parametrize("answered", [False, True], ids=["unanswered", "lost"])
async def test_a_copy_that_is_cut_anywhere_is_seen_whole_or_not_at_all(
    answered: bool, keeps_prefix: bool
) -> None:
    seen = set()
    for writes in itertools.count():
        memory = Memory()
        whole = Parlour(MemoryStore(memory, COLLECTIONS))
        id_ = (await whole.create(title="Play")).id
        for text in THREE.split():
            await whole.say(id_, text)
        cut = Cut(
            MemoryStore(memory, COLLECTIONS), writes, answered=answered, keeps_prefix=keeps_prefix
        )
        with suppress(DomainError):
            await Parlour(cut).cloner.clone(ORG, id_, "", "request")

        after = Parlour(MemoryStore(memory, COLLECTIONS))
        found = await after.conversations.list(ORG, Wanted(), None, 9)
        copies = [one for one in found if one.cloned_from]
        seen.add(len(copies))
        for copy in copies:
            assert await _shown(after, copy.id) == f"{THREE}|{THREE}"
        assert len((await after.messages.search(ORG, "three", "", None, 9)).messages) == len(found)
        await after.cascades.sweep(alone=True)
        made = await after.cloner.clone(ORG, id_, "", "request")
        assert {made.id} >= {one.id for one in copies}
        assert (left(memory, CONVERSATIONS), left(memory, MESSAGES)) == (2, 6)
        if not cut.is_cut:
            break
    assert seen == {0, 1}


async def test_what_goes_for_good_while_it_is_copied_has_no_copy() -> None:
    memory = Memory()
    whole = Parlour(MemoryStore(memory, COLLECTIONS))
    id_ = (await whole.create(title="Play")).id
    for text in THREE.split():
        await whole.say(id_, text)

    class Late(MemoryStore):
        """Answers what there is once the conversation was purged."""

        is_purged = False

        async def query(self, query: Query) -> list[Document]:
            if query.collection is MESSAGES and not self.is_purged:
                self.is_purged = True
                await whole.conversations.delete(ORG, id_, "", purge=True)
            return await super().query(query)

    error = await refused(Parlour(Late(memory, COLLECTIONS)).cloner.clone(ORG, id_, "", ""))

    assert error.reason == Reason.REASON_CONVERSATION_NOT_FOUND
    assert await whole.conversations.list(ORG, Wanted(), None, 9) == []
    await whole.cascades.sweep(alone=True)
    assert (left(memory, CONVERSATIONS), left(memory, MESSAGES)) == (0, 0)


@each_semantics
@pytest.mark.parametrize("answered", [False, True], ids=["unanswered", "lost"])
async def test_a_purge_that_is_cut_anywhere_is_finished_by_whoever_comes_next(
    answered: bool, keeps_prefix: bool
) -> None:
    seen = set()
    for writes in itertools.count():
        memory = Memory()
        whole = Parlour(MemoryStore(memory, COLLECTIONS))
        id_ = (await whole.create()).id
        await whole.say(id_, "one")
        await whole.say(id_, "two")
        cut = Cut(
            MemoryStore(memory, COLLECTIONS), writes, answered=answered, keeps_prefix=keeps_prefix
        )
        with suppress(DomainError):
            await Parlour(cut).conversations.delete(ORG, id_, "", purge=True)

        after = Parlour(MemoryStore(memory, COLLECTIONS))
        await after.cascades.sweep(alone=True)
        found = left(memory, CONVERSATIONS), left(memory, MESSAGES)
        seen.add(found)
        if found == (1, 2):
            assert await _shown(after, id_) == "one two|one two"
        if not cut.is_cut:
            break
    assert seen == ({(1, 2), (0, 0)} if answered else {(0, 0)})


# At once


class Held(MemoryStore):
    """The line of a process to the store that is held before it reads a message by its position.

    Writes that are made at once happen one by one.
    """

    def __init__(self, memory: Memory) -> None:
        super().__init__(memory, COLLECTIONS)
        self.reached = asyncio.Event()
        self.free = asyncio.Event()

    async def get(self, collection: Collection, org: str, id_: str) -> Document | None:
        if collection is MESSAGES:
            self.reached.set()
            await self.free.wait()
        return await super().get(collection, org, id_)

    async def write(self, *writes: Write) -> None:
        for one in writes:
            await super().write(one)


async def test_who_is_late_with_what_was_decided_does_not_undo_what_was_decided_later() -> None:
    memory = Memory()
    house = Parlour(MemoryStore(memory, COLLECTIONS))
    id_ = (await house.create()).id
    message = await house.say(id_, "one")
    cut = Cut(MemoryStore(memory, COLLECTIONS), 1, answered=True, keeps_prefix=True)
    with suppress(DomainError):
        await Parlour(cut).messages.delete(ORG, id_, message.id)
    held = Held(memory)
    late = asyncio.create_task(Parlour(held).conversations.get(ORG, id_))
    await asyncio.wait_for(held.reached.wait(), PATIENCE)
    assert (await house.check(id_))["kept"] == []
    await house.messages.undelete(ORG, id_, message.id)

    held.free.set()
    await asyncio.wait_for(late, PATIENCE)

    assert (await house.check(id_))["kept"] == ["one"]


@each_semantics
async def test_a_run_is_left_out_of_histories_while_a_message_of_it_is_deleted(
    keeps_prefix: bool,
) -> None:
    memory = Memory()
    house = Parlour(MemoryStore(memory, COLLECTIONS))
    id_ = (await house.create()).id
    await house.turn(id_, "run1")
    asked, answer = await house.said.list(ORG, messages.Span(id_), 9)

    async def listed() -> int:
        return len(await house.histories.list(ORG, Whose(agent_id="writer"), None, 9))

    for writes in itertools.count():
        cut = Cut(
            MemoryStore(memory, COLLECTIONS), writes, answered=True, keeps_prefix=keeps_prefix
        )
        with suppress(DomainError):
            await Parlour(cut).messages.delete(ORG, id_, asked.id)
        kept = (await house.check(id_))["kept"]
        assert await listed() == (len(kept) == 2)
        await house.messages.delete(ORG, id_, answer.id)
        await house.messages.undelete(ORG, id_, asked.id)
        assert await listed() == 0
        await house.messages.undelete(ORG, id_, answer.id)
        assert await listed() == 1
        if not cut.is_cut:
            break
    assert writes > 1


class Busy(MemoryStore):
    """A line to the store on which others are served in between.

    Args:
        keeps_prefix: whether writes that are made at once happen one by one.
    """

    def __init__(self, memory: Memory, random: Random, *, keeps_prefix: bool) -> None:
        super().__init__(memory, COLLECTIONS)
        self._random = random
        self._keeps_prefix = keeps_prefix

    async def _wait(self) -> None:
        for _ in range(self._random.randrange(3)):
            await asyncio.sleep(0)

    async def write(self, *writes: Write) -> None:
        for part in [(one,) for one in writes] if self._keeps_prefix else [writes]:
            await self._wait()
            await super().write(*part)

    async def get(self, collection: Collection, org: str, id_: str) -> Document | None:
        await self._wait()
        return await super().get(collection, org, id_)

    async def find(
        self, collection: Collection, org: str, unique: str, value: str
    ) -> Document | None:
        await self._wait()
        return await super().find(collection, org, unique, value)

    async def query(self, query: Query) -> list[Document]:
        await self._wait()
        return await super().query(query)


@each_semantics
@pytest.mark.parametrize("seed", range(8))
async def test_processes_that_do_everything_at_once_agree_in_the_end(
    seed: int, keeps_prefix: bool
) -> None:
    random = Random(seed)
    memory = Memory()
    houses = [Parlour(Busy(memory, random, keeps_prefix=keeps_prefix)) for _ in range(3)]
    id_ = (await houses[0].create()).id
    first = [(await houses[0].say(id_, f"first {number}")).id for number in range(4)]

    async def work(house: Parlour, number: int) -> None:
        for step in range(6):
            one = random.choice(first)
            match random.randrange(7):
                case 0:
                    await house.messages.toggle(ORG, id_, one)
                case 1:
                    await house.messages.hide(ORG, id_, one, hidden=None)
                case 2:
                    await house.conversations.set_title(ORG, id_, f"Title {number} {step}")
                case 3:
                    answer = (await house.ask(id_, f"run {number} {step}")).answer
                    await house.messages.toggle(ORG, id_, answer.id)
                    await house.fill(id_, f"run {number} {step}", content="done")
                case 4:
                    await house.conversations.get(ORG, id_)
                case _:
                    await house.say(id_, f"said {number} {step}", f"r{number} {step}")

    async with asyncio.timeout(PATIENCE):
        await asyncio.gather(*(work(house, n) for n, house in enumerate(houses * 2)))

    found = await houses[0].check(id_)
    assert len(set(found["kept"]) - {"done"}) == len(found["kept"]) - found["kept"].count("done")


@pytest.mark.parametrize("seed", range(8))
async def test_whoever_speaks_while_all_goes_for_good_leaves_nothing_behind(seed: int) -> None:
    random = Random(seed)
    memory = Memory()
    one, other = (Parlour(Busy(memory, random, keeps_prefix=True)) for _ in range(2))
    id_ = (await one.create()).id

    async def speak() -> None:
        with suppress(DomainError):
            for number in range(20):
                await one.say(id_, f"text {number}")

    async def purge() -> None:
        await asyncio.sleep(0)
        await other.conversations.delete(ORG, id_, "", purge=True)

    async with asyncio.timeout(PATIENCE):
        await asyncio.gather(speak(), purge())

    assert (left(memory, CONVERSATIONS), left(memory, MESSAGES)) == (0, 0)


async def test_what_was_deleted_long_enough_ago_goes_for_good() -> None:
    memory = Memory()
    house = Parlour(MemoryStore(memory, COLLECTIONS))
    id_, kept = (await house.create()).id, (await house.create()).id
    await house.say(id_, "one")
    await house.conversations.delete(ORG, id_, "", purge=False)
    assert await house.purge.sweep() == 0

    house.now = 31 * 24 * 3600 * 1_000_000

    assert await house.purge.sweep() == 1
    assert [name for name, _, _ in memory.documents] == ["conversations"]
    assert (await house.conversations.get(ORG, kept)).id == kept


async def test_long_texts_stay_out_of_lists_and_whole_in_changes() -> None:
    house = parlour()
    id_ = (await house.create()).id
    long = await house.say(id_, "long " * 3000)

    (listed,) = await house.said.list(ORG, messages.Span(id_), 9)
    hidden = await house.messages.hide(ORG, id_, long.id, hidden=True)

    assert (listed.content, listed.content_bytes, listed.is_whole) == ("", 15_000, False)
    assert hidden.content == long.content
    assert await house.texts(id_, Showing.ALL) == [long.content]
    with pytest.raises(ValueError, match="was not read"):
        await house.said.save(replace(listed, hidden=True))
