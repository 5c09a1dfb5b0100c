"""Runs, and what is asked to run, as messages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from google.protobuf.duration_pb2 import Duration

from conductor.conversations.v1 import busy_policy_pb2
from conductor.execution.v1 import execution_pb2, execution_service_pb2, model_pb2, usage_pb2
from conductor.gateway.v1 import gateway_service_pb2
from services.execution import domain
from services.execution.domain import (
    NANO,
    NOTHING,
    AgentSnapshot,
    Asked,
    ContextMode,
    Execution,
    Filter,
    State,
    Wish,
)
from services.kit.errors import invalid
from services.kit.messages import fitting, microseconds, timestamp

_STATE = "STATE_"
_BUSY_POLICY = "BUSY_POLICY_"
_CONTEXT_MODE = "CONTEXT_MODE_"


def asked_of_start(request: execution_service_pb2.StartExecutionRequest) -> Asked:
    """Read what a caller asks to run."""
    name = execution_pb2.ContextMode.Name(request.context_mode).removeprefix(_CONTEXT_MODE)
    mode = ContextMode(name.lower()) if request.context_mode else None
    asked = asked_of(request, request.input, mode, request.persona_version)
    return replace(asked, busy_policy=_busy_policy(request.busy_policy), reply_to=request.reply_to)


def _busy_policy(policy: busy_policy_pb2.BusyPolicy.ValueType) -> str:
    if not policy:
        return ""
    return busy_policy_pb2.BusyPolicy.Name(policy).removeprefix(_BUSY_POLICY).lower()


def asked_of(
    request: execution_service_pb2.StartExecutionRequest | gateway_service_pb2.ExecuteRequest,
    text: str,
    mode: ContextMode | None,
    persona_version: str = "",
) -> Asked:
    """Read what both requests name alike."""
    timeout = request.timeout
    return Asked(
        input=text,
        agent_id=request.agent_id,
        ai_provider=request.ai_provider,
        model=request.model,
        cwd=request.cwd,
        metadata=dict(request.metadata),
        request_id=request.request_id,
        timeout_ms=timeout.ToMilliseconds() if request.HasField("timeout") else None,
        conversation_id=request.conversation_id,
        instance_id=request.instance_id,
        priority=request.priority,
        max_output_tokens=request.max_output_tokens,
        max_cost=_nano(request.max_cost_usd) if request.HasField("max_cost_usd") else None,
        fallbacks=_wishes(request.fallbacks),
        persona_version=persona_version,
        context_mode=mode,
        screenplay_id=request.screenplay_id,
    )


def execution_to_proto(execution: Execution) -> execution_pb2.Execution:
    """Print a run with its input and result."""
    message = summary_to_proto(execution)
    message.input = execution.order.input
    message.result = execution.result
    return message


def summary_to_proto(execution: Execution) -> execution_pb2.Execution:
    """Print a run without its input and result, as in lists."""
    order = execution.order
    message = execution_pb2.Execution(
        id=execution.id,
        state=execution_pb2.Execution.State.Value(f"{_STATE}{execution.state}"),
        agent_id=order.agent_id,
        ai_provider=order.ai_provider,
        model=order.model,
        input_preview=order.input[: domain.PREVIEW_CHARACTERS],
        cwd=order.cwd,
        metadata=order.metadata,
        request_id=order.request_id,
        conversation_id=order.conversation_id,
        instance_id=order.instance_id,
        timeout=duration(order.timeout_ms),
        priority=order.priority,
        fallbacks=[
            model_pb2.ModelChoice(ai_provider=choice.ai_provider, model=choice.model)
            for choice in order.choices[1:]
        ],
        finish_reason=execution.finish_reason,
        agent=None if order.agent is None else _agent(order.agent),
        context_mode=execution_pb2.ContextMode.Value(_CONTEXT_MODE + order.context_mode.name),
        screenplay_id=order.screenplay_id,
        create_time=timestamp(execution.create_time),
        update_time=timestamp(execution.update_time),
    )
    if execution.talk is not None:
        message.message_id = execution.talk.message_id
        message.answer_id = execution.talk.answer_id
    if order.max_output_tokens is not None:
        message.max_output_tokens = order.max_output_tokens
    if order.max_cost is not None:
        message.max_cost_usd = order.max_cost / NANO
    if execution.position is not None:
        message.queue_position = execution.position
    if execution.spend != NOTHING:
        message.usage.CopyFrom(usage_pb2.Usage(**execution.spend.content()))
    if execution.served_by is not None:
        message.served_by.ai_provider = execution.served_by.ai_provider
        message.served_by.model = execution.served_by.model
    if execution.failure is not None:
        message.error.reason = execution.failure.reason
        message.error.message = execution.failure.message
    if execution.start_time is not None:
        message.start_time.CopyFrom(timestamp(execution.start_time))
    if execution.end_time is not None:
        message.end_time.CopyFrom(timestamp(execution.end_time))
    return message


def _agent(agent: AgentSnapshot) -> execution_pb2.AgentSnapshot:
    return execution_pb2.AgentSnapshot(
        name=agent.name,
        etag=agent.etag,
        persona_version=agent.persona_version,
        persona_alias=agent.persona_alias,
        tools=agent.tools,
        mcp_servers=agent.mcp_servers,
    )


def page_of_summaries(executions: Sequence[Execution]) -> list[execution_pb2.Execution]:
    """Print runs as in lists, as many as fit a message that any client takes."""
    return fitting(map(summary_to_proto, executions))


def filter_of_list(request: execution_service_pb2.ListExecutionsRequest) -> Filter:
    """Read which executions to list."""
    return Filter(
        state=State(execution_pb2.Execution.State.Name(request.state).removeprefix(_STATE))
        if request.state
        else None,
        agent_id=request.agent_id,
        conversation_id=request.conversation_id,
        instance_id=request.instance_id,
        from_time=microseconds(request, "create_time_from"),
        before_time=microseconds(request, "create_time_before"),
    )


def _nano(dollars: float) -> int:
    return max(round(dollars * NANO), 1)


def _wishes(choices: Iterable[model_pb2.ModelChoice]) -> tuple[Wish, ...]:
    """Read fallbacks.

    Raises:
        DomainError: INVALID_REQUEST, when one names nothing.
    """
    wishes = tuple(Wish(choice.ai_provider, choice.model) for choice in choices)
    for number, wish in enumerate(wishes):
        if wish == Wish():
            raise invalid(f"fallbacks[{number}]", "must name an ai_provider or a model")
    return wishes


def duration(milliseconds: int) -> Duration:
    """Print a span of time, in milliseconds."""
    seconds, rest = divmod(milliseconds, 1000)
    return Duration(seconds=seconds, nanos=rest * 1_000_000)
