"""Making, reading, changing and deleting agents, and finding what a run of one needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from services.content.domain import agents
from services.content.domain.agents import DEFAULT_ID, Agent, Asked, Resolved, Wanted
from services.content.ports.agents import Agents, Personas
from services.kit.errors import DomainError, Reason, Resource
from services.kit.resources import deletions, etags, request_ids
from services.kit.resources.cascades import Cascades
from services.kit.resources.conflicts import contended
from services.kit.resources.ports import FencedError, TakenError

_TRIES = 30
_KNOWN = 500
"""How many agents are looked at for one that may have been meant."""
_ORGS = 10_000
"""Of how many organisations it is remembered that their `default` is stored."""


class AgentService:
    """The catalogue of agents.

    Args:
        clock: microseconds since the epoch.
        new_id: makes ids of deletions, in the order they are made in.
    """

    def __init__(
        self,
        stored: Agents,
        cascades: Cascades[Agent],
        *,
        clock: Callable[[], int],
        new_id: Callable[[], str],
    ) -> None:
        self._agents = stored
        self._cascades = cascades
        self._clock = clock
        self._new_id = new_id
        self._begun: set[str] = set()
        """Organisations whose `default` is stored."""

    async def create(self, org: str, asked: Asked) -> Agent:
        """Make an agent; a repeated request_id answers the one it made before.

        Raises:
            DomainError: INVALID_REQUEST, AGENT_ALREADY_EXISTS, REQUEST_ID_REUSED, CONFLICT.
        """
        definition = agents.checked(asked.definition)
        if asked.id:
            agents.check_id(asked.id)
        for _ in range(_TRIES):
            if asked.request_id:
                earlier = await self._agents.by_request_id(org, asked.request_id)
                if earlier is not None:
                    request_ids.same_request(asked.digest, earlier.digest, earlier.resource)
                    return await self._settled(earlier)
            id_ = asked.id or await self._free_id(org, definition.name)
            if asked.id and (holder := await self._stored(org, id_)) is not None:
                raise agents.already_exists(holder)
            now = self._clock()
            made = Agent(
                org,
                id_,
                definition,
                create_time=now,
                update_time=now,
                request_id=asked.request_id,
                digest=asked.digest,
            )
            try:
                return await self._agents.add(made)
            except TakenError:
                continue
        raise _contended(asked.id or definition.name)

    async def get(self, org: str, agent_id: str, *, include_deleted: bool = False) -> Agent:
        """Read an agent.

        Raises:
            DomainError: AGENT_NOT_FOUND, which names those that may have been meant.
        """
        agent = await self._found(org, agent_id)
        if not agent.life.live and not include_deleted:
            raise agents.is_deleted(agent_id)
        return agent

    async def live(self, org: str, agent_id: str) -> Agent:
        """Read an agent that is not deleted, with all that belongs to it as it is.

        Raises:
            DomainError: AGENT_NOT_FOUND.
        """
        return await self.get(org, agent_id)

    async def list(
        self, org: str, wanted: Wanted, after: tuple[int | str, str] | None, limit: int
    ) -> Sequence[Agent]:
        """Read a page of agents, without their instructions."""
        if org not in self._begun:
            await self._begin(org)
        return await self._agents.list(org, wanted, after, limit)

    def place(self, agent: Agent, wanted: Wanted) -> tuple[int | str, str]:
        """Tell the place of an agent in a list."""
        return self._agents.place(agent, wanted)

    async def update(
        self, org: str, agent_id: str, changes: Mapping[str, Any], etag: str, *, force: bool
    ) -> Agent:
        """Change an agent; what changes nothing leaves its etag as it is.

        Args:
            changes: values of fields of its definition.
            etag: the one the change started from.
            force: whether to change it whatever its etag is.

        Raises:
            DomainError: INVALID_REQUEST, AGENT_NOT_FOUND, ETAG_MISMATCH, CONFLICT.
        """
        for _ in range(_TRIES):
            agent = await self.live(org, agent_id)
            definition = agents.checked(replace(agent.definition, **changes))
            is_new = definition != agent.definition
            etags.check(
                etag,
                agent.etag,
                force=force,
                required=True,
                what=agent.resource,
                changes=is_new,
            )
            if not is_new:
                return agent
            changed = replace(
                agent,
                definition=definition,
                revision=agent.revision + 1,
                # Lists in the order of changes know no two changes of one agent at one time.
                update_time=max(self._clock(), agent.update_time + 1),
            )
            if (saved := await self._saved(changed)) is not None:
                return saved
        raise _contended(agent_id)

    async def delete(self, org: str, agent_id: str, etag: str, *, purge: bool) -> None:
        """Delete an agent with all that belongs to it.

        Args:
            etag: the one it has to have; empty for any.
            purge: whether it goes for good, deleted before or not.

        Raises:
            DomainError: AGENT_NOT_FOUND, AGENT_BUILT_IN, ETAG_MISMATCH, CONFLICT.
        """
        if agent_id == DEFAULT_ID:
            raise agents.is_built_in(agent_id)
        for _ in range(_TRIES):
            agent = await self.get(org, agent_id, include_deleted=purge)
            etags.check(etag, agent.etag, force=False, required=False, what=agent.resource)
            life = deletions.deleted(agent.life, self._new_id(), self._clock())
            if purge:
                life = deletions.purging(life)
            if (going := await self._saved(replace(agent, life=life))) is not None:
                await self._cascades.finish(going, agent_id)
                return
        raise _contended(agent_id)

    async def undelete(self, org: str, agent_id: str) -> Agent:
        """Take a deleted agent back, with exactly what was deleted with it.

        Raises:
            DomainError: AGENT_NOT_FOUND, CONFLICT.
        """
        for _ in range(_TRIES):
            agent = await self.get(org, agent_id, include_deleted=True)
            if agent.life.live:
                return agent
            back = await self._saved(replace(agent, life=deletions.undeleted(agent.life)))
            if back is not None:
                await self._cascades.finish(back, agent_id)
                return await self.get(org, agent_id, include_deleted=True)
        raise _contended(agent_id)

    async def _found(self, org: str, agent_id: str) -> Agent:
        """Read an agent, deleted or not, once those that belong to it have followed it."""
        stored = await self._stored(org, agent_id)
        if stored is None:
            raise agents.not_found(agent_id, await self._meant(org, agent_id))
        return await self._settled(stored)

    async def _stored(self, org: str, agent_id: str) -> Agent | None:
        stored = await self._agents.get(org, agent_id)
        if stored is None and agent_id == DEFAULT_ID:
            return agents.built_in(org)
        return stored

    async def _settled(self, agent: Agent) -> Agent:
        settled = await self._cascades.settled(agent, agent.id)
        if settled is None:
            raise agents.not_found(agent.id)
        return settled

    async def _saved(self, agent: Agent) -> Agent | None:
        """Store a changed agent; None when somebody else was faster."""
        try:
            if agent.built_in and await self._agents.get(agent.org, agent.id) is None:
                return await self._agents.add(agent)
            return await self._agents.save(agent)
        except (FencedError, TakenError):
            return None

    async def _free_id(self, org: str, name: str) -> str:
        slugs = list(agents.slugs(name, self._new_id()[-12:]))
        for id_ in slugs[:-1]:
            if await self._agents.get(org, id_) is None:
                return id_
        return slugs[-1]

    async def _meant(self, org: str, agent_id: str) -> Sequence[str]:
        default = agents.built_in(org)
        known = dict(await self._agents.known(org, _KNOWN))
        known.setdefault(default.id, agents.name_key(default.definition.name))
        return agents.suggestions(agent_id, known.items())

    async def _begin(self, org: str) -> None:
        """Store what every organisation has, so that lists hold it in its place."""
        if await self._agents.get(org, DEFAULT_ID) is None:
            with suppress(TakenError):
                await self._agents.add(agents.built_in(org))
        if len(self._begun) >= _ORGS:
            self._begun.clear()
        self._begun.add(org)


class Resolver:
    """Finds what a run of an agent needs."""

    def __init__(self, service: AgentService, personas: Personas) -> None:
        self._agents = service
        self._personas = personas

    async def resolve(self, org: str, agent_id: str, reference: str) -> Resolved:
        """Read an agent and a version of its persona, and note that the version was used.

        Args:
            reference: a number, `latest`, `first` or an alias; empty for the active version.

        Raises:
            DomainError: AGENT_NOT_FOUND, PERSONA_VERSION_NOT_FOUND.
        """
        agent = await self._agents.live(org, agent_id)
        found = await self._personas.resolve(org, agent_id, reference)
        if found is not None:
            return Resolved(agent, *found)
        if reference:
            raise DomainError(
                Reason.REASON_PERSONA_VERSION_NOT_FOUND,
                f"The agent {agent_id} has no persona, and so no version {reference} of it.",
                resources=[Resource("persona_version", f"{agent_id}/{reference}")],
            )
        return Resolved(agent)


def _contended(agent_id: str) -> DomainError:
    return contended(Resource("agent", agent_id))
