"""The use cases of the execution service put together over fakes, in virtual time."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, field, replace

from services.execution import domain
from services.execution.adapters.metrics import Unmetered
from services.execution.adapters.traces import Untraced
from services.execution.domain import (
    Agent,
    Asked,
    Context,
    Event,
    Execution,
    Kind,
    Model,
    Persistence,
    Price,
    Screenplay,
    Tolerance,
    Turns,
)
from services.execution.ports import (
    Conversations,
    Metrics,
    Prices,
    Prompt,
    Provider,
    Report,
    Traces,
    Wakeups,
    WorkQueue,
)
from services.execution.stores import COLLECTIONS, StoredExecutions, StoredLeases
from services.execution.usecases.calls import Patience
from services.execution.usecases.catalogue import Catalogue
from services.execution.usecases.circuits import Circuits
from services.execution.usecases.errands import Errands
from services.execution.usecases.executions import ExecutionService, Terms
from services.execution.usecases.logs import whole_log
from services.execution.usecases.talks import Talks
from services.execution.usecases.watches import Watches
from services.execution.usecases.worker import Pace, Worker
from services.kit.errors import DomainError, Reason
from services.kit.storage.inprocess import InProcessQueue, InProcessWakeups
from services.kit.storage.ports import Store
from services.kit.tasks import ended
from tests.fakes.memory import Memory, MemoryStore
from tests.fakes.turns import FakeTurns
from tests.fakes.virtual import clock, monotonic

ORG = "acme"

Says = Callable[[Prompt], AsyncGenerator[str | Report, None]]


class Talker:
    """A provider whose models say what a test wants."""

    name = "fake"
    serves_any = False

    def __init__(self, says: Mapping[str, Says]) -> None:
        self._says = says
        self.models = {id_: Model(id_, self.name, "A fake.") for id_ in says}

    def stream(self, model: str, prompt: Prompt) -> AsyncGenerator[str | Report, None]:
        return self._says[model](prompt)

    async def close(self) -> None:
        pass


@dataclass
class Agents:
    """Agents by id, whatever version of their persona is asked for."""

    known: dict[str, Agent] = field(default_factory=lambda: {"default": Agent("default")})

    async def get(self, org: str, agent_id: str, persona_version: str) -> Agent:
        if agent_id not in self.known:
            raise DomainError(Reason.REASON_AGENT_NOT_FOUND, f"There is no {agent_id}.")
        return self.known[agent_id]


@dataclass
class Library:
    """Screenplays by id, and what runs are told of them and of their conversations."""

    known: dict[str, Screenplay] = field(default_factory=dict)
    used: list[str] = field(default_factory=list)
    context: Context = field(default_factory=Context)
    """What every run is told besides its screenplay."""
    trouble: DomainError | None = None
    """What every reading of a context ends with."""
    asked_for: list[int] = field(default_factory=list)
    """How many bytes of history each reading allowed."""

    async def get(self, org: str, screenplay_id: str) -> Screenplay:
        if screenplay_id not in self.known:
            raise DomainError(
                Reason.REASON_SCREENPLAY_NOT_FOUND, f"There is no screenplay {screenplay_id}."
            )
        return self.known[screenplay_id]

    async def note_use(self, org: str, screenplay_id: str) -> None:
        self.used.append(screenplay_id)

    async def read(self, execution: Execution, max_bytes: int) -> Context:
        self.asked_for.append(max_bytes)
        if self.trouble is not None:
            raise self.trouble
        id_ = execution.order.screenplay_id
        return replace(self.context, screenplay=await self.get("", id_)) if id_ else self.context


@dataclass
class PriceList:
    """Prices by model."""

    prices: dict[str, Price] = field(default_factory=dict)

    def price(self, ai_provider: str, model: str) -> Price | None:
        return self.prices.get(model)


def words(*texts: str, every: float = 0.0) -> Says:
    """A model that says some words, one each so many seconds."""

    async def say(prompt: Prompt) -> AsyncGenerator[str | Report, None]:
        for text in texts:
            await asyncio.sleep(every)
            yield text

    return say


async def silence(prompt: Prompt) -> AsyncGenerator[str | Report, None]:
    """A model that says nothing and never ends."""
    await asyncio.Event().wait()
    yield ""


@dataclass
class House:
    """One process of the service over a store, which it may share with others."""

    says: Mapping[str, Says]
    store: Store = field(default_factory=lambda: MemoryStore(Memory(), COLLECTIONS))
    queue: WorkQueue = field(default_factory=InProcessQueue)
    wakeups: Wakeups = field(default_factory=InProcessWakeups)
    pace: Pace = field(default_factory=Pace)
    heartbeat_seconds: float = 15.0
    providers: Sequence[Provider] = ()
    prices: Prices = field(default_factory=PriceList)
    patience: Patience = field(default_factory=Patience)
    persistence: Persistence = field(default_factory=Persistence)
    tolerance: Tolerance = field(default_factory=Tolerance)
    terms: Terms = field(default_factory=Terms)
    agents: Agents = field(default_factory=Agents)
    library: Library = field(default_factory=Library)
    metrics: Metrics = field(default_factory=Unmetered)
    traces: Traces = field(default_factory=Untraced)
    conversations: Conversations = field(default_factory=FakeTurns)
    org_concurrency: int = 100
    weights: Mapping[str, float] = field(default_factory=dict)
    prefix: str = "1"
    slept: float = 0.0
    """Seconds for which the process was stopped, as its own monotonic clock knows."""

    def __post_init__(self) -> None:
        self.executions = StoredExecutions(self.store)
        self.leases = StoredLeases(self.store)
        self.catalogue = Catalogue(self.providers or [Talker(self.says)], self.prices)
        self.circuits = Circuits(self.tolerance, lambda: monotonic() + self.slept)
        self.turns = Turns(lambda org: self.weights.get(org, 1.0), lambda _: self.org_concurrency)
        self.talks = Talks(self.executions, self.conversations, self.queue, self.wakeups)
        numbers = itertools.count(1)
        self.service = ExecutionService(
            self.executions,
            self.agents,
            self.library,
            self.catalogue,
            self.queue,
            self.wakeups,
            self.turns,
            self.metrics,
            self.traces,
            self.talks,
            clock=clock,
            new_id=lambda: f"exec_{self.prefix}_{next(numbers):06}",
            terms=self.terms,
        )
        self.watches = Watches(
            self.executions,
            self.wakeups,
            self.metrics,
            clock=clock,
            heartbeat_seconds=self.heartbeat_seconds,
        )
        worker_numbers = itertools.count(1)
        self.worker = Worker(
            self.executions,
            self.leases,
            self.library,
            self.catalogue,
            self.circuits,
            self.queue,
            self.wakeups,
            self.turns,
            self.metrics,
            self.traces,
            self.talks,
            clock=clock,
            monotonic=lambda: monotonic() + self.slept,
            new_id=lambda: f"worker_{self.prefix}_{next(worker_numbers)}",
            chance=lambda: 1.0,
            pace=self.pace,
            patience=self.patience,
            persistence=self.persistence,
        )
        self.errands = Errands(
            self.executions, self.talks, self.service, monotonic=lambda: monotonic() + self.slept
        )

    def beside(self, **changes: object) -> House:
        """Another process over the same store, which hears nothing of this one."""
        own = {"queue": InProcessQueue(), "wakeups": InProcessWakeups()}
        other = own | {"prefix": f"{int(self.prefix) + 1}"} | changes
        return replace(self, **other)  # type: ignore[arg-type]  # a test says what it changes

    @asynccontextmanager
    async def working(self) -> AsyncIterator[Worker]:
        """Let the worker work until the block ends, then stop it gracefully."""
        await self.worker.start()
        serving = asyncio.create_task(self.worker.serve())
        sweeping = asyncio.create_task(self.errands.serve())
        try:
            yield self.worker
        finally:
            await ended(serving)
            await ended(sweeping)
            await self.worker.stop()

    async def start(self, text: str = "Hello", org: str = ORG, **asked: object) -> Execution:
        author = str(asked.pop("author", ""))
        return await self.service.start(org, Asked(text, **asked), author)  # type: ignore[arg-type]

    async def end_of(self, execution: Execution, within: float = 100.0) -> Execution:
        """Wait for the end of a run, in virtual seconds, and read it."""
        async with asyncio.timeout(within):
            await self.watches.ended(execution.org, execution.id)
        return await self.service.get(execution.org, execution.id)

    async def log(self, execution: Execution) -> list[Event]:
        return await whole_log(self.executions, execution.org, execution.id)

    async def until(self, execution: Execution, kind: Kind, within: float = 100.0) -> Event:
        """Wait for the first event of a kind."""
        async with asyncio.timeout(within):
            watch = await self.watches.open(execution.org, execution.id, 0)
            async with aclosing(watch.pages) as pages:
                async for page in pages:
                    for event in page.events if page else ():
                        if event.kind == kind:
                            return event
        raise AssertionError(f"no {kind} in {await self.log(execution)}")


@asynccontextmanager
async def house_at_work(says: Mapping[str, Says], **options: object) -> AsyncIterator[House]:
    """A house whose worker works."""
    async with AsyncExitStack() as stack:
        house = House(says, **options)  # type: ignore[arg-type]  # a test says what it changes
        await stack.enter_async_context(house.working())
        yield house


def is_sound(execution: Execution, log: Sequence[Event]) -> None:
    """Assert everything that holds of a finished run and its log."""
    assert [event.sequence for event in log] == list(range(1, len(log) + 1))
    assert log[0].kind == Kind.JOB_STARTED
    terminal = [event.sequence for event in log if event.kind in domain.TERMINAL_KINDS]
    assert terminal == [len(log)]
    assert execution.finished
    begun = Execution(
        execution.org,
        execution.id,
        execution.order,
        execution.digest,
        create_time=execution.create_time,
        update_time=execution.create_time,
        version=execution.version,
        talk=execution.talk,
    )
    projected, progress = domain.repair(begun, log)
    assert replace(projected, errand=execution.errand) == execution
    if execution.state is domain.State.SUCCEEDED:
        assert execution.result == progress.answer
