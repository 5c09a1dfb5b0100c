"""Runs in conversations: taken in before they run, told of there when they end.

A run that is to answer in a conversation is stored as held. Its message is added to the conversation,
which gives it its place, and only then it is let go to wait for its turn. Whatever falls between these
steps is done again: the stored errand says what is left, and its version says whose hands it is in.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace

from services.execution import domain
from services.execution.domain import (
    Appended,
    Asked,
    BusyPolicy,
    Errand,
    Execution,
    Filling,
    Placement,
    Talk,
    Waiting,
)
from services.execution.ports import (
    AwayError,
    Conversations,
    Executions,
    FencedError,
    Left,
    Wakeups,
    WorkQueue,
)
from services.execution.usecases.channels import turn_channel, work_item
from services.execution.usecases.logs import whole_log
from services.kit.errors import DomainError, Resource, invalid
from services.kit.resources.conflicts import contended
from services.kit.resources.locks import Locks

_LOG = logging.getLogger(__name__)
_TRIES = 6
_FIRST_PAUSE = 0.1
_FILL_SECONDS = 2.0
"""How long an end without a worker waits for its conversation."""

Stop = Callable[[str, str, str], Awaitable[object]]
"""Cancels a run of an organisation, by a caller's name, if there is still something to cancel."""


class Talks:
    """Takes runs into conversations, and tells these how the runs ended."""

    def __init__(
        self,
        executions: Executions,
        conversations: Conversations,
        queue: WorkQueue,
        wakeups: Wakeups,
    ) -> None:
        self._executions = executions
        self._conversations = conversations
        self._queue = queue
        self._wakeups = wakeups
        # Those who interrupt one another want to take each other in: one does it for all of a process.
        # A run waits for those that were added before it alone, so nobody waits in a circle.
        self._locks = Locks()

    # Before a run

    async def placed(self, org: str, asked: Asked) -> Placement:
        """Find out who is to run, and where; asks nobody when neither is named.

        Raises:
            DomainError: INSTANCE_NOT_FOUND, CONVERSATION_NOT_FOUND, INVALID_REQUEST,
                FEATURE_UNAVAILABLE, SERVICE_UNAVAILABLE.
        """
        try:
            if asked.instance_id:
                return await self._as_instance(org, asked)
            if asked.conversation_id:
                return await self._as_active(org, asked)
        except AwayError as away:
            raise away.error from away
        return Placement(asked.agent_id)

    async def _as_instance(self, org: str, asked: Asked) -> Placement:
        found = await self._conversations.instance(org, asked.instance_id)
        if asked.agent_id not in {"", found.agent_id}:
            raise invalid(
                "agent_id", f"must be {found.agent_id}, the agent of the instance, or empty"
            )
        if asked.apart:
            return replace(found, conversation_id="")
        where = asked.conversation_id or found.conversation_id
        if where and not (found.screenplay_id or asked.screenplay_id):
            active = await self._conversations.active(org, where)
            found = replace(found, screenplay_id=active.screenplay_id)
        return replace(found, conversation_id=where)

    async def _as_active(self, org: str, asked: Asked) -> Placement:
        """Let the agent that is asked for answer, else the one that does by itself."""
        where = asked.conversation_id
        active = await self._conversations.active(org, where)
        if asked.agent_id:
            screenplay_id = active.screenplay_id
            return Placement(asked.agent_id, conversation_id=where, screenplay_id=screenplay_id)
        if active.instance_id:
            with suppress(DomainError):
                found = await self._conversations.instance(org, active.instance_id)
                screenplay_id = found.screenplay_id or active.screenplay_id
                return replace(found, conversation_id=where, screenplay_id=screenplay_id)
        # An instance that was deleted leaves its agent to answer.
        return replace(active, instance_id="", conversation_id=where)

    async def open(self, org: str, asked: Asked) -> str:
        """Find the conversation of a session, or make a new one; returns its id.

        Raises:
            DomainError: as `placed`; AGENT_NOT_FOUND, SCREENPLAY_NOT_FOUND, REQUEST_ID_REUSED.
        """
        found = await self.placed(org, asked)
        try:
            if not found.conversation_id:
                if asked.screenplay_id:
                    found = replace(found, screenplay_id=asked.screenplay_id)
                return await self._conversations.create(org, found, asked.request_id)
            if asked.instance_id:
                await self._conversations.active(org, found.conversation_id)
        except AwayError as away:
            raise away.error from away
        return found.conversation_id

    @staticmethod
    def talk(placement: Placement, asked: Asked, author: str) -> Talk | None:
        """Make a run's part in a conversation; None for a run of none that is no instance's."""
        if not (placement.conversation_id or placement.instance_id):
            return None
        return Talk(
            BusyPolicy(asked.busy_policy or BusyPolicy.QUEUE),
            asked.reply_to,
            author,
            placement.emoji,
        )

    async def enter(self, execution: Execution, stop: Stop, *, fresh: bool) -> Execution:
        """Take a held run into its conversation, and let it wait for its turn.

        Args:
            stop: for runs that it interrupts.
            fresh: whether it was stored just now, so that nobody else can have tried.

        Raises:
            DomainError: its conversation refuses it, or nobody can tell; then the run is no more.
                CONFLICT: others have it in their hands, again and again.
        """
        async with self._locks.of((execution.org, execution.id)):
            if not fresh:
                execution = await self._still(execution)
                if not execution.held:
                    return execution
            return await self._entered(execution, stop, fresh=fresh)

    async def _entered(self, execution: Execution, stop: Stop, *, fresh: bool) -> Execution:
        """Take a held run in that others may take in at the same time, in other processes."""
        pause = _FIRST_PAUSE
        for _ in range(_TRIES):
            with suppress(FencedError):
                if not fresh:
                    # Who holds its newest version decides; whoever had it before sees that.
                    execution = await self._executions.save(execution)
                return await self._take_in(execution, stop, fresh=fresh)
            fresh = False
            # Whoever was faster is about to be done, unless all who want the same are as fast again.
            await asyncio.sleep(pause)
            pause *= 2
            execution = await self._still(execution)
            if not execution.held:
                return execution
        raise contended(Resource("execution", execution.id))

    async def joined(self, execution: Execution) -> Execution:
        """Add the message of a held run that is about to be cancelled, and leave storing it to that.

        What it was to interrupt goes on, or is cancelled by whoever started it: of many that interrupt
        one another at once each would else do so in the name of all the others.

        Raises:
            DomainError: its conversation refuses it, or nobody can tell.
            FencedError: somebody changed it meanwhile.
        """
        async with self._locks.of((execution.org, execution.id)):
            execution = await self._still(execution)
            if not execution.held:
                return execution
            if execution.version == 1:
                # Whoever stored it deletes it when it is refused, if nobody else can have tried.
                execution = await self._executions.save(execution)
            try:
                return domain.admit(execution, await self._conversations.append(execution))
            except AwayError as away:
                raise away.error from away

    async def _still(self, execution: Execution) -> Execution:
        """Read a run again that was held.

        Raises:
            DomainError: TURN_WITHDRAWN.
        """
        found = await self._executions.get(execution.org, execution.id)
        if found is None:
            raise domain.withdrawn(execution.id)
        return found

    async def resume(self, left: Left, stop: Stop) -> None:
        """Go on with a run that somebody left held.

        Raises:
            AwayError: nobody can tell now whether its conversation takes it.
        """
        found = await self._executions.get(left.org, left.id)
        if found is None or not found.held:
            return
        with suppress(FencedError):
            held = await self._executions.save(found)
            try:
                appended = await self._conversations.append(held)
            except DomainError as error:
                _LOG.info("run %s is not taken into its conversation: %s", left.id, error)
                await self._executions.save(domain.take_back(held))
                return
            await self._admit(held, appended, stop)

    async def withdraw(self, left: Left) -> None:
        """Take back what may be in a conversation of a run that never came to be, then the run.

        Raises:
            AwayError: it is not known to be taken back.
        """
        try:
            await self._conversations.withdraw(left)
        except DomainError as error:
            _LOG.info("the turn of run %s needs not be withdrawn: %s", left.id, error)
        with suppress(FencedError):
            await self._executions.delete(left)
        await self._told(left.org, left.conversation_id)

    async def _take_in(self, execution: Execution, stop: Stop, *, fresh: bool) -> Execution:
        """Add the message of a run and let it go; else undo the run, unless it is in other hands.

        Raises:
            DomainError: why it was undone.
            FencedError: it is in other hands.
        """
        was_added = True
        try:
            try:
                appended = await self._conversations.append(execution)
            except DomainError:
                # Where somebody else may have tried as well, nobody knows.
                was_added = not fresh
                raise
            return await self._admit(execution, appended, stop)
        except AwayError as away:
            await self._executions.save(domain.take_back(execution))
            raise away.error from away
        except DomainError:
            if was_added:
                await self._executions.save(domain.take_back(execution))
            else:
                await self._executions.delete(execution)
            raise

    async def _admit(self, execution: Execution, appended: Appended, stop: Stop) -> Execution:
        caller = f"turn:{execution.id}"
        await asyncio.gather(*(stop(execution.org, id_, caller) for id_ in appended.interrupted))
        admitted = await self._executions.save(domain.admit(execution, appended))
        order = admitted.order
        await self._queue.put(work_item(Waiting(admitted.org, order.priority, admitted.id)))
        return admitted

    # At its turn

    async def place(self, execution: Execution) -> int:
        """Count the runs that answer before one in its conversation.

        Raises:
            AwayError: nobody can tell now.
        """
        talk = execution.talk
        if talk is None or not execution.order.conversation_id or not talk.place:
            return 0
        try:
            return await self._conversations.place(execution)
        except DomainError as error:
            # There is no turn any more that it could wait for.
            _LOG.info("run %s has no place in its conversation: %s", execution.id, error)
            return 0

    # After it

    async def tell(self, filling: Filling) -> None:
        """Complete the answer of a run, and let the next one in its conversation know.

        Raises:
            AwayError: it is not known to be complete.
        """
        try:
            await self._conversations.fill(filling)
        except DomainError as error:
            # Its conversation is gone for good, and its history with it.
            _LOG.info("nothing waits for the answer of run %s: %s", filling.execution_id, error)
        await self._told(filling.org, filling.conversation_id)

    async def settle(self, execution: Execution) -> Execution | None:
        """Tell of a run that ended without its conversation knowing; returns it as stored then.

        None when that cannot be done now; the sweep tries again.
        """
        try:
            async with asyncio.timeout(_FILL_SECONDS):
                return await self.finish(execution)
        except (AwayError, DomainError, TimeoutError) as error:
            _LOG.info("the answer of run %s waits: %r", execution.id, error)
            return None

    async def finish(self, execution: Execution) -> Execution:
        """Tell of a run that ended, if that is left to be done, and note that it is done.

        Raises:
            AwayError: it is not known to be told.
        """
        if execution.errand is not Errand.FILL:
            return execution
        # What was cancelled has no result, but was perhaps about to have one.
        log = await whole_log(self._executions, execution.org, execution.id)
        said = domain.said(execution, domain.follow(log))
        await self.tell(domain.filling(execution, said))
        filled = domain.filled(execution)
        with suppress(FencedError):
            return await self._executions.save(filled)
        # Somebody else has told of it, too.
        return filled

    async def _told(self, org: str, conversation_id: str) -> None:
        if conversation_id:
            await self._wakeups.publish(turn_channel(org, conversation_id))
