"""`conductor`: a mesh, used from a terminal.

Exit status of `conductor run`: 0 succeeded, 1 failed, 130 cancelled, 2 refused as asked for, 3 no
mesh answers.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Coroutine
from contextlib import aclosing, suppress
from enum import IntEnum
from importlib.metadata import EntryPoint, PackageNotFoundError, entry_points, version
from typing import Annotated, Any, NoReturn

import grpc
import typer
from google.protobuf.json_format import MessageToJson
from typer.core import TyperGroup
from typer.main import get_command

from conductor.execution.v1.event_pb2 import ExecutionEvent
from conductor_ai.client import Client, ConductorError, RunOptions

_COMMANDS = "conductor_ai.commands"
_DISTRIBUTION = "conductor-mesh"
_CANCELLED = "EXECUTION_CANCELLED"

# What a terminal obeys instead of showing: a model's answer must not move the cursor or worse.
_CONTROL = dict.fromkeys([*range(9), 11, 12, *range(13, 32), *range(127, 160)])


class Exit(IntEnum):
    """What the exit status of a run says."""

    SUCCEEDED = 0
    FAILED = 1
    REFUSED = 2
    UNREACHABLE = 3
    LEFT = 4
    CANCELLED = 130
    BROKEN_PIPE = 141


_EXITS = {
    grpc.StatusCode.UNAVAILABLE: Exit.UNREACHABLE,
    grpc.StatusCode.INVALID_ARGUMENT: Exit.REFUSED,
    grpc.StatusCode.NOT_FOUND: Exit.REFUSED,
    grpc.StatusCode.ALREADY_EXISTS: Exit.REFUSED,
    grpc.StatusCode.FAILED_PRECONDITION: Exit.REFUSED,
    grpc.StatusCode.OUT_OF_RANGE: Exit.REFUSED,
    grpc.StatusCode.UNAUTHENTICATED: Exit.REFUSED,
    grpc.StatusCode.PERMISSION_DENIED: Exit.REFUSED,
    grpc.StatusCode.UNIMPLEMENTED: Exit.REFUSED,
}


class _Commands(TyperGroup):
    """The commands here, and those that installed packages add; a package is loaded when used."""

    def list_commands(self, ctx: Any) -> list[str]:
        return sorted({*super().list_commands(ctx), *_added()})

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        own = super().get_command(ctx, cmd_name)
        if own is not None or cmd_name not in _added():
            return own
        one = typer.Typer(add_completion=False)
        one.command(name=cmd_name)(_added()[cmd_name].load())
        return get_command(one)


def _added() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=_COMMANDS)}


app = typer.Typer(
    name="conductor",
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Run AI agents durably, and follow what they do.",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        try:
            print(f"conductor {version(_DISTRIBUTION)}")
        except PackageNotFoundError:
            print("conductor (not installed)")
        raise typer.Exit


@app.callback()
def _conductor(
    _version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the release.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    pass


@app.command()
def run(
    text: Annotated[str, typer.Argument(help="What the agent is to do; - reads it from stdin.")],
    agent: Annotated[str, typer.Option(help="The agent to run.")] = "",
    model: Annotated[str, typer.Option(help="The model, for example mock-slow.")] = "",
    provider: Annotated[str, typer.Option(help="The provider of the model.")] = "",
    timeout: Annotated[
        float | None, typer.Option(help="Seconds the run may take.", min=0.001)
    ] = None,
    request_id: Annotated[
        str, typer.Option(help="Idempotency key: the same one never starts a second run.")
    ] = "",
    as_json: Annotated[
        bool, typer.Option("--json", help="Print each event as one line of JSON.")
    ] = False,
    address: Annotated[
        str,
        typer.Option(
            envvar="CONDUCTOR_ADDRESS",
            help="Where the mesh listens.",
            show_default="localhost and CONDUCTOR_HTTP_PORT, else 8080",
        ),
    ] = "",
    http_port: Annotated[
        int, typer.Option(envvar="CONDUCTOR_HTTP_PORT", hidden=True, min=1, max=65535)
    ] = 8080,
) -> None:
    """Run an agent and follow it: its answer on stdout as it comes, the outcome as exit status.

    0 succeeded, 1 failed, 130 cancelled, 2 refused as asked for, 3 no mesh answers. Ctrl-C cancels
    the run; a second one leaves at once, with 4, and the run may go on. 141: nobody reads stdout.
    """
    options: RunOptions = {}
    if agent:
        options["agent_id"] = agent
    if model:
        options["model"] = model
    if provider:
        options["ai_provider"] = provider
    if timeout is not None:
        options["timeout"] = timeout
    if request_id:
        options["request_id"] = request_id
    address = address or f"localhost:{http_port}"
    printer = _JsonPrinter() if as_json else _Printer()
    _finish(_Run(address, printer).follow(_read(text), options))


def main() -> None:
    """Run the command line."""
    for stream in (sys.stdout, sys.stderr):
        # What the terminal's encoding lacks becomes a question mark, not a crash.
        with suppress(AttributeError):
            stream.reconfigure(errors="replace")  # type: ignore[union-attr]  # not on every TextIO
    app()


def _read(text: str) -> str:
    try:
        return sys.stdin.buffer.read().decode() if text == "-" else os.fsencode(text).decode()
    except UnicodeDecodeError:
        _refuse("the text is not UTF-8")


def _refuse(sentence: str) -> NoReturn:
    _tell(f"error: {sentence}")
    raise typer.Exit(Exit.REFUSED)


def _finish(work: Coroutine[Any, Any, Exit]) -> NoReturn:
    try:
        status = asyncio.run(work)
        sys.stdout.flush()
    except BrokenPipeError:
        # Nobody reads any more; the interpreter must not say so again when it flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = Exit.BROKEN_PIPE
    raise typer.Exit(status)


def _tell(sentence: str) -> None:
    with suppress(OSError):
        print(sentence.translate(_CONTROL), file=sys.stderr, flush=True)


class _Printer:
    """Prints the answer as it comes on stdout, and what is going on on stderr."""

    def __init__(self) -> None:
        self._talkative = sys.stderr.isatty()
        self._harmless = sys.stdout.isatty()
        self._attempts: dict[int, int] = {}
        self._line_is_open = False
        self._shown: set[int] = set()

    def event(self, event: ExecutionEvent) -> None:
        """Show one event."""
        kind = event.WhichOneof("payload")
        if kind == "on_llm_start":
            self._attempt(event.on_llm_start.step, event.on_llm_start.attempt)
        elif kind == "on_llm_new_token":
            token = event.on_llm_new_token
            self._attempt(token.step, token.attempt)
            self._shown.add(token.step)
            self._write(token.chunk)
        elif kind == "job_started":
            started = event.job_started
            self.status(
                f"{event.execution_id} started: agent {started.agent_id}, model {started.model}"
            )
        elif kind in ("status_update", "job_resumed"):
            self.status(getattr(event, kind).message)
        elif kind == "result":
            if not self._shown:
                self._write(event.result.result)
            self.end_line()
            self.status(f"{event.execution_id} succeeded")
        elif kind == "error":
            self.end_line()
            outcome = "cancelled" if event.error.reason == _CANCELLED else "failed"
            reason = event.error.reason or "error"
            _tell(f"{event.execution_id} {outcome}: {reason}: {event.error.error}")

    def status(self, sentence: str) -> None:
        """Say what is going on to somebody who watches."""
        if self._talkative and sentence:
            self.end_line()
            _tell(sentence)

    def end_line(self) -> None:
        """Let whatever comes next begin on its own line."""
        if self._line_is_open:
            self._write("\n")

    def _attempt(self, step: int, attempt: int) -> None:
        before = self._attempts.get(step, attempt)
        self._attempts[step] = max(attempt, before)
        if attempt > before and step in self._shown:
            self._shown.discard(step)
            self.end_line()
            _tell(f"the model is asked again (attempt {attempt}); the text above is void")

    def _write(self, text: str) -> None:
        if text:
            sys.stdout.write(text.translate(_CONTROL) if self._harmless else text)
            sys.stdout.flush()
            self._line_is_open = not text.endswith("\n")


class _JsonPrinter(_Printer):
    """Prints each event as one line of JSON, for programs."""

    def event(self, event: ExecutionEvent) -> None:
        line = MessageToJson(
            event, preserving_proto_field_name=True, indent=None, ensure_ascii=False
        )
        print(line, flush=True)


class _Run:
    """One run, followed to its end; Ctrl-C cancels it."""

    def __init__(self, address: str, printer: _Printer) -> None:
        self._address = address
        self._printer = printer
        self._interrupted = asyncio.Event()
        self._leave = asyncio.Event()
        self._execution_id = ""

    async def follow(self, text: str, options: RunOptions) -> Exit:
        """Start the run and show its events; answers the outcome."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGINT, self._interrupt)
        try:
            client = Client(self._address)
        except ValueError as error:
            _tell(f"error: {error}")
            return Exit.REFUSED
        async with client:
            following = asyncio.create_task(self._follow(client, text, options))
            leaving = asyncio.create_task(self._leave.wait())
            try:
                await asyncio.wait({following, leaving}, return_when=asyncio.FIRST_COMPLETED)
                if not following.done():
                    self._printer.end_line()
                    _tell(f"left; {self._execution_id or 'the run'} may still be running")
                    return Exit.LEFT
                return following.result()
            except ConductorError as error:
                self._printer.end_line()
                return self._explain(error)
            finally:
                for task in (following, leaving):
                    task.cancel()
                await asyncio.gather(following, leaving, return_exceptions=True)

    async def _follow(self, client: Client, text: str, options: RunOptions) -> Exit:
        cancelling: asyncio.Task[None] | None = None
        outcome = Exit.FAILED
        try:
            async with aclosing(client.run(text, **options)) as events:
                async for event in events:
                    if cancelling is None:
                        # The first event names the run; before it there is nothing to cancel.
                        cancelling = asyncio.create_task(self._cancel(client, event.execution_id))
                    self._execution_id = event.execution_id
                    self._printer.event(event)
                    if event.HasField("result"):
                        outcome = Exit.SUCCEEDED
                    elif event.error.reason == _CANCELLED:
                        outcome = Exit.CANCELLED
        finally:
            if cancelling is not None:
                cancelling.cancel()
                await asyncio.gather(cancelling, return_exceptions=True)
        return outcome

    async def _cancel(self, client: Client, execution_id: str) -> None:
        await self._interrupted.wait()
        self._printer.status("cancelling; Ctrl-C once more leaves at once")
        while True:
            try:
                await client.cancel(execution_id)
            except ConductorError as error:
                if error.code is grpc.StatusCode.UNAVAILABLE:
                    await asyncio.sleep(error.retry_after or 0.5)
                    continue
                if error.reason != "EXECUTION_FINISHED":
                    self._printer.end_line()
                    _tell(f"error: the run cannot be cancelled: {error.message}")
            return

    def _interrupt(self) -> None:
        (self._leave if self._interrupted.is_set() else self._interrupted).set()

    def _explain(self, error: ConductorError) -> Exit:
        status = _EXITS.get(error.code, Exit.FAILED)
        if status is Exit.UNREACHABLE and not error.reason:
            _tell(
                f"error: no mesh answers at {self._address}; start one with `make run`, or name "
                f"another with --address ({error.message})"
            )
            return status
        violations = error.field_violations
        _tell(f"error: {error.message}" + (f" ({error.reason})" if error.reason else ""))
        for violation in violations:
            if violation.description not in error.message:
                _tell(f"  {violation.field}: {violation.description}")
        return status
