"""Executions, leases and keys as documents and logs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from services.execution.domain import (
    DEFAULT_PRIORITY,
    NOTHING,
    PREVIEW_CHARACTERS,
    SEPARATOR,
    AgentSnapshot,
    BusyPolicy,
    Choice,
    ContextMode,
    Ending,
    Errand,
    Event,
    Execution,
    Failure,
    Filter,
    Key,
    Order,
    Price,
    Spend,
    State,
    Talk,
    Wish,
)
from services.execution.ports import (
    Due,
    FencedError,
    Left,
    QueueFullError,
    Renewal,
    RequestIdTakenError,
    SlotTakenError,
)
from services.kit.audit import AUDIT
from services.kit.keys import KeyRecord
from services.kit.principals import MESH_ORG, Scope
from services.kit.storage.ports import (
    Append,
    AtMost,
    Collection,
    ConflictError,
    Delete,
    Document,
    DuplicateError,
    Erase,
    Insert,
    LimitError,
    Query,
    Replace,
    Store,
)

EXECUTIONS = Collection(
    "executions",
    fields=("state", "owner", "agent_id", "conversation_id", "instance_id", "priority", "errand"),
    swept=("state", "errand"),
    unique=("request_key", "slot"),
    schema_version=3,
)
WORKERS = Collection("workers")
KEYS = Collection("keys", fields=("holder",))
EVENTS = "events"

COLLECTIONS = (EXECUTIONS, WORKERS, KEYS, AUDIT)
LOGS = (EVENTS,)

PAGE_EVENTS = 1000
PAGE_BYTES = 96 * 1024
_DUE_PAGE = 1000


class StoredExecutions:
    """Executions over the storage ports."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def start(self, execution: Execution, first: Event, most_waiting: int) -> None:
        """Store a new run and its first event, unless too many wait."""
        org, id_ = execution.org, execution.id
        try:
            await self._store.write(
                AtMost(EXECUTIONS, {"state": State.QUEUED.value}, most_waiting),
                Insert(EXECUTIONS, _document(execution)),
                Append(EVENTS, org, id_, 0, [first]),
            )
        except ConflictError:
            # The run is stored, and a worker that found it has appended the same event.
            return
        except LimitError:
            raise QueueFullError from None
        except DuplicateError as error:
            if error.field != "request_key":
                raise
            raise RequestIdTakenError from None

    async def get(self, org: str, id_: str) -> Execution | None:
        """Read a run; one that was taken back is not there."""
        document = await self._store.get(EXECUTIONS, org, id_)
        return None if document is None or _is_taken_back(document) else _execution(document)

    async def version(self, org: str, id_: str) -> int | None:
        """Read only the version of a run's document."""
        return await self._store.version(EXECUTIONS, org, id_)

    async def by_request_id(self, org: str, request_id: str) -> Execution | None:
        """Read the run a request_id started."""
        key = _request_key(org, request_id)
        found = await self._store.find(EXECUTIONS, org, "request_key", key)
        return None if found is None else _execution(found)

    async def list(
        self, org: str, where: Filter, after: tuple[int, str] | None, limit: int
    ) -> Sequence[Execution]:
        """Read a page of runs, newest first."""
        equal = {
            "state": where.state.value if where.state else "",
            "agent_id": where.agent_id,
            "conversation_id": where.conversation_id,
            "instance_id": where.instance_id,
        }
        query = Query(
            EXECUTIONS,
            org,
            equal={name: value for name, value in equal.items() if value},
            from_time=where.from_time,
            before_time=where.before_time,
            after=after,
            limit=limit,
            newest_first=True,
        )
        found: list[Execution] = []
        while documents := await self._store.query(query):
            found += [_execution(one) for one in documents if not _is_taken_back(one)]
            if len(documents) < limit or len(found) >= limit:
                break
            # Some were taken back: the page is filled up, for a short one is the last.
            last = documents[-1]
            query = replace(query, after=(last.create_time, last.id))
        return found[:limit]

    async def due(
        self, state: State, after: tuple[int, str] | None
    ) -> Sequence[tuple[tuple[int, str], Due]]:
        """Read a page of the runs in a state, oldest first."""
        documents = await self._everywhere({"state": state.value}, after)
        return [((found.create_time, found.id), _due(found)) for found in documents]

    async def left(
        self, errand: Errand, after: tuple[int, str] | None
    ) -> Sequence[tuple[tuple[int, str], Left]]:
        """Read a page of the runs with an errand, oldest first."""
        documents = await self._everywhere({"errand": errand.value}, after)
        return [((found.create_time, found.id), _left(found)) for found in documents]

    async def _everywhere(
        self, equal: Mapping[str, str], after: tuple[int, str] | None
    ) -> Sequence[Document]:
        query = Query(EXECUTIONS, None, equal=equal, after=after, limit=_DUE_PAGE, keys_only=True)
        return await self._store.query(query)

    async def append(self, org: str, id_: str, after: int, events: Sequence[Event]) -> None:
        """Append events to the log."""
        try:
            await self._store.write(Append(EVENTS, org, id_, after, events))
        except ConflictError:
            raise FencedError from None

    async def claim(self, execution: Execution, after: int, events: Sequence[Event]) -> Execution:
        """Store a run that takes a slot, then the events that say so."""
        try:
            await self._store.write(
                Replace(EXECUTIONS, _document(execution)),
                Append(EVENTS, execution.org, execution.id, after, events),
            )
        except DuplicateError:
            raise SlotTakenError from None
        except ConflictError:
            raise FencedError from None
        return replace(execution, version=execution.version + 1)

    async def commit(self, execution: Execution, after: int, events: Sequence[Event]) -> Execution:
        """Append events and store the projection they lead to."""
        try:
            await self._store.write(
                Append(EVENTS, execution.org, execution.id, after, events),
                Replace(EXECUTIONS, _document(execution)),
            )
        except ConflictError:
            raise FencedError from None
        return replace(execution, version=execution.version + 1)

    async def save(self, execution: Execution) -> Execution:
        """Store a projection alone."""
        try:
            await self._store.write(Replace(EXECUTIONS, _document(execution)))
        except ConflictError:
            raise FencedError from None
        return replace(execution, version=execution.version + 1)

    async def delete(self, execution: Execution | Left) -> None:
        """Delete a run and its log."""
        try:
            await self._store.write(
                Delete(EXECUTIONS, execution.org, execution.id, execution.version),
                Erase(EVENTS, execution.org, execution.id),
            )
        except ConflictError:
            raise FencedError from None

    async def erase(self, org: str, id_: str) -> None:
        """Delete a log."""
        await self._store.write(Erase(EVENTS, org, id_))

    async def events(self, org: str, id_: str, after: int) -> Sequence[Event]:
        """Read a page of events."""
        entries = await self._store.read(
            EVENTS, org, id_, after, limit=PAGE_EVENTS, max_bytes=PAGE_BYTES
        )
        return [Event._make(entry) for entry in entries]

    async def last_event(self, org: str, id_: str) -> Event | None:
        """Read the newest event of a run."""
        entry = await self._store.last(EVENTS, org, id_)
        return None if entry is None else Event._make(entry)


class StoredLeases:
    """Leases as documents; the version of the document is the counter."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def register(self, worker: str, now: int) -> Renewal:
        """Make the lease of a new worker."""
        await self._store.write(Insert(WORKERS, Document(MESH_ORG, worker, now, {})))
        return Renewal(worker, 1)

    async def renew(self, lease: Renewal) -> Renewal:
        """Renew a lease; only its worker does, so one that is newer was renewed without an answer."""
        counter: int | None = lease.counter
        while counter is not None:
            document = Document(MESH_ORG, lease.worker, 0, {}, version=counter)
            with suppress(ConflictError):
                await self._store.write(Replace(WORKERS, document))
                return Renewal(lease.worker, counter + 1)
            counter = await self._store.version(WORKERS, MESH_ORG, lease.worker)
        raise FencedError

    async def all(self) -> Sequence[Renewal]:
        """Read every lease."""
        documents = await self._store.query(Query(WORKERS, MESH_ORG, limit=10_000))
        return [Renewal(document.id, document.version) for document in documents]

    async def remove(self, lease: Renewal) -> None:
        """Remove a lease unless it was renewed."""
        try:
            await self._store.write(Delete(WORKERS, MESH_ORG, lease.worker, lease.counter))
        except ConflictError:
            return


class StoredKeys:
    """Keys as documents of the mesh, so that one is found by its id alone."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def add(self, key: Key) -> None:
        """Store a new key."""
        await self._store.write(Insert(KEYS, _key_document(key)))

    async def get(self, key_id: str) -> Key | None:
        """Read a key."""
        document = await self._store.get(KEYS, MESH_ORG, key_id)
        return None if document is None else _key(document)

    async def list(
        self, org: str | None, after: tuple[int, str] | None, limit: int
    ) -> Sequence[Key]:
        """Read a page of keys, newest first."""
        equal = {} if org is None else {"holder": org}
        query = Query(KEYS, MESH_ORG, equal=equal, after=after, limit=limit, newest_first=True)
        return [_key(document) for document in await self._store.query(query)]

    async def save(self, key: Key) -> Key:
        """Store a changed key."""
        try:
            await self._store.write(Replace(KEYS, _key_document(key)))
        except ConflictError:
            raise FencedError from None
        return replace(key, version=key.version + 1)

    async def find(self, key_id: str, digest: str) -> KeyRecord | None:  # noqa: ARG002 the guard here tells of uses itself
        """Read what a guard needs to know of a key."""
        key = await self.get(key_id)
        if key is None:
            return None
        return KeyRecord(key.id, key.org, key.scopes, key.digest, key.expire_time, key.revoke_time)


def _key_document(key: Key) -> Document:
    body = {
        "name": key.name,
        "scopes": sorted(key.scopes),
        "digest": key.digest,
        "creator": key.creator,
        "expire_time": key.expire_time,
        "revoke_time": key.revoke_time,
        "last_use_time": key.last_use_time,
    }
    return Document(
        MESH_ORG, key.id, key.create_time, {"holder": key.org}, body, version=key.version
    )


def _key(document: Document) -> Key:
    body = dict(document.body)
    return Key(
        id=document.id,
        org=document.fields["holder"],
        create_time=document.create_time,
        version=document.version,
        scopes=frozenset(map(Scope, body.pop("scopes"))),
        **body,
    )


def _request_key(org: str, request_id: str) -> str:
    return f"{org}/StartExecution/{request_id}"


def _slot_key(org: str, slot: int) -> str:
    return f"{org}/{slot}"


def _slot(org: str, id_: str, key: str) -> int | None:
    return None if key == id_ else int(key.removeprefix(_slot_key(org, 0)[:-1]))


def _due(document: Document) -> Due:
    fields = document.fields
    priority = int(fields["priority"] or DEFAULT_PRIORITY)
    slot = _slot(document.org, document.id, fields["slot"])
    held = fields["errand"] != Errand.NONE
    return Due(document.org, document.id, fields["owner"], priority, slot, held)


def _left(document: Document) -> Left:
    conversation_id = document.fields["conversation_id"]
    return Left(document.org, document.id, conversation_id, document.version)


def _is_taken_back(document: Document) -> bool:
    return document.fields["errand"] == Errand.WITHDRAW


def _document(execution: Execution) -> Document:
    order = execution.order
    body: dict[str, Any] = {
        "order": {name: value for name, value in _order_body(order).items() if value},
        "preview": order.input[:PREVIEW_CHARACTERS],
        "digest": execution.digest,
        "update_time": execution.update_time,
    }
    if execution.start_time is not None:
        body["start_time"] = execution.start_time
    if execution.end_time is not None:
        body["end_time"] = execution.end_time
    if execution.failure is not None:
        body["failure"] = _fields(execution.failure)
    if execution.spend != NOTHING:
        body["spend"] = execution.spend.content()
    if execution.served_by is not None:
        body["served_by"] = _fields(execution.served_by)
    if execution.finish_reason:
        body["finish_reason"] = execution.finish_reason
    if execution.traceparent:
        body["traceparent"] = execution.traceparent
    body |= _beside(order) | _talk_body(execution)
    return Document(
        org=execution.org,
        id=execution.id,
        create_time=execution.create_time,
        version=execution.version,
        fields={
            "state": execution.state.value,
            "owner": execution.owner,
            "agent_id": order.agent_id,
            "conversation_id": order.conversation_id,
            "instance_id": order.instance_id,
            # Without a request_id the key is the id, so that the index needs no exceptions.
            "request_key": _request_key(execution.org, order.request_id)
            if order.request_id
            else execution.id,
            "priority": str(order.priority),
            "errand": execution.errand.value,
            "slot": execution.id
            if execution.slot is None
            else _slot_key(execution.org, execution.slot),
        },
        body=body,
        content=_content(execution),
    )


def _talk_body(execution: Execution) -> dict[str, Any]:
    """Print what runs in conversations alone have."""
    body: dict[str, Any] = {}
    if execution.talk is not None:
        talk = _fields(execution.talk)
        body["talk"] = {name: value for name, value in talk.items() if value}
        body["talk"]["busy_policy"] = execution.talk.busy_policy.value
    if execution.ending is not None:
        failure = execution.ending.failure
        body["ending"] = {
            "time": execution.ending.time,
            "failure": None if failure is None else _fields(failure),
        }
    return body


def _content(execution: Execution) -> dict[str, str]:
    content = {"input": execution.order.input}
    if execution.order.system:
        content["system"] = execution.order.system
    if execution.result:
        content["result"] = execution.result
    return content


def _order_body(order: Order) -> dict[str, Any]:
    return {
        "choices": [_choice_body(choice) for choice in order.choices],
        "timeout_ms": order.timeout_ms,
        "cwd": order.cwd,
        "metadata": dict(order.metadata),
        "request_id": order.request_id,
        "max_output_tokens": order.max_output_tokens,
        "max_cost": order.max_cost,
    }


def _beside(order: Order) -> dict[str, Any]:
    """Print what is beside the order, whose fields an older release that still runs has to know each of."""
    body: dict[str, Any] = {}
    if order.agent is not None:
        body["agent"] = {name: value for name, value in _fields(order.agent).items() if value}
    if order.has_context or order.screenplay_id:
        body["context"] = {
            "mode": order.context_mode.value,
            "screenplay_id": order.screenplay_id,
            "earlier_runs": order.earlier_runs,
        }
    if order.instructions:
        body["persona_characters"] = len(order.persona)
    return body


def _choice_body(choice: Choice) -> dict[str, Any]:
    body: dict[str, Any] = {"ai_provider": choice.ai_provider, "model": choice.model}
    if choice.price is not None:
        body["price"] = _fields(choice.price)
    if choice.max_output_tokens is not None:
        body["max_output_tokens"] = choice.max_output_tokens
    if choice.context_tokens is not None:
        body["context_tokens"] = choice.context_tokens
    return body


def _fields(value: AgentSnapshot | Failure | Price | Talk | Wish) -> dict[str, Any]:
    """Print a value whose fields are plain; `asdict` would copy each, which takes ten times as long."""
    return {name: getattr(value, name) for name in value.__slots__}


def _order(document: Document) -> Order:
    body, agent = dict(document.body["order"]), document.body.get("agent")
    if "choices" not in body:
        # Written by a release that knew one model for each run, and no prices.
        body["choices"] = [{name: body.pop(name) for name in ("ai_provider", "model")}]
    body["choices"] = tuple(_choice(row) for row in body["choices"])
    return Order(
        input=document.content.get("input", document.body["preview"]),
        agent_id=document.fields["agent_id"],
        conversation_id=document.fields["conversation_id"],
        instance_id=document.fields["instance_id"],
        priority=int(document.fields["priority"] or DEFAULT_PRIORITY),
        agent=None if agent is None else _agent(agent),
        **_character(document),
        **_context(document),
        **body,
    )


def _character(document: Document) -> dict[str, Any]:
    """Take apart what models are told of an agent; what older releases wrote counts as its persona."""
    system = document.content.get("system", "")
    end = document.body.get("persona_characters")
    if end is None:
        return {"persona": system}
    begin = end + len(SEPARATOR) if end else 0
    return {"persona": system[:end], "instructions": system[begin:]}


def _context(document: Document) -> dict[str, Any]:
    row = document.body.get("context")
    if row is None:
        return {}
    return {
        "context_mode": ContextMode(row["mode"]),
        "screenplay_id": row["screenplay_id"],
        "earlier_runs": row.get("earlier_runs", 0),
    }


def _agent(row: Mapping[str, Any]) -> AgentSnapshot:
    lists = {name: tuple(row.get(name, ())) for name in ("tools", "mcp_servers")}
    return AgentSnapshot(**{**row, **lists})


def _talk(row: Mapping[str, Any]) -> Talk:
    return Talk(**{**row, "busy_policy": BusyPolicy(row["busy_policy"])})


def _ending(row: Mapping[str, Any]) -> Ending:
    failure = row["failure"]
    return Ending(row["time"], None if failure is None else Failure(**failure))


def _choice(row: Mapping[str, Any]) -> Choice:
    price = None if row.get("price") is None else Price(**row["price"])
    limits = row.get("max_output_tokens"), row.get("context_tokens")
    return Choice(row["ai_provider"], row["model"], price, *limits)


def _execution(document: Document) -> Execution:
    """Read a run; from a query it has a preview in place of its input, and no result."""
    body: Mapping[str, Any] = document.body
    failure, talk = body.get("failure"), body.get("talk")
    return Execution(
        org=document.org,
        id=document.id,
        order=_order(document),
        digest=body["digest"],
        create_time=document.create_time,
        update_time=body["update_time"],
        state=State(document.fields["state"]),
        owner=document.fields["owner"],
        result=document.content.get("result", ""),
        failure=None if failure is None else Failure(**failure),
        start_time=body.get("start_time"),
        end_time=body.get("end_time"),
        slot=_slot(document.org, document.id, document.fields["slot"]),
        spend=Spend.read(body.get("spend", {})),
        served_by=Wish(**body["served_by"]) if "served_by" in body else None,
        finish_reason=body.get("finish_reason", ""),
        traceparent=body.get("traceparent", ""),
        talk=None if talk is None else _talk(talk),
        errand=Errand(document.fields["errand"]),
        ending=_ending(body["ending"]) if "ending" in body else None,
        version=document.version,
    )
