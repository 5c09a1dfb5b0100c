"""What chat clients ask, and what they are answered."""

from __future__ import annotations

from collections.abc import Sequence

from conductor.gateway.v1 import gateway_service_pb2
from services.execution.convert.executions import asked_of
from services.execution.domain import Asked, ContextMode, Execution, PartHealth
from services.kit.errors import DomainError, Reason, Violation, invalid

_MAX_INPUT_BYTES = 1024 * 1024
_ENDPOINTS = {
    "health": "/health",
    "execute": "/execute",
    "stream_execute": "/api/v1/stream-execute",
    "stream": "/api/v1/stream/{job_id}",
    "executions": "/api/executions",
    "models": "/api/models",
}
_CONTEXT_MODES = {
    "": None,
    "stateful": ContextMode.CONTEXTUAL,
    **{mode.value: mode for mode in ContextMode},
}
"""As chat clients name them."""


def asked_of_execute(request: gateway_service_pb2.ExecuteRequest) -> Asked:
    """Read what a chat client asks to run, in any of the three forms.

    Raises:
        DomainError: INVALID_REQUEST.
    """
    return asked_of(request, _text(request), context_mode(request.context_mode))


def context_mode(name: str) -> ContextMode | None:
    """Read what a chat client wants a run to be told; None leaves it open.

    Raises:
        DomainError: INVALID_REQUEST.
    """
    if name not in _CONTEXT_MODES:
        raise invalid("context_mode", "must be stateless, contextual (or stateful) or interactive")
    return _CONTEXT_MODES[name]


def asked_of_execute_agent(request: gateway_service_pb2.ExecuteAgentRequest) -> Asked:
    """Read what is asked of an agent in a conversation.

    Raises:
        DomainError: INVALID_REQUEST.
    """
    saves = request.save_to_conversation or not request.HasField("save_to_conversation")
    if request.conversation_id and not saves:
        raise invalid(
            "save_to_conversation",
            "must be true with a conversation_id; leave that empty to keep nothing",
        )
    if request.document_id and request.screenplay_id not in {"", request.document_id}:
        raise invalid("document_id", "must be the screenplay_id, or empty")
    timeout = request.timeout
    return Asked(
        input=request.input_text,
        agent_id=request.agent_id,
        ai_provider=request.ai_provider,
        model=request.model,
        cwd=request.cwd,
        request_id=request.request_id,
        timeout_ms=timeout.ToMilliseconds() if request.HasField("timeout") else None,
        conversation_id=request.conversation_id,
        instance_id=request.instance_id,
        context_mode=context_mode(request.context_mode),
        screenplay_id=request.screenplay_id or request.document_id,
        apart=not saves,
    )


def outcome_to_proto(execution: Execution) -> gateway_service_pb2.ExecuteAgentResponse:
    """Print how a run went that has ended."""
    failure, order = execution.failure, execution.order
    outcome = gateway_service_pb2.ExecuteAgentResponse.Outcome(
        result=execution.result, status="completed"
    )
    if failure is not None:
        outcome = gateway_service_pb2.ExecuteAgentResponse.Outcome(
            result=failure.message, exit_code=1, status="error", error_reason=failure.reason
        )
    end = execution.end_time or execution.create_time
    began = execution.start_time or execution.create_time
    return gateway_service_pb2.ExecuteAgentResponse(
        status="success" if failure is None else "error",
        result=outcome,
        instance_id=order.instance_id,
        context_mode=order.context_mode.value,
        execution_id=execution.id,
        task_id=execution.id,
        duration_ms=(end - began) / 1000,
    )


def _text(request: gateway_service_pb2.ExecuteRequest) -> str:
    entries = "\n\n".join(
        entry.content
        for entry in request.text_entries
        if entry.type in {"", "text"} and entry.content.strip()
    )
    for text in (entries, request.input, request.command):
        if text.strip():
            if len(text.encode()) > _MAX_INPUT_BYTES:
                raise invalid("textEntries", "the texts together must be at most 1 MiB")
            return text
    description = "one of textEntries (entries of type text), input or command must hold text"
    raise DomainError(
        Reason.REASON_INVALID_REQUEST,
        f"The request has no text: {description}.",
        violations=[Violation(name, description) for name in ("textEntries", "input", "command")],
    )


def answer_to_proto(execution: Execution) -> gateway_service_pb2.ExecuteResponse:
    """Print the answer of a run that succeeded."""
    return gateway_service_pb2.ExecuteResponse(
        status="success", result=execution.result, job_id=execution.id
    )


def job_to_proto(execution: Execution, token: str) -> gateway_service_pb2.StreamExecuteResponse:
    """Print where the events of a run are streamed.

    Args:
        token: what stands in for a key there; may be empty.
    """
    url = f"/api/v1/stream/{execution.id}"
    return gateway_service_pb2.StreamExecuteResponse(
        job_id=execution.id, status="started", stream_url=f"{url}?token={token}" if token else url
    )


def health_to_proto(
    parts: Sequence[PartHealth], version: str
) -> gateway_service_pb2.GetHealthResponse:
    """Print the health of the mesh, every part of it well."""
    return gateway_service_pb2.GetHealthResponse(
        status="healthy",
        service="conductor_mesh",
        version=version,
        endpoints=_ENDPOINTS,
        parts=[gateway_service_pb2.Part(name=part.name, status="healthy") for part in parts],
    )
