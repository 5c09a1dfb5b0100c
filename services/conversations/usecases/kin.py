"""What goes and comes with conversations, and with screenplays and agents of the content service."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import replace

from services.conversations.domain import instances, parents
from services.conversations.domain.conversations import Conversation
from services.conversations.domain.instances import CONVERSATION, Instance
from services.conversations.domain.parents import Kind, Parent
from services.conversations.ports.catalogue import Catalogue
from services.conversations.ports.conversations import Conversations
from services.conversations.ports.instances import Histories, Instances, Parents
from services.kit.errors import DomainError
from services.kit.resources import changes, deletions
from services.kit.resources.cascades import Cascades
from services.kit.resources.deletions import Life
from services.kit.resources.ports import FencedError, TakenError
from services.kit.resources.ties import tie

_PAGE = 200
_AT_ONCE = 20


class Cast:
    """All instances that belong to one thing, whatever became of them.

    Args:
        new_deletion_id: makes ids of deletions.
        clock: microseconds since the epoch.
    """

    def __init__(
        self,
        stored: Instances,
        cascades: Cascades[Instance],
        *,
        clock: Callable[[], int],
        new_deletion_id: Callable[[], str],
    ) -> None:
        self._instances = stored
        self._cascades = cascades
        self._clock = clock
        self._new_deletion_id = new_deletion_id

    async def ids(self, org: str, kind: str, of: str) -> AsyncIterator[str]:
        """Yield the ids of those of a thing, oldest first.

        Args:
            kind: agent, screenplay or conversation.
            of: the id of the thing.
        """
        after = None
        while page := await self._instances.ids(org, kind, of, after, _PAGE):
            after = page[-1]
            for _, id_ in page:
                yield id_

    async def change(
        self, org: str, id_: str, change: Callable[[Instance], Instance | None]
    ) -> Instance | None:
        """Store a change, whatever others change meanwhile; answers what there is then.

        Args:
            change: answers None when nothing is to change.
        """
        return await changes.follow(self._instances, org, id_, change)

    async def mark(self, org: str, kind: str, of: str, to: str, deletion: str, time: int) -> None:
        """Let the instances of a thing go with what they are tied to."""
        await self._change_all(org, kind, of, lambda one: instances.marked(one, to, deletion, time))

    async def unmark(self, org: str, kind: str, of: str, to: str, deletion: str) -> None:
        """Let the instances of a thing come back with what they are tied to."""
        await self._change_all(org, kind, of, lambda one: instances.unmarked(one, to, deletion))

    async def purge(self, org: str, kind: str, of: str, doomed: Callable[[Instance], bool]) -> None:
        """Remove the instances of a thing for good, with their histories.

        Args:
            doomed: tells which.
        """
        async for id_ in self.ids(org, kind, of):
            while (found := await self._instances.get(org, id_)) is not None:
                # Whoever lets one go finishes it. Others may have the id by now.
                if (
                    found.life.purging
                    or not instances.belongs(found, kind, of)
                    or not doomed(found)
                ):
                    break
                deletion, now = self._new_deletion_id(), self._clock()
                with suppress(FencedError):
                    going = instances.deleted(found, deletion, now, purge=True)
                    await self._cascades.finish(await self._instances.save(going), id_)
                    break

    async def _change_all(
        self, org: str, kind: str, of: str, change: Callable[[Instance], Instance | None]
    ) -> None:
        """Store a change of the instances of a thing, some at a time."""

        def belonging(one: Instance) -> Instance | None:
            # Others may have the id by now.
            return change(one) if instances.belongs(one, kind, of) else None

        some: list[str] = []
        async for id_ in self.ids(org, kind, of):
            some.append(id_)
            if len(some) == _AT_ONCE:
                await asyncio.gather(*(self.change(org, one, belonging) for one in some))
                some.clear()
        await asyncio.gather(*(self.change(org, one, belonging) for one in some))


class InstanceKin:
    """The instances that go and come with their conversations."""

    def __init__(self, cast: Cast) -> None:
        self._cast = cast

    async def mark(self, org: str, parent_id: str, deletion: str, time: int) -> None:
        """Give the instances of a conversation the mark of its deletion."""
        to = tie(CONVERSATION, parent_id)
        await self._cast.mark(org, CONVERSATION, parent_id, to, deletion, time)

    async def unmark(self, org: str, parent_id: str, deletion: str) -> None:
        """Take the mark of a deletion from the instances of a conversation."""
        to = tie(CONVERSATION, parent_id)
        await self._cast.unmark(org, CONVERSATION, parent_id, to, deletion)

    async def purge(self, org: str, parent_id: str) -> None:
        """Remove the instances of a conversation for good."""
        await self._cast.purge(org, CONVERSATION, parent_id, lambda _: True)


class HistoryKin:
    """The histories of instances: they are seen with them alone, and go for good with them."""

    def __init__(self, histories: Histories) -> None:
        self._histories = histories

    async def mark(self, org: str, parent_id: str, deletion: str, time: int) -> None:
        """Leave them as they are."""

    async def unmark(self, org: str, parent_id: str, deletion: str) -> None:
        """Leave them as they are."""

    async def purge(self, org: str, parent_id: str) -> None:
        """Remove the history of an instance."""
        await self._histories.purge(org, parent_id)


class KinService:
    """What goes and comes with things of the content service.

    The newest deletion that was heard of a thing is noted first. Who comes late finds a newer one there,
    and what is made while a thing goes finds that it has to follow. All else may be done again, by
    several at once and in any order: each conversation and instance knows what it heard of last.

    Args:
        homes: the cascades of conversations.
        catalogue: asked when something was made while what it belongs to went or came.
        clock: microseconds since the epoch.
        new_deletion_id: makes ids of deletions.
    """

    def __init__(
        self,
        stored: Parents,
        conversations: Conversations,
        homes: Cascades[Conversation],
        cast: Cast,
        catalogue: Catalogue,
        *,
        clock: Callable[[], int],
        new_deletion_id: Callable[[], str],
    ) -> None:
        self._parents = stored
        self._conversations = conversations
        self._homes = homes
        self._cast = cast
        self._catalogue = catalogue
        self._clock = clock
        self._new_deletion_id = new_deletion_id

    async def mark(self, org: str, kind: Kind, id_: str, deletion: str, time: int) -> None:
        """Delete what belongs to a thing that was deleted.

        Args:
            time: when it was, in microseconds since the epoch.
        """
        if await self._hear(org, kind, id_, lambda one: parents.deleted(one, deletion, time)):
            await self._mark(org, kind, id_, deletion, time)

    async def unmark(self, org: str, kind: Kind, id_: str, deletion: str) -> None:
        """Take back what went with a thing, in this deletion and all before."""
        if not await self._hear(org, kind, id_, lambda one: parents.back(one, deletion)):
            return
        to = tie(kind, id_)
        async for home in self._homes_of(org, kind, id_):
            await changes.follow(
                self._conversations, org, home, lambda one: parents.returned(one, deletion)
            )
            await self._cast.unmark(org, CONVERSATION, home, to, deletion)
        await self._cast.unmark(org, kind, id_, to, deletion)

    async def purge(self, org: str, kind: Kind, id_: str, deletion: str, time: int) -> None:
        """Remove what belongs to a thing for good, as far as it heard of its last deletion.

        Args:
            time: when the thing was deleted, in microseconds since the epoch.
        """
        if not await self._hear(org, kind, id_, lambda one: parents.deleted(one, deletion, time)):
            return
        await self._mark(org, kind, id_, deletion, time)

        def is_of_it(one: Instance) -> bool:
            return one.ties.get(to, Life()).deletion == deletion

        to = tie(kind, id_)
        async for home in self._homes_of(org, kind, id_):
            await self._cast.purge(org, CONVERSATION, home, is_of_it)
            await self._purge(org, home, deletion)
        await self._cast.purge(org, kind, id_, is_of_it)
        await self._hear(org, kind, id_, lambda one: parents.back(one, deletion))

    async def heard(self, org: str, instance: Instance, home: Conversation | None) -> Instance:
        """Let an instance that was just made follow what happened meanwhile to what it belongs to.

        Args:
            home: its conversation, if it has one.
        """
        of = {(Kind.AGENT, instance.agent_id), (Kind.SCREENPLAY, instance.screenplay_id)}
        if home is not None:
            of.add((Kind.SCREENPLAY, home.screenplay_id))
        found: Instance | None = instance
        for kind, id_ in sorted(of):
            parent = await self._parents.get(org, kind, id_) if id_ else None
            if parent is None:
                continue
            change = await self._following(parent)
            found = await self._cast.change(org, instance.id, change)
        return found or instance

    async def kept(self, conversation: Conversation) -> Conversation:
        """Let a conversation that was just made, or taken back, follow what its screenplay did meanwhile."""
        org, of = conversation.org, conversation.screenplay_id
        parent = await self._parents.get(org, Kind.SCREENPLAY, of) if of else None
        if parent is None:
            return conversation
        deletion, time = parent.deletion, parent.delete_time
        is_gone = await self._is_gone(parent)

        def follow(one: Conversation) -> Conversation | None:
            if not is_gone:
                return parents.returned(one, deletion)
            if one.life.live:
                # It heard of it while it was deleted by itself, and stayed as it was.
                one = replace(one, screenplay_deletion="")
            return parents.taken(one, deletion, time)

        kept = await changes.follow(self._conversations, org, conversation.id, follow)
        return kept or conversation

    async def _mark(self, org: str, kind: Kind, id_: str, deletion: str, time: int) -> None:
        to = tie(kind, id_)
        async for home in self._homes_of(org, kind, id_):
            await self._cast.mark(org, CONVERSATION, home, to, deletion, time)
            await changes.follow(
                self._conversations, org, home, lambda one: parents.taken(one, deletion, time)
            )
        await self._cast.mark(org, kind, id_, to, deletion, time)

    async def _following(self, parent: Parent) -> Callable[[Instance], Instance | None]:
        """Say how an instance follows what was heard of a thing."""
        deletion, time = parent.deletion, parent.delete_time
        if await self._is_gone(parent):
            return lambda one: instances.marked(one, parent.tie, deletion, time)
        return lambda one: instances.unmarked(one, parent.tie, deletion)

    async def _is_gone(self, parent: Parent) -> bool:
        """Tell whether a thing is deleted; it may be back already, which was not heard of yet."""
        if not parent.gone:
            return False
        try:
            if parent.kind is Kind.AGENT:
                await self._catalogue.agent(parent.id)
            else:
                await self._catalogue.directory(parent.id)
        except DomainError:
            return True
        return False

    async def _hear(
        self, org: str, kind: Kind, id_: str, hear: Callable[[Parent], Parent | None]
    ) -> bool:
        """Note what was heard of a thing; False when it is old."""
        while True:
            found = await self._parents.get(org, kind, id_)
            heard = hear(found or Parent(org, kind, id_, self._clock()))
            if heard is None or heard == found:
                return heard is not None
            with suppress(FencedError, TakenError):
                await (self._parents.add(heard) if found is None else self._parents.save(heard))
                return True

    async def _homes_of(self, org: str, kind: Kind, id_: str) -> AsyncIterator[str]:
        """Yield the ids of the conversations of a screenplay, oldest first."""
        after = None
        while kind is Kind.SCREENPLAY:
            page = await self._conversations.of_screenplay(org, id_, after, _PAGE)
            if not page:
                return
            after = page[-1].create_time, page[-1].id
            for conversation in page:
                yield conversation.id

    async def _purge(self, org: str, id_: str, deletion: str) -> None:
        """Remove a conversation for good with all that belongs to it, if it heard of this deletion last."""
        while (found := await self._conversations.get(org, id_)) is not None:
            if found.life.purging or found.screenplay_deletion != deletion:
                return
            life = deletions.deleted(found.life, self._new_deletion_id(), self._clock())
            with suppress(FencedError):
                going = replace(found, life=deletions.purging(life))
                await self._homes.finish(await self._conversations.save(going), id_)
                return
