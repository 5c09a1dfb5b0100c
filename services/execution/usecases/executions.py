"""Starting, reading, cancelling and deleting executions."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from services.execution import domain
from services.execution.domain import (
    AgentSnapshot,
    Asked,
    ContextMode,
    Errand,
    Execution,
    Filter,
    Order,
    Placement,
    State,
    Turns,
    Waiting,
    Wish,
)
from services.execution.ports import (
    Agents,
    Executions,
    FencedError,
    Metrics,
    QueueFullError,
    RequestIdTakenError,
    Screenplays,
    Traces,
    Wakeups,
    WorkQueue,
)
from services.execution.usecases.catalogue import Catalogue
from services.execution.usecases.channels import events_channel, stop_channel, work_item
from services.execution.usecases.logs import repair, whole_log
from services.execution.usecases.talks import Talks
from services.kit.errors import DomainError, Reason, Resource, invalid
from services.kit.resources.conflicts import contended

_OVER = frozenset(
    {
        Reason.REASON_EXECUTION_NOT_FOUND,
        Reason.REASON_EXECUTION_FINISHED,
        Reason.REASON_TURN_WITHDRAWN,
    }
)
"""Why a run cannot be cancelled: it does no more, or never did."""
_DEFAULT_AGENT = "default"
_CANCEL_TRIES = 200
_DELETE_TRIES = 10
_START_TRIES = 10
_INTERRUPTED = (State.QUEUED, State.RUNNING)
"""Those that wait first, so that none of them begins meanwhile."""
_MOST_INTERRUPTED = 200


@dataclass(frozen=True, slots=True)
class Terms:
    """What a run gets that asks for nothing, and the most it may ask for; None is no limit."""

    timeout_ms: int = 600_000
    most_timeout_ms: int = 86_400_000
    max_output_tokens: int | None = None
    most_output_tokens: int | None = None
    max_cost: int | None = None
    """Nano-dollars."""
    most_cost: int | None = None
    """Nano-dollars."""
    most_waiting: int = 10_000
    """How many runs may wait, those of all organisations together."""


class ExecutionService:
    """Starts, reads, cancels and deletes executions.

    Args:
        turns: what waits, as far as this process knows.
        clock: microseconds since the epoch.
        new_id: makes the id of an execution.
    """

    def __init__(
        self,
        executions: Executions,
        agents: Agents,
        screenplays: Screenplays,
        catalogue: Catalogue,
        queue: WorkQueue,
        wakeups: Wakeups,
        turns: Turns,
        metrics: Metrics,
        traces: Traces,
        talks: Talks,
        *,
        clock: Callable[[], int],
        new_id: Callable[[], str],
        terms: Terms,
    ) -> None:
        self._executions = executions
        self._agents = agents
        self._screenplays = screenplays
        self._catalogue = catalogue
        self._queue = queue
        self._wakeups = wakeups
        self._clock = clock
        self._new_id = new_id
        self._turns = turns
        self._metrics = metrics
        self._traces = traces
        self._talks = talks
        self._terms = terms

    async def start(self, org: str, asked: Asked, author: str = "") -> Execution:
        """Store a run and queue it; a repeated request_id answers the run it started before.

        One in a conversation has its message there once this returns.

        Args:
            author: who asks.

        Raises:
            DomainError: INVALID_REQUEST, FEATURE_UNAVAILABLE, AGENT_NOT_FOUND,
                PERSONA_VERSION_NOT_FOUND, SCREENPLAY_NOT_FOUND, SERVICE_UNAVAILABLE, MODEL_NOT_FOUND,
                PROVIDER_NOT_FOUND, PROVIDER_NOT_CONFIGURED, PRICE_UNKNOWN, REQUEST_ID_REUSED,
                QUEUE_FULL; CONVERSATION_NOT_FOUND, INSTANCE_NOT_FOUND, AGENT_NOT_ALLOWED,
                CONVERSATION_BUSY, MESSAGE_NOT_FOUND.
        """
        if not asked.input.strip():
            raise invalid("input", "must hold text that is not only white space")
        for _ in range(_START_TRIES):
            try:
                return await self._earlier(org, asked) or await self._new(org, asked, author)
            except RequestIdTakenError:
                continue
            except DomainError as error:
                # A run that somebody took back never was, and its request_id is free again.
                if error.reason != Reason.REASON_TURN_WITHDRAWN:
                    raise
        raise contended(Resource("execution", ""))

    async def _new(self, org: str, asked: Asked, author: str) -> Execution:
        """Store a run and queue it.

        Raises:
            RequestIdTakenError: somebody else did.
        """
        placement = await self._talks.placed(org, asked)
        order = await self._order(org, asked, placement)
        talk = self._talks.talk(placement, asked, author)
        execution, first = domain.accept(
            org, self._new_id(), order, asked, self._clock(), self._traces.here(), talk
        )
        try:
            await self._executions.start(execution, first, self._terms.most_waiting)
        except QueueFullError:
            if asked.request_id and await self._executions.by_request_id(org, asked.request_id):
                raise RequestIdTakenError from None
            raise domain.queue_full(self._terms.most_waiting) from None
        return await self._let_go(execution)

    async def _earlier(self, org: str, asked: Asked) -> Execution | None:
        """Find the run that a repeated request started, and do what was left of that."""
        if not asked.request_id:
            return None
        earlier = await self._executions.by_request_id(org, asked.request_id)
        if earlier is None:
            return None
        domain.same_request(earlier, asked)
        if not earlier.held:
            return earlier
        return await self._talks.enter(earlier, self.stop, fresh=False)

    async def _let_go(self, execution: Execution) -> Execution:
        """Let a run that was stored just now wait for its turn."""
        if execution.held:
            execution = await self._talks.enter(execution, self.stop, fresh=True)
        else:
            await self._queue.put(work_item(_waiting(execution)))
        if execution.order.screenplay_id:
            await self._screenplays.note_use(execution.org, execution.order.screenplay_id)
        return execution

    async def _order(self, org: str, asked: Asked, placement: Placement) -> Order:
        mode = domain.context_mode(asked, placement)
        if mode is ContextMode.INTERACTIVE and not placement.conversation_id:
            raise invalid("context_mode", "interactive runs need a conversation_id")
        agent_id = placement.agent_id or _DEFAULT_AGENT
        agent = await self._agents.get(org, agent_id, asked.persona_version)
        terms = self._terms
        timeout = _within("timeout", asked.timeout_ms, terms.timeout_ms, terms.most_timeout_ms, _ms)
        tokens = _within(
            "max_output_tokens",
            asked.max_output_tokens or None,
            terms.max_output_tokens,
            terms.most_output_tokens,
            str,
        )
        cost = _within("max_cost_usd", asked.max_cost, terms.max_cost, terms.most_cost, _usd)
        choices = self._catalogue.choose(
            Wish(asked.ai_provider, asked.model), asked.fallbacks, agent
        )
        if cost is not None:
            for choice in choices:
                if choice.price is None:
                    raise domain.price_unknown(choice, given=asked.max_cost is not None)
        screenplay_id = asked.screenplay_id or placement.screenplay_id
        cwd = asked.cwd or placement.cwd
        if screenplay_id:
            screenplay = await self._screenplays.get(org, screenplay_id)
            cwd = cwd or screenplay.working_directory
        return Order(
            input=asked.input,
            agent_id=agent.id,
            choices=choices,
            timeout_ms=timeout or terms.timeout_ms,
            cwd=cwd,
            metadata=asked.metadata,
            request_id=asked.request_id,
            conversation_id=placement.conversation_id,
            instance_id=placement.instance_id,
            priority=asked.priority or domain.DEFAULT_PRIORITY,
            max_output_tokens=tokens,
            max_cost=cost,
            agent=_with_servers(agent.snapshot, placement.mcp_servers),
            persona=agent.persona,
            instructions=agent.instructions,
            context_mode=mode,
            screenplay_id=screenplay_id,
            earlier_runs=domain.earlier_runs(mode, placement),
        )

    async def get(self, org: str, execution_id: str) -> Execution:
        """Read a run.

        Raises:
            DomainError: EXECUTION_NOT_FOUND.
        """
        return self._placed(await self._stored(org, execution_id))

    async def _stored(self, org: str, execution_id: str) -> Execution:
        execution = await self._executions.get(org, execution_id)
        if execution is None:
            raise domain.not_found(execution_id)
        return execution

    async def answer(self, org: str, execution_id: str, ended: Awaitable[None]) -> Execution:
        """Wait for the end of a run and read it.

        Raises:
            DomainError: what the run ended with, unless it succeeded; what kept us from waiting.
        """
        execution = await self.outcome(org, execution_id, ended)
        failed = domain.outcome(execution)
        if failed is not None:
            raise failed
        return execution

    async def outcome(self, org: str, execution_id: str, ended: Awaitable[None]) -> Execution:
        """Wait for the end of a run, whichever it is, and read it.

        Raises:
            DomainError: what kept us from waiting.
        """
        try:
            await ended
            return await self.get(org, execution_id)
        except DomainError as error:
            raise domain.about(error, execution_id) from error

    async def version(self, org: str, execution_id: str) -> int:
        """Read only the version of a run's document.

        Raises:
            DomainError: EXECUTION_NOT_FOUND.
        """
        version = await self._executions.version(org, execution_id)
        if version is None:
            raise domain.not_found(execution_id)
        return version

    async def list(
        self, org: str, where: Filter, after: tuple[int, str] | None, limit: int
    ) -> Sequence[Execution]:
        """Read a page of runs, newest first."""
        found = await self._executions.list(org, where, after, limit)
        return [self._placed(execution) for execution in found]

    def _placed(self, execution: Execution) -> Execution:
        """Add the place of a run that waits."""
        if not execution.waiting:
            return execution
        return replace(execution, position=self._turns.position(_waiting(execution)))

    async def cancel(self, org: str, execution_id: str, caller: str) -> Execution:
        """End a run as cancelled, whether or not a worker lives.

        Args:
            caller: who cancels, for the log.

        Raises:
            DomainError: EXECUTION_NOT_FOUND, EXECUTION_FINISHED, CONFLICT.
        """
        for _ in range(_CANCEL_TRIES):
            with suppress(FencedError):
                cancelled = await self._cancelled(org, execution_id, caller)
                if cancelled is not None:
                    return cancelled
        raise contended(Resource("execution", execution_id))

    async def _cancelled(self, org: str, execution_id: str, caller: str) -> Execution | None:
        """End a run as cancelled; None when something of it had to be repaired first.

        Raises:
            DomainError: as `cancel`, but for CONFLICT.
            FencedError: others changed it meanwhile.
        """
        execution = await self._stored(org, execution_id)
        if execution.held:
            execution = await self._talks.joined(execution)
        last = await self._executions.last_event(org, execution_id)
        if last is not None and domain.is_behind(execution, last):
            await repair(self._executions, execution)
            return None
        if execution.finished:
            if execution.state is domain.State.CANCELLED:
                return execution
            raise DomainError(
                Reason.REASON_EXECUTION_FINISHED,
                f"Execution {execution_id} has ended as {execution.state}; "
                "only one that has not ended can be cancelled.",
                resources=[Resource("execution", execution_id)],
            )
        if last is None:
            # The run was stored, and then something kept its first event from following.
            await self._executions.append(org, execution_id, 0, [domain.opening(execution)])
            return None
        if domain.is_apart(execution, last):
            log = await whole_log(self._executions, org, execution_id)
            execution, _ = domain.repair(execution, log)
        if execution.ending is not None:
            raise domain.is_ending(execution_id)
        cancelled, events = domain.cancel(execution, last, caller, self._clock())
        stored = await self._executions.commit(cancelled, last.sequence, events)
        self._metrics.ended(stored)
        await self._wakeups.publish(stop_channel(org, execution_id))
        if stored.errand is Errand.FILL:
            stored = await self._talks.settle(stored) or stored
        await self._wakeups.publish(events_channel(org, execution_id))
        return stored

    async def conclude(self, execution: Execution) -> None:
        """Tell the end of a run that was set aside, once its conversation has the answer.

        Raises:
            AwayError: it is not known to have it.
        """
        org, id_ = execution.org, execution.id
        projected, progress = domain.repair(execution, await whole_log(self._executions, org, id_))
        with suppress(FencedError):
            if projected.finished:
                # Somebody came no further than to append the end.
                await self._executions.save(projected)
                return
            said = domain.said(projected, progress)
            await self._talks.tell(domain.filling(projected, said))
            ended, events = domain.conclude(projected, progress.head, said, "", self._clock())
            stored = await self._executions.commit(ended, progress.head, events)
            self._metrics.ended(stored)
            await self._wakeups.publish(events_channel(org, id_))

    async def interrupt(self, org: str, conversation_id: str, caller: str) -> int:
        """Cancel the runs that answer in a conversation, or are about to; returns how many."""
        cancelled = 0
        for state in _INTERRUPTED:
            where = Filter(state=state, conversation_id=conversation_id)
            for execution in await self._executions.list(org, where, None, _MOST_INTERRUPTED):
                cancelled += await self.stop(org, execution.id, caller)
        return cancelled

    async def stop(self, org: str, execution_id: str, caller: str) -> bool:
        """Cancel a run if there is still something to cancel; tells whether there was.

        Raises:
            DomainError: CONFLICT.
        """
        try:
            await self.cancel(org, execution_id, caller)
        except DomainError as error:
            if error.reason not in _OVER:
                raise
            return False
        return True

    async def delete(self, org: str, execution_id: str) -> None:
        """Delete a finished run and its events.

        Raises:
            DomainError: EXECUTION_NOT_FOUND, EXECUTION_NOT_FINISHED, CONFLICT.
        """
        for _ in range(_DELETE_TRIES):
            execution = await self._executions.get(org, execution_id)
            if execution is None:
                # Somebody may have come no further than to delete the run itself.
                await self._executions.erase(org, execution_id)
                raise domain.not_found(execution_id)
            if not execution.finished:
                last = await self._executions.last_event(org, execution_id)
                if last is not None and last.kind in domain.TERMINAL_KINDS:
                    await repair(self._executions, execution)
                    continue
                raise DomainError(
                    Reason.REASON_EXECUTION_NOT_FINISHED,
                    f"Execution {execution_id} is {execution.state}; cancel it or wait for its end.",
                    resources=[Resource("execution", execution_id)],
                )
            if execution.errand is Errand.FILL:
                settled = await self._talks.settle(execution)
                if settled is None:
                    raise domain.is_not_told(execution_id)
                execution = settled
            try:
                await self._executions.delete(execution)
            except FencedError:
                continue
            return
        raise contended(Resource("execution", execution_id))


def _with_servers(agent: AgentSnapshot, servers: Sequence[str]) -> AgentSnapshot:
    """Add the MCP servers of an instance to what a run uses of its agent."""
    if not servers:
        return agent
    return replace(agent, mcp_servers=tuple(dict.fromkeys([*agent.mcp_servers, *servers])))


def _waiting(execution: Execution) -> Waiting:
    return Waiting(execution.org, execution.order.priority, execution.id)


def _within(
    field: str,
    asked: int | None,
    default: int | None,
    most: int | None,
    shown: Callable[[int], str],
) -> int | None:
    """Fill a limit of a run in, and hold what was asked for against the most that may be.

    Raises:
        DomainError: INVALID_REQUEST.
    """
    if asked is not None and most is not None and asked > most:
        raise invalid(
            field, f"must be at most {shown(most)}, which the settings of this mesh allow"
        )
    return default if asked is None else asked


def _ms(milliseconds: int) -> str:
    return f"{milliseconds / 1000:g} s"


def _usd(nano_dollars: int) -> str:
    return f"{nano_dollars / domain.NANO:.9g}"
