"""Two processes' worth of the service on one store: who begins what, and how often."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from services.execution.domain import Execution, State
from services.execution.ports import Prompt, Report
from services.execution.stores import COLLECTIONS, EXECUTIONS, LOGS
from services.execution.usecases.executions import Terms
from services.execution.usecases.worker import Pace
from services.kit.errors import DomainError, Reason
from services.kit.storage.mongodb import MongoStore
from services.kit.storage.ports import Query, Store
from services.kit.storage.sqlite import SqliteStore
from tests.fakes.house import House, is_sound
from tests.patience import PATIENCE


class Model:
    """Notes which runs go on at a time, and the order in which they began."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._now: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        """Of each organisation, at any moment."""
        self.most_in_all = 0
        self.begun: list[str] = []
        """Texts; each begins with the organisation."""

    async def __call__(self, prompt: Prompt) -> AsyncGenerator[str | Report, None]:
        org = prompt.text.split()[0]
        self.begun.append(prompt.text)
        self._now[org] += 1
        self.most[org] = max(self.most[org], self._now[org])
        self.most_in_all = max(self.most_in_all, self._now.total())
        try:
            await asyncio.sleep(self._seconds)
            yield prompt.text
        finally:
            self._now[org] -= 1


@asynccontextmanager
async def two_houses(at: Path | str, model: Model, **options: object) -> AsyncIterator[list[House]]:
    """Two compositions of the use cases, each with its own connection to one file or database."""
    async with AsyncExitStack() as stack:
        stores: list[Store] = []
        for _ in range(2):
            if isinstance(at, Path):
                store: Store = await SqliteStore.open(at / "execution.db", COLLECTIONS, LOGS)
            else:
                store = await MongoStore.open(at, "motor", "execution", COLLECTIONS, LOGS)
            stack.push_async_callback(store.close)
            stores.append(store)
        one = House({"m": model}, store=stores[0], **options)  # type: ignore[arg-type]  # a test says which
        yield [one, one.beside(store=stores[1])]


async def submit(house: House, org: str, count: int) -> list[Execution]:
    """Start runs of an organisation, all at once."""
    return await asyncio.gather(*(house.start(f"{org} {number}", org) for number in range(count)))


async def all_end_once(houses: Sequence[House], runs: Sequence[Execution]) -> None:
    """Assert that every run ends well and after one call; each wait for the next end is bounded.

    They begin by their ids, so that no wait is one for all the others.
    """
    for run in sorted(runs, key=lambda run: run.id):
        async with asyncio.timeout(PATIENCE):
            seen = houses[0].watches.ended(run.org, run.id)
            ended = await houses[0].service.answer(run.org, run.id, seen)
        log = await houses[0].log(run)
        is_sound(ended, log)
        assert ended.state is State.SUCCEEDED
        assert ended.result == run.order.input
        assert [event.kind for event in log].count("on_llm_start") == 1


def shares(begun: Sequence[str], size: int) -> Mapping[str, float]:
    """The part each organisation has of what began while all of them had work."""
    seen: Counter[str] = Counter()
    for text in begun:
        seen[text.split()[0]] += 1
        if max(seen.values()) == size:
            break
    return {org: count / seen.total() for org, count in seen.items()}


async def test_two_workers_on_one_file_share_ten_slots_by_weight(tmp_path: Path) -> None:
    weights = {"a": 1.0, "b": 2.0, "c": 2.0}
    model = Model(0.02)
    async with two_houses(tmp_path, model, pace=Pace(concurrency=5), weights=weights) as houses:
        # In turns, so that all of them have work from the first moment.
        runs = [
            await house.start(f"{org} {number} {house.prefix}", org)
            for number in range(100)
            for house in houses
            for org in weights
        ]
        async with houses[0].working(), houses[1].working():
            await all_end_once(houses, runs)

    assert model.most_in_all == 10
    assert Counter(model.begun) == Counter(run.order.input for run in runs)
    for org, share in shares(model.begun, 200).items():
        assert share == pytest.approx(weights[org] / 5, rel=0.1), org


async def test_the_limit_of_an_organisation_holds_over_two_workers_at_every_moment(
    tmp_path: Path,
) -> None:
    model = Model(0.02)
    async with (
        two_houses(tmp_path, model, pace=Pace(concurrency=5), org_concurrency=3) as houses,
        houses[0].working(),
        houses[1].working(),
    ):
        submitting = [submit(house, org, 50) for house in houses for org in "abc"]
        runs = [run for some in await asyncio.gather(*submitting) for run in some]
        await all_end_once(houses, runs)

    assert dict(model.most) == {"a": 3, "b": 3, "c": 3}
    assert model.most_in_all <= 9
    assert len(model.begun) == 300


async def test_the_limit_of_an_organisation_holds_on_mongodb_too(mongo_url: str) -> None:
    model = Model(0.02)
    async with (
        two_houses(mongo_url, model, pace=Pace(concurrency=5), org_concurrency=3) as houses,
        houses[0].working(),
        houses[1].working(),
    ):
        submitting = [submit(house, org, 8) for house in houses for org in "abc"]
        runs = [run for some in await asyncio.gather(*submitting) for run in some]
        await all_end_once(houses, runs)

    assert max(model.most.values()) <= 3
    assert len(model.begun) == 48


async def test_a_queue_holds_exactly_as_many_as_may_wait_however_many_come_at_once(
    tmp_path: Path,
) -> None:
    terms = Terms(most_waiting=30)
    async with two_houses(tmp_path, Model(0), terms=terms) as houses:
        outcomes = await asyncio.gather(
            *(
                house.start(f"{org} {number}", org)
                for number in range(50)
                for house, org in zip(houses, "ab", strict=True)
            ),
            return_exceptions=True,
        )
        accepted = [one for one in outcomes if isinstance(one, Execution)]
        refused = [one for one in outcomes if isinstance(one, DomainError)]
        assert (len(accepted), len(refused)) == (30, 70)
        assert {one.reason for one in refused} == {Reason.REASON_QUEUE_FULL}
        assert all(one.retry_after for one in refused)
        waiting = await houses[0].store.query(Query(EXECUTIONS, None, equal={"state": "QUEUED"}))
        assert {found.id for found in waiting} == {run.id for run in accepted}
        # Both processes see the room that one of them makes.
        gone = accepted[0]
        await houses[1].service.cancel(gone.org, gone.id, "call:1")
        assert (await houses[0].start(org="c")).state is State.QUEUED
        with pytest.raises(DomainError):
            await houses[1].start(org="c")
