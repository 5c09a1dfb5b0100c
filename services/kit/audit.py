"""The record of every call that changes something: who did what, for whom, and how it ended."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message

from services.kit import ids
from services.kit.call import Call
from services.kit.errors import DomainError
from services.kit.redaction import redacted, redacted_text
from services.kit.storage.ports import Collection, ConflictError, Delete, Document, Insert, Query
from services.kit.storage.ports import Store as DocumentStore

_LOG = logging.getLogger(__name__)
_IDS = ("id", "execution_id", "job_id", "key_id")
"""The fields that name what was made or changed, the surest first; else the first of a message may."""
_SWEEP_SECONDS = 3600.0
_SWEEP_PAGE = 200
_DAY = 24 * 3600 * 1_000_000

AUDIT = Collection("audit_records", fields=("service", "principal", "rpc"))
"""Joins the collections of each service. All records of a store are of one `service`, whose index
therefore is that of time over all organisations."""


class Auditor(Protocol):
    """Keeps records of calls."""

    async def record(
        self,
        served: Call,
        request: Message,
        response: Message | bytes | None,
        code: str,
        reason: str,
    ) -> None:
        """Keep the record of a call that ended, or of a stream that began.

        A record that cannot be stored goes to the log; nothing is raised.

        Args:
            response: the answer; None when there is none, or a stream of them.
            code: the name of its gRPC status.
            reason: the reason of its error, from the catalogue; empty when it succeeded.
        """
        ...


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """One call; the fields are those of `conductor.audit.v1.AuditRecord`."""

    id: str
    create_time: int
    """Microseconds since the epoch."""
    org: str
    principal: str
    rpc: str
    outcome: str
    request: Mapping[str, Any]
    reason: str = ""
    trace_id: str = ""
    call_id: str = ""
    client: str = ""
    resource_id: str = ""


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """Which records: all that match every condition that is given."""

    org: str | None
    """None is every organisation."""
    principal: str = ""
    rpc: str = ""
    from_time: int | None = None
    """Made at this time or later, in microseconds since the epoch."""
    before_time: int | None = None
    """Made before this time."""


class StoredAudit:
    """Records as documents in the store of their service.

    Args:
        service: the name of the service.
        clock: microseconds since the epoch.
    """

    def __init__(
        self, store: DocumentStore, service: str, *, clock: Callable[[], int] = ids.now
    ) -> None:
        self._store = store
        self._service = service
        self._clock = clock
        self._writing: set[asyncio.Task[None]] = set()

    async def record(
        self,
        served: Call,
        request: Message,
        response: Message | bytes | None,
        code: str,
        reason: str,
    ) -> None:
        """Store a record; it is stored even when the call is cancelled meanwhile."""
        writing = asyncio.create_task(self._write(served, request, response, code, reason))
        self._writing.add(writing)
        writing.add_done_callback(self._writing.discard)
        await asyncio.shield(writing)

    async def list(
        self, where: AuditFilter, after: tuple[int, str] | None, limit: int
    ) -> list[AuditRecord]:
        """Read a page of records, newest first.

        Args:
            after: the time and id of the last one of the page before.
        """
        equal = {"principal": where.principal, "rpc": where.rpc}
        query = Query(
            AUDIT,
            where.org,
            {field: value for field, value in equal.items() if value}
            | ({"service": self._service} if where.org is None else {}),
            where.from_time,
            where.before_time,
            after,
            limit,
            newest_first=True,
        )
        return [_record(document) for document in await self._store.query(query)]

    async def close(self) -> None:
        """Wait for the records of calls that were cancelled."""
        if self._writing:
            await asyncio.wait(self._writing)

    async def _write(
        self,
        served: Call,
        request: Message,
        response: Message | bytes | None,
        code: str,
        reason: str,
    ) -> None:
        fields = {
            "service": self._service,
            "principal": served.principal.name,
            "rpc": served.method[1:],
        }
        # The ids of the call and the address are headers, which hold what a caller likes.
        body: dict[str, Any] = {
            "outcome": code,
            "reason": reason,
            "trace_id": served.trace_id,
            "call_id": redacted_text(served.call_id),
            "client": redacted_text(served.client),
        }
        try:
            body["resource_id"] = redacted_text(_resource_id(served, request, response))
            body["request"] = redacted(request)
            document = Document(
                served.principal.org_id, ids.new_id("audit"), self._clock(), fields, body
            )
            await self._store.write(Insert(AUDIT, document))
        except Exception as error:  # noqa: BLE001 the call is done, and its caller has to hear so
            _LOG.error(
                "a record of %s could not be stored: %s",
                served.method,
                error if isinstance(error, DomainError) else repr(error),
                extra={"facts": {"audit": {"org": served.principal.org_id, **fields, **body}}},
            )


class AuditRetention:
    """Deletes records by age, beside others that do the same.

    Args:
        service: the name of the service.
        keep_days: how long a record is kept.
        clock: microseconds since the epoch.
    """

    def __init__(
        self,
        store: DocumentStore,
        service: str,
        *,
        keep_days: float,
        clock: Callable[[], int] = ids.now,
    ) -> None:
        self._store = store
        self._service = service
        self._keep = round(keep_days * _DAY)
        self._clock = clock

    async def serve(self) -> None:
        """Sweep once an hour until cancelled."""
        while True:
            try:
                await self.sweep()
            except DomainError as error:
                _LOG.warning("old audit records could not be deleted, trying again: %s", error)
            await asyncio.sleep(_SWEEP_SECONDS)

    async def sweep(self) -> None:
        """Delete every record that is old enough, page by page."""
        before = self._clock() - self._keep
        place: tuple[int, str] | None = None
        while True:
            page = await self._store.query(
                Query(
                    AUDIT,
                    None,
                    {"service": self._service},
                    before_time=before,
                    after=place,
                    limit=_SWEEP_PAGE,
                    keys_only=True,
                )
            )
            if not page:
                return
            place = page[-1].create_time, page[-1].id
            for document in page:
                with suppress(ConflictError):  # somebody else deleted it at the same time
                    await self._store.write(
                        Delete(AUDIT, document.org, document.id, document.version)
                    )


def _record(document: Document) -> AuditRecord:
    return AuditRecord(
        document.id,
        document.create_time,
        document.org,
        document.fields["principal"],
        document.fields["rpc"],
        **document.body,
    )


def _resource_id(served: Call, request: Message, response: Message | bytes | None) -> str:
    if served.resource_id:
        return served.resource_id
    for message in (response, request):
        # An answer that is serialized already is not parsed for this.
        if isinstance(message, Message):
            found: Any = message
            for field in _id_path(message.DESCRIPTOR):
                found = getattr(found, field)
            if isinstance(found, str) and found:
                return found
    return ""


@lru_cache(1024)
def _id_path(descriptor: Descriptor) -> Sequence[str]:
    """Tell where a message says which thing it is about: itself, or the thing it begins with."""
    if field := _id_field(descriptor):
        return (field,)
    first = descriptor.fields_by_number.get(1)
    if first is None or first.message_type is None or first.is_repeated:
        return ()
    return (first.name, field) if (field := _id_field(first.message_type)) else ()


def _id_field(descriptor: Descriptor) -> str:
    known = next((name for name in _IDS if name in descriptor.fields_by_name), "")
    first = descriptor.fields_by_number.get(1)
    if known or first is None:
        return known
    return first.name if first.name.endswith("_id") else ""
