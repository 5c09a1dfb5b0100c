"""What becomes of each thing of a backup."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from services.content.domain.agents import Agent, built_in
from services.content.domain.archives import Record, same
from services.content.domain.imports import (
    Action,
    ImportItem,
    ImportReport,
    Item,
    Mode,
    Put,
    Release,
    Sweep,
)
from services.content.domain.personas import Persona, PersonaVersion
from services.content.domain.screenplays import UNIQUE_PATHS, Screenplay, Text
from services.content.ports.archives import Library


@dataclass(slots=True)
class _Unit:
    """An agent, or a persona or screenplay with what belongs to it, while it is looked at."""

    kind: str
    id: str
    root: Agent | Persona | Screenplay
    there: Agent | Persona | Screenplay | None
    left: set[int]
    """Numbers of what belongs to the one there and was not met in the archive."""
    had: bool
    """Whether there were any at first."""
    numbers: list[int] = field(default_factory=list)
    """Those in the archive."""
    differs: bool = False


class Plan:
    """What becomes of each thing of a backup.

    Everything is shown to `see` in order, then, after `end`, to `items` in the same order.

    Attributes:
        writing: how many things are to be written.
    """

    def __init__(self, org: str, force: bool, library: Library, report: ImportReport) -> None:
        self._org = org
        self._force = force
        self._library = library
        self._report = report
        self._unit: _Unit | None = None
        self._agent: tuple[Agent, Action | None] | None = None
        self._agent_is_gone = False
        """Whether it stays deleted, whatever the archive says."""
        self._modes: dict[tuple[str, str], Mode] = {}
        self._keep: dict[tuple[str, str], tuple[int, ...]] = {}
        self._rivals: list[tuple[str, str, str, str]] = []
        """Screenplay, field, path, and who has it."""
        self._without: dict[str, set[str]] = {}
        self._releases: list[Item] = []
        self._held: list[Item] = []
        """A new agent, which comes after its persona, so that nobody sees it without."""
        self._root: Agent | Persona | Screenplay | None = None
        self.writing = 0

    # Deciding

    async def see(self, record: Record) -> None:
        """Hold a thing against the one there is."""
        match record:
            case Agent():
                await self.end()
                there = await self._library.agent(self._org, record.id)
                came_by_itself = there is not None and same(there, built_in(self._org))
                if there is not None and came_by_itself and not same(there, record):
                    there = None
                self._unit = _Unit("agent", record.id, record, there, set(), had=False)
            case Persona():
                await self._decide()
                if self._agent is not None and self._agent[0].id != record.agent_id:
                    await self.end()
                persona = await self._library.persona(self._org, record.agent_id)
                numbers = set(await self._library.numbers(self._org, record.agent_id))
                self._unit = _Unit(
                    "persona", record.agent_id, record, persona, numbers, had=bool(numbers)
                )
            case Screenplay():
                await self.end()
                screenplay = await self._library.screenplay(self._org, record.id)
                revisions = set(await self._library.revisions(self._org, record.id))
                self._unit = _Unit(
                    "screenplay", record.id, record, screenplay, revisions, had=bool(revisions)
                )
            case PersonaVersion():
                await self._see_part(record, record.number)
            case Text():
                await self._see_part(record, record.revision)

    async def _see_part(self, record: PersonaVersion | Text, number: int) -> None:
        unit = self._unit
        assert unit is not None
        unit.numbers.append(number)
        unit.left.discard(number)
        if unit.there is None or unit.differs:
            return
        there = (
            await self._library.version(self._org, unit.id, number)
            if isinstance(record, PersonaVersion)
            else await self._library.text(self._org, unit.id, number)
        )
        unit.differs = there is None or not same(there, record)

    async def end(self) -> None:
        """Decide on what was seen last."""
        await self._decide()
        self._agent = None
        self._agent_is_gone = False

    async def settle(self) -> None:
        """Once all was seen: find out who has to do without a path that another one has."""
        await self.end()
        for id_, path_field, path, holder in self._rivals:
            if self._modes.get(("screenplay", holder)) is Mode.OVERWRITE:
                self._releases.append(Release(holder, path_field, path))
                continue
            self._without.setdefault(id_, set()).add(path_field)
            self._report.find(
                "path-taken",
                f"screenplays/{id_}",
                f"It is stored without its {path_field} {path}, which screenplay {holder} has.",
                "Give one of them another path.",
            )
        self._rivals.clear()

    async def _decide(self) -> None:
        unit, self._unit = self._unit, None
        if unit is None:
            return
        action, detail = self._action(unit)
        name = self._name(unit)
        if isinstance(unit.root, Agent):
            self._agent = unit.root, action
            self._agent_is_gone = (
                action is Action.KEPT and unit.there is not None and not unit.there.life.live
            )
        self._report.add(ImportItem(action, unit.kind, unit.id, name, detail))
        key = unit.kind, unit.id
        if action is Action.CREATED:
            self._modes[key] = Mode.CREATE
            if unit.had:
                self._keep[key] = ()
        elif action is Action.OVERWRITTEN:
            self._modes[key] = Mode.OVERWRITE
            if unit.kind != "agent":
                self._keep[key] = tuple(unit.numbers)
        else:
            return
        self.writing += 1
        if isinstance(unit.root, Screenplay) and unit.root.life.live:
            await self._look_for_rivals(unit.root)

    def _action(self, unit: _Unit) -> tuple[Action, str]:
        there = unit.there
        if unit.kind == "persona" and self._agent_is_gone:
            return Action.KEPT, "its agent is deleted here"
        if there is None:
            return Action.CREATED, ""
        if there.life.purging:
            return Action.KEPT, "it is just being made or purged; take the archive in again later"
        if not unit.differs and not unit.left and same(there, unit.root):
            return Action.UNCHANGED, ""
        # Without its agent it is a remainder that nobody sees.
        belongs = self._agent is not None and self._agent[1] is Action.CREATED
        if self._force or (unit.kind == "persona" and belongs):
            return Action.OVERWRITTEN, ""
        state = "is deleted here" if not there.life.live and unit.root.life.live else "differs"
        return Action.KEPT, f"it {state}; force overwrites it"

    def _name(self, unit: _Unit) -> str:
        match unit.root:
            case Agent():
                return unit.root.definition.name
            case Screenplay():
                return unit.root.name
        return "" if self._agent is None else self._agent[0].definition.name

    async def _look_for_rivals(self, screenplay: Screenplay) -> None:
        for path_field in UNIQUE_PATHS:
            path = getattr(screenplay, path_field)
            if not path:
                continue
            holder = await self._library.holder(self._org, path_field, path)
            if holder not in {None, screenplay.id}:
                self._rivals.append((screenplay.id, path_field, path, holder or ""))

    # Writing

    def first(self) -> Sequence[Item]:
        """Return what is to be done before anything else."""
        return self._releases

    def writes(self, record: Record) -> bool:
        """Tell whether a thing is to be written."""
        return _key(record) in self._modes

    def items(self, record: Record) -> Sequence[Item]:
        """Return what is to be done for a thing."""
        done = [] if isinstance(record, (Persona, PersonaVersion, Text)) else self.rest()
        mode = self._modes.get(_key(record))
        if mode is None:
            return done
        if isinstance(record, (PersonaVersion, Text)):
            assert self._root is not None
            root_time = self._root.create_time if mode is Mode.CREATE else None
            return [Put(record, mode, root_time)]
        return [*done, *self._root_items(record, mode)]

    def _root_items(self, record: Agent | Persona | Screenplay, mode: Mode) -> list[Item]:
        self._root = record
        kind, id_ = _key(record)
        items: list[Item] = []
        if (keep := self._keep.get((kind, id_))) is not None:
            what = "versions" if kind == "persona" else "texts"
            items.append(Sweep(what, id_, keep, mode))
        if isinstance(record, Screenplay):
            blank: dict[str, Any] = dict.fromkeys(self._without.get(id_, ()), "")
            record = replace(record, **blank)
        put = Put(record, mode)
        if mode is Mode.CREATE and isinstance(record, Agent):
            self._held.append(put)
        else:
            items.append(put)
        return items

    def rest(self) -> list[Item]:
        """Return what was held back until now."""
        held, self._held = self._held, []
        return held


def _key(record: Record) -> tuple[str, str]:
    """Return what a thing is decided on by: itself, or what it belongs to."""
    match record:
        case Agent():
            return "agent", record.id
        case Persona() | PersonaVersion():
            return "persona", record.agent_id
        case Screenplay():
            return "screenplay", record.id
        case Text():
            return "screenplay", record.screenplay_id


def is_root(record: Record) -> bool:
    """Tell whether a thing belongs to no persona or screenplay."""
    return not isinstance(record, (PersonaVersion, Text))
