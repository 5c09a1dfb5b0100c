"""Conversations follow the screenplays of the content service, which never waits for them."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace

import pytest

from services.conversations.domain.parents import Kind
from services.kit.errors import DomainError, Reason
from services.kit.resources.deletions import Cascade
from tests.fakes.cuts import Cut
from tests.fakes.memory import Memory, MemoryStore
from tests.fakes.placing import COLLECTIONS, Placing
from tests.fakes.stage import COLLECTIONS as PLAYS
from tests.fakes.stage import ORG, Stage
from tests.fakes.virtual import in_virtual_time

PLAY = "play_a"


class Elsewhere:
    """The conversations service, as content reaches it, or does not.

    Args:
        calls: how many arrive; None for all.
        answered: whether the one after them does not arrive; else only its answer is lost.
    """

    def __init__(
        self,
        placing: Placing,
        roots: Stage | None = None,
        *,
        calls: int | None = None,
        answered: bool = True,
    ) -> None:
        self._placing = placing
        self.roots = roots
        self.left = calls
        self._answered = answered
        self.hangs = False
        self.seen: list[str] = []

    async def mark(self, org: str, parent_id: str, deletion: str, time: int) -> None:
        kin = self._placing.kin
        await self._call("mark", kin.mark(org, Kind.SCREENPLAY, parent_id, deletion, time))

    async def unmark(self, org: str, parent_id: str, deletion: str) -> None:
        kin = self._placing.kin
        await self._call("unmark", kin.unmark(org, Kind.SCREENPLAY, parent_id, deletion))

    async def purge(self, org: str, parent_id: str) -> None:
        assert self.roots is not None
        thing = await self.roots.stored.get(org, parent_id)
        if thing is None:
            return
        life, kin = thing.life, self._placing.kin
        time = life.delete_time or 0
        await self._call("purge", kin.purge(org, Kind.SCREENPLAY, parent_id, life.deletion, time))

    async def _call(self, name: str, work: Awaitable[None]) -> None:
        self.seen.append(name)
        try:
            if self.hangs:
                await asyncio.Event().wait()
            if self.left == 0:
                if not self._answered:
                    await work
                raise DomainError(Reason.REASON_SERVICE_UNAVAILABLE, "Nobody answers.")
            if self.left:
                self.left -= 1
            await work
        finally:
            if asyncio.iscoroutine(work):
                work.close()


class Mesh:
    """Both services, each over its own store."""

    def __init__(self) -> None:
        self.content, self.talks = Memory(), Memory()
        self.away: Elsewhere | None = None
        self.placing = Placing(MemoryStore(self.talks, COLLECTIONS))
        self.elsewhere = Elsewhere(self.placing)
        self.stage = self.started(self.elsewhere)
        self.play = ""
        self.placed = ""

    def started(self, elsewhere: Elsewhere, *, prefix: str = "", store: Cut | None = None) -> Stage:
        stage = Stage(store or MemoryStore(self.content, PLAYS), prefix=prefix, afar=[elsewhere])
        elsewhere.roots = stage
        return stage

    async def build(self) -> Mesh:
        self.play = (await self.stage.create()).id
        self.placing.shelf.screenplays[self.play] = ""
        await self.placing.talk(self.play)
        self.placed = (await self.placing.place(screenplay_id=self.play)).id
        return self

    def copy(self) -> Mesh:
        made = Mesh()
        made.content = replace(self.content, documents=dict(self.content.documents))
        made.talks = replace(self.talks, documents=dict(self.talks.documents))
        made.placing = Placing(MemoryStore(made.talks, COLLECTIONS), prefix="c")
        made.elsewhere = Elsewhere(made.placing)
        made.stage = made.started(made.elsewhere, prefix="c")
        made.play, made.placed = self.play, self.placed
        return made

    async def state(self) -> str:
        """What callers see of the screenplay: `live`, `deleted` or `absent`."""
        try:
            found = await self.stage.service.get(ORG, self.play, include_deleted=True)
        except DomainError:
            return "absent"
        return "live" if found.life.live else "deleted"

    async def followed(self) -> str:
        """The same of what belongs to it, in the other service."""
        shown = (len(await self.placing.talks()), len(await self.placing.listed()))
        if shown != (0, 0):
            return "live" if shown == (1, 1) else "half"
        gone = await self.placing.placed.get(ORG, self.placed)
        return "absent" if gone is None else "deleted"


@pytest.fixture
async def mesh() -> Mesh:
    return await Mesh().build()


async def test_what_belongs_to_a_screenplay_follows_it_before_a_change_is_answered(
    mesh: Mesh,
) -> None:
    await mesh.stage.delete(mesh.play)
    assert await mesh.followed() == "deleted"

    await mesh.stage.undelete(mesh.play)
    assert await mesh.followed() == "live"

    await mesh.stage.delete(mesh.play, purge=True)
    assert (await mesh.state(), await mesh.followed()) == ("absent", "absent")
    assert mesh.content.documents == {}


async def test_what_is_away_follows_once_it_is_back(mesh: Mesh) -> None:
    mesh.elsewhere.left = 0
    for change, state in (
        (mesh.stage.delete(mesh.play), "deleted"),
        (mesh.stage.undelete(mesh.play), "live"),
        (mesh.stage.delete(mesh.play), "deleted"),
    ):
        await change
        assert (await mesh.state(), await mesh.followed()) == (state, "live")
        await mesh.stage.cascades.sweep()

    mesh.elsewhere.left = None
    await mesh.stage.cascades.sweep()
    assert await mesh.followed() == "deleted"

    mesh.elsewhere.left = 0
    await mesh.stage.undelete(mesh.play)
    await mesh.stage.delete(mesh.play)
    await mesh.stage.undelete(mesh.play)
    mesh.elsewhere.left = None
    await mesh.stage.cascades.sweep()
    assert await mesh.followed() == "live"
    assert (await mesh.stage.get(mesh.play)).life.cascade is Cascade.NONE


async def test_what_goes_for_good_is_not_seen_and_waits_for_what_is_away(mesh: Mesh) -> None:
    mesh.elsewhere.left = 0

    await mesh.stage.delete(mesh.play, purge=True)

    assert (await mesh.state(), await mesh.followed()) == ("absent", "live")
    assert mesh.content.documents
    await mesh.stage.cascades.sweep()
    mesh.elsewhere.left = None
    await mesh.stage.cascades.sweep(alone=True)
    assert await mesh.followed() == "absent"
    assert mesh.content.documents == {}


async def test_who_reads_asks_nobody_else(mesh: Mesh) -> None:
    mesh.elsewhere.left = 0
    await mesh.stage.delete(mesh.play)
    other = await mesh.stage.create("Other")
    mesh.elsewhere.seen.clear()

    assert await mesh.state() == "deleted"
    assert await mesh.stage.listed() == ["Other"]
    await mesh.stage.update(other.id, content="new")
    await mesh.stage.cascades.settle(ORG)

    assert mesh.elsewhere.seen == []


@in_virtual_time
async def test_a_change_is_answered_although_the_other_service_never_does() -> None:
    mesh = await Mesh().build()
    mesh.elsewhere.hangs = True

    await mesh.stage.delete(mesh.play)
    assert (await mesh.state(), await mesh.followed()) == ("deleted", "live")
    await mesh.stage.delete(mesh.play, purge=True)
    assert await mesh.state() == "absent"

    mesh.elsewhere.hangs = False
    await mesh.stage.cascades.sweep(alone=True)
    assert await mesh.followed() == "absent"


async def test_one_trouble_of_the_other_service_holds_up_no_other_screenplay(mesh: Mesh) -> None:
    first = await mesh.stage.create("First")

    class Picky(Elsewhere):
        async def mark(self, org: str, parent_id: str, deletion: str, time: int) -> None:
            if parent_id == mesh.play:
                raise DomainError(Reason.REASON_INTERNAL, "It cannot.")
            await super().mark(org, parent_id, deletion, time)

    picky = Picky(mesh.placing)
    stage = mesh.started(picky, prefix="p")
    mesh.elsewhere.left = 0
    await mesh.stage.delete(mesh.play)
    await mesh.stage.delete(first.id)

    await stage.cascades.sweep()

    assert picky.seen == ["mark"]
    assert (await mesh.stage.stored.get(ORG, first.id)) is not None
    done = await mesh.stage.stored.get(ORG, first.id)
    left = await mesh.stage.stored.get(ORG, mesh.play)
    assert done is not None
    assert left is not None
    assert (done.life.cascade, left.life.cascade) == (Cascade.NONE, Cascade.MARK_AFAR)


async def test_a_service_that_is_told_of_no_other_leaves_what_others_are_to_be_told(
    mesh: Mesh,
) -> None:
    mesh.elsewhere.left = 0
    await mesh.stage.delete(mesh.play)
    lone = Stage(MemoryStore(mesh.content, PLAYS), prefix="l")

    await lone.cascades.sweep()
    mesh.elsewhere.left = None
    await mesh.stage.cascades.sweep()

    assert await mesh.followed() == "deleted"


# Every cut


Change = Callable[[Stage, str], Awaitable[object]]
CHANGES: dict[str, tuple[list[Change], Change, str]] = {
    "delete": ([], lambda stage, id_: stage.delete(id_), "deleted"),
    "undelete": (
        [lambda stage, id_: stage.delete(id_)],
        lambda stage, id_: stage.undelete(id_),
        "live",
    ),
    "purge": ([], lambda stage, id_: stage.delete(id_, purge=True), "absent"),
}


@pytest.mark.parametrize("answered", [True, False], ids=["before", "after"])
@pytest.mark.parametrize("what", ["the store", "the other service"])
@pytest.mark.parametrize("name", CHANGES)
async def test_a_change_that_is_cut_anywhere_is_followed_in_the_end(
    mesh: Mesh, name: str, what: str, answered: bool
) -> None:
    before, change, wanted = CHANGES[name]
    old = "deleted" if before else "live"
    for one in before:
        await one(mesh.stage, mesh.play)
    for number in itertools.count():
        copy = mesh.copy()
        calls = number if what == "the other service" else None
        elsewhere = Elsewhere(copy.placing, calls=calls, answered=answered)
        writes = number if what == "the store" else -1
        store = MemoryStore(copy.content, PLAYS)
        line = Cut(store, writes, answered=answered, keeps_prefix=True)
        victim = copy.started(elsewhere, prefix="v", store=line)
        with suppress(DomainError):
            await change(victim, copy.play)
        if not line.is_cut and elsewhere.left != 0:
            break

        state = await copy.state()
        assert state in ({wanted} if what == "the other service" else {old, wanted})
        await copy.stage.cascades.sweep(alone=True)
        assert (await copy.state(), await copy.followed()) == (state, state)
    assert number >= 1
