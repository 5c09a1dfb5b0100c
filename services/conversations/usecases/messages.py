"""Adding, reading, finding, hiding and deleting messages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from services.conversations.domain import conversations, messages
from services.conversations.domain.messages import Draft, Message, Span
from services.conversations.ports.conversations import Conversations
from services.conversations.ports.messages import Messages
from services.conversations.usecases.references import References
from services.conversations.usecases.transcripts import Transcript
from services.kit.errors import invalid
from services.kit.resources import request_ids
from services.kit.resources.ports import TakenError
from services.kit.resources.words import query_terms

PAGE_BYTES = 2 * 1024 * 1024
"""How many bytes the contents of a page may have together; the first one fits whatever it has."""
_TRIES = 10
_LOOKED_AT = 200
_ROUNDS = 10


@dataclass(frozen=True, slots=True)
class Page:
    """A page of messages."""

    messages: Sequence[Message]
    """With their contents."""
    next: tuple[int, str] | None
    """The place that the next page begins behind; None when this is the last."""


class MessageService:
    """The messages of conversations."""

    def __init__(
        self,
        stored: Conversations,
        said: Messages,
        transcript: Transcript,
        references: References,
    ) -> None:
        self._conversations = stored
        self._messages = said
        self._transcript = transcript
        self._references = references

    async def append(self, org: str, conversation_id: str, draft: Draft) -> Message:
        """Add a message; a repeated request_id answers the one it added before.

        Raises:
            DomainError: INVALID_REQUEST, CONVERSATION_NOT_FOUND, MESSAGE_NOT_FOUND, AGENT_NOT_FOUND,
                INSTANCE_NOT_FOUND, AGENT_NOT_ALLOWED, REQUEST_ID_REUSED, CONFLICT,
                SERVICE_UNAVAILABLE.
        """
        messages.checked(draft)
        digest = messages.digest_of(draft, conversation_id)
        earlier = await self._earlier(org, draft, digest)
        if earlier is not None:
            return earlier
        conversation = await self._transcript.get(org, conversation_id)
        if draft.reply_to:
            await self._transcript.message(conversation, draft.reply_to, "message.reply_to")
        found = replace(
            draft,
            agent=await self._references.resolved(org, draft.agent, "message.agent"),
            target=await self._references.resolved(org, draft.target, "message.target"),
        )
        for agent in (found.agent, found.target):
            if agent is not None:
                conversations.check_agent_allowed(conversation, agent.agent_id)
        for _ in range(_TRIES):
            try:
                _, message = await self._transcript.append(
                    org, conversation_id, found, digest=digest if draft.request_id else ""
                )
            except TakenError:
                earlier = await self._earlier(org, draft, digest)
            else:
                return message
            if earlier is not None:
                return earlier
        raise conversations.contended(conversation_id)

    async def get(self, org: str, conversation_id: str, message_id: str) -> Message:
        """Read a message, deleted or not.

        Raises:
            DomainError: CONVERSATION_NOT_FOUND, MESSAGE_NOT_FOUND.
        """
        conversation = await self._transcript.get(org, conversation_id)
        return await self._transcript.message(conversation, message_id)

    async def list(self, org: str, span: Span, after: tuple[int, str] | None, size: int) -> Page:
        """Read a page of messages, in the order of their positions.

        Args:
            after: the `next` of the page before.

        Raises:
            DomainError: CONVERSATION_NOT_FOUND.
        """
        await self._transcript.get(org, span.conversation_id)
        if after is not None:
            span = span.beyond(after[0])
        found = await self._messages.list(org, span, size + 1)
        shown = found[: _fitting(found[:size])]
        more = (shown[-1].position, span.conversation_id) if len(shown) < len(found) else None
        return Page(await self._messages.whole(shown), more)

    async def search(
        self,
        org: str,
        query: str,
        conversation_id: str,
        after: tuple[int, str] | None,
        size: int,
    ) -> Page:
        """Find messages by words, newest first; none that is deleted, or whose conversation is.

        Raises:
            DomainError: INVALID_REQUEST, CONVERSATION_NOT_FOUND.
        """
        if not query_terms(query, ()):
            raise invalid("query", "must hold a word: letters or digits")
        if conversation_id:
            await self._transcript.get(org, conversation_id)
        shown: list[Message] = []
        lives: dict[str, frozenset[int] | None] = {}
        # Most often all that are found may be shown: so no more are read at first than a page has.
        limit = min(size + 1, _LOOKED_AT)
        for _ in range(_ROUNDS):
            found = await self._messages.search(org, query, conversation_id, after, limit)
            for message in found:
                if await self._is_there(message, lives):
                    if len(shown) == size or _fitting([*shown, message]) <= len(shown):
                        return Page(await self._messages.whole(shown), after)
                    shown.append(message)
                after = self._messages.place(message)
            if len(found) < limit:
                after = None
                break
            limit = _LOOKED_AT
        return Page(await self._messages.whole(shown), after)

    async def delete(self, org: str, conversation_id: str, message_id: str) -> Message:
        """Delete a message; one that is deleted is answered as it is.

        Raises:
            DomainError: CONVERSATION_NOT_FOUND, MESSAGE_NOT_FOUND, CONFLICT.
        """
        return await self._decide(org, conversation_id, message_id, lambda one: (True, one.hidden))

    async def undelete(self, org: str, conversation_id: str, message_id: str) -> Message:
        """Take a deleted message back; one that is not deleted is answered as it is.

        Raises:
            DomainError: CONVERSATION_NOT_FOUND, MESSAGE_NOT_FOUND, CONFLICT.
        """
        return await self._decide(org, conversation_id, message_id, lambda one: (False, one.hidden))

    async def toggle(self, org: str, conversation_id: str, message_id: str) -> Message:
        """Delete a message that is not deleted, and take one back that is.

        Raises:
            DomainError: CONVERSATION_NOT_FOUND, MESSAGE_NOT_FOUND, CONFLICT.
        """
        return await self._decide(
            org, conversation_id, message_id, lambda one: (one.is_kept, one.hidden)
        )

    async def hide(
        self, org: str, conversation_id: str, message_id: str, *, hidden: bool | None
    ) -> Message:
        """Leave a message out of what later runs are told, or no longer.

        Args:
            hidden: None for the other way around than it was.

        Raises:
            DomainError: CONVERSATION_NOT_FOUND, MESSAGE_NOT_FOUND, CONFLICT.
        """

        def wanted(one: Message) -> tuple[bool, bool]:
            return not one.is_kept, not one.hidden if hidden is None else hidden

        return await self._decide(org, conversation_id, message_id, wanted)

    async def _decide(
        self,
        org: str,
        conversation_id: str,
        message_id: str,
        wanted: Callable[[Message], tuple[bool, bool]],
    ) -> Message:
        return await self._transcript.decide(org, conversation_id, message_id, wanted)

    async def _earlier(self, org: str, draft: Draft, digest: str) -> Message | None:
        """Read the message that the request_id has added."""
        if not draft.request_id:
            return None
        earlier = await self._messages.by_request_id(org, draft.request_id)
        if earlier is not None:
            request_ids.same_request(digest, earlier.digest, earlier.resource)
        return earlier

    async def _is_there(self, message: Message, lives: dict[str, frozenset[int] | None]) -> bool:
        """Tell whether a message that was found may be shown.

        Args:
            lives: the positions of each conversation that are decided to be deleted; None for one that
                is deleted itself.
        """
        id_ = message.conversation_id
        if id_ not in lives:
            found = await self._conversations.get(message.org, id_)
            going = None
            if found is not None and found.life.live:
                going = frozenset(one.position for one in found.changes if one.deleted)
            lives[id_] = going
        going = lives[id_]
        return going is not None and message.position not in going


def _fitting(found: Sequence[Message]) -> int:
    """Count the first messages, at least one, whose contents fit a page together."""
    room = PAGE_BYTES
    for number, message in enumerate(found):
        room -= message.content_bytes
        if room < 0 and number:
            return number
    return len(found)
