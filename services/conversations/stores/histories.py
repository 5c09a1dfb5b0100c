"""Histories as documents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace

from services.conversations.domain.histories import Ended, Link, Outcome, Shown, Totals, Whose
from services.kit.storage.ports import Collection, Delete, Document, Insert, Query, Replace, Store
from services.kit.storage.resources import number_key, write

RUNS = Collection(
    "runs",
    # `agent` and `instance` begin with whether the run is shown: a list reads nothing else. `told` is the
    # instance whose later runs are told it, if any.
    fields=("chain", "number", "agent", "instance", "told"),
    unique=("run_key",),
    orders=(("chain", "number"), ("told", "number")),
)
_REMOVED_AT_ONCE = 100


class StoredLinks:
    """Links over the storage ports."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def find(self, org: str, execution_id: str) -> Link | None:
        """Read the link of a run."""
        document = await self._store.find(RUNS, org, "run_key", _run_key(org, execution_id))
        return None if document is None else from_document(document)

    async def newest(self, org: str, chain: str) -> Link | None:
        """Read the newest link of a chain."""
        page = await self._chain(org, chain, 1)
        return from_document(page[0]) if page else None

    async def add(self, link: Link) -> None:
        """Store a link."""
        await write(self._store, Insert(RUNS, to_document(link)))

    async def save(self, link: Link) -> Link:
        """Store a changed link."""
        await write(self._store, Replace(RUNS, to_document(link)))
        return replace(link, version=link.version + 1)

    async def _chain(self, org: str, chain: str, limit: int) -> list[Document]:
        query = Query(RUNS, org, {"chain": chain}, limit=limit, newest_first=True, order="number")
        return await self._store.query(query)

    async def list(
        self, org: str, whose: Whose, shown: Shown, after: tuple[int, str] | None, limit: int
    ) -> Sequence[Link]:
        """Read a page of a history, newest first."""
        equal = (
            {"instance": _listed(shown, whose.instance_id)}
            if whose.instance_id
            else {"agent": _listed(shown, whose.agent_id)}
        )
        query = Query(RUNS, org, equal, after=after, limit=limit, newest_first=True)
        return [from_document(document) for document in await self._store.query(query)]

    async def told(self, org: str, instance_id: str, upto: int, limit: int) -> Sequence[Link]:
        """Read the newest links that later runs of an instance are told, newest first."""
        query = Query(
            RUNS,
            org,
            {"told": instance_id},
            after=(number_key(upto + 1), ""),
            limit=limit,
            newest_first=True,
            order="number",
        )
        return [from_document(document) for document in await self._store.query(query)]

    async def remove(self, org: str, chain: str) -> None:
        """Remove a whole chain for good."""
        # The newest first: whoever adds one meanwhile adds it to what is left, and it goes, too.
        while page := await self._chain(org, chain, _REMOVED_AT_ONCE):
            await write(self._store, *(Delete(RUNS, org, one.id, one.version) for one in page))


def to_document(link: Link) -> Document:
    """Print a link."""
    run = link.run
    body = {
        "outcome": run.outcome.value,
        "agent_id": run.agent_id,
        "instance_id": run.instance_id,
        "execution_id": run.execution_id,
        "conversation_id": run.conversation_id,
        "question": run.question,
        "answer": run.answer,
        "error_reason": run.error_reason,
        "duration": run.duration,
        "shown": link.shown.value,
        "totals": asdict(link.totals),
    }
    return Document(
        org=run.org,
        id=link.id,
        create_time=link.create_time,
        version=link.version,
        fields={
            "chain": run.chain,
            "number": number_key(link.number),
            "agent": _listed(link.shown, run.agent_id),
            "instance": _listed(link.shown, run.instance_id),
            "told": run.instance_id if link.is_told else "",
            "run_key": _run_key(run.org, run.execution_id),
        },
        body={name: value for name, value in body.items() if value},
    )


def from_document(document: Document) -> Link:
    """Read a link."""
    body = document.body
    run = Ended(
        org=document.org,
        execution_id=body["execution_id"],
        agent_id=body["agent_id"],
        outcome=Outcome(body["outcome"]),
        duration=body.get("duration", 0),
        instance_id=body.get("instance_id", ""),
        conversation_id=body.get("conversation_id", ""),
        question=body.get("question", ""),
        answer=body.get("answer", ""),
        error_reason=body.get("error_reason", ""),
    )
    return Link(
        run,
        int(document.fields["number"]),
        document.create_time,
        Totals(**body["totals"]),
        Shown(body["shown"]),
        document.version,
    )


def _run_key(org: str, execution_id: str) -> str:
    return f"{org}/{execution_id}"


def _listed(shown: Shown, id_: str) -> str:
    return f"{shown.value}:{id_}" if id_ else ""
