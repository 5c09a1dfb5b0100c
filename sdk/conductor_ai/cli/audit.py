"""`conductor audit`: who did what."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import typer

from conductor.audit.v1.audit_record_pb2 import AuditRecord
from conductor.audit.v1.audit_service_pb2 import ListAuditRecordsRequest
from conductor.auth.v1 import key_service_pb2
from conductor.content.v1 import (
    agent_service_pb2,
    archive_service_pb2,
    persona_service_pb2,
    screenplay_service_pb2,
    template_service_pb2,
)
from conductor.conversations.v1 import (
    conversation_service_pb2,
    instance_service_pb2,
    kin_service_pb2,
    message_service_pb2,
    portfolio_service_pb2,
    turn_service_pb2,
)
from conductor.execution.v1 import execution_service_pb2
from conductor.gateway.v1 import gateway_service_pb2
from conductor_ai.cli import listing, times
from conductor_ai.cli.connection import Address, ApiKey, call
from conductor_ai.cli.exits import Exit
from conductor_ai.cli.output import AsJson
from conductor_ai.cli.tables import Column
from conductor_ai.client import Client

group = typer.Typer(name="audit", no_args_is_help=True, help="See who did what.")

_ALL_ORGS = "-"
_NO_SIDE_EFFECTS = 1


def _rpcs() -> dict[str, str]:
    """Name the rpcs that leave records, in full by their own name."""
    files = (
        execution_service_pb2,
        gateway_service_pb2,
        key_service_pb2,
        agent_service_pb2,
        persona_service_pb2,
        screenplay_service_pb2,
        template_service_pb2,
        archive_service_pb2,
        conversation_service_pb2,
        message_service_pb2,
        instance_service_pb2,
        portfolio_service_pb2,
        turn_service_pb2,
        kin_service_pb2,
    )
    services = [one for file in files for one in file.DESCRIPTOR.services_by_name.values()]
    return {
        method.name: f"{service.full_name}/{method.name}"
        for service in services
        for method in service.methods
        if method.GetOptions().idempotency_level != _NO_SIDE_EFFECTS
    }


def _rpc(name: str) -> str:
    """Read an rpc: whole, as in the records, or the last of its names alone."""
    if not name or "/" in name:
        return name
    if name not in _rpcs():
        raise typer.BadParameter(
            f"{name!r} is none of {', '.join(_rpcs())}; another one is written in full: "
            "package.Service/Method"
        )
    return _rpcs()[name]


def _complete_rpc(incomplete: str) -> list[str]:
    return [name for name in _rpcs() if name.startswith(incomplete)]


@group.command("list")
def list_records(
    org: Annotated[
        str,
        typer.Option(
            help="Records of this organisation, or of all: -. For operators.",
            show_default="your own",
        ),
    ] = "",
    principal: Annotated[str, typer.Option(help="Only what this principal did.")] = "",
    rpc: Annotated[
        str,
        typer.Option(callback=_rpc, autocompletion=_complete_rpc, help="Only calls of this rpc."),
    ] = "",
    since: Annotated[
        datetime | None,
        typer.Option(
            parser=times.parse,
            metavar="TIME",
            help="Only what was done at this time or later: 2026-05-31, 2026-05-31T18:00Z, 2h, 7d.",
        ),
    ] = None,
    before: Annotated[
        datetime | None,
        typer.Option(
            parser=times.parse, metavar="TIME", help="Only what was done before this time."
        ),
    ] = None,
    limit: listing.Limit = 50,
    as_json: AsJson = False,
    address: Address = "",
    api_key: ApiKey = "",
) -> None:
    """List the calls that changed something or were to, newest first.

    With --json each has all that is known of it, such as its request without secrets.
    """
    filters = ListAuditRecordsRequest(
        page_size=listing.page_size(limit), org_id=org, principal=principal, rpc=rpc
    )
    if since is not None:
        filters.create_time_from.CopyFrom(times.timestamp(since))
    if before is not None:
        filters.create_time_before.CopyFrom(times.timestamp(before))
    layout = _OF_ALL if org == _ALL_ORGS else _OF_ONE
    filtered = principal or rpc or since or before
    nothing = "no audit records are like that" if filtered else "no audit records yet"

    async def show(client: Client) -> Exit:
        found = client.audit_records(filters)
        return await listing.show(found, limit, layout, nothing=nothing, as_json=as_json)

    call(address, api_key, show)


def _columns(when: Column) -> tuple[Column, ...]:
    return (
        when,
        Column("principal", 16),
        Column("rpc", 32),
        Column("outcome", 9),
        Column("resource", below=True),
    )


def _cells(record: AuditRecord, when: str) -> tuple[str, ...]:
    # Its package says nothing to people.
    service, _, method = record.rpc.partition("/")
    return (
        when,
        record.principal,
        f"{service.rpartition('.')[2]}/{method}",
        record.outcome,
        record.resource_id,
    )


_OF_ONE = listing.Layout(_columns, _cells)
_OF_ALL = listing.Layout[AuditRecord](
    lambda when: (Column("org", 12), *_columns(when)),
    lambda record, when: (record.org_id, *_cells(record, when)),
)
