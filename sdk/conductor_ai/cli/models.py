"""`conductor models`: what an agent can run on."""

from __future__ import annotations

from typing import Annotated

import typer

from conductor.execution.v1.model_pb2 import Circuit, Model
from conductor_ai.cli import rows
from conductor_ai.cli.connection import Address, ApiKey, call
from conductor_ai.cli.exits import Exit
from conductor_ai.cli.output import AsJson, json_line, tell
from conductor_ai.cli.tables import Column
from conductor_ai.cli.usage import dollars
from conductor_ai.client import Client

group = typer.Typer(name="models", no_args_is_help=True, help="See what agents can run on.")

_UNKNOWN = "unknown"
_COLUMNS = (
    Column("model"),
    Column("provider"),
    Column("default"),
    Column("context", right=True, below=True),
    Column("max output", right=True, below=True),
    Column("in $/M", right=True, below=True),
    Column("out $/M", right=True, below=True),
    Column("circuit", state=True),
)


@group.command("list")
def list_models(
    provider: Annotated[str, typer.Option(help="Only models of this provider.")] = "",
    as_json: AsJson = False,
    address: Address = "",
    api_key: ApiKey = "",
) -> None:
    """List the models: their limits, prices in US dollars for a million tokens, circuit breakers.

    A dash stands for what is not known.
    """

    async def show(client: Client) -> Exit:
        wanted = [one for one in await client.models() if provider in ("", one.ai_provider)]
        if not wanted:
            tell(f"no models of provider {provider}" if provider else "no models")
        elif as_json:
            for model in wanted:
                print(json_line(model))
        else:
            rows.show(_COLUMNS, [_cells(model) for model in wanted])
        return Exit.SUCCEEDED

    call(address, api_key, show)


def _cells(model: Model) -> tuple[str, ...]:
    priced = model.HasField("price")
    return (
        model.id,
        model.ai_provider,
        "default" if model.is_default else "",
        f"{model.context_tokens:,}" if model.context_tokens else "",
        f"{model.max_output_tokens:,}" if model.max_output_tokens else "",
        dollars(model.price.input_usd) if priced else "",
        dollars(model.price.output_usd) if priced else "",
        _circuit(model.circuit),
    )


def _circuit(circuit: Circuit) -> str:
    if circuit.state == Circuit.STATE_UNSPECIFIED:
        return _UNKNOWN
    try:
        name = Circuit.State.Name(circuit.state).removeprefix("STATE_").lower()
    except ValueError:
        return _UNKNOWN
    failures = circuit.failures
    return f"{name} ({failures} failed)" if failures else name
