"""The events of a run, printed as they come."""

from __future__ import annotations

import sys

from conductor.execution.v1.event_pb2 import ContextRead, ExecutionEvent
from conductor.execution.v1.execution_pb2 import Execution
from conductor.execution.v1.usage_pb2 import Usage
from conductor_ai.cli import facts
from conductor_ai.cli.exits import Exit
from conductor_ai.cli.output import harmless, json_line, one_line, tell, whisper
from conductor_ai.cli.usage import summary
from conductor_ai.errors import ConductorError

_CANCELLED = "EXECUTION_CANCELLED"
_MESSAGES = (
    "status_update",
    "job_resumed",
    "job_queued",
    "turn_queued",
    "context_read",
    "on_llm_failed",
)
_WELL = ("", "stop")


def outcome(event: ExecutionEvent) -> Exit | None:
    """Tell the exit status of a run from its terminal event; None for any other."""
    if event.HasField("result"):
        return Exit.SUCCEEDED
    if event.HasField("error"):
        return Exit.CANCELLED if event.error.reason == _CANCELLED else Exit.FAILED
    return None


class Printer:
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
        elif kind == "turn_queued":
            self._queued(event.turn_queued.message or "other runs answer before it")
        elif kind == "context_read":
            self._told(event.context_read)
        elif kind in _MESSAGES:
            self.status(getattr(event, kind).message)
        elif kind == "result":
            self._succeeded(event)
        elif kind == "error":
            self.end_line()
            self._failed(event)

    def status(self, sentence: str) -> None:
        """Say what is going on to somebody who watches."""
        if self._talkative and sentence:
            self.end_line()
            tell(sentence)

    def waiting(self, failure: ConductorError) -> None:
        """Say that the mesh does not answer just now, and why."""
        if self._talkative:
            self.end_line()
        tell(f"waiting for the mesh: {failure.message}")

    def end_line(self) -> None:
        """Let whatever comes next begin on its own line."""
        if self._line_is_open:
            self._write("\n")

    def _succeeded(self, event: ExecutionEvent) -> None:
        result = event.result
        is_cut = result.truncated and not self._shown
        if not self._shown:
            self._write(result.result)
        self.end_line()
        if is_cut:
            tell(f"cut here; `conductor executions get {event.execution_id}` has the whole answer")
        ended = (
            "" if result.finish_reason in _WELL else f" (the model ended: {result.finish_reason})"
        )
        self._well(event.execution_id, ended)
        self._spent(result.usage)

    def _well(self, execution_id: str, ended: str) -> None:
        self.status(f"{execution_id} succeeded{ended}")

    def _failed(self, event: ExecutionEvent) -> None:
        verb = "cancelled" if outcome(event) is Exit.CANCELLED else "failed"
        tell(f"{event.execution_id} {verb}: {_why(event)}")
        self._spent(event.error.usage)

    def _queued(self, sentence: str) -> None:
        self.status(sentence)

    def _told(self, context: ContextRead) -> None:
        self.status(context.message)

    def _spent(self, usage: Usage) -> None:
        line = summary(usage)
        if self._talkative and line:
            whisper(line)

    def _attempt(self, step: int, attempt: int) -> None:
        before = self._attempts.get(step, attempt)
        self._attempts[step] = max(attempt, before)
        if attempt > before and step in self._shown:
            self._shown.discard(step)
            self.end_line()
            tell(f"the model is asked again (attempt {attempt}); the text above is void")

    def _write(self, text: str) -> None:
        if text:
            sys.stdout.write(harmless(text) if self._harmless else text)
            sys.stdout.flush()
            self._line_is_open = not text.endswith("\n")


class _FinalPrinter(Printer):
    """Prints the answer once it is whole, and so nothing that becomes void."""

    def __init__(self) -> None:
        super().__init__()
        self._said: dict[int, tuple[int, list[str]]] = {}
        """By step: the attempt, and what it has said."""

    def event(self, event: ExecutionEvent) -> None:
        kind = event.WhichOneof("payload")
        if kind == "on_llm_new_token":
            token = event.on_llm_new_token
            attempt, chunks = self._said.get(token.step, (0, []))
            chunks = chunks if attempt == token.attempt else []
            chunks.append(token.chunk)
            self._said[token.step] = (token.attempt, chunks)
        elif kind != "on_llm_start":
            if kind == "result":
                for step in sorted(self._said):
                    self._shown.add(step)
                    self._write("".join(self._said[step][1]))
            super().event(event)


class ChatPrinter(Printer):
    """Prints one answer of a talk, and of its run only what has to be known."""

    def __init__(self) -> None:
        super().__init__()
        self._name = ""

    def event(self, event: ExecutionEvent) -> None:
        """Show one event."""
        if event.HasField("job_started"):
            # On a screen the answer stands behind the name of whose it is.
            self._name = one_line(event.job_started.agent_id) if self._harmless else ""
        elif event.status_update.state != Execution.STATE_RUNNING:
            super().event(event)

    def _well(self, execution_id: str, ended: str) -> None:
        del execution_id
        self.status(ended.strip())

    def _spent(self, usage: Usage) -> None:
        del usage

    def _failed(self, event: ExecutionEvent) -> None:
        if outcome(event) is Exit.CANCELLED:
            tell("cancelled; /retry asks again")
        else:
            tell(f"no answer: {_why(event).rstrip('.')}; /retry asks again")

    def _queued(self, sentence: str) -> None:
        self.end_line()
        tell(sentence)

    def _told(self, context: ContextRead) -> None:
        if context.omitted_count:
            self.end_line()
            tell(context.message or _omitted(context))

    def _write(self, text: str) -> None:
        if text and self._name:
            text, self._name = f"{self._name}> {text}", ""
        super()._write(text)


class QuietPrinter(ChatPrinter):
    """Prints of a run what has to be known, and nothing of the answer."""

    def event(self, event: ExecutionEvent) -> None:
        """Show one event."""
        if event.WhichOneof("payload") not in {"on_llm_start", "on_llm_new_token", "result"}:
            super().event(event)


class _JsonPrinter(Printer):
    """Prints each event as one line of JSON, for programs."""

    def event(self, event: ExecutionEvent) -> None:
        print(json_line(event), flush=True)


def printer_for(*, as_json: bool, final: bool = False) -> Printer:
    """Choose the printer for whoever reads."""
    if as_json:
        return _JsonPrinter()
    return _FinalPrinter() if final else Printer()


def _why(event: ExecutionEvent) -> str:
    return f"{event.error.reason or 'error'}: {event.error.error}"


def _omitted(context: ContextRead) -> str:
    count = facts.count(context.omitted_count, "message")
    return f"the oldest {count} did not fit what the model takes"
