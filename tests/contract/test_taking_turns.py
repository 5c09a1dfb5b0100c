"""Turns over every store."""

from __future__ import annotations

import asyncio

import pytest

from services.conversations.domain.messages import Showing, Status
from services.kit.errors import DomainError
from tests.contract.conftest import OpenStore
from tests.fakes.parlour import COLLECTIONS, Parlour


async def test_turns_of_several_processes_are_taken_filled_and_withdrawn_once(
    open_store: OpenStore,
) -> None:
    store = await open_store(COLLECTIONS, ())
    halls = [Parlour(store) for _ in range(3)]
    id_ = await halls[0].open()
    runs = [f"run_{number}" for number in range(6)]

    async def live(number: int, run: str) -> None:
        one, other = halls[number % 3], halls[(number + 1) % 3]
        await asyncio.gather(one.ask(id_, run), other.ask(id_, run))
        if number == 0:
            await asyncio.gather(one.withdraw(id_, run), other.withdraw(id_, run))
            return
        await asyncio.gather(one.fill(id_, run), other.fill(id_, run, Status.CANCELLED))

    await asyncio.gather(*(live(number, run) for number, run in enumerate(runs)))

    assert await halls[0].running(id_) == []
    assert len(await halls[0].texts(id_)) == 10
    assert len(await halls[0].texts(id_, Showing.ALL)) == 12
    assert (await halls[0].totals()).count == 5
    assert sorted(await halls[0].history()) == runs[1:]
    await halls[0].check(id_)


async def test_what_a_run_is_told_is_what_was_said_before_its_answer(open_store: OpenStore) -> None:
    hall = Parlour(await open_store(COLLECTIONS, ()))
    id_ = await hall.open()
    await hall.say(id_, "ü" * 5000)
    await hall.turn(id_, "a")
    await hall.ask(id_, "b")
    await hall.ask(id_, "c")
    await hall.say(id_, "behind")

    assert await hall.told(id_, "b", 10_100) == ["ü" * 5000, "Q a", "A a", "+0"]
    assert await hall.told(id_, "b", 3) == ["A a", "+2"]
    await hall.fill(id_, "b")
    assert await hall.told(id_, "c", 100) == ["Q a", "A a", "Q b", "A b", "+1"]


async def test_what_was_withdrawn_stays_so(open_store: OpenStore) -> None:
    hall = Parlour(await open_store(COLLECTIONS, ()))
    id_ = await hall.open()
    await hall.ask(id_, "a")

    for run in ("a", "b"):
        await hall.withdraw(id_, run)
        with pytest.raises(DomainError, match="taken back"):
            await hall.ask(id_, run)

    assert await hall.texts(id_) == []
    await hall.check(id_)
