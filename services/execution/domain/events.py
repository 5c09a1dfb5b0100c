"""The events of a run: how they are made, stored and read. Times are microseconds since the epoch."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, NamedTuple

import orjson

MAX_RESULT_BYTES = 2 * 1024 * 1024
"""The largest answer kept; a run that says more fails with RESULT_TOO_LARGE."""

MAX_ANSWER_BYTES = 1024 * 1024
"""The largest answer of a run in a conversation, which keeps it whole."""

MAX_EVENT_BYTES = 256 * 1024
"""The largest payload of one event."""

INLINE_RESULT_BYTES = 64 * 1024
"""The most of the answer that a `result` event repeats."""

MAX_ERROR_BYTES = 4 * 1024
"""The most of the sentence a run failed with that is kept."""


_KIND_AT = len(b'{"event":"')
_PAYLOAD = b'","data":'
_TIMESTAMP = b',"timestamp":'


class Kind(StrEnum):
    """The kinds of event, named as the payloads of ExecutionEvent."""

    JOB_STARTED = "job_started"
    STATUS_UPDATE = "status_update"
    JOB_QUEUED = "job_queued"
    TURN_QUEUED = "turn_queued"
    JOB_RESUMED = "job_resumed"
    CONTEXT_READ = "context_read"
    LLM_START = "on_llm_start"
    LLM_NEW_TOKEN = "on_llm_new_token"  # noqa: S105 a token of text, not a secret
    LLM_END = "on_llm_end"
    LLM_FAILED = "on_llm_failed"
    RUN_ENDING = "run_ending"
    RESULT = "result"
    ERROR = "error"


TERMINAL_KINDS = frozenset({Kind.RESULT, Kind.ERROR})
WAITING_KINDS = frozenset({Kind.JOB_STARTED, Kind.JOB_QUEUED, Kind.TURN_QUEUED})
"""All there is in the log of a run that no worker has picked up."""


class Event(NamedTuple):
    """One stored event."""

    sequence: int
    data: bytes
    """`{"event": kind, "data": payload, "timestamp": seconds}`, in this order and without spaces.

    This is what chat clients are shown, so that showing it costs nothing.
    """
    writer: str
    """The worker or call that appended it."""

    @property
    def kind(self) -> str:
        """What happened."""
        return self.data[_KIND_AT : self.data.index(b'"', _KIND_AT)].decode()

    @property
    def payload(self) -> bytes:
        """The JSON form of the payload message."""
        begin = self.data.index(_PAYLOAD) + len(_PAYLOAD)
        return self.data[begin : self.data.rindex(_TIMESTAMP)]

    @property
    def time(self) -> int:
        """When it was appended, in microseconds since the epoch."""
        begin = self.data.rindex(_TIMESTAMP) + len(_TIMESTAMP)
        return int(self.data[begin:-1].replace(b".", b""))


def cut(text: str, limit: int) -> str:
    """Cut text to so many bytes, and to an event however JSON has to escape it."""
    if len(text) * 6 <= limit:
        return text
    return pieces(text.encode()[:limit].decode(errors="ignore"))[0]


def pieces(text: str) -> list[str]:
    """Cut text such that each piece fits an event, however JSON has to escape it."""
    limit = MAX_EVENT_BYTES - 1024
    if len(text) * 6 <= limit or len(orjson.dumps(text)) <= limit:
        return [text]
    middle = len(text) // 2
    return pieces(text[:middle]) + pieces(text[middle:])


def numbered(
    head: int, now: int, writer: str, *payloads: tuple[Kind, Mapping[str, Any]]
) -> list[Event]:
    """Make the events that follow the one with sequence `head`."""
    return [
        make(sequence, now, kind, payload, writer)
        for sequence, (kind, payload) in enumerate(payloads, head + 1)
    ]


def make(sequence: int, now: int, kind: Kind, payload: Mapping[str, Any], writer: str) -> Event:
    """Make an event."""
    time = divmod(now, 1_000_000)
    data = b'{"event":"%b","data":%b,"timestamp":%d.%06d}' % (
        kind.value.encode(),
        orjson.dumps(payload),
        *time,
    )
    return Event(sequence, data, writer)
