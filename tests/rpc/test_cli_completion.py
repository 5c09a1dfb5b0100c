"""What the shell completes, and what a typing error is answered with."""

from __future__ import annotations

import shlex

import pytest

from tests.rpc.terminal import Terminal


async def complete(terminal: Terminal, line: str) -> list[str]:
    """Press Tab in bash at the end of a line."""
    words = [*shlex.split(line), *([""] if line.endswith(" ") else [])]
    terminal.env |= {
        "_CONDUCTOR_COMPLETE": "complete_bash",
        "COMP_WORDS": "\n".join(words),
        "COMP_CWORD": str(len(words) - 1),
    }
    return (await terminal.run()).out.split()


@pytest.mark.parametrize(
    ("line", "completed"),
    [
        ("conductor ex", ["executions"]),
        ("conductor executions ", ["list", "get", "watch", "cancel", "delete"]),
        ("conductor executions list --state c", ["cancelled"]),
        ("conductor keys create ci --scope ad", ["admin"]),
        ("conductor audit ", ["list"]),
        ("conductor audit list --rpc Ca", ["CancelExecution"]),
        ("conductor audit list --rpc SetP", ["SetPersonaAlias"]),
        ("conductor screenplays list --order c", ["created", "changed"]),
        ("conductor ch", ["chat"]),
        ("conductor chat --bu", ["--busy"]),
        ("conductor chat --busy ", ["queue", "reject", "interrupt"]),
        ("conductor conversations list --order c", ["changed", "created"]),
        (
            "conductor instances ",
            [
                *("list", "get", "create", "update", "cwd", "context", "history"),
                *("delete", "undelete"),
            ],
        ),
        ("conductor instances list --status c", ["completed"]),
        ("conductor run --max-", ["--max-output-tokens", "--max-cost"]),
    ],
)
async def test_the_shell_completes_commands_options_and_states(
    terminal: Terminal, line: str, completed: list[str]
) -> None:
    assert await complete(terminal, line) == completed


async def test_bash_is_given_a_script_that_asks_for_completions(terminal: Terminal) -> None:
    terminal.env["_CONDUCTOR_COMPLETE"] = "source_bash"

    script = (await terminal.run()).out

    assert "_CONDUCTOR_COMPLETE=complete_bash" in script
    assert "complete -o default -F _conductor_completion conductor" in script


async def test_help_names_the_ways_to_install_completion(terminal: Terminal) -> None:
    shown = (await terminal.run("--help")).out

    assert "--install-completion" in shown
    assert "--show-completion" in shown


@pytest.mark.parametrize(
    ("typed", "meant"),
    [(["executoins"], "executions"), (["executions", "cancle"], "cancel"), (["chta"], "chat")],
)
async def test_a_command_that_is_none_suggests_the_one_that_was_meant(
    terminal: Terminal, typed: list[str], meant: str
) -> None:
    outcome = await terminal.run(*typed)

    assert outcome.status == 2
    assert f"Did you mean '{meant}'?" in outcome.err
