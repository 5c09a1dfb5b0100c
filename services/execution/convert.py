"""Messages and domain objects, both directions side by side; nothing here waits or stores."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

import orjson
from google.api.httpbody_pb2 import HttpBody
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from conductor.auth.v1 import key_pb2
from conductor.conversations.v1 import busy_policy_pb2
from conductor.execution.v1 import (
    event_pb2,
    execution_pb2,
    execution_service_pb2,
    model_pb2,
    usage_pb2,
)
from conductor.gateway.v1 import gateway_service_pb2
from services.execution import domain
from services.execution.domain import (
    NANO,
    NOTHING,
    AgentSnapshot,
    Asked,
    Choice,
    CircuitState,
    ContextMode,
    Event,
    Execution,
    Filter,
    Key,
    KeyAsked,
    Kind,
    Model,
    PartHealth,
    Price,
    State,
    Wish,
)
from services.kit.errors import DomainError, Reason, Violation, invalid, reason_name
from services.kit.messages import fitting, microseconds, scope, scopes_to_proto, timestamp

M = TypeVar("M", bound=Message)

_MAX_INPUT_BYTES = 1024 * 1024
_BODY_BYTES = 128 * 1024
_MAX_SEQUENCE = 2**32 - 1
_STATE = "STATE_"
_BUSY_POLICY = "BUSY_POLICY_"
_STATUS = b'{"event":"status_update"'
_HIDDEN = tuple(
    b'{"event":"%b"' % kind.value.encode()
    for kind in (
        Kind.JOB_QUEUED,
        Kind.JOB_RESUMED,
        Kind.CONTEXT_READ,
        Kind.LLM_FAILED,
        Kind.RUN_ENDING,
        Kind.TURN_QUEUED,
    )
)
_ENDPOINTS = {
    "health": "/health",
    "execute": "/execute",
    "stream_execute": "/api/v1/stream-execute",
    "stream": "/api/v1/stream/{job_id}",
    "executions": "/api/executions",
    "models": "/api/models",
}
_CONTEXT_MODE = "CONTEXT_MODE_"
_CONTEXT_MODES = {
    "": None,
    "stateful": ContextMode.CONTEXTUAL,
    **{mode.value: mode for mode in ContextMode},
}
"""As chat clients name them."""

# Executions


def asked_of_start(request: execution_service_pb2.StartExecutionRequest) -> Asked:
    """Read what a caller asks to run."""
    name = execution_pb2.ContextMode.Name(request.context_mode).removeprefix(_CONTEXT_MODE)
    mode = ContextMode(name.lower()) if request.context_mode else None
    asked = _asked(request, request.input, mode, request.persona_version)
    return replace(asked, busy_policy=_busy_policy(request.busy_policy), reply_to=request.reply_to)


def _busy_policy(policy: busy_policy_pb2.BusyPolicy.ValueType) -> str:
    if not policy:
        return ""
    return busy_policy_pb2.BusyPolicy.Name(policy).removeprefix(_BUSY_POLICY).lower()


def _asked(
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
        timeout=_duration(order.timeout_ms),
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


def model_to_proto(
    model: Model,
    choice: Choice,
    default: Choice,
    circuit: tuple[CircuitState, int, float],
    now: int,
) -> model_pb2.Model:
    """Print a model.

    Args:
        choice: the same model, with what it costs.
        circuit: its state, how many calls failed in a row, and for how many seconds it stays open.
        now: microseconds since the epoch.
    """
    message = model_pb2.Model(
        id=model.id,
        ai_provider=model.ai_provider,
        description=model.description,
        is_default=(choice.ai_provider, choice.model) == (default.ai_provider, default.model),
        context_tokens=model.context_tokens or 0,
        max_output_tokens=model.max_output_tokens or 0,
        price=_price(choice.price),
    )
    state, failures, seconds = circuit
    message.circuit.state = model_pb2.Circuit.State.Value(f"{_STATE}{state}")
    message.circuit.failures = failures
    if state is CircuitState.OPEN:
        message.circuit.probe_time.CopyFrom(timestamp(now + round(seconds * 1e6)))
    return message


def _price(price: Price | None) -> model_pb2.Price | None:
    if price is None:
        return None
    shown = {
        "cached_input_usd": price.cached_input,
        "cache_write_input_usd": price.cache_write_input,
    }
    return model_pb2.Price(
        input_usd=price.input / NANO,
        output_usd=price.output / NANO,
        **{name: value / NANO for name, value in shown.items() if value is not None},
    )


# Events


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
        payload["retry_delay"] = _duration(round(float(seconds) * 1000))
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


# Sessions


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


# Server-sent events. Payloads are stored as the JSON they are shown as, so a frame is put together
# from bytes and nothing is parsed.

HEARTBEAT_FRAME = b": heartbeat\n\n"


def opening_frame(execution_id: str) -> bytes:
    """Make the first frame of a stream: an empty one would have no content type."""
    return b"retry: 1000\n: events of %b\n\n" % execution_id.encode()


def job_frames(execution_id: str, events: Sequence[Event]) -> bytes:
    """Print a page of events for chat clients."""
    end = b',"job_id":"%b"}\n\n' % execution_id.encode()
    frames = [
        b"id: %d\ndata: %b%b" % (sequence, _shown(data)[:-1], end) for sequence, data, _ in events
    ]
    if events[-1].kind in domain.TERMINAL_KINDS:
        frames.append(job_end_frame(execution_id, events[-1].time))
    return b"".join(frames)


def job_end_frame(execution_id: str, time: int) -> bytes:
    """Make the last frame of a stream for chat clients."""
    return (
        b'event: end_of_stream\ndata: {"event":"end_of_stream",'
        b'"data":{"message":"The stream is complete."},"timestamp":%d.%06d,"job_id":"%b"}\n\n'
        % (*divmod(time, 1_000_000), execution_id.encode())
    )


def event_frames(execution_id: str, events: Sequence[Event]) -> bytes:
    """Print a page of events as ExecutionEvent JSON."""
    id_ = execution_id.encode()
    frames = [
        b'id: %d\ndata: {"execution_id":"%b","sequence":%d,"create_time":"%b","%b":%b}\n\n'
        % (
            event.sequence,
            id_,
            event.sequence,
            timestamp(event.time).ToJsonString().encode(),
            event.kind.encode(),
            event.payload,
        )
        for event in events
    ]
    if events[-1].kind in domain.TERMINAL_KINDS:
        frames.append(event_end_frame(execution_id, events[-1].time))
    return b"".join(frames)


def event_end_frame(execution_id: str, time: int) -> bytes:  # noqa: ARG001 same shape as job_end_frame
    """Make the last frame of a stream of ExecutionEvent JSON."""
    return b'event: end_of_stream\ndata: {"execution_id":"%b"}\n\n' % execution_id.encode()


def http_bodies(frames: bytes) -> Iterator[HttpBody]:
    """Wrap frames for the edge, in pieces that fit its buffers."""
    for begin in range(0, len(frames), _BODY_BYTES):
        piece = frames[begin : begin + _BODY_BYTES]
        yield HttpBody(content_type="text/event-stream", data=piece)


def cursor(after_sequence: int, metadata: Mapping[str, str]) -> int:
    """Read where a browser's stream goes on: the header wins over the query.

    Raises:
        DomainError: INVALID_REQUEST, when Last-Event-ID is not the id of an event.
    """
    header = metadata.get("last-event-id", "").strip()
    if not header:
        return after_sequence
    is_number = header.isascii() and header.isdigit() and len(header) <= len(str(_MAX_SEQUENCE))
    if not is_number or int(header) > _MAX_SEQUENCE:
        raise invalid("Last-Event-ID", "must be the id of an event, a whole number such as 42")
    return int(header)


# The gateway


def asked_of_execute(request: gateway_service_pb2.ExecuteRequest) -> Asked:
    """Read what a chat client asks to run, in any of the three forms.

    Raises:
        DomainError: INVALID_REQUEST.
    """
    return _asked(request, _text(request), context_mode(request.context_mode))


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


# Keys


def asked_of_key(key: key_pb2.Key) -> KeyAsked:
    """Read what a caller asks of a key to be made."""
    return KeyAsked(
        name=key.name,
        org=key.org_id,
        scopes=frozenset(map(scope, key.scopes)),
        expire_time=microseconds(key, "expire_time", "key.expire_time"),
    )


def key_to_proto(key: Key, text: str = "") -> key_pb2.Key:
    """Print a key.

    Args:
        text: what its holder shows, when it was made just now.
    """
    message = key_pb2.Key(
        id=key.id,
        name=key.name,
        org_id=key.org,
        scopes=scopes_to_proto(key.scopes),
        create_time=timestamp(key.create_time),
        creator=key.creator,
        secret=text,
    )
    for field, time in (
        (message.expire_time, key.expire_time),
        (message.revoke_time, key.revoke_time),
        (message.last_use_time, key.last_use_time),
    ):
        if time is not None:
            field.CopyFrom(timestamp(time))
    return message


def key_record_to_proto(key: Key) -> key_pb2.KeyRecord:
    """Print what other services judge the holder of a key by."""
    message = key_pb2.KeyRecord(
        id=key.id, org_id=key.org, scopes=scopes_to_proto(key.scopes), digest=key.digest
    )
    if key.expire_time is not None:
        message.expire_time.CopyFrom(timestamp(key.expire_time))
    if key.revoke_time is not None:
        message.revoke_time.CopyFrom(timestamp(key.revoke_time))
    return message


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


def _shown(data: bytes) -> bytes:
    """Print an event of a kind that chat clients do not know as one they do."""
    if not data.startswith(_HIDDEN):
        return data
    return _STATUS + data[data.index(b",") :]


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


def _duration(milliseconds: int) -> Duration:
    seconds, rest = divmod(milliseconds, 1000)
    return Duration(seconds=seconds, nanos=rest * 1_000_000)
