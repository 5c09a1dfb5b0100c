"""What conversations need from outside."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from services.conversations.domain.conversations import Conversation, Wanted
from services.conversations.domain.messages import Message, Reference
from services.kit.resources.ports import Roots


class Conversations(Roots[Conversation], Protocol):
    """The stored conversations."""

    async def add(self, conversation: Conversation) -> Conversation:
        """Store a new conversation.

        Raises:
            TakenError: its `request_key` is that of another one.
        """
        ...

    async def append(self, conversation: Conversation, message: Message) -> Conversation:
        """Store a message, then the conversation that follows it.

        Raises:
            TakenError: of the message; `id` when somebody else was first at its position, `turn_key`
                or `request_key` when it was added before. Nothing happened.
            FencedError: somebody else changed the conversation; the message may be stored or not.
        """
        ...

    async def settle(self, conversation: Conversation, message: Message) -> Conversation:
        """Store a message that was changed as decided, then the conversation that notes it as done.

        Raises:
            FencedError: somebody else changed one of them; the message may be stored or not.
        """
        ...

    async def save_all(self, conversations: Sequence[Conversation]) -> None:
        """Store changed conversations, one after the other.

        Raises:
            FencedError: somebody else changed one of them; those before it may be stored.
        """
        ...

    async def by_request_id(self, org: str, rpc: str, request_id: str) -> Conversation | None:
        """Read the conversation a request_id made, deleted or not."""
        ...

    async def list(
        self, org: str, wanted: Wanted, after: tuple[int | str, str] | None, limit: int
    ) -> Sequence[Conversation]:
        """Read a page of conversations, without their contexts."""
        ...

    async def of_screenplay(
        self, org: str, screenplay_id: str, after: tuple[int, str] | None, limit: int
    ) -> Sequence[Conversation]:
        """Read conversations of a screenplay, deleted or not, oldest first, without their contexts.

        What is read so is not to be saved.

        Args:
            after: create time and id of the last one of the page before.
        """
        ...

    async def of_visitors(
        self, before: int, after: tuple[int, str] | None, limit: int
    ) -> Sequence[Conversation]:
        """Read the talks of visitors of all organisations, oldest first, without their contexts.

        What is read so is not to be saved.

        Args:
            before: only those made before this time, in microseconds since the epoch.
            after: create time and id of the last one of the page before.
        """
        ...

    def place(self, conversation: Conversation, wanted: Wanted) -> tuple[int | str, str]:
        """Tell the place of a conversation in a list."""
        ...


class Cast(Protocol):
    """The instances of agents, as conversations need them."""

    async def reference(self, org: str, instance_id: str) -> Reference:
        """Tell the agent of an instance, with the instance's own emoji when it has one.

        Raises:
            DomainError: INSTANCE_NOT_FOUND.
        """
        ...

    async def copy(self, org: str, conversation_id: str, copy: Conversation) -> Mapping[str, str]:
        """Copy the instances of a conversation, deleted ones left out, to a copy that is not seen yet.

        The copies take the mark of the copy's deletion, `copy.life`, and begin when it does. Its number
        is bounded by what one call can do.

        Returns:
            The id of each instance's copy, by the id of the instance.
        """
        ...


class Runs(Protocol):
    """The histories of runs, as messages need them."""

    async def follow(self, org: str, execution_id: str) -> object:
        """Leave a run out of histories of which a message is deleted, else show it; may be done again.

        Nothing happens when there is no such run yet: whoever adds it looks at its messages.
        """
        ...

    async def forget(self, org: str, execution_ids: Iterable[str]) -> None:
        """Leave nothing of runs in histories but that they count; may be done again."""
        ...
