"""Turns: a message, the run that answers it, and the answer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import replace

from services.conversations.domain import conversations, instances, messages, turns
from services.conversations.domain.conversations import Conversation
from services.conversations.domain.exchanges import Added, Asked, Filling, Told
from services.conversations.domain.histories import Ended, Outcome
from services.conversations.domain.messages import Draft, Message, Part, Showing, Span, Status, Type
from services.conversations.ports.conversations import Cast, Conversations
from services.conversations.ports.messages import Messages
from services.conversations.ports.turns import Stage
from services.conversations.usecases.histories import HistoryService
from services.conversations.usecases.transcripts import Transcript
from services.kit.errors import invalid
from services.kit.resources.locks import Locks
from services.kit.resources.ports import FencedError

MOST_TOLD = 2000
_TRIES = 200
"""Of the writers of many processes each loses to some of the others."""
_LOOKS = 5
"""How often a history is read anew because somebody changed the conversation meanwhile."""
_PAGE = 200
_OUTCOMES = {
    Status.COMPLETED: Outcome.SUCCEEDED,
    Status.FAILED: Outcome.FAILED,
    Status.CANCELLED: Outcome.CANCELLED,
}
_DONE = {
    Outcome.SUCCEEDED: instances.Status.COMPLETED,
    Outcome.FAILED: instances.Status.ERROR,
    Outcome.CANCELLED: instances.Status.PENDING,
}


class TurnService:
    """The turns of conversations.

    A run takes its place among the turns first, then its message is added, then the answer that is
    awaited; the place is let go when the answer is complete and the run counted. Whoever comes again
    does what is left to do. A turn that is withdrawn has the keys of its message and of its answer: so
    nobody who is late says anything in its name, or finds the conversation as it was.

    Args:
        clock: microseconds since the epoch.
        most_told: how many messages a run is told at most.
    """

    def __init__(
        self,
        stored: Conversations,
        said: Messages,
        transcript: Transcript,
        histories: HistoryService,
        cast: Cast,
        stage: Stage,
        *,
        clock: Callable[[], int],
        most_told: int = MOST_TOLD,
    ) -> None:
        self._conversations = stored
        self._messages = said
        self._transcript = transcript
        self._histories = histories
        self._cast = cast
        self._stage = stage
        self._clock = clock
        self._most_told = most_told
        self._locks = Locks()

    async def append(self, asked: Asked) -> Added:
        """Give a run its place, and add its message and an answer that is awaited.

        Raises:
            DomainError: INVALID_REQUEST, CONVERSATION_NOT_FOUND, INSTANCE_NOT_FOUND,
                MESSAGE_NOT_FOUND, AGENT_NOT_ALLOWED, CONVERSATION_BUSY, TURN_WITHDRAWN, CONFLICT.
        """
        if not asked.agent.agent_id:
            raise invalid("agent.agent_id", "is needed: who answers")
        # One after the other: so an answer comes right after its message, as long as one process adds.
        async with self._locks.of((asked.org, asked.conversation_id)):
            await self._take_place(asked)
            _, message = await self._said(asked, _question(asked))
            found, answer = await self._said(asked, _awaited(asked, message))
        placed = turns.placed(found.turns, asked.execution_id)
        if asked.agent.instance_id and answer.status is Status.PENDING:
            running, queued = instances.Status.RUNNING, instances.Status.QUEUED
            doing = queued if placed.place else running
            await self._stage.note(asked.org, asked.agent.instance_id, doing)
        return Added(message, answer, placed)

    async def read(self, org: str, execution_id: str, conversation_id: str, max_bytes: int) -> Told:
        """Read what was said before the answer of a run: the newest that fits, and how much did not.

        Args:
            max_bytes: how many bytes of UTF-8 the messages may have together.

        Raises:
            DomainError: TURN_NOT_FOUND, TURN_WITHDRAWN.
        """
        looks = 0
        while True:
            message, answer = await self._turn(org, execution_id, conversation_id)
            found = await self._transcript.load(org, conversation_id)
            if message is None or found is None or found.life.purging:
                raise turns.not_found(execution_id, conversation_id)
            place = turns.placed(found.turns, execution_id).place
            if place:
                return Told(found, place)
            told = await self._told(found, message, answer, max_bytes)
            now = await self._conversations.get(org, conversation_id)
            looks += 1
            if now is None or now.version == found.version or looks == _LOOKS:
                return told

    async def fill(self, filling: Filling) -> Message | None:
        """Complete the answer of a run, count the run, and let its place go; the first one that comes.

        Returns:
            The answer as it is kept; None without a conversation.

        Raises:
            DomainError: TURN_NOT_FOUND, TURN_WITHDRAWN, CONFLICT.
        """
        answer = None
        if filling.conversation_id:
            answer = await self._filled(filling)
            filling = replace(
                filling,
                agent=answer.agent or filling.agent,
                status=answer.status,
                content=answer.content,
                error_reason=answer.error_reason,
            )
        outcome = _OUTCOMES[filling.status]
        if not filling.agent.agent_id:
            raise invalid("agent.agent_id", "is needed: who answered")
        await self._histories.record(
            Ended(
                filling.org,
                filling.execution_id,
                filling.agent.agent_id,
                outcome,
                filling.duration,
                instance_id=filling.agent.instance_id,
                conversation_id=filling.conversation_id,
                question=filling.question,
                answer=filling.content,
                error_reason=filling.error_reason,
            )
        )
        found = None
        if filling.conversation_id:
            found = await self._leave(filling.org, filling.conversation_id, filling.execution_id)
            if found is None:
                # Nothing of what was said stays, and whoever purged it may have looked before this.
                await self._histories.forget(filling.org, [filling.execution_id])
        instance_id = filling.agent.instance_id
        if instance_id and not await self._stage.note(filling.org, instance_id, _DONE[outcome]):
            # Its history goes with it, and whoever purged it may have looked before this run was counted.
            await self._histories.purge(filling.org, instance_id)
        if found is not None and found.turns:
            await self._note_first(found)
        return answer

    async def withdraw(self, org: str, execution_id: str, conversation_id: str) -> None:
        """Take a turn back: what it said is deleted for good, and nothing is said in its name any more.

        Raises:
            DomainError: CONFLICT; TURN_NOT_FOUND when it is one of another conversation.
        """
        for part in (Part.USER, Part.ANSWER):
            found = await self._transcript.load(org, conversation_id)
            if found is None or found.life.purging:
                # It takes all its messages along, and no turn is added to it.
                return
            message = await self._withdrawn(org, execution_id, conversation_id, part)
            await self._transcript.decide(
                org,
                conversation_id,
                message.id,
                lambda one: (True, one.hidden),
                include_deleted=True,
                withdrawn=True,
            )
        await self._leave(org, conversation_id, execution_id)

    async def _take_place(self, asked: Asked) -> None:
        """Give a run its place, unless it has one, or had."""
        for _ in range(_TRIES):
            found = await self._transcript.get(
                asked.org, asked.conversation_id, include_deleted=True
            )
            # In this order: whoever ended the turn since has changed the conversation, too.
            _, answer = await self._turn(asked.org, asked.execution_id, asked.conversation_id)
            if found.answers(asked.execution_id) or answer is not None:
                return
            await self._check(found, asked)
            placed = turns.added(
                found.turns, asked.execution_id, asked.policy, asked.conversation_id
            )
            with suppress(FencedError):
                await self._conversations.save(
                    conversations.touched(replace(found, turns=placed.turns), self._clock())
                )
                return
        raise conversations.contended(asked.conversation_id)

    async def _check(self, found: Conversation, asked: Asked) -> None:
        """Check that a turn may be added."""
        if not found.life.live:
            raise conversations.is_deleted(found)
        conversations.check_agent_allowed(found, asked.agent.agent_id)
        if asked.reply_to:
            await self._transcript.message(found, asked.reply_to, "reply_to")
        if asked.agent.instance_id:
            placed = await self._cast.reference(asked.org, asked.agent.instance_id)
            if placed.agent_id != asked.agent.agent_id:
                raise invalid(
                    "agent.agent_id",
                    f"is {asked.agent.agent_id}, but {asked.agent.instance_id} is an instance of "
                    f"{placed.agent_id}",
                )

    async def _said(self, asked: Asked, draft: Draft) -> tuple[Conversation, Message]:
        """Add a message of a turn, unless it is there."""
        found, message = await self._transcript.append(
            asked.org, asked.conversation_id, draft, include_deleted=True
        )
        if message.withdrawn:
            # Whoever withdraws it lets go of the place, too, at the end.
            raise turns.withdrawn(asked.execution_id)
        return found, message

    async def _turn(
        self, org: str, execution_id: str, conversation_id: str
    ) -> tuple[Message | None, Message | None]:
        """Read the message and the answer of a turn.

        Raises:
            DomainError: TURN_WITHDRAWN; TURN_NOT_FOUND when it is one of another conversation.
        """
        message = await self._messages.of_turn(org, execution_id, Part.USER)
        answer = await self._messages.of_turn(org, execution_id, Part.ANSWER)
        for one in (message, answer):
            if one is not None and one.conversation_id != conversation_id:
                raise turns.not_found(execution_id, conversation_id)
            if one is not None and one.withdrawn:
                raise turns.withdrawn(execution_id)
        return message, answer

    async def _told(
        self, found: Conversation, message: Message, answer: Message | None, max_bytes: int
    ) -> Told:
        """Read the newest messages that fit, and count the others without reading them."""
        # Up to the answer: when several processes add turns, the answer of another one may stand between.
        end = message.position if answer is None else answer.position
        waiting = {turn.execution_id for turn in found.turns} | {message.execution_id}
        late, newer = await self._behind(found, end, waiting)
        chosen: list[Message] = []
        room = max_bytes
        async for one in self._before(found, end, late):
            if one.execution_id in waiting:
                continue
            room -= one.content_bytes
            if room < 0 or len(chosen) == self._most_told:
                break
            chosen.append(one)
        whole = await self._messages.whole(chosen[::-1])
        told = [one for one in whole if conversations.is_told(found, one)]
        others = newer + await self._waiting(found, end, waiting) + len(told)
        return Told(found, 0, told, max(found.told_count - others, 0))

    async def _before(
        self, found: Conversation, end: int, late: Sequence[Message]
    ) -> AsyncIterator[Message]:
        """Read what may be told, newest first."""
        for one in reversed(late):
            yield one
        span = Span(found.id, before=end, newest_first=True, showing=Showing.TOLD)
        while page := await self._messages.list(found.org, span, _PAGE):
            for one in page:
                yield one
            if len(page) < _PAGE:
                break
            span = replace(span, before=page[-1].position)

    async def _behind(
        self, found: Conversation, end: int, waiting: Collection[str]
    ) -> tuple[Sequence[Message], int]:
        """Look for turns that came before one although their messages stand behind its answer.

        They were added at the same time, by other processes: so they are close.

        Args:
            end: the position of the answer.
            waiting: the runs that have not ended.

        Returns:
            What they said, and how many other messages are told behind the answer.
        """
        span = Span(found.id, after=end, showing=Showing.TOLD)
        near = await self._messages.list(found.org, span, _PAGE)
        answered = {
            one.execution_id
            for one in near
            if one.part is Part.ANSWER and one.execution_id not in waiting
        }
        late = [one for one in near if one.part and one.execution_id in answered]
        count = len(near)
        if count == _PAGE:
            span = replace(span, after=near[-1].position)
            count += await self._messages.count(found.org, span, found.told_count)
        return late, count - len(late)

    async def _waiting(self, found: Conversation, end: int, waiting: Collection[str]) -> int:
        """Count the messages up to an answer that are told, but not to its run: those not answered yet."""
        count = 0
        for execution_id in waiting:
            for part in (Part.USER, Part.ANSWER):
                one = await self._messages.of_turn(found.org, execution_id, part)
                if one is not None and one.position <= end:
                    count += conversations.is_told(found, one)
        return count

    async def _filled(self, filling: Filling) -> Message:
        """Complete an answer that is awaited, unless somebody did."""
        org, execution_id = filling.org, filling.execution_id
        while True:
            _, answer = await self._turn(org, execution_id, filling.conversation_id)
            if answer is None:
                raise turns.not_found(execution_id, filling.conversation_id)
            if answer.status is not Status.PENDING:
                return answer
            filled = messages.filled(
                answer,
                filling.status,
                filling.content,
                self._clock(),
                error_reason=filling.error_reason,
                error_message=filling.error_message,
            )
            with suppress(FencedError):
                return await self._messages.save(filled)

    async def _leave(
        self, org: str, conversation_id: str, execution_id: str
    ) -> Conversation | None:
        """Let the place of a run go, if it has one; from then on its answer counts.

        Returns:
            The conversation; None when it is gone, or about to be.
        """
        for _ in range(_TRIES):
            found = await self._transcript.load(org, conversation_id)
            if found is None or found.life.purging:
                return None
            if not found.answers(execution_id):
                return found
            # In this order: whoever changes the answer since has changed the conversation, too.
            answer = await self._messages.of_turn(org, execution_id, Part.ANSWER)
            after = conversations.left(found, execution_id, answer, self._clock())
            with suppress(FencedError):
                return await self._conversations.save(after)
        raise conversations.contended(conversation_id)

    async def _note_first(self, found: Conversation) -> None:
        """Note that the instance whose turn it is runs."""
        first = found.turns[0].execution_id
        answer = await self._messages.of_turn(found.org, first, Part.ANSWER)
        if answer is not None and answer.agent is not None and answer.agent.instance_id:
            await self._stage.note(found.org, answer.agent.instance_id, instances.Status.RUNNING)

    async def _withdrawn(
        self, org: str, execution_id: str, conversation_id: str, part: Part
    ) -> Message:
        """Take the key of a message of a turn, or withdraw the message that has it."""
        nothing = Draft(
            Type.USER if part is Part.USER else Type.AGENT,
            "",
            "",
            Status.CANCELLED,
            execution_id=execution_id,
            part=part,
            withdrawn=True,
        )
        while True:
            message = await self._messages.of_turn(org, execution_id, part)
            if message is None:
                _, message = await self._transcript.append(
                    org, conversation_id, nothing, include_deleted=True
                )
            if message.conversation_id != conversation_id:
                raise turns.not_found(execution_id, conversation_id)
            if message.withdrawn:
                return message
            with suppress(FencedError):
                return await self._messages.save(messages.withdrawn(message, self._clock()))


def _question(asked: Asked) -> Draft:
    return Draft(
        Type.USER,
        asked.input,
        asked.author,
        reply_to=asked.reply_to,
        execution_id=asked.execution_id,
        part=Part.USER,
    )


def _awaited(asked: Asked, message: Message) -> Draft:
    return Draft(
        Type.AGENT,
        "",
        f"agent:{asked.agent.agent_id}",
        Status.PENDING,
        agent=asked.agent,
        reply_to=message.id,
        execution_id=asked.execution_id,
        part=Part.ANSWER,
    )
