"""Copying conversations."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

from services.conversations.domain import conversations, copies
from services.conversations.domain.conversations import Conversation
from services.conversations.domain.messages import Message, Showing, Span
from services.conversations.ports.conversations import Cast, Conversations
from services.conversations.ports.messages import Messages
from services.conversations.usecases.transcripts import Transcript
from services.kit.errors import DomainError, Reason
from services.kit.resources import deletions, request_ids
from services.kit.resources.cascades import Cascades
from services.kit.resources.ports import FencedError, TakenError

RPC = "CloneConversation"
_PAGE = 100
_BYTES = 1024 * 1024


class Cloner:
    """Makes copies of conversations.

    A copy says of itself that it is about to go for good until all of it is there. So nobody sees half
    of one, and what somebody leaves who dies meanwhile is removed as from any purge.

    Args:
        kept: lets a conversation follow what its screenplay did while it was made or taken back.
        clock: microseconds since the epoch.
        new_id: makes ids of conversations.
        new_message_id: makes ids of messages.
        new_deletion_id: makes ids of deletions, in the order they are made in.
    """

    def __init__(
        self,
        stored: Conversations,
        said: Messages,
        transcript: Transcript,
        cast: Cast,
        cascades: Cascades[Conversation],
        *,
        kept: Callable[[Conversation], Awaitable[Conversation]],
        clock: Callable[[], int],
        new_id: Callable[[], str],
        new_message_id: Callable[[], str],
        new_deletion_id: Callable[[], str],
    ) -> None:
        self._conversations = stored
        self._messages = said
        self._transcript = transcript
        self._cast = cast
        self._cascades = cascades
        self._kept = kept
        self._clock = clock
        self._new_id = new_id
        self._new_message_id = new_message_id
        self._new_deletion_id = new_deletion_id

    async def clone(
        self, org: str, conversation_id: str, title: str, request_id: str
    ) -> Conversation:
        """Copy a conversation; a repeated request_id answers the copy it made before.

        Args:
            title: of the copy; empty for that of the conversation, marked as a copy.

        Raises:
            DomainError: INVALID_REQUEST, CONVERSATION_NOT_FOUND, REQUEST_ID_REUSED, CONFLICT.
        """
        if title:
            title = conversations.normal_title(title, "title")
        digest = request_ids.digest([conversation_id, title])
        earlier = await self._earlier(org, request_id, digest)
        if earlier is not None:
            return earlier
        source = await self._transcript.get(org, conversation_id)
        deletion, now = self._new_deletion_id(), self._clock()
        staged = await self._conversations.add(
            copies.copied(source, self._new_id(), title, now, deletions.staged(deletion, now))
        )
        try:
            return await self._filled(source, staged, request_id, digest)
        except FencedError:
            # It took so long that it was held for what somebody left.
            raise DomainError(
                Reason.REASON_CONFLICT,
                f"The copy of the conversation {conversation_id} was removed while it was being made; "
                "try again.",
                retry_after=1.0,
            ) from None
        except TakenError:
            # The same request, at the same time: what was made here goes by itself.
            earlier = await self._earlier(org, request_id, digest)
            if earlier is None:
                raise conversations.contended(conversation_id) from None
            return earlier

    async def _filled(
        self, source: Conversation, staged: Conversation, request_id: str, digest: str
    ) -> Conversation:
        """Copy all that belongs to a conversation, and let the copy be seen.

        Raises:
            FencedError: the copy was taken for one that was left.
            TakenError: the request has made another one.
        """
        instance_ids = await self._cast.copy(source.org, source.id, staged)
        copy = copies.recast(staged, instance_ids)
        span = Span(source.id, before=source.head + 1, showing=Showing.KEPT)
        # The ids of the copies, by those of the messages, for replies.
        ids: dict[str, str] = {}
        while page := await self._messages.list(source.org, span, _PAGE):
            for some in _batches(page):
                whole = await self._messages.whole(some)
                twins = self._twins(source, copy, whole, ids)
                await self._messages.add(twins)
                for message in twins:
                    copy = conversations.followed(copy, message)
                # Whoever sees that it goes on leaves it alone.
                copy = await self._conversations.save(copy)
            span = span.beyond(page[-1].position)
        now = await self._conversations.get(source.org, source.id)
        if now is None or now.life.purging:
            # Some of it may have gone before it was copied.
            raise conversations.not_found(source.id)
        begun = copies.begun(copy, self._clock())
        if request_id:
            begun = replace(begun, request_id=request_id, request_rpc=RPC, digest=digest)
        await self._cascades.mark(copy, copy.id)
        made = await self._conversations.save(begun)
        await self._cascades.finish(made, made.id)
        await self._kept(made)
        return await self._transcript.get(made.org, made.id)

    def _twins(
        self,
        source: Conversation,
        copy: Conversation,
        originals: Sequence[Message],
        ids: dict[str, str],
    ) -> Sequence[Message]:
        twins: list[Message] = []
        for message in originals:
            if not copies.is_copied(source, message):
                continue
            ids[message.id] = self._new_message_id()
            position = copy.head + len(twins) + 1
            twins.append(copies.copied_message(message, copy, position, ids))
        return twins

    async def _earlier(self, org: str, request_id: str, digest: str) -> Conversation | None:
        """Read the copy that a request_id has made."""
        if not request_id:
            return None
        earlier = await self._conversations.by_request_id(org, RPC, request_id)
        if earlier is None or earlier.life.purging:
            return None
        request_ids.same_request(digest, earlier.digest, earlier.resource)
        return earlier


def _batches(page: Sequence[Message]) -> Sequence[Sequence[Message]]:
    """Part a page such that few long contents are read and written at once."""
    batches: list[list[Message]] = []
    room = 0
    for message in page:
        if message.content_bytes > room or not batches:
            batches.append([])
            room = _BYTES
        batches[-1].append(message)
        room -= message.content_bytes
    return batches
