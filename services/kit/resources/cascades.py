"""Finishing what deletions began, and purging what was deleted long ago."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Generic, Protocol, TypeVar

import grpc

from services.kit.errors import DomainError, Reason, code_of
from services.kit.resources import deletions
from services.kit.resources.deletions import Cascade
from services.kit.resources.ports import FencedError, Mortal, Place, Roots

_LOG = logging.getLogger(__name__)
_PAGE = 200
_SWEEP_SECONDS = 1.0
_PURGE_SECONDS = 600.0
_PATIENCE_SECONDS = 5.0
_TRY_SECONDS = 2.0
"""How long whoever makes a change waits for what belongs to it afar."""
_HELPED_WITH = (Cascade.MARK, Cascade.UNMARK)

T = TypeVar("T", bound=Mortal)


class Kin(Protocol):
    """What goes and comes with a thing. Each of these may be done again, and by several at once."""

    async def mark(self, org: str, parent_id: str, deletion: str, time: int) -> None:
        """Give all that belong to a thing the mark of its deletion, as `deletions.marked` says.

        Args:
            time: when it was deleted, in microseconds since the epoch.
        """
        ...

    async def unmark(self, org: str, parent_id: str, deletion: str) -> None:
        """Take the mark of a deletion from all that have it, as `deletions.unmarked` says."""
        ...

    async def purge(self, org: str, parent_id: str) -> None:
        """Remove all that belong to a thing for good."""
        ...


class Cascades(Generic[T]):
    """Finishes what the documents of things say is to be done to those that belong to them.

    Marks may be set and taken by several at the same time: by whoever deleted the thing, whoever reads
    it meanwhile, and the sweep. One alone removes things for good, since a late hand would also remove
    what somebody made anew under the same id: whoever asked for it, or, when that one shows no progress
    for a while, whoever claims the thing by changing its document first.

    Nobody who reads waits for what belongs to a thing afar, at another service, which may be away: the
    note that it is to follow stays in the document until it did. Who made the change tries once, and the
    sweep goes on. Several may be at it, late and out of order: so those afar take no deletion that is
    older than the newest they heard of, and take back every one up to that which they are told.

    Args:
        afar: what belongs to the things at other services.
        monotonic: seconds, of a clock that only goes forward.
        patience: for how many seconds nothing has to happen before a purge is taken over.
    """

    def __init__(
        self,
        roots: Roots[T],
        kin: Sequence[Kin],
        *,
        afar: Sequence[Kin] = (),
        monotonic: Callable[[], float],
        patience: float = _PATIENCE_SECONDS,
    ) -> None:
        self.roots = roots
        self._kin = kin
        self._afar = afar
        self._monotonic = monotonic
        self._patience = patience
        self._seen: dict[tuple[str, str], tuple[int, float]] = {}
        """The version a thing about to be purged has, and since when it was seen to have it."""

    async def settled(self, thing: T, id_: str) -> T | None:
        """Answer a thing once those that belong to it have followed it, whoever sees to that.

        None when it is gone or about to go for good.
        """
        found: T | None = thing
        while found is not None and found.life.cascade in _HELPED_WITH:
            found = await self._follow(found, id_)
        return None if found is None or found.life.purging else found

    async def settle(self, org: str) -> None:
        """See that whatever belongs to things of an organisation has followed them.

        For lists of what belongs to others: after it they show no half of a deletion that was answered
        or seen before.
        """
        for cascade in _HELPED_WITH:
            async for place in self._pending(cascade, org):
                await self._help(place)
        async for place in self._pending(Cascade.PURGE, org):
            thing = await self.roots.get(org, place.id)
            if thing is not None and thing.life.purging:
                await self.mark(thing, place.id)
                await self._check_marks(thing, place.id, await self.roots.get(org, place.id))

    async def mark(self, thing: T, id_: str) -> None:
        """Let those that belong to a deleted thing follow it, and leave the rest to others."""
        for kin in self._kin:
            await kin.mark(thing.org, id_, thing.life.deletion, thing.life.delete_time or 0)

    async def finish(self, thing: T, id_: str) -> DomainError | None:
        """Do what a change has just left to be done: by whoever made the change.

        Returns:
            What kept those afar from following; the sweep goes on. None when all is done.
        """
        if not thing.life.purging:
            settled = await self.settled(thing, id_)
            if settled is None:
                return None
            return await self._tried(self._reach(settled, id_), _TRY_SECONDS)
        await self.mark(thing, id_)
        for kin in self._kin:
            await kin.purge(thing.org, id_)
        # Nobody sees the thing any more. It stays for those afar until they are gone.
        trouble = await self._tried(self._purge_afar(thing, id_), _TRY_SECONDS)
        if trouble is None:
            with suppress(FencedError):
                await self.roots.remove(thing)
        return trouble

    async def sweep(self, *, alone: bool = False) -> None:
        """Finish everything that somebody left, in all organisations.

        Args:
            alone: whether nobody else can be at work, so that nothing has to be waited for.
        """
        for cascade in _HELPED_WITH:
            async for place in self._pending(cascade, None):
                await self._help(place)
        left = {}
        async for place in self._pending(Cascade.PURGE, None):
            left[place.org, place.id] = place
        self._seen = {key: seen for key, seen in self._seen.items() if key in left}
        for key, place in left.items():
            version, since = self._seen.get(key, (0, 0.0))
            if alone or (version == place.version and self._monotonic() - since >= self._patience):
                if _is_away(await self._take_over(place)):
                    return
            elif version != place.version:
                self._seen[key] = place.version, self._monotonic()
        await self._sweep_afar()

    async def begin(self) -> None:
        """Finish everything that was left, before anybody else is at work; else the sweep does."""
        try:
            await self.sweep(alone=True)
        except DomainError as error:
            _LOG.warning("deletions could not be finished yet: %s", error)

    async def serve(self) -> None:
        """Sweep every second until cancelled."""
        while True:
            try:
                await self.sweep()
            except DomainError as error:
                _LOG.warning("deletions could not be finished, trying again: %s", error)
            await asyncio.sleep(_SWEEP_SECONDS)

    async def _help(self, place: Place) -> None:
        thing = await self.roots.get(place.org, place.id)
        if thing is not None:
            await self.settled(thing, place.id)

    async def _take_over(self, place: Place) -> DomainError | None:
        thing = await self.roots.get(place.org, place.id)
        if thing is not None and thing.life.purging:
            with suppress(FencedError):
                return await self.finish(await self.roots.save(thing), place.id)
        return None

    async def _follow(self, thing: T, id_: str) -> T | None:
        """Do what the document says to those below, and note that it is done."""
        org, life = thing.org, thing.life
        if life.cascade is Cascade.MARK:
            await self.mark(thing, id_)
        else:
            for kin in self._kin:
                await kin.unmark(org, id_, life.last_deletion)
        try:
            followed = deletions.done(life, afar=bool(self._afar))
            return await self.roots.save(replace(thing, life=followed))
        except FencedError:
            found = await self.roots.get(org, id_)
            await self._check_marks(thing, id_, found)
            return found

    async def _sweep_afar(self) -> None:
        """Let those afar follow; when they are away, they are asked again with the next sweep."""
        for cascade in deletions.AFAR if self._afar else ():
            async for place in self._pending(cascade, None):
                thing = await self.roots.get(place.org, place.id)
                if thing is not None and _is_away(await self._tried(self._reach(thing, place.id))):
                    return

    async def _reach(self, thing: T, id_: str) -> None:
        """Let those afar follow a thing as its document says, and note that it is done."""
        org, life = thing.org, thing.life
        if life.cascade not in deletions.AFAR or not self._afar:
            return
        for kin in self._afar:
            if life.cascade is Cascade.MARK_AFAR:
                await kin.mark(org, id_, life.deletion, life.delete_time or 0)
            else:
                await kin.unmark(org, id_, life.last_deletion)
        # Who changed the thing meanwhile left the note, or a newer one.
        with suppress(FencedError):
            await self.roots.save(replace(thing, life=deletions.done(life)))

    async def _purge_afar(self, thing: T, id_: str) -> None:
        for kin in self._afar:
            await kin.purge(thing.org, id_)

    async def _tried(
        self, work: Awaitable[None], seconds: float | None = None
    ) -> DomainError | None:
        """Do something that has to do with those afar; answers what kept it from being done.

        Args:
            seconds: how long at most; None for as long as the others may take.
        """
        trouble = None
        try:
            async with asyncio.timeout(seconds):
                await work
        except DomainError as error:
            trouble = error
        except TimeoutError:
            trouble = DomainError(Reason.REASON_SERVICE_UNAVAILABLE, "They take too long.")
        if trouble is not None:
            _LOG.info("what belongs to a %s elsewhere follows later: %s", self.roots.kind, trouble)
        return trouble

    async def _check_marks(self, marked: T, id_: str, found: T | None) -> None:
        """Take the marks of a deletion back that came late.

        Args:
            marked: the thing as it was when the marks were set.
            found: what it is now; somebody may have taken it back, or made it anew.
        """
        deletion = marked.life.deletion
        if deletion and (found is None or found.life.deletion != deletion):
            for kin in self._kin:
                await kin.unmark(marked.org, id_, deletion)

    async def _pending(self, cascade: Cascade, org: str | None) -> AsyncIterator[Place]:
        after = None
        while page := await self.roots.pending(cascade, org, after, _PAGE):
            after = page[-1]
            for place in page:
                yield place


def _is_away(trouble: DomainError | None) -> bool:
    """Tell whether nobody afar answers, so that the rest may as well wait for the next sweep."""
    return trouble is not None and code_of(trouble.reason) is grpc.StatusCode.UNAVAILABLE


class Purge(Generic[T]):
    """Lets what was deleted long ago go for good.

    Args:
        keep_days: how long what is deleted is kept.
        clock: microseconds since the epoch.
    """

    def __init__(
        self, cascades: Cascades[T], *, keep_days: float, clock: Callable[[], int]
    ) -> None:
        self._cascades = cascades
        self._roots = cascades.roots
        self._keep_days = keep_days
        self._clock = clock

    async def serve(self) -> None:
        """Sweep every ten minutes until cancelled."""
        while True:
            try:
                await self.sweep()
            except DomainError as error:
                _LOG.warning("what was deleted could not be purged, trying again: %s", error)
            await asyncio.sleep(_PURGE_SECONDS)

    async def sweep(self) -> int:
        """Purge what was deleted long enough ago; returns how many things."""
        now = self._clock()
        purged = 0
        after = None
        while page := await self._roots.deleted(after, _PAGE):
            after = page[-1]
            for place in page:
                time = place.delete_time
                if time is not None and deletions.purge_time(time, self._keep_days) < now:
                    purged += await self._purge(place, now)
        return purged

    async def _purge(self, place: Place, now: int) -> bool:
        thing = await self._roots.get(place.org, place.id)
        if thing is None or not deletions.is_due(thing.life, self._keep_days, now):
            return False
        settled = await self._cascades.settled(thing, place.id)
        if settled is None or not deletions.is_due(settled.life, self._keep_days, now):
            return False
        try:
            going = await self._roots.save(replace(settled, life=deletions.purging(settled.life)))
        except FencedError:
            # Taken back, or purged by another process.
            return False
        await self._cascades.finish(going, place.id)
        return True
