"""Runs as server-sent events."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import aclosing

from google.api.httpbody_pb2 import HttpBody

from services.execution.convert import streams as convert
from services.execution.usecases.watches import Watches
from services.kit import call
from services.kit.errors import DomainError, Reason

Frames = Callable[..., bytes]


def event_stream(watches: Watches, execution_id: str, after: int) -> AsyncIterator[HttpBody]:
    """Stream ExecutionEvent JSON."""
    frames, end = convert.event_frames, convert.event_end_frame
    return server_sent_events(watches, execution_id, after, frames, end)


async def server_sent_events(
    watches: Watches, execution_id: str, after: int, frames: Frames, end_frame: Frames
) -> AsyncIterator[HttpBody]:
    """Stream a run as server-sent events; when the server stops, the stream just ends."""
    watch = await watches.open(call.org(), execution_id, after)
    content = convert.opening_frame(execution_id)
    if watch.end is not None:
        content += end_frame(execution_id, watch.end.time)
    if watch.caught_up:
        yield next(convert.http_bodies(content))
        content = b""
    try:
        async with aclosing(watch.pages) as pages:
            async for page in pages:
                content += convert.HEARTBEAT_FRAME if page is None else page.form(frames)
                for body in convert.http_bodies(content):
                    yield body
                content = b""
    except DomainError as error:
        if error.reason != Reason.REASON_SHUTTING_DOWN:
            raise
        if content:
            # Without a body it has no content type, and a browser does not come back to that.
            yield next(convert.http_bodies(content))
