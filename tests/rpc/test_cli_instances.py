"""`conductor instances`: agents placed in screenplays and conversations."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.rpc.commanded import Commands


def made(talker: Commands, *options: str) -> str:
    """Place the agent `writer`; answers the id of the instance."""
    return str(talker.told("instances", "create", "writer", *options)["instance_id"])


def test_an_instance_is_placed_seen_changed_deleted_and_taken_back(
    talker: Commands, tmp_path: Path
) -> None:
    conversation = talker.told("conversations", "create")["id"]
    (tmp_path / "config.json").write_text('{"zoom": 2, "open": true}')
    id_ = made(
        talker,
        *(
            "--id",
            "desk",
            "--conversation",
            conversation,
            "--cwd",
            "/srv",
            "--position",
            "1.5",
            "-2",
        ),
        *("--config", "config.json", "--mcp", "files", "--hidden"),
    )

    assert id_ == "desk"
    facts = talker.done("instances", "get", "desk")
    for fact in (
        "agent           writer\n",
        "status          pending\n",
        "works in        /srv\n",
        "MCP servers     files\n",
        "position        1.5, -2\n",
        "shown           no\n",
        "runs            0\n",
    ):
        assert fact in facts
    again = talker.run("instances", "create", "writer", "--id", "desk")
    assert (again.status, "INSTANCE_ALREADY_EXISTS" in again.err) == (2, True)

    update = ("instances", "update", "desk")
    change = ("--status", "error", "--shown", "--mcp", "", "--config", "-")
    assert talker.done(*update, *change, stdin=b'{"open": null, "x": 1}') == "desk saved\n"
    changed = talker.told("instances", "get", "desk")
    assert (changed["status"], changed["config"]) == ("STATUS_ERROR", {"zoom": 2, "x": 1})
    assert changed.get("mcp_configs", []) == []
    stale = talker.run(*update, "--emoji", "🐙", "--etag", "1")
    assert (stale.status, "ETAG_MISMATCH" in stale.err) == (1, True)
    assert talker.done("instances", "cwd", "desk", "/other") == "runs of desk work in /other\n"
    assert "of its screenplay" in talker.done("instances", "cwd", "desk", "")

    assert talker.done("instances", "delete", "desk") == "desk deleted\n"
    assert talker.run("instances", "get", "desk").status == 2
    assert talker.told("instances", "list", "--deleted")["instance_id"] == "desk"
    assert talker.done("instances", "undelete", "desk") == "desk is back\n"
    unasked = talker.run("instances", "delete", "desk", "--purge")
    assert (unasked.status, "--yes" in unasked.err) == (2, True)
    assert talker.done("instances", "delete", "desk", "--purge", "--yes") == (
        "desk deleted for good\n"
    )


def test_lists_are_filtered_and_ordered(talker: Commands) -> None:
    id_ = talker.told("conversations", "create")["id"]
    for order, status in ((2, "running"), (1, "queued"), (3, "running")):
        made(
            talker,
            *("--conversation", id_, "--status", status, "--order", str(order)),
            *("--id", f"list{order}"),
        )

    def ids(*options: str) -> list[str]:
        listed = talker.done("instances", "list", "--conversation", id_, "--json", *options)
        return [json.loads(line)["instance_id"] for line in listed.splitlines()]

    assert ids("--order", "hand") == ["list1", "list2", "list3"]
    assert sorted(ids("--status", "running")) == ["list2", "list3"]
    table = talker.run("instances", "list", "--conversation", id_, "--limit", "1")
    assert table.out.splitlines()[0].split()[:3] == ["id", "agent", "status"]
    assert "there are more than the 1 listed" in table.err
    nothing = talker.run("instances", "list", "--agent", "nobody")
    assert nothing.err == "no instances are like that\n"


def test_what_runs_start_from_is_told(talker: Commands) -> None:
    told = talker.done("instances", "context", "worked").splitlines()
    assert told[:5] == ["persona         none", "history         3 runs", "", "procedure:", "Work."]
    assert told[6] == "history:"
    assert [line for line in told[7:] if line and "ago" not in line] == [
        *("  ask 0", "writer", "  ask 0!"),
        *("  ask 1", "writer (failed)", "  MODEL_FAILED"),
        *("  ask 2", "writer", "  ask 2!"),
    ]
    assert told[7].startswith("user, ")
    context = talker.told("instances", "context", "worked")
    assert (context["operating_procedure"], len(context["history"])) == ("Work.", 3)


def test_what_runs_came_to_is_told_and_cleared(talker: Commands) -> None:
    facts = talker.done("instances", "get", "worked")
    assert "runs            3\n" in facts
    assert "ended           2 succeeded, 1 failed\n" in facts
    assert "success rate    66.7%\n" in facts

    lines = talker.done("instances", "history", "worked").splitlines()
    assert [line.split()[2] for line in lines[1:]] == ["succeeded", "failed", "succeeded"]
    assert lines[1].endswith("  ask 2!")
    assert lines[2].endswith("  MODEL_FAILED")
    of_agent = talker.done("instances", "history", "writer", "--agent", "--json").splitlines()
    assert [json.loads(line)["user_input"] for line in of_agent] == ["ask 2", "ask 1", "ask 0"]
    cut = talker.run("instances", "history", "worked", "--limit", "2")
    assert "there are more than the 2 listed" in cut.err
    unasked = talker.run("instances", "history", "worked", "--clear")
    assert (unasked.status, "--yes" in unasked.err) == (2, True)
    assert talker.done("instances", "history", "worked", "--clear", "--yes") == (
        "3 runs of worked cleared\n"
    )
    assert talker.run("instances", "history", "worked").err == "no runs in this history\n"
    assert "runs            3\n" in talker.done("instances", "get", "worked")


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("update", "worked"), "name options"),
        (("update", "worked", "--config", "-"), "no object of JSON"),
        (("get", "nowhere"), "INSTANCE_NOT_FOUND"),
        (("history", "nowhere"), "INSTANCE_NOT_FOUND"),
        (("context", "nowhere"), "INSTANCE_NOT_FOUND"),
    ],
)
def test_what_makes_no_sense_is_refused(
    talker: Commands, arguments: tuple[str, ...], why: str
) -> None:
    refused = talker.run("instances", *arguments, stdin=b"[1]")

    assert (refused.status, why in refused.err) == (2, True), refused
