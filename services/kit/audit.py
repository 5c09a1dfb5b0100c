"""The record of every call that changes something."""

from __future__ import annotations

from typing import Protocol

from google.protobuf.message import Message

from services.kit.call import Call


class Auditor(Protocol):
    """Keeps records of calls."""

    async def record(
        self,
        served: Call,
        request: Message,
        response: Message | bytes | None,
        code: str,
        reason: str,
    ) -> None:
        """Keep the record of a call that ended, or of a stream that began.

        A record that cannot be stored goes to the log; nothing is raised.

        Args:
            response: the answer; None when there is none, or a stream of them.
            code: the name of its gRPC status.
            reason: the reason of its error, from the catalogue; empty when it succeeded.
        """
        ...
