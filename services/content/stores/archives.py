"""All that is stored of an organisation, and imports with what they set aside."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar, cast

from services.content.domain import imports
from services.content.domain.agents import DEFAULT_ID, Agent, built_in
from services.content.domain.archives import Record, same
from services.content.domain.imports import Item, Mode, Put, Release, Sweep
from services.content.domain.personas import Persona, PersonaVersion
from services.content.domain.screenplays import Screenplay, Text
from services.content.ports.archives import Claim, ImportRunningError
from services.content.stores import agents, personas, screenplays
from services.kit.errors import DomainError, Reason
from services.kit.resources import deletions
from services.kit.storage.ports import (
    Collection,
    ConflictError,
    Delete,
    Document,
    DuplicateError,
    Insert,
    Query,
    Replace,
    Store,
    Write,
)
from services.kit.storage.resources import LIVE, write

IMPORTS = Collection("imports", fields=("state",), swept=("state",), unique=("holder",))
STAGED = Collection("staged_batches")

_STAGING, _COMMITTED, _DROPPED = "staging", "committed", "dropped"
_PAGE = 500
_TRIES = 30

R = TypeVar("R", bound=Record)


@dataclass(frozen=True, slots=True)
class _Shelf(Generic[R]):
    """Where the things of one kind are."""

    collection: Collection
    document: Callable[[R], Document]
    record: Callable[[Document], R]
    parent: str = ""
    """The field that names what many of them belong to."""
    number: str = ""
    """The field that tells those apart."""


_AGENTS = _Shelf(agents.AGENTS, agents.to_document, agents.from_document)
_PERSONAS = _Shelf(personas.PERSONAS, personas.to_document, personas.from_document)
_VERSIONS = _Shelf(
    personas.VERSIONS,
    personas.version_to_document,
    personas.version_from_document,
    "agent_id",
    "number",
)
_SCREENPLAYS = _Shelf(screenplays.SCREENPLAYS, screenplays.to_document, screenplays.from_document)
_TEXTS = _Shelf(
    screenplays.TEXTS,
    screenplays.text_to_document,
    screenplays.text_from_document,
    "screenplay_id",
    "revision_key",
)
_SHELVES: Mapping[type, _Shelf[Any]] = {
    Agent: _AGENTS,
    Persona: _PERSONAS,
    PersonaVersion: _VERSIONS,
    Screenplay: _SCREENPLAYS,
    Text: _TEXTS,
}
_PARTS: Mapping[str, _Shelf[Any]] = {"versions": _VERSIONS, "texts": _TEXTS}


class StoredLibrary:
    """Everything of an organisation over the storage ports."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._agents = agents.StoredAgents(store)
        self._personas = personas.StoredPersonas(store)
        self._versions = personas.StoredVersions(store)
        self._screenplays = screenplays.StoredScreenplays(store)
        self._texts = screenplays.StoredTexts(store)

    async def agent_ids(self, org: str) -> Sequence[str]:
        """Read the ids of all agents."""
        found = [one.id for one in await _keys(self._store, _AGENTS, org, {})]
        if DEFAULT_ID not in found and await self.persona(org, DEFAULT_ID) is not None:
            found.append(DEFAULT_ID)
        return found

    async def screenplay_ids(self, org: str) -> Sequence[str]:
        """Read the ids of all screenplays."""
        return [one.id for one in await _keys(self._store, _SCREENPLAYS, org, {})]

    async def live_screenplays(self, org: str) -> Sequence[Screenplay]:
        """Read all screenplays that are not deleted."""
        documents = await _all(self._store, Query(_SCREENPLAYS.collection, org, {"life": LIVE}))
        return [_SCREENPLAYS.record(document) for document in documents]

    async def agent(self, org: str, agent_id: str) -> Agent | None:
        """Read an agent."""
        return await self._agents.get(org, agent_id)

    async def persona(self, org: str, agent_id: str) -> Persona | None:
        """Read the persona of an agent."""
        return await self._personas.get(org, agent_id)

    async def numbers(self, org: str, agent_id: str) -> Sequence[int]:
        """Read the numbers of its versions."""
        return await _numbers(self._store, _VERSIONS, org, agent_id)

    async def version(self, org: str, agent_id: str, number: int) -> PersonaVersion | None:
        """Read one of them."""
        return await self._versions.get(org, agent_id, number)

    async def screenplay(self, org: str, screenplay_id: str) -> Screenplay | None:
        """Read a screenplay."""
        return await self._screenplays.get(org, screenplay_id)

    async def revisions(self, org: str, screenplay_id: str) -> Sequence[int]:
        """Read the revisions its earlier texts came in."""
        return await _numbers(self._store, _TEXTS, org, screenplay_id)

    async def text(self, org: str, screenplay_id: str, revision: int) -> Text | None:
        """Read one of them."""
        return await self._texts.get(org, screenplay_id, revision)

    async def holder(self, org: str, field: str, path: str) -> str | None:
        """Read the id of the screenplay that has a path."""
        holder = await self._screenplays.by_path(org, field, path)
        return None if holder is None else holder.id


class StoredImports:
    """Imports over the storage ports; the version of its document fences an import."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def begin(self, org: str, import_id: str, now: int) -> Claim:
        """Store a new import."""
        claim = Claim(org, import_id, create_time=now)
        try:
            await self._store.write(Insert(IMPORTS, _claim_document(claim)))
        except DuplicateError:
            running = await self.running(org)
            raise ImportRunningError(running.id if running else "") from None
        return claim

    async def running(self, org: str) -> Claim | None:
        """Read the import of an organisation that is under way."""
        document = await self._store.find(IMPORTS, org, "holder", org)
        return None if document is None else _claim(document)

    async def get(self, org: str, import_id: str) -> Claim | None:
        """Read an import."""
        document = await self._store.get(IMPORTS, org, import_id)
        return None if document is None else _claim(document)

    async def save(self, claim: Claim) -> Claim:
        """Store a changed import."""
        return await self._save(claim)

    async def stage(self, claim: Claim, items: Sequence[Item]) -> Claim:
        """Set the next batch aside."""
        content = {"items": imports.printed(items)}
        id_ = _batch_id(claim.id, claim.batches)
        batch = Document(claim.org, id_, claim.create_time, {}, content=content)
        # Counted first: whoever lost the import sets nothing aside any more.
        return await self._save(replace(claim, batches=claim.batches + 1), Insert(STAGED, batch))

    async def apply(self, claim: Claim) -> Sequence[str]:
        """Apply the next batch."""
        id_ = _batch_id(claim.id, claim.applied)
        batch = await self._store.get(STAGED, claim.org, id_)
        if batch is None:  # somebody applied it, and all others, and removed them
            return ()
        items = imports.read(batch.content["items"], claim.org)
        application = _Application(self._store, claim)
        if not await application.done_at_once(items):
            for item in items:
                await application.do(item)
        return application.notes

    async def remove(self, claim: Claim) -> None:
        """Remove an import with all it set aside."""
        for number in range(claim.batches):
            id_ = _batch_id(claim.id, number)
            if await self._store.version(STAGED, claim.org, id_) is not None:
                await _removed(self._store, STAGED, claim.org, id_, 1)
        version = await self._store.version(IMPORTS, claim.org, claim.id)
        if version is not None:
            await _removed(self._store, IMPORTS, claim.org, claim.id, version)

    async def unfinished(self) -> Sequence[Claim]:
        """Read the imports of all organisations that are under way."""
        found = []
        for state in (_COMMITTED, _STAGING, _DROPPED):
            query = Query(IMPORTS, None, {"state": state}, limit=_PAGE)
            found += [_claim(document) for document in await self._store.query(query)]
        return found

    async def _save(self, claim: Claim, *others: Write) -> Claim:
        await write(self._store, Replace(IMPORTS, _claim_document(claim)), *others)
        return replace(claim, version=claim.version + 1)


class _Application:
    """Writes items.

    Attributes:
        notes: a sentence about each thing that could not be stored as it was wanted.
    """

    def __init__(self, store: Store, claim: Claim) -> None:
        self._store = store
        self._claim = claim
        self._org = claim.org
        self._coming: dict[tuple[type, str], Persona | Screenplay] = {}
        """What versions and texts belong to that are written at the same time."""
        self.notes: list[str] = []

    async def done_at_once(self, items: Sequence[Item]) -> bool:
        """Write many items, unless they have to do with one another, or others with them."""
        writes: list[Write] = []
        for item in items:
            planned = await self.plan(item)
            if planned and isinstance(item, (Sweep, Release)):
                return self._again()
            if planned and isinstance(item, Put) and isinstance(item.record, (Persona, Screenplay)):
                self._coming[_root_key(item.record)] = item.record
            writes += planned
        try:
            await self._write(writes)
        except (ConflictError, DuplicateError):
            return self._again()
        return True

    def _again(self) -> bool:
        self.notes.clear()
        self._coming.clear()
        return False

    async def do(self, item: Item) -> None:
        """Write an item alone, against whatever others write meanwhile."""
        for _ in range(_TRIES):
            try:
                await self._write(await self.plan(item))
            except ConflictError:
                continue
            except DuplicateError as error:
                if error.field != "id":
                    item = self._without(item, error.field)
                continue
            return
        raise DomainError(
            Reason.REASON_CONFLICT,
            "What is imported was changed by others many times in a row; it goes on by itself.",
            retry_after=1.0,
        )

    async def _write(self, writes: Sequence[Write]) -> None:
        """Write what was planned, unless somebody else goes on with the import.

        Who was away for a while may have planned what was done long ago, and changed since. Whatever is
        changed after this look is at another version than the plan says.
        """
        claim = self._claim
        if writes and await self._store.version(IMPORTS, claim.org, claim.id) == claim.version:
            await self._store.write(*writes)

    async def plan(self, item: Item) -> list[Write]:
        """Say what has to be written for an item; nothing once it is done."""
        match item:
            case Put():
                return await self._put(item)
            case Sweep():
                return await self._sweep(item)
            case Release():
                return await self._release(item)

    async def _put(self, item: Put) -> list[Write]:
        shelf = _SHELVES[type(item.record)]
        document = shelf.document(item.record)
        current = await self._store.get(shelf.collection, self._org, document.id)
        if current is None:
            wanted = await self._may_create(item)
            return [Insert(shelf.collection, replace(document, version=1))] if wanted else []
        there = shelf.record(current)
        if same(there, item.record):
            return []
        if not self._may_replace(item, there):
            self._note_change(item, there)
            return []
        if isinstance(item.record, (Agent, Screenplay)) and isinstance(there, (Agent, Screenplay)):
            life = deletions.overwritten(there.life, item.record.life)
            document = shelf.document(replace(item.record, life=life))
        if current.create_time == document.create_time:
            return [Replace(shelf.collection, replace(document, version=current.version))]
        # A document that is replaced keeps when it was made.
        return [
            Delete(shelf.collection, self._org, document.id, current.version),
            Insert(shelf.collection, replace(document, version=1)),
        ]

    async def _may_create(self, item: Put) -> bool:
        """Tell whether a thing may be written that is not there."""
        if item.mode is Mode.CREATE and item.root_time is not None:
            root = await self._root(item.record)
            return root is not None and root.create_time == item.root_time
        return item.mode is not Mode.UPDATE

    def _may_replace(self, item: Put, there: Record) -> bool:
        """Tell whether another thing may be written over."""
        match item.mode:
            case Mode.OVERWRITE:
                return True
            case Mode.UPDATE:
                return there.version == item.record.version
            case Mode.CREATE:
                # Only over the one that is there without anybody's doing.
                return isinstance(there, Agent) and same(there, built_in(self._org))

    async def _root(self, record: Record) -> Persona | Screenplay | None:
        """Read what a version or text belongs to."""
        key = _root_key(record)
        if key in self._coming:
            return self._coming[key]
        kind, id_ = key
        return await self._get(_SHELVES[kind], id_)

    async def _get(self, shelf: _Shelf[R], id_: str) -> R | None:
        document = await self._store.get(shelf.collection, self._org, id_)
        return None if document is None else shelf.record(document)

    async def _sweep(self, item: Sweep) -> list[Write]:
        shelf = _PARTS[item.kind]
        if item.mode is Mode.CREATE:
            root = _PERSONAS if shelf is _VERSIONS else _SCREENPLAYS
            if await self._store.version(root.collection, self._org, item.parent) is not None:
                return []
        keep = set(item.keep)
        return [
            Delete(shelf.collection, self._org, document.id, document.version)
            for document in await _keys(self._store, shelf, self._org, {shelf.parent: item.parent})
            if int(document.fields[shelf.number]) not in keep
        ]

    async def _release(self, item: Release) -> list[Write]:
        shelf = _SCREENPLAYS
        current = await self._store.get(shelf.collection, self._org, item.screenplay)
        if current is None:
            return []
        screenplay = shelf.record(current)
        if getattr(screenplay, item.field) != item.path:
            return []
        return [Replace(shelf.collection, shelf.document(_blank(screenplay, item.field)))]

    def _note_change(self, item: Put, there: Record) -> None:
        """Note that somebody else was faster, unless it is the same thing further on."""
        if (
            isinstance(there, (PersonaVersion, Text))
            or there.create_time == item.record.create_time
        ):
            return
        self.notes.append(f"{_name(there)} was made or changed meanwhile, and kept.")

    def _without(self, item: Item, key: str) -> Item:
        """Do without what somebody else has got meanwhile."""
        if not isinstance(item, Put):
            return item
        field = {"file_key": "file_path", "import_key": "import_path"}.get(key, "request_id")
        if field != "request_id":
            self.notes.append(
                f"{_name(item.record)} is stored without its {field}, which another one has got."
            )
        return replace(item, record=_blank(item.record, field))


def _blank(record: R, field: str) -> R:
    blank: R = replace(cast("Any", record), **{field: ""})
    return blank


def _root_key(record: Record) -> tuple[type[Any], str]:
    """Name the document that a thing is, or belongs to."""
    match record:
        case Agent():
            return Agent, record.id
        case Persona() | PersonaVersion():
            return Persona, record.agent_id
        case Screenplay():
            return Screenplay, record.id
        case Text():
            return Screenplay, record.screenplay_id


def _name(record: Record) -> str:
    match record:
        case Agent():
            return f"agents/{record.id}"
        case Persona() | PersonaVersion():
            return f"agents/{record.agent_id}/persona"
        case Screenplay():
            return f"screenplays/{record.id}"
        case Text():
            return f"screenplays/{record.screenplay_id}/texts/{record.revision}"


async def _keys(
    store: Store, shelf: _Shelf[Any], org: str, equal: Mapping[str, str]
) -> list[Document]:
    """Read the keys of all documents of an organisation that match."""
    return await _all(store, Query(shelf.collection, org, equal, keys_only=True))


async def _all(store: Store, query: Query) -> list[Document]:
    """Read all documents that match, page by page."""
    found: list[Document] = []
    while True:
        place = (found[-1].create_time, found[-1].id) if found else None
        page = await store.query(replace(query, after=place, limit=_PAGE))
        found += page
        if len(page) < _PAGE:
            return found


async def _numbers(store: Store, shelf: _Shelf[Any], org: str, parent: str) -> list[int]:
    documents = await _keys(store, shelf, org, {shelf.parent: parent})
    return sorted(int(document.fields[shelf.number]) for document in documents)


async def _removed(store: Store, collection: Collection, org: str, id_: str, version: int) -> None:
    try:
        await store.write(Delete(collection, org, id_, version))
    except ConflictError:  # somebody else removed it at the same time
        return


def _batch_id(import_id: str, number: int) -> str:
    return f"{import_id}.{number:08d}"


def _claim_document(claim: Claim) -> Document:
    state = _DROPPED if claim.dropped else _COMMITTED if claim.committed else _STAGING
    return Document(
        claim.org,
        claim.id,
        claim.create_time,
        {"state": state, "holder": claim.org},
        {"batches": claim.batches, "applied": claim.applied},
        claim.version,
    )


def _claim(document: Document) -> Claim:
    state = document.fields["state"]
    return Claim(
        document.org,
        document.id,
        **document.body,
        committed=state == _COMMITTED,
        dropped=state == _DROPPED,
        create_time=document.create_time,
        version=document.version,
    )
