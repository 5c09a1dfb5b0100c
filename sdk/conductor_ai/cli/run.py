"""`conductor run`."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, cast

import typer

from conductor.execution.v1.event_pb2 import ExecutionEvent
from conductor.execution.v1.model_pb2 import ModelChoice
from conductor_ai.cli.connection import Address, ApiKey, call
from conductor_ai.cli.exits import Exit, refuse
from conductor_ai.cli.following import cancel, show, unless
from conductor_ai.cli.output import AsJson, tell
from conductor_ai.cli.printers import Printer, printer_for
from conductor_ai.cli.turns import Busy, Conversation, Instance, OfContext, OnBusy, Screenplay
from conductor_ai.client import Client, RunOptions

_MOST_TOKENS = 2**32 - 1


def _parse_choice(text: str) -> ModelChoice:
    """Read a model, or a provider and its model.

    What stands before the first slash is the provider: `openrouter/meta-llama/x` asks openrouter for
    `meta-llama/x`. `/meta-llama/x` leaves the provider open, `mock/` the model.
    """
    provider, slash, model = text.partition("/")
    if not slash:
        provider, model = "", text
    if not (provider or model):
        raise typer.BadParameter("it names no model; write provider/model, or a model alone")
    return ModelChoice(ai_provider=provider, model=model)


def run(
    text: Annotated[str, typer.Argument(help="What the agent is to do; - reads it from stdin.")],
    agent: Annotated[str, typer.Option(help="The agent to run.")] = "",
    persona_version: Annotated[
        str,
        typer.Option(
            help="The version of the agent's persona: a number, latest, first or an alias.",
            metavar="VERSION",
        ),
    ] = "",
    model: Annotated[str, typer.Option(help="The model, for example mock-slow.")] = "",
    provider: Annotated[str, typer.Option(help="The provider of the model.")] = "",
    fallback: Annotated[
        list[ModelChoice] | None,
        typer.Option(
            parser=_parse_choice,
            metavar="[PROVIDER/]MODEL",
            help="A model to ask when the one before fails; may be given several times. The provider "
            "ends at the first slash.",
        ),
    ] = None,
    priority: Annotated[
        int | None,
        typer.Option(help="How urgent it is, 1 the most.", min=1, max=5, show_default="3"),
    ] = None,
    timeout: Annotated[
        float | None, typer.Option(help="Seconds the run may take.", min=0.001)
    ] = None,
    max_output_tokens: Annotated[
        int | None,
        typer.Option(help="The most tokens the models may say in all.", min=1, max=_MOST_TOKENS),
    ] = None,
    max_cost: Annotated[
        float | None, typer.Option(help="The most the run may cost, in US dollars.", min=0)
    ] = None,
    request_id: Annotated[
        str, typer.Option(help="Idempotency key: the same one never starts a second run.")
    ] = "",
    conversation: Conversation = "",
    instance: Instance = "",
    screenplay: Screenplay = "",
    context_mode: OfContext = None,
    busy: OnBusy = Busy.QUEUE,
    cwd: Annotated[
        str,
        typer.Option(
            help="Where it works, an absolute path.", show_default="the instance's or screenplay's"
        ),
    ] = "",
    final: Annotated[
        bool,
        typer.Option(
            "--final", help="Print the answer once it is whole, without what failed attempts said."
        ),
    ] = False,
    as_json: AsJson = False,
    address: Address = "",
    api_key: ApiKey = "",
) -> None:
    """Run an agent and follow it: its answer on stdout as it comes, the outcome as exit status.

    When a model fails midway it is asked again, and what it had said stays on stdout; scripts use
    --final.

    0 succeeded, 1 failed, 130 cancelled, 2 refused as asked for, 3 no mesh answers. Ctrl-C cancels
    the run; a second one leaves at once, with 4, and the run may go on. 141: nobody reads stdout.
    """
    given = {
        "agent_id": agent,
        "persona_version": persona_version,
        "model": model,
        "ai_provider": provider,
        "fallbacks": fallback,
        "priority": priority,
        "timeout": timeout,
        "max_output_tokens": max_output_tokens,
        "max_cost_usd": max_cost,
        "request_id": request_id,
        "conversation_id": conversation,
        "instance_id": instance,
        "screenplay_id": screenplay,
        "context_mode": None if context_mode is None else context_mode.proto,
        "busy_policy": busy.proto if conversation or instance else None,
        "cwd": cwd,
    }
    said = {name: value for name, value in given.items() if value not in ("", None, [])}
    options = cast("RunOptions", said)
    call(
        address,
        api_key,
        _Run(_read(text), options, printer_for(as_json=as_json, final=final)).follow,
    )


def _read(text: str) -> str:
    try:
        return sys.stdin.buffer.read().decode() if text == "-" else os.fsencode(text).decode()
    except UnicodeDecodeError:
        refuse("the text is not UTF-8")


class _Run:
    """One run, followed to its end; Ctrl-C cancels it."""

    def __init__(self, text: str, options: RunOptions, printer: Printer) -> None:
        self._text = text
        self._options = options
        self._printer = printer
        self._interrupted = asyncio.Event()
        self._leave = asyncio.Event()
        self._execution_id = ""

    async def follow(self, client: Client) -> Exit:
        """Start the run and show its events; answers the outcome."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, self._interrupt)
        following = show(self._events(client), self._printer)
        status = await unless(self._leave, following, self._printer)
        if status is not None:
            return status
        self._printer.end_line()
        tell(f"left; {self._execution_id or 'the run'} may still be running")
        return Exit.LEFT

    async def _events(self, client: Client) -> AsyncGenerator[ExecutionEvent, None]:
        """Yield the events of the run, which can be cancelled from the first one on."""
        cancelling: asyncio.Task[None] | None = None
        try:
            running = client.run(self._text, on_wait=self._printer.waiting, **self._options)
            async with aclosing(running) as events:
                async for event in events:
                    if cancelling is None:
                        # The first event names the run; before it there is nothing to cancel.
                        cancelling = asyncio.create_task(self._cancel(client, event.execution_id))
                    self._execution_id = event.execution_id
                    yield event
        finally:
            if cancelling is not None:
                cancelling.cancel()
                await asyncio.gather(cancelling, return_exceptions=True)

    async def _cancel(self, client: Client, execution_id: str) -> None:
        await self._interrupted.wait()
        await cancel(client, execution_id, self._printer)

    def _interrupt(self) -> None:
        (self._leave if self._interrupted.is_set() else self._interrupted).set()
