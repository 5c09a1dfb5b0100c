"""Making, reading, changing and deleting personas, and going about their versions."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from services.content.domain import personas
from services.content.domain.comparisons import Comparison, compare
from services.content.domain.personas import (
    CleanUp,
    Draft,
    Persona,
    PersonaStatistics,
    PersonaVersion,
    Wanted,
)
from services.content.domain.statistics import statistics_of
from services.content.ports.personas import Agents, Personas, Versions
from services.content.ports.work import Workbench
from services.content.usecases.histories import History
from services.kit.errors import DomainError, Reason
from services.kit.resources import deletions, etags
from services.kit.resources.cascades import Cascades
from services.kit.resources.deletions import Cascade, Life
from services.kit.resources.ports import FencedError

_TRIES = 100
"""Of twenty who make a version at once the last one needs twenty."""
_PAGE = 500
_FILE = "persona.md"


class PersonaService:
    """The personas of agents.

    Args:
        settle: sees that the personas of an organisation have followed their agents.
        clock: microseconds since the epoch.
        new_id: makes ids of deletions, in the order they are made in.
        workbench: where long texts are looked at.
    """

    def __init__(
        self,
        stored: Personas,
        versions: Versions,
        agents: Agents,
        cascades: Cascades[Persona],
        settle: Callable[[str], Awaitable[None]],
        *,
        clock: Callable[[], int],
        new_id: Callable[[], str],
        workbench: Workbench,
    ) -> None:
        self._personas = stored
        self._versions = versions
        self._agents = agents
        self._cascades = cascades
        self._settle = settle
        self._clock = clock
        self._workbench = workbench
        self._new_id = new_id
        self._history = History(stored, versions, clock=clock)

    async def create(self, org: str, agent_id: str, draft: Draft) -> Persona:
        """Give an agent its persona; the numbers of one that was deleted go on.

        Raises:
            DomainError: INVALID_REQUEST, AGENT_NOT_FOUND, PERSONA_ALREADY_EXISTS, CONFLICT.
        """
        personas.checked(draft)
        for _ in range(_TRIES):
            await self._agents.live(org, agent_id)
            earlier = await self._history.load(org, agent_id)
            if earlier is not None:
                if earlier.life.purging:
                    raise personas.being_purged(agent_id)
                if earlier.life.live:
                    raise personas.already_exists(earlier)
            made = await self._history.add(org, agent_id, earlier, draft)
            if made is not None and made.life.live:
                await self._check_kept(org, agent_id)
                return await self._with_content(made)
        raise personas.contended(agent_id)

    async def get(self, org: str, agent_id: str, *, include_deleted: bool = False) -> Persona:
        """Read a persona with its newest text.

        Raises:
            DomainError: AGENT_NOT_FOUND, PERSONA_NOT_FOUND.
        """
        persona = await self._existing(org, agent_id, include_deleted=include_deleted)
        return await self._with_content(persona)

    async def list(
        self, org: str, after: tuple[int, str] | None, limit: int, *, deleted: bool
    ) -> Sequence[Persona]:
        """Read a page of personas without their texts, newest first."""
        await self._settle(org)
        return await self._personas.list(org, after, limit, deleted=deleted)

    async def update(
        self,
        org: str,
        agent_id: str,
        changes: Mapping[str, Any],
        etag: str,
        *,
        force: bool,
        author: str,
        reason: str,
    ) -> Persona:
        """Make a new version; there is none when nothing changes.

        Args:
            changes: the text, the metadata or both, by the names of a draft's fields.
            etag: the one the change started from.
            force: whether to make it whatever the etag is.

        Raises:
            DomainError: INVALID_REQUEST, AGENT_NOT_FOUND, PERSONA_NOT_FOUND, ETAG_MISMATCH, CONFLICT.
        """

        async def changed(persona: Persona) -> Draft:
            newest = await self._with_content(persona)
            draft = Draft(newest.content, newest.metadata, author, reason)
            return personas.checked(replace(draft, **changes))

        return await self._change(org, agent_id, etag, changed, force=force, required=True)

    async def restore(
        self, org: str, agent_id: str, reference: str, etag: str, *, author: str, reason: str
    ) -> Persona:
        """Make a new version of an earlier one; there is none when that says what the newest one says.

        Args:
            etag: the one the persona has to have; empty for any.

        Raises:
            DomainError: AGENT_NOT_FOUND, PERSONA_NOT_FOUND, PERSONA_VERSION_NOT_FOUND, ETAG_MISMATCH,
                CONFLICT.
        """

        async def earlier(persona: Persona) -> Draft:
            version, _ = await self._version(persona, reference)
            return Draft(version.content, version.metadata, author, reason, version.number)

        return await self._change(org, agent_id, etag, earlier, force=False, required=False)

    async def delete(self, org: str, agent_id: str, etag: str, *, purge: bool) -> None:
        """Delete a persona with its versions.

        Args:
            etag: the one it has to have; empty for any.
            purge: whether it goes for good, deleted before or not.

        Raises:
            DomainError: AGENT_NOT_FOUND, PERSONA_NOT_FOUND, ETAG_MISMATCH, CONFLICT.
        """
        for _ in range(_TRIES):
            persona = await self._existing(org, agent_id, include_deleted=purge)
            etags.check(etag, persona.etag, force=False, required=False, what=persona.resource)
            life = deletions.deleted(persona.life, self._new_id(), self._clock(), Cascade.NONE)
            if purge:
                life = deletions.purging(life)
            with suppress(FencedError):
                going = await self._personas.save(replace(persona, life=life))
                if purge:
                    await self._cascades.finish(going, agent_id)
                return
        raise personas.contended(agent_id)

    async def undelete(self, org: str, agent_id: str) -> Persona:
        """Take a deleted persona back.

        Raises:
            DomainError: AGENT_NOT_FOUND, PERSONA_NOT_FOUND, CONFLICT.
        """
        for _ in range(_TRIES):
            persona = await self._existing(org, agent_id, include_deleted=True)
            life = deletions.undeleted(persona.life)
            with suppress(FencedError):
                if life != persona.life:
                    persona = await self._personas.save(replace(persona, life=life))
                return await self._with_content(persona)
        raise personas.contended(agent_id)

    # Versions

    async def version(
        self, org: str, agent_id: str, reference: str
    ) -> tuple[Persona, PersonaVersion]:
        """Read a version, by number, `latest`, `first` or alias.

        Raises:
            DomainError: AGENT_NOT_FOUND, PERSONA_NOT_FOUND, PERSONA_VERSION_NOT_FOUND.
        """
        persona = await self._existing(org, agent_id)
        version, _ = await self._version(persona, reference)
        return persona, version

    async def versions(
        self, org: str, agent_id: str, wanted: Wanted, beyond: int | None, limit: int
    ) -> tuple[Persona, Sequence[PersonaVersion]]:
        """Read a page of versions without their texts, in the order of their numbers.

        Args:
            beyond: the number before the first of the page; None for the beginning of the list.

        Raises:
            DomainError: INVALID_REQUEST, AGENT_NOT_FOUND, PERSONA_NOT_FOUND.
        """
        wanted.check()
        persona = await self._existing(org, agent_id)
        start = wanted.beyond if beyond is None else beyond
        found = await self._versions.list(org, agent_id, start, limit, ascending=wanted.ascending)
        return persona, [version for version in found if version.number in wanted]

    async def compare(
        self, org: str, agent_id: str, before: str, after: str
    ) -> tuple[Persona, PersonaVersion, PersonaVersion, Comparison]:
        """Compare two versions.

        Args:
            after: empty for the newest.

        Raises:
            DomainError: AGENT_NOT_FOUND, PERSONA_NOT_FOUND, PERSONA_VERSION_NOT_FOUND.
        """
        persona = await self._existing(org, agent_id)
        first, _ = await self._version(persona, before)
        second, _ = await self._version(persona, after or personas.LATEST)
        comparison = await self._workbench.do(
            compare,
            first.content,
            second.content,
            f"version {first.number}",
            f"version {second.number}",
            _FILE,
        )
        return persona, first, second, comparison

    async def set_alias(self, org: str, agent_id: str, name: str, reference: str) -> Persona:
        """Let an alias stand for a version.

        Raises:
            DomainError: INVALID_REQUEST, AGENT_NOT_FOUND, PERSONA_NOT_FOUND,
                PERSONA_VERSION_NOT_FOUND, CONFLICT.
        """
        for _ in range(_TRIES):
            persona = await self._existing(org, agent_id)
            version, _ = await self._version(persona, reference)
            named = personas.with_alias(persona, name, version.number, self._clock())
            with suppress(FencedError):
                if named is not persona:
                    # Before the alias: whoever cleans up and has not seen the alias fails at one of
                    # the two.
                    await self._versions.save(version)
                    named = await self._personas.save(named)
                return await self._with_content(named)
        raise personas.contended(agent_id)

    async def delete_alias(self, org: str, agent_id: str, name: str) -> Persona:
        """Remove an alias; its version stays.

        Raises:
            DomainError: AGENT_NOT_FOUND, PERSONA_NOT_FOUND, PERSONA_ALIAS_NOT_FOUND, CONFLICT.
        """
        for _ in range(_TRIES):
            persona = await self._existing(org, agent_id)
            with suppress(FencedError):
                saved = await self._personas.save(personas.without_alias(persona, name))
                return await self._with_content(saved)
        raise personas.contended(agent_id)

    async def statistics(self, org: str, agent_id: str) -> PersonaStatistics:
        """Say how a persona grew, and what its text is made of.

        Raises:
            DomainError: AGENT_NOT_FOUND, PERSONA_NOT_FOUND.
        """
        persona = await self._with_content(await self._existing(org, agent_id))
        content = await self._workbench.do(statistics_of, persona.content)
        kept = [version async for version in self._history.versions(org, agent_id)]
        return personas.grown(persona, kept, content)

    async def clean_up(self, org: str, agent_id: str, keep: int, *, dry_run: bool) -> CleanUp:
        """Remove old versions for good that nothing needs.

        Args:
            keep: how many of the newest stay.
            dry_run: whether only to say what would go.

        Raises:
            DomainError: AGENT_NOT_FOUND, PERSONA_NOT_FOUND, CONFLICT.
        """
        for _ in range(_TRIES):
            persona = await self._existing(org, agent_id)
            found = [version async for version in self._history.versions(org, agent_id)]
            named = {alias.number for alias in persona.aliases.values()}
            result = personas.to_clean_up(found, named, keep)
            if dry_run or not result.doomed:
                return result
            with suppress(FencedError):
                # Whoever read the persona before cannot set an alias from here on, and whoever reads
                # it now stores the version anew first, so that it is not removed below.
                await self._personas.save(persona)
                gone = await self._versions.remove(result.doomed)
                saved = len(result.doomed) - gone
                return replace(
                    result,
                    doomed=result.doomed[:gone],
                    kept=result.kept + saved,
                    kept_in_use=result.kept_in_use + saved,
                )
        raise personas.contended(agent_id)

    # What agents need

    async def resolve(
        self, org: str, agent_id: str, reference: str
    ) -> tuple[PersonaVersion, str] | None:
        """Find the version a run of an agent uses, and note that it was used.

        Args:
            reference: a number, `latest`, `first` or an alias; empty for the active version.

        Returns:
            The version and the alias it was found by, if any; None when the agent has no persona.

        Raises:
            DomainError: PERSONA_VERSION_NOT_FOUND, CONFLICT.
        """
        for _ in range(_TRIES):
            persona = await self._history.load(org, agent_id)
            if persona is None or not persona.life.live:
                return None
            version, alias = await self._version(persona, reference)
            with suppress(FencedError):
                if not version.used:
                    version = await self._versions.save(replace(version, used=True))
                return version, alias
        raise personas.contended(agent_id)

    async def plant(
        self,
        org: str,
        agent_id: str,
        content: str,
        metadata: Mapping[str, Any],
        author: str,
        reason: str,
    ) -> Persona:
        """Make a persona before its agent is there; what somebody left of one says this from then on.

        Raises:
            DomainError: INVALID_REQUEST, CONFLICT.
        """
        draft = personas.checked(Draft(content, metadata, author, reason))
        for _ in range(_TRIES):
            found = await self._history.load(org, agent_id)
            if found is not None and found.life.purging:
                raise personas.being_purged(agent_id)
            if found is not None and found.life.live and personas.same(found, draft):
                return found
            planted = await self._history.add(org, agent_id, found, draft)
            if planted is not None and planted.life.live:
                return planted
        raise personas.contended(agent_id)

    async def _existing(self, org: str, agent_id: str, *, include_deleted: bool = False) -> Persona:
        await self._agents.live(org, agent_id)
        persona = await self._history.load(org, agent_id)
        if persona is None or persona.life.purging:
            raise personas.not_found(agent_id)
        if not persona.life.live and not include_deleted:
            raise personas.not_found(agent_id, deleted=True)
        return persona

    async def _version(self, persona: Persona, reference: str) -> tuple[PersonaVersion, str]:
        number, alias = personas.numbered(persona, reference)
        if number is None:
            oldest = await self._versions.list(
                persona.org, persona.agent_id, None, 1, ascending=True
            )
            number = oldest[0].number if oldest else 1
        version = await self._versions.get(persona.org, persona.agent_id, number)
        if version is None or number > persona.number:
            raise personas.version_not_found(persona, reference or str(number))
        return version, alias

    async def _with_content(self, persona: Persona) -> Persona:
        if persona.content:
            return persona
        version, _ = await self._version(persona, personas.LATEST)
        return replace(persona, content=version.content)

    async def _change(
        self,
        org: str,
        agent_id: str,
        etag: str,
        drafted: Callable[[Persona], Awaitable[Draft]],
        *,
        force: bool,
        required: bool,
    ) -> Persona:
        for _ in range(_TRIES):
            persona = await self._existing(org, agent_id)
            draft = await drafted(persona)
            is_new = not personas.same(persona, draft)
            etags.check(
                etag,
                persona.etag,
                force=force,
                required=required,
                what=persona.resource,
                changes=is_new,
            )
            if not is_new:
                return replace(persona, content=draft.content)
            changed = await self._history.add(org, agent_id, persona, draft)
            if changed is not None:
                return await self._with_content(changed)
        raise personas.contended(agent_id)

    async def _check_kept(self, org: str, agent_id: str) -> None:
        """Let a persona follow its agent that was deleted or purged while the persona was made."""
        kin = PersonaKin(self._personas, self._versions)
        try:
            agent = await self._agents.get(org, agent_id, include_deleted=True)
            if agent.life.live:
                return
            deletion = agent.life.deletion
            await kin.mark(org, agent_id, deletion, agent.life.delete_time or 0)
            agent = await self._agents.get(org, agent_id, include_deleted=True)
            if agent.life.deletion != deletion:
                # It was taken back meanwhile, and the mark came late.
                await kin.unmark(org, agent_id, deletion)
        except DomainError as error:
            if error.reason == Reason.REASON_AGENT_NOT_FOUND:
                await kin.purge(org, agent_id)
            raise


class PersonaKin:
    """The personas that go and come with their agents."""

    def __init__(self, stored: Personas, versions: Versions) -> None:
        self._personas = stored
        self._versions = versions

    async def mark(self, org: str, parent_id: str, deletion: str, time: int) -> None:
        """Give the persona of an agent the mark of a deletion."""
        await self._change(org, parent_id, lambda life: deletions.marked(life, deletion, time))

    async def unmark(self, org: str, parent_id: str, deletion: str) -> None:
        """Take the mark of a deletion from the persona of an agent."""
        await self._change(org, parent_id, lambda life: deletions.unmarked(life, deletion))

    async def purge(self, org: str, parent_id: str) -> None:
        """Remove the persona of an agent with its versions for good."""
        await self._change(org, parent_id, _going)
        while page := await self._versions.list(org, parent_id, None, _PAGE):
            await self._versions.remove(page)
        persona = await self._personas.get(org, parent_id)
        if persona is not None:
            with suppress(FencedError):
                await self._personas.remove(persona)

    async def _change(self, org: str, agent_id: str, change: Callable[[Life], Life | None]) -> None:
        while (persona := await self._personas.get(org, agent_id)) is not None:
            life = change(persona.life)
            if life is None:
                return
            with suppress(FencedError):
                await self._personas.save(replace(persona, life=life))
                return


class VersionKin:
    """The versions, which go for good with their personas; until then they are seen with them alone."""

    def __init__(self, stored: Personas, versions: Versions) -> None:
        self._personas = stored
        self._versions = versions

    async def mark(self, org: str, parent_id: str, deletion: str, time: int) -> None:
        """Leave the versions as they are."""

    async def unmark(self, org: str, parent_id: str, deletion: str) -> None:
        """Leave the versions as they are."""

    async def purge(self, org: str, parent_id: str) -> None:
        """Remove the versions of a persona, as long as it is about to go for good."""
        while page := await self._versions.list(org, parent_id, None, _PAGE):
            persona = await self._personas.get(org, parent_id)
            if persona is None or not persona.life.purging:
                return
            await self._versions.remove(page)


def _going(life: Life) -> Life | None:
    """Let a persona go for good, whatever it is; None when it does so already."""
    return (
        None
        if life.purging
        else replace(life, deletion=life.deletion or "purge", cascade=Cascade.PURGE)
    )
