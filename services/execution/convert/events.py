"""Events as steps of typed watches."""

from __future__ import annotations

from collections.abc import Sequence

import orjson

from conductor.execution.v1 import event_pb2, execution_pb2, execution_service_pb2
from services.execution.convert.executions import duration
from services.execution.domain import Event, Kind
from services.kit.messages import timestamp


def responses(
    execution_id: str, events: Sequence[Event]
) -> list[execution_service_pb2.WatchExecutionResponse]:
    """Print a page of events as steps of a typed watch."""
    return [response(execution_id, event) for event in events]


def response(execution_id: str, event: Event) -> execution_service_pb2.WatchExecutionResponse:
    """Print an event as a step of a typed watch."""
    return execution_service_pb2.WatchExecutionResponse(event=event_to_proto(execution_id, event))


def event_to_proto(execution_id: str, event: Event) -> event_pb2.ExecutionEvent:
    """Print an event."""
    payload = orjson.loads(event.payload)
    if event.kind == Kind.STATUS_UPDATE and "state" in payload:
        payload["state"] = execution_pb2.Execution.State.Value(payload["state"])
    elif "retry_delay" in payload:
        seconds = payload["retry_delay"].removesuffix("s")
        payload["retry_delay"] = duration(round(float(seconds) * 1000))
    return event_pb2.ExecutionEvent(
        execution_id=execution_id,
        sequence=event.sequence,
        create_time=timestamp(event.time),
        **{event.kind: payload},
    )


def heartbeat(now: int) -> execution_service_pb2.WatchExecutionResponse:
    """Print a sign of life."""
    return execution_service_pb2.WatchExecutionResponse(
        heartbeat=execution_service_pb2.Heartbeat(time=timestamp(now))
    )
