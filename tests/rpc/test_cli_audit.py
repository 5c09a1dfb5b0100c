"""`conductor audit list`: what people read and what programs read."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorSet, MethodOptions
from google.protobuf.timestamp_pb2 import Timestamp

from conductor.audit.v1.audit_record_pb2 import AuditRecord
from conductor.audit.v1.audit_service_pb2 import ListAuditRecordsResponse
from tests.rpc.scripted import Scripted
from tests.rpc.terminal import COLOUR, Outcome, Terminal, unstyled

LIST = ("audit", "list")
API = Path(__file__).parents[2] / "gen" / "api.binpb"
CANCEL = "conductor.execution.v1.ExecutionService/CancelExecution"


def record(number: int, **fields: object) -> AuditRecord:
    one = AuditRecord(
        id=f"audit_{number}",
        create_time=Timestamp(seconds=1_780_000_000),  # 2026-05-28T20:26:40Z
        org_id="acme",
        principal="key:01jd",
        rpc=CANCEL,
        outcome="NOT_FOUND",
        resource_id=f"exec_{number}",
    )
    one.MergeFrom(AuditRecord(**fields))  # type: ignore[arg-type]  # any field of it
    return one


def page(*records: AuditRecord, following: str = "") -> ListAuditRecordsResponse:
    return ListAuditRecordsResponse(audit_records=records, next_page_token=following)


async def test_a_pipe_gets_columns_without_colours(scripted: Scripted, terminal: Terminal) -> None:
    scripted.audit_pages.append(page(record(1)))

    outcome = await terminal.run(*LIST)

    assert (outcome.status, outcome.err) == (0, "")
    titles, line = outcome.out.splitlines()
    assert titles.split() == ["created", "principal", "rpc", "outcome", "resource"]
    assert line.split() == [
        *("2026-05-28T20:26:40Z", "key:01jd", "ExecutionService/CancelExecution"),
        *("NOT_FOUND", "exec_1"),
    ]
    assert COLOUR not in outcome.out


async def test_a_list_of_all_organisations_names_them(
    scripted: Scripted, terminal: Terminal
) -> None:
    scripted.audit_pages.append(page(record(1)))

    titles, line = (await terminal.run(*LIST, "--org", "-")).out.splitlines()

    assert (titles.split()[0], line.split()[0]) == ("org", "acme")
    assert scripted.requests[0].org_id == "-"


async def test_pages_are_followed_up_to_the_limit_which_says_how_to_see_more(
    scripted: Scripted, terminal: Terminal
) -> None:
    scripted.audit_pages.append(page(record(4), record(3), following="2"))
    scripted.audit_pages.append(page(record(2), record(1)))

    outcome = await terminal.run(*LIST, "--limit", "3", "--json")

    lines = [json.loads(line) for line in outcome.out.splitlines()]
    assert [line["id"] for line in lines] == ["audit_4", "audit_3", "audit_2"]
    assert lines[0]["rpc"] == CANCEL
    assert "--limit 0" in outcome.err
    assert [request.page_token for request in scripted.requests] == ["", "2"]


async def test_the_filters_reach_the_mesh(scripted: Scripted, terminal: Terminal) -> None:
    scripted.audit_pages.append(page())

    await terminal.run(
        *(*LIST, "--org", "acme", "--principal", "jwt:алиса", "--rpc", "CancelExecution"),
        *("--since", "2026-05-31T00:00Z", "--before", "2026-05-31T18:00:00+02:00"),
    )

    (request,) = scripted.requests
    assert (request.org_id, request.principal, request.rpc) == ("acme", "jwt:алиса", CANCEL)
    assert request.create_time_from.ToJsonString() == "2026-05-31T00:00:00Z"
    assert request.create_time_before.ToJsonString() == "2026-05-31T16:00:00Z"


def recorded() -> list[str]:
    """Name the rpcs of all services that leave records, in full."""
    known = FileDescriptorSet.FromString(API.read_bytes())
    return [
        f"{file.package}.{service.name}/{method.name}"
        for file in known.file
        if file.package.startswith("conductor.")
        for service in file.service
        for method in service.method
        if method.options.idempotency_level != MethodOptions.NO_SIDE_EFFECTS
    ]


async def test_every_rpc_that_leaves_records_is_known_by_the_last_of_its_names(
    terminal: Terminal,
) -> None:
    rpcs = recorded()
    assert "conductor.conversations.v1.MessageService/HideMessage" in rpcs

    refused = (await terminal.run(*LIST, "--rpc", "Do")).err

    named = set(re.findall(r"[A-Z]\w+", unstyled(refused)))
    assert {rpc.rpartition("/")[2] for rpc in rpcs} - named == set()


async def test_an_rpc_this_release_does_not_know_is_named_in_full(
    scripted: Scripted, terminal: Terminal
) -> None:
    scripted.audit_pages.append(page())
    newer = "conductor.newer.v1.NewerService/Do"

    assert (await terminal.run(*LIST, "--rpc", "Do")).status == 2
    assert (await terminal.run(*LIST, "--rpc", newer)).status == 0

    assert [request.rpc for request in scripted.requests] == [newer]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((), "no audit records yet\n"),
        (("--principal", "bootstrap"), "no audit records are like that\n"),
    ],
)
async def test_an_empty_list_is_told_on_stderr(
    scripted: Scripted, terminal: Terminal, arguments: tuple[str, ...], sentence: str
) -> None:
    scripted.audit_pages.append(page())

    assert await terminal.run(*LIST, *arguments) == Outcome(0, "", sentence)


@pytest.mark.parametrize("columns", ["140", "40"])
async def test_records_cannot_command_the_terminal(
    scripted: Scripted, terminal: Terminal, columns: str
) -> None:
    scripted.audit_pages.append(page(record(1, principal="\x1b]0;t\x07[red]\x9bx\ny")))
    terminal.env["COLUMNS"] = columns

    shown = unstyled((await terminal.show(*LIST)).out)

    assert "]0;t[red]x y" in shown
    assert shown.replace("\n", "").isprintable()
