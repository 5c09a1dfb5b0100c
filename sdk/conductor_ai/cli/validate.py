"""`conductor validate`: whether the mesh is set up well."""

from __future__ import annotations

from conductor_ai.cli import findings, rows
from conductor_ai.cli.connection import Address, ApiKey, call
from conductor_ai.cli.exits import Exit
from conductor_ai.cli.facts import count
from conductor_ai.cli.output import AsJson, json_line, tell
from conductor_ai.cli.tables import Column
from conductor_ai.client import Client

_COLUMNS = (Column("check"), Column("looked at", right=True), Column("summary", long=True))


def validate(as_json: AsJson = False, address: Address = "", api_key: ApiKey = "") -> None:
    """Check settings, stores, services, agents and templates; exits with 1 when there are errors."""

    async def check(client: Client) -> Exit:
        answer = await client.validate()
        if as_json:
            print(json_line(answer))
        else:
            checks = [(one.name, f"{one.checked:,}", one.summary) for one in answer.checks]
            rows.show(_COLUMNS, checks)
            found = [*answer.errors, *answer.warnings]
            if checks and found:
                print()
            findings.show(found)
            errors, warnings = len(answer.errors), len(answer.warnings)
            tell(f"{count(errors, 'error')}, {count(warnings, 'warning')}")
        return Exit.SUCCEEDED if answer.is_valid else Exit.FAILED

    call(address, api_key, check)
