"""What runs came to: counting them, listing them, clearing lists."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

from services.conversations.domain import histories
from services.conversations.domain.histories import Ended, Link, Shown, Totals, Whose
from services.conversations.ports.histories import Links, Sayings
from services.kit.errors import DomainError, Reason
from services.kit.resources.locks import Locks
from services.kit.resources.ports import FencedError, TakenError

_TRIES = 100
_PAGE = 200
_AT_ONCE = 8
_TOLD = 200
"""How many earlier runs of its instance a run is told at most."""


class HistoryService:
    """Counts runs and keeps their histories.

    Args:
        sayings: what was said in the turns of the runs.
        clock: microseconds since the epoch.
    """

    def __init__(self, links: Links, sayings: Sayings, *, clock: Callable[[], int]) -> None:
        self._links = links
        self._sayings = sayings
        self._clock = clock
        self._locks = Locks()

    async def record(self, run: Ended) -> Link:
        """Count a run that ended, once; as it ended the first time.

        Raises:
            DomainError: CONFLICT.
        """
        link = await self._links.find(run.org, run.execution_id)
        if link is None:
            # Those of one process wait for one another here, rather than try for one number.
            async with self._locks.of((run.org, run.chain)):
                link = await self._added(run)
        return await self._followed(link) if run.conversation_id else link

    async def follow(self, org: str, execution_id: str) -> None:
        """Hide a run of which a message was deleted, or show it again, whatever it is now.

        To be called after the message changed. Nothing happens before the run was counted.
        """
        link = await self._links.find(org, execution_id)
        if link is not None:
            await self._followed(link)

    async def list(
        self, org: str, whose: Whose, after: tuple[int, str] | None, limit: int
    ) -> Sequence[Link]:
        """Read a page of a history, newest first.

        Args:
            after: the create time and the id of the last one of the page before.
        """
        return await self._links.list(org, whose, Shown.SHOWN, after, limit)

    async def told(
        self, org: str, instance_id: str, upto: int, max_bytes: int
    ) -> tuple[Sequence[Link], int]:
        """Read what a run of an instance outside of conversations is told of those before it.

        Args:
            upto: how many runs of the instance had been counted when it was accepted.
            max_bytes: how many bytes of UTF-8 the texts may have together.

        Returns:
            The newest that fit, the oldest first, and how many of the newest ones did not.
        """
        newest = await self._links.told(org, instance_id, upto, _TOLD)
        told = histories.fitting(newest, max_bytes)
        return told[::-1], len(newest) - len(told)

    async def clear(self, org: str, whose: Whose) -> int:
        """Leave nothing of a history but what it counts; returns how many runs were listed."""
        count = 0
        for shown in (Shown.SHOWN, Shown.HIDDEN):
            after = None
            # One pass: a history that grows faster than it is cleared would keep this here for ever.
            while page := await self._links.list(org, whose, shown, after, _PAGE):
                after = page[-1].create_time, page[-1].id
                for link in page:
                    count += await self._clear(link) and shown is Shown.SHOWN
        return count

    async def forget(self, org: str, execution_ids: Iterable[str]) -> None:
        """Leave nothing of runs but that they count; those that were not counted yet are left out."""
        left = list(execution_ids)
        for start in range(0, len(left), _AT_ONCE):
            some = left[start : start + _AT_ONCE]
            found = await asyncio.gather(*(self._links.find(org, id_) for id_ in some))
            await asyncio.gather(*(self._clear(link) for link in found if link is not None))

    async def statistics(self, org: str, instance_id: str) -> Totals:
        """Say what the runs of an instance came to."""
        newest = await self._links.newest(org, histories.chain_of("", instance_id))
        return Totals() if newest is None else newest.totals

    async def purge(self, org: str, instance_id: str) -> None:
        """Remove the history of an instance for good, with what it counts."""
        while True:
            with suppress(FencedError):
                await self._links.remove(org, histories.chain_of("", instance_id))
                return

    async def _added(self, run: Ended) -> Link:
        for _ in range(_TRIES):
            found = await self._links.find(run.org, run.execution_id)
            if found is not None:
                return found
            newest = await self._links.newest(run.org, run.chain)
            link = histories.linked(newest, run, self._clock())
            with suppress(TakenError):
                await self._links.add(link)
                return link
        raise DomainError(
            Reason.REASON_CONFLICT,
            f"Run {run.execution_id} could not be counted: others are, all the time; try again.",
            retry_after=1.0,
        )

    async def _followed(self, link: Link) -> Link:
        """Bring a link to what its messages are, until it has been seen to be that after its change."""
        while True:
            deleted = await self._sayings.any_deleted(link.org, link.run.execution_id)
            wanted = histories.followed(link, deleted=deleted)
            if wanted == link:
                return link
            try:
                link = await self._links.save(wanted)
            except FencedError:
                found = await self._links.find(link.org, link.run.execution_id)
                if found is None:
                    return link
                link = found

    async def _clear(self, link: Link) -> bool:
        """Clear a run; False when somebody else did, or it is gone."""
        found: Link | None = link
        while found is not None and found.shown is not Shown.CLEARED:
            try:
                await self._links.save(histories.cleared(found))
            except FencedError:
                found = await self._links.find(link.org, link.run.execution_id)
            else:
                return True
        return False
