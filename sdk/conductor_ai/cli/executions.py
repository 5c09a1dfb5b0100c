"""`conductor executions`: runs, seen and steered."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from datetime import datetime
from enum import StrEnum
from typing import Annotated

import typer

from conductor.execution.v1.execution_pb2 import Execution
from conductor.execution.v1.execution_service_pb2 import ListExecutionsRequest
from conductor_ai.cli import details, following, listing, times
from conductor_ai.cli.connection import Address, ApiKey, call
from conductor_ai.cli.exits import Exit, explain, refuse
from conductor_ai.cli.output import AsJson, json_line, tell
from conductor_ai.cli.printers import printer_for
from conductor_ai.client import Client, ConductorError

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

    _each(ids, one, address, api_key)


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
        _confirm(ids)

    async def one(client: Client, execution_id: str) -> None:
        await client.delete(execution_id)
        gone = Execution(id=execution_id)
        print(json_line(gone) if as_json else f"{execution_id} deleted")

    _each(ids, one, address, api_key)


def _each(
    ids: list[str], work: Callable[[Client, str], Awaitable[None]], address: str, api_key: str
) -> None:
    """Do the same with several runs; the exit status is that of the first that failed."""

    async def all_of_them(client: Client) -> Exit:
        status = Exit.SUCCEEDED
        waiting = list(dict.fromkeys(ids))
        while waiting:
            execution_id = waiting.pop(0)
            try:
                await work(client, execution_id)
                sys.stdout.flush()
            except ConductorError as error:
                failed = explain(error, address, execution_id)
                status = status or failed
                if failed is Exit.UNREACHABLE and waiting:
                    tell(f"not tried: {' '.join(waiting)}")
                    break
        return status

    call(address, api_key, all_of_them)


def _confirm(ids: list[str]) -> None:
    if sys.stdin is None or not sys.stdin.isatty():
        refuse("deleting is for good, and nobody can be asked at stdin: say --yes")
    what = ids[0] if len(ids) == 1 else f"{len(ids)} executions"
    sys.stderr.write(f"Delete {what} for good? [y/N] ")
    sys.stderr.flush()
    if sys.stdin.buffer.readline().strip().lower() not in (b"y", b"yes"):
        tell("nothing was deleted")
        raise typer.Exit(Exit.FAILED)
