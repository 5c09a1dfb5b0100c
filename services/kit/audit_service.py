"""AuditService as every service hosts it: over the records of its own store, and of others it is given.

Who lists by way of the edge asks one service, which asks the others; these answer from their own stores.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import astuple

from conductor.audit.v1 import audit_service_pb2 as pb
from conductor.audit.v1.audit_record_pb2 import AuditRecord as RecordMessage
from conductor.audit.v1.audit_service_pb2_grpc import AuditServiceServicer, AuditServiceStub
from services.kit import call, paging
from services.kit.audit import AuditFilter, AuditRecord, StoredAudit
from services.kit.interceptor import Context
from services.kit.messages import fitting, microseconds, timestamp
from services.kit.paging import Page

_OLDEST = (-(2**63), 0, "")
"""Comes before every place."""

Part = tuple[Sequence[RecordMessage], bool]
"""The beginning of what one service has, newest first, and whether older records follow."""


class AuditHandlers(AuditServiceServicer):
    """The rpcs of AuditService.

    Args:
        records: those of this service.
        others: services whose records are listed with these.
    """

    def __init__(self, records: StoredAudit, others: Mapping[str, AuditServiceStub]) -> None:
        self._records = records
        self._others = others

    async def ListAuditRecords(
        self, request: pb.ListAuditRecordsRequest, context: Context
    ) -> pb.ListAuditRecordsResponse:
        org = call.current().principal.org_to_list(request.org_id)
        where = _filter(org, request)
        page = paging.page(request, astuple(where))
        records, more = merged(
            [await self._own(where, page), *await self._elsewhere(request, page)], page.size
        )
        token = ""
        if more:
            last = records[-1]
            token = paging.encode_token((last.create_time.ToMicroseconds(), last.id), page.filters)
        return pb.ListAuditRecordsResponse(audit_records=records, next_page_token=token)

    async def _own(self, where: AuditFilter, page: Page[int]) -> Part:
        found = await self._records.list(where, page.after, page.size + 1)
        shown = fitting(map(_to_proto, found[: page.size]))
        return shown, len(found) > len(shown)

    async def _elsewhere(self, request: pb.ListAuditRecordsRequest, page: Page[int]) -> list[Part]:
        """Ask the others for the same page; one that does not answer fails the whole list.

        A token says where the page before ended and for which filters it was made, so it is theirs as
        well.
        """
        asked = pb.ListAuditRecordsRequest()
        asked.CopyFrom(request)
        asked.page_size = page.size
        answers = await asyncio.gather(
            *(stub.ListAuditRecords(asked) for stub in self._others.values()),
            return_exceptions=True,
        )
        parts: list[Part] = []
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
            parts.append((answer.audit_records, bool(answer.next_page_token)))
        return parts


def merged(parts: Sequence[Part], size: int) -> tuple[list[RecordMessage], bool]:
    """Merge the beginnings of lists into one page; tells whether more follows.

    Nothing is shown that is older than the end of a part that goes on: what that goes on with may
    belong before it.
    """
    horizon = max((_place(records[-1]) for records, more in parts if more), default=_OLDEST)
    known = [record for records, _ in parts for record in records]
    sure = [record for record in known if _place(record) >= horizon]
    page = fitting(sorted(sure, key=_place, reverse=True)[:size])
    return page, len(page) < len(known) or any(more for _, more in parts)


def _place(record: RecordMessage) -> tuple[int, int, str]:
    return record.create_time.seconds, record.create_time.nanos, record.id


def _filter(org: str | None, request: pb.ListAuditRecordsRequest) -> AuditFilter:
    """Read which records to list, of an organisation or of all."""
    return AuditFilter(
        org,
        request.principal,
        request.rpc,
        microseconds(request, "create_time_from"),
        microseconds(request, "create_time_before"),
    )


def _to_proto(record: AuditRecord) -> RecordMessage:
    message = RecordMessage(
        id=record.id,
        create_time=timestamp(record.create_time),
        org_id=record.org,
        principal=record.principal,
        rpc=record.rpc,
        outcome=record.outcome,
        reason=record.reason,
        trace_id=record.trace_id,
        call_id=record.call_id,
        client=record.client,
        resource_id=record.resource_id,
    )
    message.request.update(record.request)
    return message
