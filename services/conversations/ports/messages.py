"""What messages need from outside."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from services.conversations.domain.messages import Message, Part, Span


class Messages(Protocol):
    """The stored messages, each under its conversation and position.

    Nobody removes one but with its conversation, so positions have no gaps.
    """

    async def at(self, org: str, conversation_id: str, position: int) -> Message | None:
        """Read the message at a position, with its content."""
        ...

    async def is_at(self, org: str, conversation_id: str, position: int) -> bool:
        """Tell whether there is a message at a position."""
        ...

    async def get(self, org: str, message_id: str) -> Message | None:
        """Read a message with its content."""
        ...

    async def of_turn(self, org: str, execution_id: str, part: Part) -> Message | None:
        """Read the message of a turn, with its content."""
        ...

    async def by_request_id(self, org: str, request_id: str) -> Message | None:
        """Read the message a request_id added, with its content."""
        ...

    async def list(self, org: str, span: Span, limit: int) -> Sequence[Message]:
        """Read messages; long contents are left out, as `Message.is_whole` tells."""
        ...

    async def count(self, org: str, span: Span, most: int) -> int:
        """Count messages without reading them, as far as `most`; for spans that are short."""
        ...

    async def whole(self, messages: Sequence[Message]) -> Sequence[Message]:
        """Read the contents that were left out.

        A message that changed meanwhile is answered as it is now; one that went for good is left out.
        """
        ...

    async def search(
        self,
        org: str,
        query: str,
        conversation_id: str,
        after: tuple[int, str] | None,
        limit: int,
    ) -> Sequence[Message]:
        """Find messages that are not deleted by words, newest first; long contents are left out.

        Args:
            conversation_id: only those of this conversation; empty for all.
            after: the place of the last one of the page before, as `place` tells it.
        """
        ...

    def place(self, message: Message) -> tuple[int, str]:
        """Tell the place of a message in what `search` answers."""
        ...

    async def save(self, message: Message) -> Message:
        """Store a changed message, which has its content; answers it with its new version.

        Raises:
            FencedError: somebody else changed it first.
        """
        ...

    async def add(self, messages: Sequence[Message]) -> None:
        """Store the messages of a conversation that nobody sees yet.

        Raises:
            TakenError: one of them is there.
        """
        ...

    async def remove(self, messages: Sequence[Message]) -> None:
        """Remove messages for good, whatever became of them meanwhile."""
        ...
