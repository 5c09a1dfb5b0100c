"""Keeping conversations and their messages together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from services.conversations.domain import conversations, messages
from services.conversations.domain.conversations import Conversation
from services.conversations.domain.messages import Change, Draft, Message, Showing, Span
from services.conversations.ports.conversations import Conversations, Runs
from services.conversations.ports.messages import Messages
from services.kit.resources.locks import Locks
from services.kit.resources.ports import FencedError, TakenError

_TRIES = 200
"""Of the writers of many processes each loses to some of the others."""
_SHOWN = 20


class Transcript:
    """Keeps conversations and their messages together.

    The message at the next position comes first, and its conversation follows; what becomes of a message
    is decided in its conversation first, and the message follows. Whoever reads a conversation here does
    what somebody left. A lock for each conversation spares those of one process to lose to each other;
    between processes the version of the conversation decides.

    Args:
        clock: microseconds since the epoch.
        new_id: makes ids of messages.
        new_change_id: makes ids of changes.
    """

    def __init__(
        self,
        stored: Conversations,
        said: Messages,
        runs: Runs,
        *,
        clock: Callable[[], int],
        new_id: Callable[[], str],
        new_change_id: Callable[[], str],
    ) -> None:
        self._conversations = stored
        self._messages = said
        self._runs = runs
        self._clock = clock
        self._new_id = new_id
        self._new_change_id = new_change_id
        self._locks = Locks()

    async def load(self, org: str, conversation_id: str) -> Conversation | None:
        """Read a conversation, deleted or not, once it and its messages have followed each other.

        One that is about to go for good is answered as it is.
        """
        found = await self._conversations.get(org, conversation_id)
        while found is not None and not found.life.purging:
            try:
                if found.changes:
                    found = await self._settle(found, found.changes[0])
                elif await self._messages.is_at(org, conversation_id, found.head + 1):
                    found = await self._follow(found)
                else:
                    break
            except FencedError:
                found = await self._conversations.get(org, conversation_id)
        return found

    async def get(
        self, org: str, conversation_id: str, *, include_deleted: bool = False
    ) -> Conversation:
        """Read a conversation as `load` does.

        Raises:
            DomainError: CONVERSATION_NOT_FOUND.
        """
        found = await self.load(org, conversation_id)
        if found is None or found.life.purging:
            raise conversations.not_found(conversation_id)
        if not found.life.live and not include_deleted:
            raise conversations.is_deleted(found)
        return found

    async def message(
        self, conversation: Conversation, message_id: str, field: str = ""
    ) -> Message:
        """Read a message of a conversation, deleted or not, with its content.

        Args:
            field: of the request that names it, where that is not the message it is about.

        Raises:
            DomainError: MESSAGE_NOT_FOUND.
        """
        found = await self._messages.get(conversation.org, message_id)
        if found is None or found.conversation_id != conversation.id or found.withdrawn:
            raise messages.not_found(message_id, conversation.id, field)
        return found

    async def change(
        self,
        org: str,
        conversation_id: str,
        change: Callable[[Conversation], Conversation | None],
        *,
        include_deleted: bool = False,
    ) -> Conversation:
        """Change a conversation, whatever others change meanwhile.

        Args:
            change: makes another one of what is stored; None when nothing is to change. May raise, and
                is called again when somebody else was faster.

        Raises:
            DomainError: CONVERSATION_NOT_FOUND, CONFLICT.
        """
        async with self.alone(org, conversation_id):
            for _ in range(_TRIES):
                stored = await self.get(org, conversation_id, include_deleted=include_deleted)
                changed = change(stored)
                if changed is None:
                    return stored
                try:
                    return await self._conversations.save(changed)
                except FencedError:
                    continue
        raise conversations.contended(conversation_id)

    async def append(
        self,
        org: str,
        conversation_id: str,
        draft: Draft,
        *,
        digest: str = "",
        include_deleted: bool = False,
    ) -> tuple[Conversation, Message]:
        """Add a message at the next position; one that a turn has already is answered as it is.

        Args:
            digest: of the request, when the draft has a request_id.

        Returns:
            The conversation, which counts the message, and the message.

        Raises:
            TakenError: `request_key`, when the request_id has added another one.
            DomainError: CONVERSATION_NOT_FOUND, CONFLICT.
        """
        id_ = self._new_id()
        async with self.alone(org, conversation_id):
            for _ in range(_TRIES):
                stored = await self.get(org, conversation_id, include_deleted=include_deleted)
                now = max(self._clock(), stored.update_time)
                message = messages.placed(
                    draft, org, id_, conversation_id, stored.head + 1, now, digest
                )
                try:
                    grown = conversations.followed(stored, message)
                    return await self._conversations.append(grown, message), message
                except TakenError as error:
                    found = await self._taken(error, draft, org, id_)
                except FencedError:
                    found = await self._messages.get(org, id_)
                if found is None:
                    continue
                return await self._kept(found), found
        raise conversations.contended(conversation_id)

    async def decide(
        self,
        org: str,
        conversation_id: str,
        message_id: str,
        wanted: Callable[[Message], tuple[bool, bool]],
        *,
        include_deleted: bool = False,
        withdrawn: bool = False,
    ) -> Message:
        """Hide or delete a message, or take that back; the conversation counts it at once.

        Args:
            wanted: says of the message whether it is to be deleted, and whether it is to be hidden. Is
                called again when somebody else was faster.
            withdrawn: whether the message may be one that was withdrawn.

        Returns:
            The message, changed.

        Raises:
            DomainError: CONVERSATION_NOT_FOUND, MESSAGE_NOT_FOUND, CONFLICT.
        """
        async with self.alone(org, conversation_id):
            for _ in range(_TRIES):
                # In this order: what is read of the message is what the conversation counts of it, or
                # somebody else changes the conversation, too.
                stored = await self.get(org, conversation_id, include_deleted=include_deleted)
                found = await self._messages.get(org, message_id) if withdrawn else None
                message = found or await self.message(stored, message_id)
                deleted, hidden = wanted(message)
                if (deleted, hidden) == (not message.is_kept, message.hidden):
                    return message
                change = Change(
                    self._new_change_id(), message.position, deleted, hidden, self._clock()
                )
                newest = await self._newest(stored, message)
                try:
                    decided = await self._conversations.save(
                        conversations.decided(stored, message, change, newest)
                    )
                except FencedError:
                    continue
                try:
                    await self._follow_up(decided, message, change)
                except FencedError:
                    # Somebody else reads or writes in it, and does this, too.
                    await self.load(org, conversation_id)
                return messages.applied(message, change)
        raise conversations.contended(conversation_id)

    def alone(self, org: str, conversation_id: str) -> asyncio.Lock:
        """Find what lets those of this process change a conversation one after the other."""
        return self._locks.of((org, conversation_id))

    async def _follow(self, conversation: Conversation) -> Conversation:
        """Count the message at the next position, which is there."""
        message = await self._messages.at(conversation.org, conversation.id, conversation.head + 1)
        if message is None:
            # It was removed: by whoever added it too late, or with the conversation.
            raise FencedError
        return await self._conversations.save(conversations.followed(conversation, message))

    async def _settle(self, conversation: Conversation, change: Change) -> Conversation:
        """Do what was decided about a message, and note that it is done; somebody left it."""
        org, id_ = conversation.org, conversation.id
        message = await self._messages.at(org, id_, change.position)
        if message is None:
            return await self._conversations.save(conversations.settled(conversation, change))
        # In this order: a message that was read while this was still to do is changed by nothing that
        # was decided later, or cannot be changed here.
        now = await self._conversations.get(org, id_)
        if now is None or now.version != conversation.version:
            raise FencedError
        return await self._follow_up(conversation, message, change)

    async def _follow_up(
        self, conversation: Conversation, message: Message, change: Change
    ) -> Conversation:
        """Let a message follow what was decided about it, and note that it did.

        Args:
            message: as it was read before, or while, the conversation was of this version.
        """
        after = conversations.settled(conversation, change)
        if message.change != change.id:
            changed = messages.applied(message, change)
            if not message.execution_id or changed.is_kept == message.is_kept:
                return await self._conversations.settle(after, changed)
            await self._messages.save(changed)
        if message.execution_id:
            await self._runs.follow(message.org, message.execution_id)
        return await self._conversations.save(after)

    async def _newest(self, conversation: Conversation, but: Message) -> Message | None:
        """Read the newest message that may be previewed, but for one; only when that one is."""
        if but.position != conversation.preview_position:
            return None
        # What is newer than the one that is previewed may not be.
        span = Span(conversation.id, before=but.position, newest_first=True, showing=Showing.SEEN)
        while page := await self._messages.list(conversation.org, span, _SHOWN):
            for message in page:
                if conversations.is_shown(conversation, message):
                    return message
            span = span.beyond(page[-1].position)
        return None

    async def _taken(self, error: TakenError, draft: Draft, org: str, id_: str) -> Message | None:
        """Find what was added before; None when another one took the position."""
        if draft.part:
            found = await self._messages.of_turn(org, draft.execution_id, draft.part)
            if found is not None:
                return found
        if error.field == "request_key":
            raise error
        return await self._messages.get(org, id_)

    async def _kept(self, message: Message) -> Conversation:
        """Look whether the conversation counts a message that was stored; else it goes.

        Raises:
            DomainError: CONVERSATION_NOT_FOUND.
        """
        found = await self.load(message.org, message.conversation_id)
        if found is None or found.life.purging:
            # Whoever purges may have looked for messages before this one came.
            await self._messages.remove([message])
            raise conversations.not_found(message.conversation_id)
        return found
