"""Making, reading, changing, deleting and listing conversations."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from services.conversations.domain import conversations
from services.conversations.domain.conversations import Asked, Conversation, Wanted
from services.conversations.domain.messages import Part, Reference, Showing, Span
from services.conversations.ports.conversations import Conversations, Runs
from services.conversations.ports.messages import Messages
from services.conversations.usecases.references import References
from services.conversations.usecases.transcripts import Transcript
from services.kit.errors import DomainError, Reason, invalid, naming
from services.kit.resources import deletions, etags, request_ids
from services.kit.resources.cascades import Cascades
from services.kit.resources.ports import FencedError, TakenError

_TRIES = 50
_PAGE = 500
_RPC = "CreateConversation"


class ConversationService:
    """The conversations.

    Args:
        kept: lets a conversation follow what its screenplay did while it was made or taken back.
        clock: microseconds since the epoch.
        new_id: makes ids of conversations.
        new_deletion_id: makes ids of deletions, in the order they are made in.
    """

    def __init__(
        self,
        stored: Conversations,
        transcript: Transcript,
        references: References,
        cascades: Cascades[Conversation],
        *,
        kept: Callable[[Conversation], Awaitable[Conversation]],
        clock: Callable[[], int],
        new_id: Callable[[], str],
        new_deletion_id: Callable[[], str],
    ) -> None:
        self._conversations = stored
        self._transcript = transcript
        self._references = references
        self._cascades = cascades
        self._kept = kept
        self._clock = clock
        self._new_id = new_id
        self._new_deletion_id = new_deletion_id

    async def create(self, org: str, asked: Asked) -> Conversation:
        """Make a conversation; a repeated request_id answers the one it made before.

        Raises:
            DomainError: INVALID_REQUEST, SCREENPLAY_NOT_FOUND, AGENT_NOT_FOUND, INSTANCE_NOT_FOUND,
                AGENT_NOT_ALLOWED, REQUEST_ID_REUSED, CONFLICT, SERVICE_UNAVAILABLE.
        """
        asked = replace(asked, values=conversations.tidy(asked.values))
        digest = conversations.digest_of(asked) if asked.request_id else ""
        looked_up: Asked | None = None
        for _ in range(_TRIES):
            if asked.request_id:
                earlier = await self._conversations.by_request_id(org, _RPC, asked.request_id)
                if earlier is not None and not earlier.life.purging:
                    request_ids.same_request(digest, earlier.digest, earlier.resource)
                    return earlier
            if looked_up is None:
                values = await self._looked_up(org, asked.values, ())
                looked_up = replace(asked, values=values)
            made = conversations.made(org, self._new_id(), looked_up, self._clock(), digest)
            try:
                return await self._kept(await self._conversations.add(made))
            except TakenError:
                continue
        raise conversations.contended("")

    async def made_by(self, org: str, request_id: str) -> Conversation | None:
        """Find the conversation that a request_id made, deleted or not."""
        return await self._conversations.by_request_id(org, _RPC, request_id)

    async def get(
        self, org: str, conversation_id: str, *, include_deleted: bool = False
    ) -> Conversation:
        """Read a conversation with its context.

        Raises:
            DomainError: CONVERSATION_NOT_FOUND.
        """
        return await self._transcript.get(org, conversation_id, include_deleted=include_deleted)

    async def list(
        self, org: str, wanted: Wanted, after: tuple[int | str, str] | None, limit: int
    ) -> Sequence[Conversation]:
        """Read a page of conversations, without their contexts."""
        return await self._conversations.list(org, wanted, after, limit)

    def place(self, conversation: Conversation, wanted: Wanted) -> tuple[int | str, str]:
        """Tell the place of a conversation in a list."""
        return self._conversations.place(conversation, wanted)

    async def update(
        self,
        org: str,
        conversation_id: str,
        values: Mapping[str, Any],
        etag: str,
        *,
        force: bool,
    ) -> Conversation:
        """Change a conversation; what changes nothing leaves its etag as it is.

        Args:
            values: by the names of the fields that change.
            etag: the one the change started from.
            force: whether to change it whatever its etag is.

        Raises:
            DomainError: INVALID_REQUEST, CONVERSATION_NOT_FOUND, AGENT_NOT_FOUND, INSTANCE_NOT_FOUND,
                AGENT_NOT_ALLOWED, ETAG_MISMATCH, CONFLICT, SERVICE_UNAVAILABLE.
        """
        tidied = conversations.tidy(values)
        before = await self.get(org, conversation_id)
        given = await self._looked_up(org, tidied, before.allowed_agents)

        def change(stored: Conversation) -> Conversation | None:
            changed = conversations.changed(stored, given, self._clock())
            etags.check(
                etag,
                stored.etag,
                force=force,
                required=True,
                what=stored.resource,
                changes=changed is not None,
            )
            return changed

        return await self._transcript.change(org, conversation_id, change)

    async def set_title(self, org: str, conversation_id: str, title: str) -> Conversation:
        """Set the title, whatever else changes meanwhile.

        Raises:
            DomainError: INVALID_REQUEST, CONVERSATION_NOT_FOUND, CONFLICT.
        """
        title = conversations.normal_title(title, "new_title")
        return await self.set(org, conversation_id, {"title": title})

    async def set_context(
        self, org: str, conversation_id: str, context: str, at: str
    ) -> Conversation:
        """Set the context, whatever else changes meanwhile.

        Args:
            at: the field of the request that holds it.

        Raises:
            DomainError: INVALID_REQUEST, CONVERSATION_NOT_FOUND, CONFLICT.
        """
        conversations.check_context(context, at)
        return await self.set(org, conversation_id, {"context": context})

    async def set_active_agent(
        self, org: str, conversation_id: str, agent: Reference | None
    ) -> Conversation:
        """Set who answers messages that name no agent, whatever else changes meanwhile.

        Args:
            agent: None for the default one.

        Raises:
            DomainError: INVALID_REQUEST, CONVERSATION_NOT_FOUND, AGENT_NOT_FOUND, INSTANCE_NOT_FOUND,
                AGENT_NOT_ALLOWED, CONFLICT, SERVICE_UNAVAILABLE.
        """
        await self.get(org, conversation_id)
        found = await self._references.resolved(org, agent, "agent_info")
        return await self.set(org, conversation_id, {"active_agent": found})

    async def set(self, org: str, conversation_id: str, values: Mapping[str, Any]) -> Conversation:
        """Change a conversation whatever else changes meanwhile.

        Args:
            values: by the names of the fields that change; what they name was looked up.

        Raises:
            DomainError: INVALID_REQUEST, CONVERSATION_NOT_FOUND, AGENT_NOT_ALLOWED, CONFLICT.
        """
        tidied = conversations.tidy(values, "")
        return await self._transcript.change(
            org,
            conversation_id,
            lambda stored: conversations.changed(stored, tidied, self._clock()),
        )

    async def reorder(self, org: str, places: Sequence[tuple[str, float]]) -> int:
        """Set the places of conversations in lists ordered by hand; returns how many.

        Args:
            places: ids and places.

        Raises:
            DomainError: INVALID_REQUEST, CONVERSATION_NOT_FOUND, CONFLICT; nothing happened, but for
                CONFLICT on some stores.
        """
        wanted = dict(places)
        if len(wanted) < len(places):
            raise invalid("order_updates", "must name each conversation once")
        for _ in range(_TRIES):
            found = [await self._transcript.get(org, id_) for id_ in wanted]
            changed = [
                moved
                for one in found
                if (moved := conversations.changed(one, _place(wanted[one.id]), self._clock()))
            ]
            try:
                await self._conversations.save_all(changed)
            except FencedError:
                continue
            return len(wanted)
        raise conversations.contended(places[0][0])

    async def delete(self, org: str, conversation_id: str, etag: str, *, purge: bool) -> None:
        """Delete a conversation with all that belongs to it.

        Args:
            etag: the one it has to have; empty for any.
            purge: whether it goes for good, deleted before or not.

        Raises:
            DomainError: CONVERSATION_NOT_FOUND, ETAG_MISMATCH, CONFLICT.
        """

        def change(stored: Conversation) -> Conversation:
            etags.check(etag, stored.etag, force=False, required=False, what=stored.resource)
            return self._gone(stored, purge=purge)

        going = await self._transcript.change(org, conversation_id, change, include_deleted=purge)
        await self._cascades.finish(going, conversation_id)

    async def forget_visitors(self, before: int) -> int:
        """Let the talks of visitors go for good that did not change since some time.

        Args:
            before: that time, in microseconds since the epoch.

        Returns:
            How many those were, in all organisations.
        """
        forgotten = 0
        after = None
        while page := await self._conversations.of_visitors(before, after, _PAGE):
            after = page[-1].create_time, page[-1].id
            for one in page:
                forgotten += one.update_time < before and await self._forget(one, before)
        return forgotten

    async def undelete(self, org: str, conversation_id: str) -> Conversation:
        """Take a deleted conversation back; one that is not deleted is answered as it is.

        Raises:
            DomainError: CONVERSATION_NOT_FOUND, SCREENPLAY_NOT_FOUND, CONFLICT, SERVICE_UNAVAILABLE.
        """
        found = await self.get(org, conversation_id, include_deleted=True)
        if not found.life.live and not found.life.inherited and found.screenplay_id:
            await self._references.check_screenplay(found.screenplay_id)

        def change(stored: Conversation) -> Conversation | None:
            if stored.life.live:
                return None
            if stored.life.inherited:
                raise conversations.went_with_screenplay(stored)
            return replace(stored, life=deletions.undeleted(stored.life))

        back = await self._transcript.change(org, conversation_id, change, include_deleted=True)
        await self._cascades.finish(back, conversation_id)
        await self._kept(back)
        return await self.get(org, conversation_id)

    def _gone(self, stored: Conversation, *, purge: bool) -> Conversation:
        life = deletions.deleted(stored.life, self._new_deletion_id(), self._clock())
        return replace(stored, life=deletions.purging(life) if purge else life)

    async def _forget(self, talk: Conversation, before: int) -> bool:
        def change(stored: Conversation) -> Conversation | None:
            return self._gone(stored, purge=True) if stored.update_time < before else None

        try:
            going = await self._transcript.change(talk.org, talk.id, change, include_deleted=True)
        except DomainError as error:
            if error.reason != Reason.REASON_CONVERSATION_NOT_FOUND:
                raise
            # Another process was faster.
            return False
        if going.life.purging:
            await self._cascades.finish(going, going.id)
        return going.life.purging

    async def _looked_up(
        self,
        org: str,
        values: Mapping[str, Any],
        known: Collection[str],
    ) -> Mapping[str, Any]:
        """Look up what is named for the first time.

        Args:
            known: agents that were looked up before.
        """
        found = dict(values)
        for number, agent_id in enumerate(found.get("allowed_agents", ())):
            if agent_id not in known:
                at = f"conversation.allowed_agents[{number}]"
                with naming({Reason.REASON_AGENT_NOT_FOUND: at}):
                    await self._references.check_agent(agent_id)
        active: Reference | None = found.get("active_agent")
        if active is not None:
            found["active_agent"] = await self._references.resolved(
                org, active, "conversation.active_agent"
            )
        if screenplay_id := found.get("screenplay_id"):
            with naming({Reason.REASON_SCREENPLAY_NOT_FOUND: "conversation.screenplay_id"}):
                await self._references.check_screenplay(screenplay_id)
        return found


class MessageKin:
    """The messages of a conversation: they are seen with it alone, and go for good with it.

    So does what histories show of the runs that answered there.
    """

    def __init__(self, said: Messages, runs: Runs) -> None:
        self._messages = said
        self._runs = runs

    async def mark(self, org: str, parent_id: str, deletion: str, time: int) -> None:
        """Leave them: who is deleted shows no messages."""

    async def unmark(self, org: str, parent_id: str, deletion: str) -> None:
        """Leave them."""

    async def purge(self, org: str, parent_id: str) -> None:
        """Remove them."""
        every = Span(parent_id, newest_first=True, showing=Showing.ALL)
        while page := await self._messages.list(org, every, _PAGE):
            answers = (one.execution_id for one in page if one.part is Part.ANSWER)
            await self._runs.forget(org, answers)
            await self._messages.remove(page)


def _place(display_order: float) -> Mapping[str, Any]:
    return conversations.tidy({"display_order": display_order})
