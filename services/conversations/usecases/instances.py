"""Making, reading, changing and deleting agents placed in screenplays and conversations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from services.conversations.domain import conversations, instances
from services.conversations.domain.conversations import Conversation
from services.conversations.domain.histories import Link, Totals, Whose
from services.conversations.domain.instances import (
    CONVERSATION,
    Asked,
    Instance,
    Status,
    Wanted,
)
from services.conversations.domain.messages import Reference
from services.conversations.ports.catalogue import Catalogue, Voice
from services.conversations.ports.conversations import Conversations
from services.conversations.ports.instances import Histories, Instances
from services.conversations.usecases.kin import Cast, KinService
from services.kit.errors import Reason, invalid, naming
from services.kit.resources import etags, request_ids
from services.kit.resources.cascades import Cascades
from services.kit.resources.deletions import Cascade
from services.kit.resources.ports import FencedError, TakenError
from services.kit.resources.ties import tie

_TRIES = 30
_CONTEXT_RUNS = 50
_PLACES = {
    Reason.REASON_AGENT_NOT_FOUND: "instance.agent_id",
    Reason.REASON_CONVERSATION_NOT_FOUND: "instance.conversation_id",
    Reason.REASON_SCREENPLAY_NOT_FOUND: "instance.screenplay_id",
}
"""Where a request to place an agent names what is not there."""


@dataclass(frozen=True, slots=True)
class Counted:
    """An instance, and what its runs came to."""

    instance: Instance
    totals: Totals


@dataclass(frozen=True, slots=True)
class Tools:
    """The MCP servers of an instance and of its agent."""

    instance: Instance
    of_agent: tuple[str, ...]

    @property
    def combined(self) -> tuple[str, ...]:
        """Both, each once."""
        return tuple(dict.fromkeys((*self.of_agent, *self.instance.mcp_configs)))


@dataclass(frozen=True, slots=True)
class Beginning:
    """What the runs of an instance start from."""

    voice: Voice
    instructions: str
    runs: Sequence[Link]
    """The newest, the oldest of them first."""
    cwd: str


class InstanceService:
    """The instances.

    Args:
        homes: the conversations they are placed in, and their cascades.
        clock: microseconds since the epoch.
        new_id: makes ids of instances.
        new_deletion_id: makes ids of deletions.
    """

    def __init__(
        self,
        stored: Instances,
        cascades: Cascades[Instance],
        homes: Cascades[Conversation],
        found: Conversations,
        cast: Cast,
        kin: KinService,
        catalogue: Catalogue,
        histories: Histories,
        *,
        clock: Callable[[], int],
        new_id: Callable[[], str],
        new_deletion_id: Callable[[], str],
    ) -> None:
        self._instances = stored
        self._cascades = cascades
        self._homes = homes
        self._conversations = found
        self._cast = cast
        self._kin = kin
        self._catalogue = catalogue
        self._histories = histories
        self._clock = clock
        self._new_id = new_id
        self._new_deletion_id = new_deletion_id

    async def create(self, org: str, asked: Asked) -> Counted:
        """Place an agent; a repeated request_id answers the instance it made before.

        Raises:
            DomainError: INVALID_REQUEST, INSTANCE_ALREADY_EXISTS, AGENT_NOT_FOUND,
                SCREENPLAY_NOT_FOUND, CONVERSATION_NOT_FOUND, REQUEST_ID_REUSED, SERVICE_UNAVAILABLE,
                CONFLICT.
        """
        asked = replace(asked, values=instances.tidy(asked.values))
        if asked.id:
            instances.check_id(asked.id)
        if not asked.values.get("agent_id"):
            raise invalid("instance.agent_id", "must name the agent to place")
        digest = instances.digest_of(asked) if asked.request_id else ""
        for _ in range(_TRIES):
            if asked.request_id:
                earlier = await self._instances.by_request_id(org, asked.request_id)
                if earlier is not None and not earlier.life.purging:
                    request_ids.same_request(digest, earlier.digest, earlier.resource)
                    return await self._counted(earlier)
            if asked.id and (holder := await self._instances.get(org, asked.id)) is not None:
                raise instances.already_exists(holder)
            with naming(_PLACES):
                home, values = await self._placed(org, asked.values)
            id_ = asked.id or self._new_id()
            made = instances.made(org, id_, replace(asked, values=values), self._clock(), digest)
            with suppress(TakenError):
                return Counted(
                    await self._followed(await self._instances.add(made), home), Totals()
                )
        raise instances.contended(asked.id)

    async def get(self, org: str, instance_id: str, *, include_deleted: bool = False) -> Instance:
        """Read an instance.

        Raises:
            DomainError: INSTANCE_NOT_FOUND.
        """
        found = await self._instances.get(org, instance_id)
        if found is not None and found.conversation_id:
            # Its conversation may have been changed by somebody who went no further.
            home = await self._conversations.get(org, found.conversation_id)
            if home is not None and home.life.cascade is not Cascade.NONE:
                is_there = await self._homes.settled(home, home.id) is not None
                found = await self._instances.get(org, instance_id) if is_there else None
        if found is None or found.life.purging:
            raise instances.not_found(instance_id)
        if not found.fate.live and not include_deleted:
            raise instances.is_deleted(found)
        return found

    async def counted(
        self, org: str, instance_id: str, *, include_deleted: bool = False
    ) -> Counted:
        """Read an instance, and what its runs came to.

        Raises:
            DomainError: INSTANCE_NOT_FOUND.
        """
        return await self._counted(
            await self.get(org, instance_id, include_deleted=include_deleted)
        )

    async def list(
        self, org: str, wanted: Wanted, after: tuple[int | str, str] | None, limit: int
    ) -> Sequence[Instance]:
        """Read a page of instances, without their configs."""
        await self._homes.settle(org)
        return await self._instances.list(org, wanted, after, limit)

    async def counts(self, found: Sequence[Instance]) -> Sequence[Counted]:
        """Say of instances what their runs came to."""
        return [await self._counted(one) for one in found]

    def place(self, instance: Instance, wanted: Wanted) -> tuple[int | str, str]:
        """Tell the place of an instance in a list."""
        return self._instances.place(instance, wanted)

    async def update(
        self,
        org: str,
        instance_id: str,
        values: Mapping[str, Any],
        etag: str = "",
        *,
        at: str = "instance.",
    ) -> Counted:
        """Change an instance; what changes nothing leaves its etag as it is.

        Args:
            values: by the names of the fields that change, as `instances.changed` has them.
            etag: the one the change started from; empty for any.
            at: what stands before the names of fields in errors.

        Raises:
            DomainError: INVALID_REQUEST, INSTANCE_NOT_FOUND, ETAG_MISMATCH, CONFLICT.
        """
        values = instances.tidy(values, at)
        for _ in range(_TRIES):
            stored = await self.get(org, instance_id)
            changed = instances.changed(stored, values, self._clock())
            etags.check(
                etag,
                stored.etag,
                force=False,
                required=False,
                what=stored.resource,
                changes=changed is not None,
            )
            if changed is None:
                return await self._counted(stored)
            with suppress(FencedError):
                return await self._counted(await self._instances.save(changed))
        raise instances.contended(instance_id)

    async def note(self, org: str, instance_id: str, status: Status) -> bool:
        """Note what the mesh does with an instance; nothing happens when there is none.

        Its etag stays: whoever edits the instance is not in the way of its runs.

        Returns:
            Whether there is one, deleted or not; one that is about to go for good is none.
        """

        def noted(one: Instance) -> Instance | None:
            if one.status is status or one.life.purging:
                return None
            return instances.noted(one, status, self._clock())

        found = await self._cast.change(org, instance_id, noted)
        return found is not None and not found.life.purging

    async def tools(self, org: str, instance_id: str) -> Tools:
        """Read the MCP servers of an instance and of its agent.

        Raises:
            DomainError: INSTANCE_NOT_FOUND, AGENT_NOT_FOUND, SERVICE_UNAVAILABLE.
        """
        found = await self.get(org, instance_id)
        agent = await self._catalogue.agent(found.agent_id)
        return Tools(found, agent.mcp_servers)

    async def set_tools(self, org: str, instance_id: str, names: tuple[str, ...]) -> Tools:
        """Set the MCP servers of an instance.

        Raises:
            DomainError: as `tools` does; INVALID_REQUEST, CONFLICT.
        """
        before = await self.tools(org, instance_id)
        after = await self.update(org, instance_id, {"mcp_configs": names}, at="")
        return replace(before, instance=after.instance)

    async def check(self, org: str, instance_id: str) -> None:
        """Check that an instance is there, if one is named.

        Raises:
            DomainError: INSTANCE_NOT_FOUND.
        """
        if instance_id:
            await self.get(org, instance_id)

    async def reorder(self, org: str, places: Sequence[tuple[str, float]]) -> int:
        """Set the places of instances in lists ordered by hand: all of them, or none.

        Returns:
            How many were given a place.

        Raises:
            DomainError: INVALID_REQUEST, INSTANCE_NOT_FOUND, CONFLICT.
        """
        wanted = dict(places)
        if len(wanted) < len(places):
            raise invalid("order_updates", "must name each instance once")
        for _ in range(_TRIES):
            now = self._clock()
            changed = []
            for id_, order in wanted.items():
                stored = await self.get(org, id_)
                values = instances.tidy({"display_order": order})
                changed.append(instances.changed(stored, values, now))
            with suppress(FencedError):
                # Who is cut here has moved some: asked again, the rest follows.
                await self._instances.save_all([one for one in changed if one is not None])
                return len(wanted)
        raise instances.contended(next(iter(wanted)))

    async def delete(self, org: str, instance_id: str, etag: str, *, purge: bool) -> None:
        """Delete an instance.

        Args:
            etag: the one it has to have; empty for any.
            purge: whether it goes for good with its history, deleted before or not.

        Raises:
            DomainError: INSTANCE_NOT_FOUND, ETAG_MISMATCH, CONFLICT.
        """
        for _ in range(_TRIES):
            stored = await self.get(org, instance_id, include_deleted=purge)
            etags.check(etag, stored.etag, force=False, required=False, what=stored.resource)
            going = instances.deleted(stored, self._new_deletion_id(), self._clock(), purge=purge)
            try:
                gone = await self._instances.save(going)
            except FencedError:
                continue
            await self._cascades.finish(gone, instance_id)
            return
        raise instances.contended(instance_id)

    async def undelete(self, org: str, instance_id: str) -> Counted:
        """Take a deleted instance back; one that is not deleted is answered as it is.

        Raises:
            DomainError: INSTANCE_NOT_FOUND, CONFLICT; AGENT_NOT_FOUND, SCREENPLAY_NOT_FOUND,
                CONVERSATION_NOT_FOUND while what it belongs to is deleted.
        """
        for _ in range(_TRIES):
            stored = await self.get(org, instance_id, include_deleted=True)
            for kind, id_ in instances.held_by(stored):
                raise instances.went_with(kind, id_)
            if stored.life.live:
                return await self._counted(stored)
            with suppress(FencedError):
                back = await self._instances.save(instances.undeleted(stored))
                return await self._counted(back)
        raise instances.contended(instance_id)

    async def beginning(self, org: str, instance_id: str) -> Beginning:
        """Read what the runs of an instance start from.

        Raises:
            DomainError: INSTANCE_NOT_FOUND, AGENT_NOT_FOUND, SCREENPLAY_NOT_FOUND, SERVICE_UNAVAILABLE.
        """
        found = await self.get(org, instance_id)
        agent = await self._catalogue.agent(found.agent_id)
        voice = await self._catalogue.voice(found.agent_id)
        cwd = found.cwd
        if not cwd and found.screenplay_id:
            cwd = await self._catalogue.directory(found.screenplay_id)
        whose = Whose(instance_id=found.id)
        runs = await self._histories.list(org, whose, None, _CONTEXT_RUNS)
        return Beginning(voice, agent.instructions, runs[::-1], cwd)

    async def reference(self, org: str, instance_id: str) -> Reference:
        """Tell the agent of an instance, with the instance's own emoji when it has one.

        Raises:
            DomainError: INSTANCE_NOT_FOUND.
        """
        found = await self.get(org, instance_id)
        return Reference(found.agent_id, found.id, emoji=found.emoji)

    async def copy(self, org: str, conversation_id: str, copy: Conversation) -> Mapping[str, str]:
        """Copy the instances of a conversation, deleted ones left out, to a copy that is not seen yet.

        The copies take the mark of the copy's deletion, and begin when it does.

        Returns:
            The id of each instance's copy, by the id of the instance.
        """
        copies = {}
        async for id_ in self._cast.ids(org, CONVERSATION, conversation_id):
            found = await self._instances.get(org, id_)
            if found is None or not found.fate.live:
                continue
            new_id, now = self._new_id(), self._clock()
            made = instances.copied(found, new_id, copy.id, copy.life, now)
            await self._kin.heard(org, await self._instances.add(made), copy)
            copies[id_] = new_id
        return copies

    async def _placed(
        self, org: str, values: Mapping[str, Any]
    ) -> tuple[Conversation | None, Mapping[str, Any]]:
        """Look up what an instance is placed in; its screenplay is that of its conversation by default."""
        await self._catalogue.agent(values["agent_id"])
        home = None
        if conversation_id := values.get("conversation_id"):
            home = await self._home(org, conversation_id)
        screenplay_id = values.get("screenplay_id") or (home.screenplay_id if home else "")
        if screenplay_id:
            await self._catalogue.directory(screenplay_id)
        return home, {**values, "screenplay_id": screenplay_id}

    async def _home(self, org: str, conversation_id: str) -> Conversation:
        found = await self._conversations.get(org, conversation_id)
        home = None if found is None else await self._homes.settled(found, conversation_id)
        if home is None:
            raise conversations.not_found(conversation_id)
        if not home.life.live:
            raise conversations.is_deleted(home)
        return home

    async def _followed(self, made: Instance, home: Conversation | None) -> Instance:
        """Let an instance that was just made follow what happened meanwhile to what it belongs to.

        Raises:
            DomainError: CONVERSATION_NOT_FOUND, when its conversation is gone for good, and so is it.
        """
        org, instance = made.org, await self._kin.heard(made.org, made, home)
        if home is None:
            return instance
        to, seen = tie(CONVERSATION, home.id), ""
        while True:
            found = await self._conversations.get(org, home.id)
            if found is None or found.life.purging:
                await self._cast.purge(org, CONVERSATION, home.id, lambda one: one.id == made.id)
                raise conversations.not_found(home.id)
            life = found.life
            deletion = "" if life.live or life.inherited else life.deletion
            if deletion == seen:
                return instance
            # Once more: it may be taken back while the instance follows.
            if deletion:
                time = life.delete_time or 0
                change = _going(to, deletion, time)
            else:
                change = _coming(to, seen)
            instance = await self._cast.change(org, made.id, change) or instance
            seen = deletion

    async def _counted(self, instance: Instance) -> Counted:
        return Counted(instance, await self._histories.statistics(instance.org, instance.id))


def _going(to: str, deletion: str, time: int) -> Callable[[Instance], Instance | None]:
    return lambda one: instances.marked(one, to, deletion, time)


def _coming(to: str, deletion: str) -> Callable[[Instance], Instance | None]:
    return lambda one: instances.unmarked(one, to, deletion)
