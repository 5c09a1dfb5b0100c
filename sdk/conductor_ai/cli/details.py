"""One run, told whole."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp

from conductor.execution.v1.execution_pb2 import AgentSnapshot, Execution
from conductor.execution.v1.model_pb2 import ModelChoice
from conductor_ai.cli import times
from conductor_ai.cli.listing import state_name, took
from conductor_ai.cli.output import harmless, one_line
from conductor_ai.cli.tables import STATE_STYLES
from conductor_ai.cli.usage import cost, dollars, tokens, unreported

_LABEL = 16


def show(execution: Execution) -> None:
    """Print what is known of a run: a line for each fact, then what went in and what came out."""
    facts = [
        (label, one_line(fact)) for label, fact in _facts(execution, datetime.now(UTC)) if fact
    ]
    if sys.stdout.isatty():
        _draw(facts)
    else:
        for label, fact in facts:
            print(f"{label:<{_LABEL}}{fact}")
    for label, text in (("input", execution.input), ("result", execution.result)):
        if text:
            print(f"\n{label}:")
            print((harmless(text) if sys.stdout.isatty() else text).removesuffix("\n"))


def _facts(execution: Execution, now: datetime) -> Iterator[tuple[str, str]]:
    yield "id", execution.id
    yield "state", state_name(execution)
    if execution.HasField("error"):
        yield "error", f"{execution.error.reason}: {execution.error.message}"
    yield "agent", _agent(execution)
    yield "persona", _persona(execution.agent)
    yield "model", _model(execution.ai_provider, execution.model)
    for choice in execution.fallbacks:
        yield "fallback", _choice(choice)
    if execution.HasField("served_by"):
        yield "served by", _choice(execution.served_by)
    yield "finish reason", execution.finish_reason
    if execution.priority:
        yield "priority", f"{execution.priority}"
    if execution.HasField("queue_position"):
        yield "queue position", f"{execution.queue_position}"
    yield from _times(execution, now)
    yield from _limits(execution)
    yield "tokens", tokens(execution.usage)
    yield "cost", cost(execution.usage)
    yield "unreported", unreported(execution.usage)
    yield "conversation", execution.conversation_id
    yield "instance", execution.instance_id
    yield "request id", execution.request_id
    yield "cwd", execution.cwd
    for key in sorted(execution.metadata):
        yield "metadata", f"{key}={execution.metadata[key]}"


def _agent(execution: Execution) -> str:
    name = execution.agent.name
    return f"{execution.agent_id} ({name})" if name else execution.agent_id


def _persona(agent: AgentSnapshot) -> str:
    if not agent.persona_version:
        return ""
    alias = f" ({agent.persona_alias})" if agent.persona_alias else ""
    return f"version {agent.persona_version}{alias}"


def _times(execution: Execution, now: datetime) -> Iterator[tuple[str, str]]:
    yield "created", _when(execution.create_time, now)
    yield "started", _when(execution.start_time, now)
    yield "ended", _when(execution.end_time, now)
    yield "took", took(execution, now)


def _when(stamp: Timestamp, now: datetime) -> str:
    return f"{times.moment(stamp)} ({times.age(stamp, now)} ago)" if stamp.seconds else ""


def _limits(execution: Execution) -> Iterator[tuple[str, str]]:
    if execution.HasField("timeout"):
        yield "timeout", times.span(execution.timeout.ToTimedelta().total_seconds())
    if execution.max_output_tokens:
        yield "output limit", f"{execution.max_output_tokens:,} tokens"
    if execution.HasField("max_cost_usd"):
        yield "cost limit", dollars(execution.max_cost_usd)


def _choice(choice: ModelChoice) -> str:
    return _model(choice.ai_provider, choice.model)


def _model(provider: str, model: str) -> str:
    """Name a model the way `--fallback` takes it."""
    return f"{provider}/{model}" if provider or "/" in model else model


def _draw(facts: list[tuple[str, str]]) -> None:
    from rich.console import Console  # noqa: PLC0415  # see tables.py
    from rich.text import Text  # noqa: PLC0415

    console = Console(file=sys.stdout)
    for label, fact in facts:
        style = STATE_STYLES.get(fact, "") if label == "state" else ""
        text = Text.assemble((f"{label:<{_LABEL}}", "dim"), (fact, style))
        console.print(text, soft_wrap=True)
