"""The spans of runs and model calls, on the tracer of the kit, and nothing when there is none."""

from __future__ import annotations

import secrets

from services.execution.domain import Choice, Execution, Spend, State
from services.execution.ports import Outcome
from services.kit import call, tracing
from services.kit import conventions as names
from services.kit.telemetry import Tracer
from services.kit.tracing import Kind, SpanContext, Value


class TracedWork:
    """Tells of the work of a process."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    def here(self) -> str:
        """Name the span of the call being served; one that is not sampled has a name too."""
        served = call.find()
        return "" if served is None else served.context().traceparent

    def begun(self, execution: Execution, *, resumed: bool) -> None:
        """Begin the span of a run."""
        origin = SpanContext.read(execution.traceparent)
        about: dict[str, Value] = {
            names.GEN_AI_OPERATION_NAME: names.INVOKE_AGENT,
            names.GEN_AI_AGENT_ID: execution.order.agent_id,
            names.GEN_AI_AGENT_NAME: execution.order.agent_id,
            names.CONDUCTOR_EXECUTION_ID: execution.id,
            names.CONDUCTOR_RUN_RESUMED: resumed,
        }
        if execution.order.conversation_id:
            about[names.GEN_AI_CONVERSATION_ID] = execution.order.conversation_id
        parent = None if resumed else origin
        span = self._tracer.begin(
            f"{names.INVOKE_AGENT} {execution.order.agent_id}",
            Kind.INTERNAL,
            secrets.token_hex(16) if parent is None else parent.trace_id,
            parent,
            about,
            [origin] if resumed and origin is not None else (),
        )
        if span is not None:
            tracing.enter(span)

    def left(self, execution: Execution, why: str) -> None:
        """End the span of a run."""
        span = tracing.current()
        if span is None:
            return
        about = {**span.attributes, names.CONDUCTOR_RUN_STATE: execution.state.value}
        if execution.failure is not None:
            about[names.ERROR_TYPE] = execution.failure.reason
        if why and not execution.finished:
            about[names.CONDUCTOR_RUN_LEFT] = why
        span.attributes = about
        span.failed = execution.state is State.FAILED
        self._tracer.end(span)

    def called(
        self,
        choice: Choice,
        attempt: int,
        began: int,
        outcome: Outcome,
        reason: str,
        spend: Spend,
        finish_reason: str,
    ) -> None:
        """Tell of a model call."""
        span = tracing.current()
        if span is None:
            return
        about: dict[str, Value] = {
            names.GEN_AI_OPERATION_NAME: names.CHAT,
            names.GEN_AI_PROVIDER_NAME: choice.ai_provider,
            names.GEN_AI_REQUEST_MODEL: choice.model,
            names.CONDUCTOR_MODEL_ATTEMPT: attempt,
            names.CONDUCTOR_CALL_OUTCOME: outcome.value,
        }
        if spend.usage.input_tokens is not None:
            about[names.GEN_AI_USAGE_INPUT_TOKENS] = spend.usage.input_tokens
        if spend.usage.output_tokens is not None:
            about[names.GEN_AI_USAGE_OUTPUT_TOKENS] = spend.usage.output_tokens
        if finish_reason:
            about[names.GEN_AI_RESPONSE_FINISH_REASONS] = (finish_reason,)
        if reason or outcome is Outcome.FAILED:
            about[names.ERROR_TYPE] = reason or outcome.value
        self._tracer.tell(
            span,
            f"{names.CHAT} {choice.model}",
            Kind.CLIENT,
            began * 1000,
            about,
            failed=outcome is Outcome.FAILED,
        )


class Untraced:
    """Tells nothing."""

    def here(self) -> str:
        """Nothing."""
        return ""

    def begun(self, execution: Execution, *, resumed: bool) -> None:
        """Nothing."""

    def left(self, execution: Execution, why: str) -> None:
        """Nothing."""

    def called(
        self,
        choice: Choice,
        attempt: int,
        began: int,
        outcome: Outcome,
        reason: str,
        spend: Spend,
        finish_reason: str,
    ) -> None:
        """Nothing."""
