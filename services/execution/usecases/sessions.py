"""Sessions: messages go in, and what the runs that answer them do comes out.

A session holds no more than one thing that was not taken yet, and a page of events for each run that it
follows: whoever reads slowly is not read from, and what happens meanwhile stays in the store.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, replace

from services.execution.domain import Asked, Execution
from services.execution.usecases.executions import ExecutionService
from services.execution.usecases.talks import Talks
from services.execution.usecases.watches import Page, Watches
from services.kit.errors import DomainError, Reason
from services.kit.tasks import ended


@dataclass(frozen=True, slots=True)
class Opened:
    """The session is open."""

    conversation_id: str


@dataclass(frozen=True, slots=True)
class Refused:
    """What was said was refused; the session goes on."""

    error: DomainError


@dataclass(frozen=True, slots=True)
class _End:
    """Nothing more comes."""

    failure: BaseException | None = None


Told = Opened | Execution | Page | Refused | None
"""What comes out of a session; None is a sign of life."""


@dataclass(frozen=True, slots=True)
class Speaker:
    """Who talks in a session."""

    org: str
    name: str
    """As in audit records."""
    caller: str
    """As in the logs of runs that they cancel."""


class Sessions:
    """Lets people talk to agents until the server stops.

    Args:
        heartbeat_seconds: how long a session may be silent.
    """

    def __init__(
        self,
        service: ExecutionService,
        talks: Talks,
        watches: Watches,
        *,
        heartbeat_seconds: float = 15.0,
    ) -> None:
        self._service = service
        self._talks = talks
        self._watches = watches
        self._heartbeat_seconds = heartbeat_seconds
        self._closing = asyncio.Event()

    def close(self) -> None:
        """End every session; each can be opened again in its conversation elsewhere."""
        self._closing.set()

    async def converse(
        self, who: Speaker, template: Asked, said: AsyncIterator[str | None]
    ) -> AsyncGenerator[Told, None]:
        """Talk, until nothing more is said and the last run has ended.

        Args:
            template: what each run is asked for, but for its input; its request_id is that of the opening.
            said: the messages; None asks to cancel what runs in the conversation.

        Raises:
            DomainError: why the session cannot be opened; SHUTTING_DOWN.
        """
        conversation_id = await self._talks.open(who.org, template)
        yield Opened(conversation_id)
        template = replace(template, conversation_id=conversation_id, request_id="")
        outbox: asyncio.Queue[Told | _End] = asyncio.Queue(1)
        talking = asyncio.create_task(self._talk(who, template, said, outbox), name="session")
        try:
            while True:
                item: Told | _End = None
                try:
                    async with asyncio.timeout(self._heartbeat_seconds):
                        item = await outbox.get()
                except TimeoutError:
                    pass
                if isinstance(item, _End):
                    if item.failure is not None:
                        raise item.failure
                    return
                yield item
        finally:
            await ended(talking)

    async def _talk(
        self,
        who: Speaker,
        template: Asked,
        said: AsyncIterator[str | None],
        outbox: asyncio.Queue[Told | _End],
    ) -> None:
        failure: BaseException | None = None
        try:
            async with asyncio.TaskGroup() as tasks:
                closing = tasks.create_task(self._until_closed())
                following: list[asyncio.Task[None]] = []
                async for text in said:
                    following = [one for one in following if not one.done()]
                    try:
                        run = await self._hear(who, template, text)
                    except DomainError as error:
                        await outbox.put(Refused(error))
                        continue
                    if run is not None:
                        await outbox.put(run)
                        following.append(tasks.create_task(self._follow(run, outbox)))
                if following:
                    await asyncio.wait(following)
                closing.cancel()
        except BaseExceptionGroup as group:
            failure = group.exceptions[0]
        await outbox.put(_End(failure))

    async def _hear(self, who: Speaker, template: Asked, text: str | None) -> Execution | None:
        if text is not None:
            return await self._service.start(who.org, replace(template, input=text), who.name)
        await self._service.interrupt(who.org, template.conversation_id, who.caller)
        return None

    async def _follow(self, run: Execution, outbox: asyncio.Queue[Told | _End]) -> None:
        watch = await self._watches.open(run.org, run.id, 0)
        async with aclosing(watch.pages) as pages:
            async for page in pages:
                if page is not None:
                    await outbox.put(page)

    async def _until_closed(self) -> None:
        await self._closing.wait()
        raise DomainError(
            Reason.REASON_SHUTTING_DOWN,
            "The server is stopping; open the session again in the same conversation.",
            retry_after=0.5,
        )
