"""Judges what watchers saw: nothing missing, one end, and how late each event came."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.bench.client import Unchunker

_FRAME = re.compile(
    rb'id: (\d+)\ndata: \{"event":"([a-z_]+)".*"timestamp":(\d+\.\d+),"job_id":"[^"]+"\}$',
    re.DOTALL,
)
_END = b"event: end_of_stream\n"
_TERMINAL = (b"result", b"error")


@dataclass(slots=True)
class Verdict:
    """What one stream brought."""

    sequences: list[int] = field(default_factory=list)
    kinds: list[bytes] = field(default_factory=list)
    ends: int = 0
    delays: list[float] = field(default_factory=list)
    """Seconds from append to arrival, of the events appended after the stream had begun."""

    @property
    def fault(self) -> str:
        """What is wrong with the stream; nothing when it is whole."""
        if self.sequences != list(range(1, len(self.sequences) + 1)):
            return f"the sequences have gaps or repetitions: {self.sequences[:50]} …"
        terminal = sum(kind in _TERMINAL for kind in self.kinds)
        if terminal != 1 or self.kinds[-1] not in _TERMINAL:
            return f"{terminal} terminal events, the last event is {self.kinds[-1:]}"
        if self.ends != 1:
            return f"{self.ends} ends of the stream"
        return ""


def judge(pieces: Sequence[tuple[float, bytes]]) -> Verdict:
    """Judge a stream by its pieces, each with the time it came."""
    verdict = Verdict()
    began = pieces[0][0] if pieces else 0.0
    unchunker = Unchunker()
    rest = b""
    for time, piece in pieces:
        *frames, rest = (rest + unchunker.feed(piece)).split(b"\n\n")
        for frame in frames:
            found = _FRAME.match(frame)
            if found is None:
                verdict.ends += frame.startswith(_END)
                continue
            verdict.sequences.append(int(found[1]))
            verdict.kinds.append(found[2])
            appended = float(found[3])
            if appended > began:
                verdict.delays.append(time - appended)
    return verdict
