"""What is said in sessions, and what comes out of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from google.protobuf.message import Message

from conductor.execution.v1 import execution_pb2, execution_service_pb2
from services.execution.convert.events import event_to_proto
from services.execution.convert.executions import asked_of_start, execution_to_proto
from services.execution.domain import Asked, ContextMode, Event, Execution
from services.kit.errors import DomainError, Violation, invalid, reason_name
from services.kit.messages import timestamp


def template_of_session(
    request: execution_service_pb2.ConverseRequest | None, check: Callable[[Message], None]
) -> Asked:
    """Read what the runs of a session are asked for, but for their input; its request_id is the session's.

    Args:
        request: the first of the session.
        check: raises when a request to start breaks a rule.

    Raises:
        DomainError: INVALID_REQUEST.
    """
    if request is None or not request.HasField("open"):
        raise invalid("open", "must be what the first request of a session holds")
    start = execution_service_pb2.StartExecutionRequest()
    start.CopyFrom(request.open.template)
    for name in ("input", "request_id", "reply_to"):
        if getattr(start, name):
            raise invalid(
                f"open.template.{name}", "must be empty: each message is a run of its own"
            )
    start.input = "-"
    try:
        check(start)
    except DomainError as error:
        raise DomainError(
            error.reason,
            f"open.template: {error.message}",
            violations=[
                Violation(f"open.template.{one.field}", one.description) for one in error.violations
            ],
        ) from None
    asked = asked_of_start(start)
    mode = asked.context_mode or ContextMode.INTERACTIVE
    return replace(asked, input="", context_mode=mode, request_id=request.open.request_id)


def said_in_session(request: execution_service_pb2.ConverseRequest) -> str | None:
    """Read a message; None asks to cancel what runs.

    Raises:
        DomainError: INVALID_REQUEST, when the session is opened again.
    """
    if request.HasField("open"):
        raise invalid("open", "must be in the first request alone")
    return request.message if request.HasField("message") else None


def session_opened(conversation_id: str) -> execution_service_pb2.ConverseResponse:
    """Print that a session is open."""
    return execution_service_pb2.ConverseResponse(
        opened=execution_service_pb2.ConverseOpened(conversation_id=conversation_id)
    )


def session_started(execution: Execution) -> execution_service_pb2.ConverseResponse:
    """Print that a message was taken in."""
    return execution_service_pb2.ConverseResponse(started=execution_to_proto(execution))


def session_refusal(error: DomainError) -> execution_service_pb2.ConverseResponse:
    """Print that a message was refused."""
    return execution_service_pb2.ConverseResponse(
        refused=execution_pb2.ExecutionError(
            reason=reason_name(error.reason), message=error.message
        )
    )


def session_events(
    execution_id: str, events: Sequence[Event]
) -> list[execution_service_pb2.ConverseResponse]:
    """Print a page of events of a run."""
    return [
        execution_service_pb2.ConverseResponse(event=event_to_proto(execution_id, event))
        for event in events
    ]


def session_heartbeat(now: int) -> execution_service_pb2.ConverseResponse:
    """Print a sign of life."""
    return execution_service_pb2.ConverseResponse(
        heartbeat=execution_service_pb2.Heartbeat(time=timestamp(now))
    )
