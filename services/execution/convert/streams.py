"""Server-sent events.

Payloads are stored as the JSON they are shown as, so a frame is put together from bytes and nothing is
parsed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from google.api.httpbody_pb2 import HttpBody

from services.execution import domain
from services.execution.domain import Event, Kind
from services.kit.errors import invalid
from services.kit.messages import timestamp

HEARTBEAT_FRAME = b": heartbeat\n\n"
_BODY_BYTES = 128 * 1024
_MAX_SEQUENCE = 2**32 - 1
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


def _shown(data: bytes) -> bytes:
    """Print an event of a kind that chat clients do not know as one they do."""
    if not data.startswith(_HIDDEN):
        return data
    return _STATUS + data[data.index(b",") :]
