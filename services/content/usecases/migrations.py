"""Holding a directory against what there is: what becomes of each file, and what is to be written."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace

from services.content.domain import personas, screenplays
from services.content.domain.agents import DEFAULT_ID, Agent, built_in
from services.content.domain.archives import ArchiveError, File
from services.content.domain.directories import AgentFolder, Reading, ScreenplayFile, Thing
from services.content.domain.imports import (
    Action,
    ImportItem,
    ImportReport,
    Item,
    Mode,
    Put,
    Sweep,
)
from services.content.domain.personas import Draft, Persona
from services.content.domain.screenplays import KEPT_TEXTS, UNIQUE_PATHS, Screenplay
from services.content.ports.archives import Library
from services.kit.resources.deletions import Life

_REASON = "Taken in from a directory"
_DIFFERS = "it differs; force overwrites it"
_DELETED = "it is deleted here; force takes it back"
_IN_CHANGE = "it is just being made or purged; take the directory in again later"


async def things_of(files: AsyncIterator[Sequence[File]], reading: Reading) -> AsyncIterator[Thing]:
    """Read the files of a directory as things."""
    async for some in files:
        for path, raw in some:
            for thing in reading.take(path, raw):
                yield thing
    for thing in reading.end():
        yield thing


@dataclass(slots=True)
class Migration:
    """Decides what becomes of the things of a directory.

    Args:
        force: whether what differs is overwritten, which makes a new version of it.
        author: who does it, as in audit records.
        clock: microseconds since the epoch.
        new_id: makes ids of screenplays.
    """

    org: str
    force: bool
    author: str
    library: Library
    report: ImportReport
    clock: Callable[[], int]
    new_id: Callable[[], str]

    async def items(self, thing: Thing) -> Sequence[Item]:
        """Decide on a thing; answers what is to be written.

        Raises:
            ArchiveError: it cannot be taken in as it is.
        """
        if isinstance(thing, AgentFolder):
            return await self._agent(thing)
        return await self._screenplay(thing)

    # Agents

    async def _agent(self, folder: AgentFolder) -> Sequence[Item]:
        there = await self.library.agent(self.org, folder.id)
        if there is None and folder.id == DEFAULT_ID:
            there = built_in(self.org)
        if there is not None and there.life.purging:
            self._tell(Action.KEPT, "agent", folder.id, there.definition.name, _IN_CHANGE)
            return []
        if there is None and folder.definition is None:
            raise ArchiveError(
                f"{folder.where}/persona.md",
                "there is no such agent, and no definition.yaml beside it",
            )
        agent, action = self._defined(folder, there)
        put = [] if action in {Action.KEPT, Action.UNCHANGED} else [_put_agent(agent, action)]
        # What belongs to a new agent comes before it, so that nobody sees it without.
        return [*await self._persona(folder, agent, there), *put]

    def _defined(self, folder: AgentFolder, there: Agent | None) -> tuple[Agent, Action]:
        """Make an agent what its folder says."""
        definition, now = folder.definition, self.clock()
        if there is None:
            assert definition is not None
            agent = Agent(self.org, folder.id, definition, now, now)
            self._tell(Action.CREATED, "agent", agent.id, definition.name)
            return agent, Action.CREATED
        if definition is None:
            return there, Action.KEPT
        name = definition.name
        if there.definition == definition and there.life.live:
            self._tell(Action.UNCHANGED, "agent", there.id, name)
            return there, Action.UNCHANGED
        if not self.force and not (there.built_in and there == built_in(self.org)):
            self._tell(
                Action.KEPT, "agent", there.id, name, _DIFFERS if there.life.live else _DELETED
            )
            return there, Action.KEPT
        changed = replace(there, life=_lively(there.life))
        if there.definition != definition:
            changed = replace(
                changed,
                definition=definition,
                revision=there.revision + 1,
                update_time=max(now, there.update_time + 1),
            )
        action = Action.CREATED if there == built_in(self.org) else Action.OVERWRITTEN
        self._tell(action, "agent", there.id, name)
        return changed, action

    async def _persona(
        self, folder: AgentFolder, agent: Agent, agent_there: Agent | None
    ) -> Sequence[Item]:
        there = await self.library.persona(self.org, folder.id)
        if not agent.life.live:
            if folder.persona is not None:
                name = agent.definition.name
                self._tell(Action.KEPT, "persona", folder.id, name, "its agent is deleted here")
            return []
        comes_back = agent_there is not None and not agent_there.life.live and agent.life.live
        if folder.persona is None:
            went_with_it = there is not None and there.life.inherited and comes_back
            if there is None or not went_with_it:
                return []
            return [Put(replace(there, life=_lively(there.life)), Mode.UPDATE)]
        name = agent.definition.name
        draft = Draft(folder.persona, {}, self.author, _REASON)
        if there is None:
            self._tell(Action.CREATED, "persona", folder.id, name)
            return await self._first_version(folder.id, draft)
        if there.life.purging:
            self._tell(Action.KEPT, "persona", folder.id, name, _IN_CHANGE)
            return []
        newest = await self.library.version(self.org, folder.id, there.number)
        is_same = newest is not None and newest.content == folder.persona
        if is_same and there.life.live:
            self._tell(Action.UNCHANGED, "persona", folder.id, name)
            return []
        # Without its agent it is a remainder that nobody sees.
        if not self.force and agent_there is not None:
            why = _DIFFERS if there.life.live else _DELETED
            self._tell(Action.KEPT, "persona", folder.id, name, why)
            return []
        self._tell(Action.OVERWRITTEN, "persona", folder.id, name)
        if is_same:
            return [Put(replace(there, life=_lively(there.life)), Mode.UPDATE)]
        return _next_version(there, replace(draft, metadata=there.metadata), self.clock())

    async def _first_version(self, agent_id: str, draft: Draft) -> Sequence[Item]:
        version = personas.first_version(self.org, agent_id, draft, self.clock())
        persona = personas.begun(version)
        items: list[Item] = []
        if await self.library.numbers(self.org, agent_id):
            items.append(Sweep("versions", agent_id, (), Mode.CREATE))
        return [
            *items,
            Put(persona, Mode.CREATE),
            Put(version, Mode.CREATE, root_time=persona.create_time),
        ]

    # Screenplays

    async def _screenplay(self, file: ScreenplayFile) -> Sequence[Item]:
        there = await self._found(file)
        name = file.values.get("name", "")
        if there is None:
            return await self._new_screenplay(file)
        name = name or there.name
        if there.life.purging:
            self._tell(Action.KEPT, "screenplay", there.id, name, _IN_CHANGE)
            return []
        now = self.clock()
        values = dict(file.values)
        if "name" not in values:
            # A text alone says nothing of the rest.
            values = {"content": values["content"]}
        changed = screenplays.changed(there, values, now, self.author)
        if changed is None and there.life.live:
            self._tell(Action.UNCHANGED, "screenplay", there.id, name)
            return []
        if not self.force:
            why = _DIFFERS if there.life.live else _DELETED
            self._tell(Action.KEPT, "screenplay", there.id, name, why)
            return []
        wanted = replace(changed or there, life=_lively(there.life))
        wanted = await self._without_taken_paths(file, wanted)
        self._tell(Action.OVERWRITTEN, "screenplay", there.id, name)
        items: list[Item] = []
        if wanted.text_revision != there.text_revision:
            items += await self._kept_text(there)
        return [*items, Put(wanted, Mode.UPDATE)]

    async def _found(self, file: ScreenplayFile) -> Screenplay | None:
        """Find the screenplay that a file is: the one of its id, else the one that is kept in it."""
        id_ = file.id
        if not id_ and (path := file.values["file_path"]):
            id_ = await self.library.holder(self.org, "file_path", path) or ""
        return await self.library.screenplay(self.org, id_) if id_ else None

    async def _new_screenplay(self, file: ScreenplayFile) -> Sequence[Item]:
        values = {"name": screenplays.import_name(file.path), **file.values}
        asked = screenplays.Asked(values)
        made = screenplays.made(
            self.org, file.id or self.new_id(), asked, self.clock(), self.author
        )
        made = await self._without_taken_paths(file, made)
        self._tell(Action.CREATED, "screenplay", made.id, made.name)
        return [Put(made, Mode.CREATE)]

    async def _kept_text(self, there: Screenplay) -> Sequence[Item]:
        """Keep the text that another one replaces, and as many before it as are kept."""
        items: list[Item] = [Put(screenplays.text_of(there), Mode.CREATE)]
        revisions = {*await self.library.revisions(self.org, there.id), there.text_revision}
        if len(revisions) >= KEPT_TEXTS:
            kept = tuple(sorted(revisions)[-(KEPT_TEXTS - 1) :])
            items.append(Sweep("texts", there.id, kept))
        return items

    async def _without_taken_paths(
        self, file: ScreenplayFile, screenplay: Screenplay
    ) -> Screenplay:
        for name in UNIQUE_PATHS:
            path = getattr(screenplay, name)
            holder = await self.library.holder(self.org, name, path) if path else None
            if holder not in {None, screenplay.id}:
                self.report.find(
                    "path-taken",
                    file.where,
                    f"It is stored without its {name} {path}, which screenplay {holder} has.",
                    "Give one of them another path.",
                )
                screenplay = replace(screenplay, **{name: ""})  # type: ignore[arg-type]  # a path
        return screenplay

    def _tell(self, action: Action, kind: str, id_: str, name: str, detail: str = "") -> None:
        self.report.add(ImportItem(action, kind, id_, name, detail))


def _put_agent(agent: Agent, action: Action) -> Put:
    return Put(agent, Mode.CREATE if action is Action.CREATED else Mode.UPDATE)


def _next_version(persona: Persona, draft: Draft, now: int) -> Sequence[Item]:
    version = personas.next_version(persona, draft, now)
    living = persona if persona.life.live else personas.revived(persona)
    return [Put(version, Mode.CREATE), Put(personas.followed(living, version), Mode.UPDATE)]


def _lively(life: Life) -> Life:
    """Take a life back from its deletion, without anything that has to follow."""
    return Life(last_deletion=life.last_deletion)
