"""Whatever happens in whatever order, a run has one log, one end and one answer.

Several processes work on one store in virtual time. Every call of the store takes a random time, so
their steps fall between one another in any order; they crash, freeze, stop and start, lose their
wake-ups and the store's answers, while others cancel and watch. The store is the one in memory that
passes the contract suite, once with writes that are all or nothing (SQLite) and once with the first
of several kept when the rest fails (MongoDB).

Some runs answer in conversations, which are slow and at times away, and lose questions and answers.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from random import Random
from typing import Any, TypeVar

from hypothesis import given, settings
from hypothesis import strategies as st

from services.execution import domain
from services.execution.domain import (
    Appended,
    Context,
    ContextMode,
    Errand,
    Event,
    Execution,
    Filling,
    Filter,
    ModelError,
    Placement,
    Usage,
)
from services.execution.ports import Left, Prompt, Report
from services.execution.stores import COLLECTIONS
from services.execution.usecases.worker import Pace
from services.kit.errors import DomainError
from services.kit.storage.inprocess import InProcessWakeups
from services.kit.storage.ports import Collection, Document, Entry, Query, Write, store_unavailable
from services.kit.tasks import ended
from tests.fakes.house import ORG, House, Library, is_sound
from tests.fakes.memory import Memory, MemoryStore
from tests.fakes.turns import FakeTurns, away
from tests.fakes.virtual import VirtualLoop

T = TypeVar("T")
ACTIONS = (
    "crash",
    "freeze",
    "stop",
    "start",
    "submit",
    "trouble",
    "cancel",
    "watch",
    "steal",
    "talk",
    "outage",
)


class Line:
    """The line from one process to the store: slow, and at times dead, frozen or cut."""

    def __init__(self, memory: Memory, random: Random, *, keeps_prefix: bool) -> None:
        self._store = MemoryStore(memory, COLLECTIONS)
        self._random = random
        self._keeps_prefix = keeps_prefix
        self.dead = False
        self.thaws_at = 0.0
        self.cut_until = 0.0

    async def _pass(self) -> None:
        """Take a while; for ever, when the process is dead."""
        await asyncio.sleep(self._random.choice((0, 0, 0.001, 0.01, 0.1, 0.4)))
        while not self.dead and (wait := self.thaws_at - _now()) > 0:
            await asyncio.sleep(wait)
        if self.dead:
            await asyncio.Event().wait()

    def _break(self) -> None:
        if _now() < self.cut_until:
            raise store_unavailable()

    async def _call(self, call: Callable[[], Awaitable[T]]) -> T:
        await self._pass()
        if self._random.random() < 0.5:
            self._break()
        answer = await call()
        await self._pass()
        # The answer may be lost where the call was not.
        self._break()
        return answer

    async def write(self, *writes: Write) -> None:
        if not self._keeps_prefix:
            await self._call(lambda: self._store.write(*writes))
            return
        for write in writes:
            await self._call(lambda write=write: self._store.write(write))  # type: ignore[misc]  # a default argument binds the loop's variable

    async def get(self, collection: Collection, org: str, id_: str) -> Document | None:
        return await self._call(lambda: self._store.get(collection, org, id_))

    async def version(self, collection: Collection, org: str, id_: str) -> int | None:
        return await self._call(lambda: self._store.version(collection, org, id_))

    async def find(
        self, collection: Collection, org: str, unique: str, value: str
    ) -> Document | None:
        return await self._call(lambda: self._store.find(collection, org, unique, value))

    async def query(self, query: Query) -> list[Document]:
        return await self._call(lambda: self._store.query(query))

    async def read(
        self, log: str, org: str, stream: str, after: int, *, limit: int, max_bytes: int
    ) -> list[Entry]:
        limit = self._random.choice((1, 2, 5, limit))
        return await self._call(
            lambda: self._store.read(log, org, stream, after, limit=limit, max_bytes=max_bytes)
        )

    async def last(self, log: str, org: str, stream: str) -> Entry | None:
        return await self._call(lambda: self._store.last(log, org, stream))

    async def close(self) -> None:
        pass


class Phone:
    """The line from one process to conversations."""

    def __init__(self, turns: FakeTurns, line: Line, world: World) -> None:
        self._turns = turns
        self._line = line
        self._world = world

    async def _call(self, call: Callable[[], Awaitable[T]]) -> T:
        await self._line._pass()
        self._break()
        answer = await call()
        await self._line._pass()
        self._break()
        return answer

    def _break(self) -> None:
        if _now() < self._world.away_until or self._world.random.random() < 0.05:
            raise away()

    async def instance(self, org: str, instance_id: str) -> Placement:
        return await self._call(lambda: self._turns.instance(org, instance_id))

    async def active(self, org: str, conversation_id: str) -> Placement:
        return await self._call(lambda: self._turns.active(org, conversation_id))

    async def create(self, org: str, who: Placement, request_id: str) -> str:
        return await self._call(lambda: self._turns.create(org, who, request_id))

    async def append(self, execution: Execution) -> Appended:
        return await self._call(lambda: self._turns.append(execution))

    async def place(self, execution: Execution) -> int:
        return await self._call(lambda: self._turns.place(execution))

    async def fill(self, filling: Filling) -> None:
        await self._call(lambda: self._turns.fill(filling))

    async def withdraw(self, left: Left) -> None:
        await self._call(lambda: self._turns.withdraw(left))


class Lossy(InProcessWakeups):
    """Wake-ups of which some are lost."""

    def __init__(self, random: Random) -> None:
        super().__init__()
        self._random = random

    async def publish(self, channel: str) -> None:
        if self._random.random() < 0.7:
            await super().publish(channel)


@dataclass
class Process:
    """A process with its line to the store."""

    house: House
    line: Line
    serving: asyncio.Task[None] | None = None


@dataclass
class Watcher:
    """Watches a run as a client does, from its cursor again when it was cut."""

    run: Execution
    after: int
    sequences: list[int] = field(default_factory=list)
    terminal: bool = False


@dataclass
class Forgetful(Library):
    """Whoever knows what runs are told: slow, and at times away."""

    random: Random = field(default_factory=Random)

    async def read(self, execution: Execution, max_bytes: int) -> Context:
        await asyncio.sleep(self.random.choice((0, 0.01, 1)))
        if self.random.random() < 0.3:
            raise store_unavailable()
        return self.context


class World:
    """Processes, runs and watchers over one store."""

    def __init__(self, seed: int, *, keeps_prefix: bool, shared_wakeups: bool) -> None:
        self.random = Random(seed)
        self.memory = Memory()
        self.keeps_prefix = keeps_prefix
        self.wakeups = Lossy(self.random) if shared_wakeups else None
        self.slots = self.random.choice((1, 2, 100))
        self.numbers = itertools.count(1)
        self.processes: list[Process] = []
        self.runs: list[Execution] = []
        self.watchers: list[tuple[Watcher, asyncio.Task[None]]] = []
        self.others: list[asyncio.Task[Any]] = []
        self.submitting: list[asyncio.Task[None]] = []
        self.turns = FakeTurns()
        self.away_until = 0.0
        self.calm = House(
            {"m": self.says},
            store=MemoryStore(self.memory, COLLECTIONS),
            prefix="0",
            conversations=self.turns,
        )

    async def says(self, prompt: Prompt) -> AsyncGenerator[str | Report, None]:
        """Tokens that tell the attempts apart, at any pace; now and then no end."""
        for number in range(self.random.randint(0, 12)):
            if self.random.random() < 0.02:
                await asyncio.Event().wait()
            if self.random.random() < 0.04:
                raise ModelError("The model had enough.")
            await asyncio.sleep(self.random.choice((0, 0.001, 0.02, 0.3, 1)))
            yield f"{prompt.attempt}.{number} "
            if self.random.random() < 0.2:
                yield Report(Usage(input_tokens=7, output_tokens=number))

    def process(self) -> Process:
        line = Line(self.memory, self.random, keeps_prefix=self.keeps_prefix)
        house = House(
            {"m": self.says},
            store=line,
            wakeups=self.wakeups or Lossy(self.random),
            pace=Pace(concurrency=2),
            org_concurrency=self.slots,
            heartbeat_seconds=3,
            conversations=Phone(self.turns, line, self),
            prefix=f"{next(self.numbers)}",
            library=Forgetful(random=self.random),
        )
        return Process(house, line)

    async def start(self) -> None:
        process = self.process()
        self.processes.append(process)
        try:
            await process.house.worker.start()
        except DomainError:
            self.processes.remove(process)
            return
        process.serving = asyncio.create_task(_serve(process.house))

    async def stop(self, process: Process) -> None:
        if process.serving is not None:
            await ended(process.serving)
            await process.house.worker.stop()

    async def submit(self) -> None:
        mode = self.random.choice((ContextMode.STATELESS, ContextMode.CONTEXTUAL))
        run = await self.process().house.start("one more", timeout_ms=60_000, context_mode=mode)
        self.runs.append(run)

    async def talk(self) -> None:
        policy = self.random.choice(("queue", "queue", "reject", "interrupt"))
        where = self.random.choice(("c", "c", "d"))
        with suppress(DomainError):
            # One that is refused may have been accepted when the store did not answer.
            run = await self.process().house.start(
                f"to {where}", conversation_id=where, busy_policy=policy, timeout_ms=60_000
            )
            self.runs.append(run)

    async def cancel(self, run: Execution) -> None:
        caller = self.process()
        with suppress(DomainError):
            cancelled = await caller.house.service.cancel(ORG, run.id, "caller")
            # What was answered is stored.
            assert (await self.calm.log(run))[-1].kind == domain.Kind.ERROR
            assert cancelled.state is domain.State.CANCELLED

    async def watch(self, watcher: Watcher) -> None:
        reader = self.process()
        while not watcher.terminal:
            with suppress(DomainError):
                after = watcher.sequences[-1] if watcher.sequences else watcher.after
                watch = await reader.house.watches.open(ORG, watcher.run.id, after)
                if watch.end is not None:
                    assert (await self.calm.service.get(ORG, watcher.run.id)).finished
                    return
                async with aclosing(watch.pages) as pages:
                    async for page in pages:
                        if page is not None:
                            assert not watcher.terminal
                            watcher.sequences += [event.sequence for event in page.events]
                            watcher.terminal = page.terminal
                            # Whoever has seen the end finds the run ended.
                            run = await self.calm.service.get(ORG, watcher.run.id)
                            assert run.finished or not page.terminal
                        if self.random.random() < 0.05:
                            break
                        await asyncio.sleep(self.random.choice((0, 0, 0.1, 2)))

    def begin_to_watch(self, run: Execution, after: int) -> None:
        watcher = Watcher(run, after)
        self.watchers.append((watcher, asyncio.create_task(self.watch(watcher))))

    async def act(self, action: str) -> None:
        run = self.random.choice(self.runs)
        match action:
            case "start":
                self.others.append(asyncio.create_task(self.start()))
            case "submit":
                self.submitting.append(asyncio.create_task(self.submit()))
            case "talk":
                self.submitting.append(asyncio.create_task(self.talk()))
            case "outage":
                self.away_until = _now() + self.random.choice((0.5, 3.0, 15.0))
            case "cancel":
                self.others.append(asyncio.create_task(self.cancel(run)))
            case "watch":
                log = await self.calm.log(run)
                self.begin_to_watch(run, self.random.randint(0, len(log)))
            case "steal":
                # Every lease is lost, as when somebody judged it wrongly.
                for lease in await self.calm.leases.all():
                    await self.calm.leases.remove(lease)
            case _ if self.processes:
                self.harm(self.random.choice(self.processes), action)

    def harm(self, process: Process, action: str) -> None:
        seconds = self.random.choice((0.5, 2.0, 5.0, 9.0, 20.0))
        match action:
            case "crash":
                process.line.dead = True
                self.processes.remove(process)
            case "freeze":
                process.line.thaws_at = _now() + seconds
            case "trouble":
                process.line.cut_until = _now() + seconds
            case "stop":
                self.processes.remove(process)
                self.others.append(asyncio.create_task(self.stop(process)))

    async def play(self, actions: list[tuple[float, str]]) -> None:
        for number, mode in enumerate((None, None, ContextMode.CONTEXTUAL)):
            text = f"run {number}"
            run = await self.calm.start(text, timeout_ms=60_000, context_mode=mode)
            self.runs.append(run)
        for number in range(2):
            self.runs.append(
                await self.calm.start(f"turn {number}", conversation_id="c", timeout_ms=60_000)
            )
        for _ in range(2):
            await self.start()
        for run in self.runs:
            self.begin_to_watch(run, 0)
        for gap, action in actions:
            await asyncio.sleep(gap)
            await self.act(action)
        # Somebody is always started in the end; then everything has to come to its end.
        await self.start()
        async with asyncio.timeout(300):
            await asyncio.gather(*self.submitting)
            while any([await self.calm.executions.left(one, None) for one in Errand if one]):
                await asyncio.sleep(1)
            self.runs = [*await self.calm.service.list(ORG, Filter(), None, 100)]
            for run in self.runs:
                await self.calm.watches.ended(ORG, run.id)
                while not (await self.calm.service.get(ORG, run.id)).finished:
                    await asyncio.sleep(1)
            await asyncio.gather(*(task for _, task in self.watchers))
        await self.judge()

    async def judge(self) -> None:
        logs = {run.id: await self.calm.log(run) for run in self.runs}
        await asyncio.sleep(60)
        for run in self.runs:
            # Nobody writes after the end, however late they wake up.
            assert await self.calm.log(run) == logs[run.id]
            is_sound(await self.calm.service.get(ORG, run.id), logs[run.id])
        self.judge_talks([await self.calm.service.get(ORG, run.id) for run in self.runs], logs)
        for watcher, _ in self.watchers:
            last = len(logs[watcher.run.id])
            assert watcher.sequences == list(range(watcher.after + 1, last + 1))
        for other in self.others:
            if other.done():
                other.result()

    def judge_talks(self, runs: list[Execution], logs: Mapping[str, Sequence[Event]]) -> None:
        """Each message is there once, each answer what its run said, each run counted."""
        talking = {run.id: run for run in runs if run.talk is not None}
        assert self.turns.runs.keys() == talking.keys()
        ids = []
        for conversation in self.turns.conversations.values():
            assert conversation.turns == []
            ids += [one.execution_id for one in conversation.messages]
        assert sorted(ids) == sorted([*talking, *talking])
        outcomes = {"SUCCEEDED": "completed", "FAILED": "failed", "CANCELLED": "cancelled"}
        for run in talking.values():
            asked, answer = self.turns.conversations[run.order.conversation_id].of(run.id)
            assert asked.content == run.order.input
            said = domain.said(run, domain.follow(logs[run.id]))
            assert (answer.content, answer.status) == (said, outcomes[run.state])
            assert self.turns.runs[run.id].status == outcomes[run.state]
            assert not run.errand

    async def end(self) -> None:
        """Let everything end, also what waits for ever and then waits for ever again."""
        while others := asyncio.all_tasks() - {asyncio.current_task()}:
            for task in others:
                task.cancel()
            await asyncio.wait(others, timeout=1)


async def _serve(house: House) -> None:
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(house.worker.serve())
        tasks.create_task(house.errands.serve())


def _now() -> float:
    return asyncio.get_running_loop().time()


@settings(max_examples=80, deadline=None, database=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    actions=st.lists(
        st.tuples(st.sampled_from((0.0, 0.01, 0.2, 1.0, 3.0, 8.0)), st.sampled_from(ACTIONS)),
        max_size=12,
    ),
    keeps_prefix=st.booleans(),
    shared_wakeups=st.booleans(),
)
def test_any_interleaving_keeps_one_log_with_one_end(
    seed: int, actions: list[tuple[float, str]], keeps_prefix: bool, shared_wakeups: bool
) -> None:
    async def story() -> None:
        world = World(seed, keeps_prefix=keeps_prefix, shared_wakeups=shared_wakeups)
        try:
            await world.play(actions)
        finally:
            await world.end()

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(story())
