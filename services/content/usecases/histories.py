"""Keeping personas and their versions together."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

from services.content.domain import personas
from services.content.domain.personas import Draft, Persona, PersonaVersion
from services.content.ports.personas import Personas, Versions
from services.kit.resources.ports import FencedError, TakenError

_PAGE = 500


class History:
    """Keeps personas and their versions together.

    Args:
        clock: microseconds since the epoch.
    """

    def __init__(self, stored: Personas, versions: Versions, *, clock: Callable[[], int]) -> None:
        self._personas = stored
        self._versions = versions
        self._clock = clock

    async def load(self, org: str, agent_id: str) -> Persona | None:
        """Read a persona, deleted or not, once it has followed its versions."""
        persona = await self._personas.get(org, agent_id)
        if persona is None:
            persona = await self._found(org, agent_id)
        while persona is not None and not persona.life.purging:
            version = await self._versions.get(org, agent_id, persona.number + 1)
            if version is None:
                break
            if not personas.succeeds(version, persona):
                await self._versions.remove([version])
                continue
            try:
                persona = await self._personas.save(personas.followed(persona, version))
            except FencedError:
                persona = await self._personas.get(org, agent_id)
        return persona

    async def add(
        self, org: str, agent_id: str, persona: Persona | None, draft: Draft
    ) -> Persona | None:
        """Store the version that comes next, and let the persona follow; one that is deleted lives again.

        None when somebody else was faster.

        Args:
            persona: as it was read; None when there is none.
        """
        now = self._clock()
        if persona is None:
            version = personas.first_version(org, agent_id, draft, now)
            try:
                return await self._personas.begin(personas.begun(version), version)
            except TakenError:
                # Perhaps by a reader, who found the version before its persona.
                return await self._stored(version)
        version = personas.next_version(persona, draft, now)
        living = persona if persona.life.live else personas.revived(persona)
        try:
            return await self._personas.append(personas.followed(living, version), version)
        except FencedError:
            return await self._stored(version)
        except TakenError:
            return None

    async def versions(self, org: str, agent_id: str) -> AsyncIterator[PersonaVersion]:
        """Read all versions without their texts, newest first."""
        beyond = None
        while page := await self._versions.list(org, agent_id, beyond, _PAGE):
            for version in page:
                yield version
            beyond = page[-1].number

    async def _stored(self, version: PersonaVersion) -> Persona | None:
        """Look whether a version is stored although its persona was changed; it counts then."""
        stored = await self._versions.get(version.org, version.agent_id, version.number)
        if stored is None or not personas.same_version(stored, version):
            return None
        persona = await self.load(version.org, version.agent_id)
        if persona is None or persona.life.purging or persona.number < version.number:
            # Whoever purges may have looked for versions before this one came, and somebody else may
            # have begun anew since.
            await self._versions.remove([stored])
            return None
        return persona

    async def _found(self, org: str, agent_id: str) -> Persona | None:
        """Make the persona of a first version whose maker died before; the stored one, if there is one."""
        version = await self._versions.get(org, agent_id, 1)
        if version is None:
            return None
        try:
            return await self._personas.begin(personas.begun(version))
        except TakenError:
            return await self._personas.get(org, agent_id)
