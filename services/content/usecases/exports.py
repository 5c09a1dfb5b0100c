"""Making an archive of everything an organisation has."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from functools import partial

from services.content.domain import directories
from services.content.domain.agents import built_in
from services.content.domain.archives import Layout, TooLargeError, files_of, in_order
from services.content.domain.imports import Phase, Progress
from services.content.domain.personas import Persona
from services.content.ports.archives import Archives, Library, Packing, Yaml
from services.kit.errors import DomainError, Reason

TOLD_EVERY = 200
"""After how many things it is said how far something is."""
_TRIES = 5


class Exporter:
    """Makes archives.

    Each thing is as it was at one moment, and different things may be as they were at different ones:
    what is changed meanwhile is in it as it was before or after.
    """

    def __init__(self, library: Library, archives: Archives, yaml: Yaml) -> None:
        self._library = library
        self._archives = archives
        self._yaml = yaml

    async def export(self, org: str, layout: Layout) -> AsyncGenerator[Progress | bytes, None]:
        """Make an archive: first how far it is, then its bytes.

        Raises:
            DomainError: ARCHIVE_TOO_LARGE; STORE_FULL, without room for it; CONFLICT.
        """
        try:
            with self._archives.packing(manifest=layout is Layout.BACKUP) as packing:
                async for progress in self._packed(packing, org, layout):
                    yield progress
                async for piece in packing.pieces():
                    yield piece
        except TooLargeError as error:
            raise too_large(error) from None

    async def _packed(
        self, packing: Packing, org: str, layout: Layout
    ) -> AsyncGenerator[Progress, None]:
        steps: list[Callable[[], Awaitable[None]]]
        agents = in_order(await self._library.agent_ids(org))
        if layout is Layout.BACKUP:
            screenplays = in_order(await self._library.screenplay_ids(org))
            steps = [partial(self._add_agent, packing, org, id_) for id_ in agents]
            steps += [partial(self._add_screenplay, packing, org, id_) for id_ in screenplays]
        else:
            places = directories.placed(await self._library.live_screenplays(org))
            steps = [partial(self._add_folder, packing, org, id_) for id_ in agents]
            steps += [partial(self._add_file, packing, org, *place) for place in places]
        for done, step in enumerate(steps):
            if done % TOLD_EVERY == 0:
                yield Progress(Phase.EXPORT, done, len(steps))
            await step()
        yield Progress(Phase.EXPORT, len(steps), len(steps))

    async def _add_agent(self, packing: Packing, org: str, agent_id: str) -> None:
        """Add an agent with its persona; again when that lost a version meanwhile that it needs."""
        missing: int | None = None
        for _ in range(_TRIES):
            mark = await packing.mark()
            missing = await self._try_agent(packing, org, agent_id)
            if missing is None:
                return
            await packing.cut(mark)
        raise _lacks(agent_id, missing or 0)

    async def _try_agent(self, packing: Packing, org: str, agent_id: str) -> int | None:
        """Add an agent; the number of a version that was needed and is gone, or None."""
        agent = await self._library.agent(org, agent_id)
        if agent is not None:
            if agent.life.purging:
                return None
            await packing.add(files_of(agent))
        persona = await self._library.persona(org, agent_id)
        if persona is None:
            return None
        numbers = await self._library.numbers(org, agent_id)
        return await self._add_persona(packing, persona, numbers)

    async def _add_persona(
        self, packing: Packing, persona: Persona, numbers: Sequence[int]
    ) -> int | None:
        needed = {alias.number for alias in persona.aliases.values()} | {persona.number}
        if missing := sorted(needed - set(numbers)):
            return missing[0]
        await packing.add(files_of(persona))
        for number in numbers:
            # What is newer than the persona was made meanwhile.
            if number > persona.number:
                break
            version = await self._library.version(persona.org, persona.agent_id, number)
            if version is not None:
                await packing.add(files_of(version))
            elif number in needed:
                return number
        return None

    async def _add_screenplay(self, packing: Packing, org: str, screenplay_id: str) -> None:
        screenplay = await self._library.screenplay(org, screenplay_id)
        if screenplay is None or screenplay.life.purging:
            return
        await packing.add(files_of(screenplay))
        for revision in await self._library.revisions(org, screenplay_id):
            text = await self._library.text(org, screenplay_id, revision)
            if text is not None and revision <= screenplay.revision:
                await packing.add(files_of(text))

    async def _add_folder(self, packing: Packing, org: str, agent_id: str) -> None:
        """Add the definition of an agent and the newest text of its persona."""
        agent = await self._library.agent(org, agent_id) or built_in(org)
        if not agent.life.live:
            return
        folder = f"{directories.AGENTS}{agent_id}/"
        if not agent.built_in or agent.definition != built_in(org).definition:
            row = directories.definition_row(agent.definition)
            await packing.add([(f"{folder}{directories.DEFINITION}", self._yaml.written(row))])
        for _ in range(_TRIES):
            persona = await self._library.persona(org, agent_id)
            if persona is None or not persona.life.live:
                return
            version = await self._library.version(org, agent_id, persona.number)
            if version is not None:
                await packing.add([(f"{folder}{directories.PERSONA}", version.content.encode())])
                return
        raise _lacks(agent_id, 0)

    async def _add_file(self, packing: Packing, org: str, path: str, screenplay_id: str) -> None:
        """Add the text of a screenplay, and what does not follow from it."""
        screenplay = await self._library.screenplay(org, screenplay_id)
        if screenplay is None or not screenplay.life.live:
            return
        file = f"{directories.SCREENPLAYS}{path}"
        await packing.add([(file, screenplay.content.encode())])
        if row := directories.sidecar_row(screenplay, path):
            await packing.add([(f"{file}{directories.SIDECAR}", self._yaml.written(row))])


def _lacks(agent_id: str, number: int) -> DomainError:
    what = f"version {number}" if number else "newest version"
    return DomainError(
        Reason.REASON_CONFLICT,
        f"The persona of agent {agent_id} has no {what}, which it needs; if somebody else is "
        "changing it, try again.",
        retry_after=1.0,
    )


def too_large(error: TooLargeError) -> DomainError:
    """Make the error for an archive that holds more than it may."""
    return DomainError(
        Reason.REASON_ARCHIVE_TOO_LARGE,
        f"{error.where or 'The archive'}: {error.why}; the operator can raise "
        "CONDUCTOR_CONTENT_ARCHIVE_BYTES.",
    )
