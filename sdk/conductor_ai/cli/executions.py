"""`conductor executions`: runs, seen and steered."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated

import typer

from conductor.execution.v1.execution_pb2 import Execution
from conductor.execution.v1.execution_service_pb2 import ListExecutionsRequest
from conductor_ai.cli import details, following, listing, times
from conductor_ai.cli.asking import confirm
from conductor_ai.cli.connection import Address, ApiKey, call, call_each
from conductor_ai.cli.exits import Exit
from conductor_ai.cli.output import AsJson, json_line
from conductor_ai.cli.printers import printer_for
from conductor_ai.client import Client

group = typer.Typer(name="executions", no_args_is_help=True, help="See runs and steer them.")

_LAST_SEQUENCE = 2**32 - 1

Id = Annotated[str, typer.Argument(help="The id of the run.", metavar="ID")]
Ids = Annotated[list[str], typer.Argument(help="The ids of the runs.", metavar="ID...")]


class State(StrEnum):
    """The states of a run, as the protos name them."""

    QUEUED = "queued"
    RUNNING = "running"
    WAITING_APPROVAL = "waiting_approval"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


@group.command("list")
def list_executions(
    state: Annotated[
        State | None, typer.Option(help="Only runs in this state.", case_sensitive=False)
    ] = None,
    agent: Annotated[str, typer.Option(help="Only runs of this agent.")] = "",
    since: Annotated[
        datetime | None,
        typer.Option(
            parser=times.parse,
            metavar="TIME",
            help="Only runs created at this time or later: 2026-05-31, 2026-05-31T18:00Z, 2h, 7d.",
        ),
    ] = None,
    before: Annotated[
        datetime | None,
        typer.Option(
            parser=times.parse, metavar="TIME", help="Only runs created before this time."
        ),
    ] = None,
    limit: listing.Limit = 50,
    as_json: AsJson = False,
    address: Address = "",
    api_key: ApiKey = "",
) -> None:
    """List runs, newest first."""
    filters = ListExecutionsRequest(page_size=listing.page_size(limit), agent_id=agent)
    if state is not None:
        filters.state = Execution.State.Value(f"STATE_{state.name}")
    if since is not None:
        filters.create_time_from.CopyFrom(times.timestamp(since))
    if before is not None:
        filters.create_time_before.CopyFrom(times.timestamp(before))
    filtered = state or agent or since or before
    nothing = "no executions are like that" if filtered else "no executions yet"

    async def show(client: Client) -> Exit:
        found = client.list(filters)
        return await listing.show(
            found, limit, listing.EXECUTIONS, nothing=nothing, as_json=as_json
        )

    call(address, api_key, show)


@group.command()
def get(
    execution_id: Id, as_json: AsJson = False, address: Address = "", api_key: ApiKey = ""
) -> None:
    """Show all that is known of a run: state, limits, times, cost, input, result."""

    async def show(client: Client) -> Exit:
        execution = await client.get(execution_id)
        if as_json:
            print(json_line(execution))
        else:
            details.show(execution)
        return Exit.SUCCEEDED

    call(address, api_key, show)


@group.command()
def watch(
    execution_id: Id,
    after: Annotated[
        int,
        typer.Option(
            help="Show only what happened after this event.", min=0, max=_LAST_SEQUENCE, metavar="N"
        ),
    ] = 0,
    as_json: AsJson = False,
    address: Address = "",
    api_key: ApiKey = "",
) -> None:
    """Follow a run as `conductor run` does, from its beginning on.

    0 succeeded, 1 failed, 130 cancelled, 2 refused as asked for, 3 no mesh answers. Ctrl-C stops
    watching, with 130, and leaves the run alone. 141: nobody reads stdout.
    """
    printer = printer_for(as_json=as_json)
    call(address, api_key, lambda client: following.watch(client, execution_id, after, printer))


@group.command()
def cancel(ids: Ids, as_json: AsJson = False, address: Address = "", api_key: ApiKey = "") -> None:
    """Cancel runs. One that is cancelled already stays so; one that has ended is an error."""

    async def one(client: Client, execution_id: str) -> None:
        execution = await client.cancel(execution_id)
        print(json_line(execution) if as_json else f"{execution_id} cancelled")

    call_each(ids, one, address, api_key)


@group.command()
def delete(
    ids: Ids,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Do not ask; needed where nobody can be asked.")
    ] = False,
    as_json: AsJson = False,
    address: Address = "",
    api_key: ApiKey = "",
) -> None:
    """Delete finished runs and their events, for good."""
    if not yes:
        what = ids[0] if len(ids) == 1 else f"{len(ids)} executions"
        confirm(
            f"Delete {what} for good?",
            unasked="deleting is for good",
            declined="nothing was deleted",
        )

    async def one(client: Client, execution_id: str) -> None:
        await client.delete(execution_id)
        gone = Execution(id=execution_id)
        print(json_line(gone) if as_json else f"{execution_id} deleted")

    call_each(ids, one, address, api_key)
