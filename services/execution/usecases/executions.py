"""Starting, reading, cancelling and deleting executions."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

from services.execution import domain
from services.execution.domain import Asked, Execution, Filter, Order
from services.execution.ports import (
    Agents,
    Executions,
    FencedError,
    RequestIdTakenError,
    Wakeups,
    WorkQueue,
)
from services.execution.usecases.catalogue import Catalogue
from services.execution.usecases.channels import events_channel, stop_channel, work_item
from services.kit.errors import DomainError, Reason, Resource, Violation, invalid

_CANCEL_TRIES = 200
_DELETE_TRIES = 10
_START_TRIES = 10


class ExecutionService:
    """Starts, reads, cancels and deletes executions.

    Args:
        clock: microseconds since the epoch.
        new_id: makes the id of an execution.
        default_timeout_ms: for runs that ask for none.
    """

    def __init__(
        self,
        executions: Executions,
        agents: Agents,
        catalogue: Catalogue,
        queue: WorkQueue,
        wakeups: Wakeups,
        *,
        clock: Callable[[], int],
        new_id: Callable[[], str],
        default_timeout_ms: int,
    ) -> None:
        self._executions = executions
        self._agents = agents
        self._catalogue = catalogue
        self._queue = queue
        self._wakeups = wakeups
        self._clock = clock
        self._new_id = new_id
        self._default_timeout_ms = default_timeout_ms

    async def start(self, org: str, asked: Asked) -> Execution:
        """Store a run and queue it; a repeated request_id answers the run it started before.

        Raises:
            DomainError: INVALID_REQUEST, FEATURE_UNAVAILABLE, AGENT_NOT_FOUND, MODEL_NOT_FOUND, PROVIDER_NOT_FOUND,
                REQUEST_ID_REUSED.
        """
        if not asked.input.strip():
            raise invalid("input", "must hold text that is not only white space")
        for _ in range(_START_TRIES):
            if asked.request_id:
                earlier = await self._executions.by_request_id(org, asked.request_id)
                if earlier is not None:
                    domain.same_request(earlier, asked)
                    return earlier
            order = await self._order(org, asked)
            execution, first = domain.accept(org, self._new_id(), order, asked, self._clock())
            try:
                await self._executions.start(execution, first)
            except RequestIdTakenError:
                continue
            await self._queue.put(work_item(org, execution.id))
            return execution
        raise _contended(asked.request_id)

    async def _order(self, org: str, asked: Asked) -> Order:
        for name, value, what in (
            ("conversation_id", asked.conversation_id, "conversations"),
            ("instance_id", asked.instance_id, "agent instances"),
        ):
            if value:
                raise domain.unavailable_feature(
                    name, f"{what} are not available yet; leave it empty"
                )
        agent_id = asked.agent_id or "default"
        agent = await self._agents.get(org, agent_id)
        if agent is None:
            raise DomainError(
                Reason.REASON_AGENT_NOT_FOUND,
                f"agent_id: no agent has the id {agent_id}.",
                violations=[Violation("agent_id", f"no agent has the id {agent_id}")],
                resources=[Resource("agent", agent_id)],
            )
        model = self._catalogue.choose(asked.ai_provider, asked.model, agent)
        return Order(
            input=asked.input,
            agent_id=agent.id,
            ai_provider=model.ai_provider,
            model=model.id,
            timeout_ms=asked.timeout_ms or self._default_timeout_ms,
            cwd=asked.cwd,
            metadata=asked.metadata,
            request_id=asked.request_id,
        )

    async def get(self, org: str, execution_id: str) -> Execution:
        """Read a run.

        Raises:
            DomainError: EXECUTION_NOT_FOUND.
        """
        execution = await self._executions.get(org, execution_id)
        if execution is None:
            raise domain.not_found(execution_id)
        return execution

    async def answer(self, org: str, execution_id: str, ended: Awaitable[None]) -> Execution:
        """Wait for the end of a run and read it, even if its projection fell behind.

        Raises:
            DomainError: what the run ended with, unless it succeeded; what kept us from waiting.
        """
        try:
            await ended
            execution = await self.get(org, execution_id)
            if not execution.finished:
                execution = await self._repaired(execution)
        except DomainError as error:
            raise domain.about(error, execution_id) from error
        failed = domain.outcome(execution)
        if failed is not None:
            raise failed
        return execution

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
        return await self._executions.list(org, where, after, limit)

    async def cancel(self, org: str, execution_id: str, caller: str) -> Execution:
        """End a run as cancelled, whether or not a worker lives.

        Args:
            caller: who cancels, for the log.

        Raises:
            DomainError: EXECUTION_NOT_FOUND, EXECUTION_FINISHED, CONFLICT.
        """
        for _ in range(_CANCEL_TRIES):
            execution = await self.get(org, execution_id)
            last = await self._executions.last_event(org, execution_id)
            if last is not None and domain.is_behind(execution, last):
                await self._repaired(execution)
                continue
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
                with suppress(FencedError):
                    await self._executions.append(execution, 0, [domain.opening(execution)])
                continue
            cancelled, events = domain.fail(
                execution, last.sequence, domain.cancelled(), caller, self._clock()
            )
            try:
                stored = await self._executions.commit(cancelled, last.sequence, events)
            except FencedError:
                continue
            await self._wakeups.publish(stop_channel(org, execution_id))
            await self._wakeups.publish(events_channel(org, execution_id))
            return stored
        raise _contended(execution_id)

    async def delete(self, org: str, execution_id: str) -> None:
        """Delete a finished run and its events.

        Raises:
            DomainError: EXECUTION_NOT_FOUND, EXECUTION_NOT_FINISHED, CONFLICT.
        """
        for _ in range(_DELETE_TRIES):
            execution = await self.get(org, execution_id)
            if not execution.finished:
                raise DomainError(
                    Reason.REASON_EXECUTION_NOT_FINISHED,
                    f"Execution {execution_id} is {execution.state}; cancel it or wait for its end.",
                    resources=[Resource("execution", execution_id)],
                )
            try:
                await self._executions.delete(execution)
            except FencedError:
                continue
            return
        raise _contended(execution_id)

    async def _repaired(self, execution: Execution) -> Execution:
        """Bring a projection that fell behind up to its log."""
        log = await whole_log(self._executions, execution.org, execution.id)
        projected, _ = domain.repair(execution, log)
        try:
            return await self._executions.save(projected)
        except FencedError:
            return await self.get(execution.org, execution.id)


async def whole_log(executions: Executions, org: str, id_: str) -> list[domain.Event]:
    """Read every event of a run."""
    log: list[domain.Event] = []
    while page := await executions.events(org, id_, log[-1].sequence if log else 0):
        log.extend(page)
    return log


def _contended(name: str) -> DomainError:
    return DomainError(
        Reason.REASON_CONFLICT,
        f"{name} was changed by others many times in a row; try again.",
        retry_after=0.1,
    )
