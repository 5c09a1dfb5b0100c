"""Times as people write and read them."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import typer
from google.protobuf.timestamp_pb2 import Timestamp

_SECONDS = {"w": 604_800, "d": 86_400, "h": 3_600, "m": 60, "s": 1}
_SPAN = re.compile(r"(?:[0-9]{1,9}[wdhms])+", re.ASCII)
_PART = re.compile(r"([0-9]+)([wdhms])", re.ASCII)


def parse(text: str) -> datetime:
    """Read a time: ISO 8601, local unless it says otherwise, or how long ago: 90s, 2h, 1d12h.

    Raises:
        typer.BadParameter: it is neither, or lies beyond the calendar.
    """
    return _parse(text, -1, "how long ago: 2h, 7d")


def parse_end(text: str) -> datetime:
    """Read a time to come: ISO 8601 as for `parse`, or in how long: 12h, 90d.

    Raises:
        typer.BadParameter: it is neither, or lies beyond the calendar.
    """
    return _parse(text, 1, "in how long: 12h, 90d")


def _parse(text: str, direction: int, otherwise: str) -> datetime:
    wish = text.strip()
    try:
        if _SPAN.fullmatch(wish):
            seconds = sum(int(count) * _SECONDS[unit] for count, unit in _PART.findall(wish))
            return datetime.now(UTC) + timedelta(seconds=direction * seconds)
        return datetime.fromisoformat(wish).astimezone(UTC)
    except (OverflowError, ValueError):
        raise typer.BadParameter(
            f"{text!r} is no time; write 2026-05-31, 2026-05-31T18:00Z, or {otherwise}"
        ) from None


def timestamp(time: datetime) -> Timestamp:
    """Convert a time for the mesh."""
    stamp = Timestamp()
    stamp.FromDatetime(time)
    return stamp


def moment(stamp: Timestamp) -> str:
    """Write a time to the second, in UTC."""
    return f"{stamp.ToDatetime(UTC).replace(tzinfo=None, microsecond=0).isoformat()}Z"


def age(stamp: Timestamp, now: datetime) -> str:
    """Write how long ago something was, in its largest unit: 3m, 5h, 12d."""
    seconds = max((now - stamp.ToDatetime(UTC)).total_seconds(), 0.0)
    for unit in ("d", "h", "m"):
        if seconds >= _SECONDS[unit]:
            return f"{int(seconds // _SECONDS[unit])}{unit}"
    return f"{int(seconds)}s"


def duration(start: Timestamp, end: Timestamp | datetime) -> str:
    """Write how long something took, in its two largest units: 800ms, 4.2s, 2m5s, 3h20m."""
    until = end if isinstance(end, datetime) else end.ToDatetime(UTC)
    return span((until - start.ToDatetime(UTC)).total_seconds())


def span(seconds: float) -> str:
    """Write seconds in their two largest units."""
    if seconds < 1:
        return f"{max(round(seconds * 1000), 0)}ms"
    if seconds < 60:
        return f"{seconds:.1f}".removesuffix(".0") + "s"
    left, parts = int(seconds), []
    for unit in ("d", "h", "m", "s"):
        count, left = divmod(left, _SECONDS[unit])
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts[:2])
