"""One run, told whole."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from conductor.execution.v1.execution_pb2 import AgentSnapshot, ContextMode, Execution
from conductor.execution.v1.model_pb2 import ModelChoice
from conductor_ai.cli import facts, times
from conductor_ai.cli.listing import state_name, took
from conductor_ai.cli.output import enum_name
from conductor_ai.cli.usage import cost, dollars, tokens, unreported


def show(execution: Execution) -> None:
    """Print what is known of a run: a line for each fact, then what went in and what came out."""
    facts.show(_facts(execution, datetime.now(UTC)))
    facts.text("input", execution.input)
    facts.text("result", execution.result)


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
    yield "message", execution.message_id
    yield "answer", execution.answer_id
    yield "instance", execution.instance_id
    yield "screenplay", execution.screenplay_id
    yield "context", _context_mode(execution)
    yield "request id", execution.request_id
    yield "cwd", execution.cwd
    for key in sorted(execution.metadata):
        yield "metadata", f"{key}={execution.metadata[key]}"


def _agent(execution: Execution) -> str:
    name = execution.agent.name
    return f"{execution.agent_id} ({name})" if name else execution.agent_id


def _context_mode(execution: Execution) -> str:
    if execution.context_mode == ContextMode.CONTEXT_MODE_UNSPECIFIED:
        return ""
    return enum_name(ContextMode, execution.context_mode, "CONTEXT_MODE_")


def _persona(agent: AgentSnapshot) -> str:
    if not agent.persona_version:
        return ""
    alias = f" ({agent.persona_alias})" if agent.persona_alias else ""
    return f"version {agent.persona_version}{alias}"


def _times(execution: Execution, now: datetime) -> Iterator[tuple[str, str]]:
    yield "created", facts.when(execution.create_time, now)
    yield "started", facts.when(execution.start_time, now)
    yield "ended", facts.when(execution.end_time, now)
    yield "took", took(execution, now)


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
