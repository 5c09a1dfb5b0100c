"""Histories over every store."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from services.conversations.domain import histories
from services.conversations.domain.histories import Ended, Outcome, Shown, Totals, Whose
from services.conversations.stores.histories import RUNS, StoredLinks
from services.conversations.usecases.histories import HistoryService
from services.kit.resources.ports import FencedError, TakenError
from services.kit.storage.ports import Store
from tests.contract.conftest import OpenStore

ORG = "acme"
RUN = Ended(
    ORG,
    "exec_1",
    "writer",
    Outcome.FAILED,
    1_500,
    instance_id="inst_1",
    conversation_id="conv_1",
    question="# Ü 🎈\r\n\f",
    answer="$set",
    error_reason="MODEL_TIMEOUT",
)


class Undeleted:
    """Messages nobody deletes."""

    async def any_deleted(self, org: str, execution_id: str) -> bool:
        return False


@pytest.fixture
async def store(open_store: OpenStore) -> Store:
    return await open_store((RUNS,), ())


async def test_a_link_comes_back_as_it_was_stored(store: Store) -> None:
    links = StoredLinks(store)
    bare = Ended(ORG, "exec_2", "writer", Outcome.CANCELLED, 0)
    first, other = histories.linked(None, RUN, 7), histories.linked(None, bare, 8)
    await links.add(first)
    await links.add(other)

    assert await links.find(ORG, "exec_1") == first
    assert await links.find("other", "exec_1") is None
    assert await links.newest(ORG, "inst_1") == first
    assert await links.newest(ORG, "agent:writer") == other
    both = await links.list(ORG, Whose(agent_id="writer"), Shown.SHOWN, None, 9)
    assert list(both) == [other, first]


async def test_a_number_and_a_run_are_taken_once(store: Store) -> None:
    links = StoredLinks(store)
    first = histories.linked(None, RUN, 7)
    await links.add(first)

    with pytest.raises(TakenError):
        await links.add(replace(first, run=replace(RUN, execution_id="exec_2")))
    with pytest.raises(TakenError):
        await links.add(histories.linked(first, RUN, 8))

    assert await links.newest(ORG, "inst_1") == first


async def test_a_link_that_changed_is_in_other_lists_and_is_not_changed_by_who_read_it_before(
    store: Store,
) -> None:
    links = StoredLinks(store)
    first = histories.linked(None, RUN, 7)
    await links.add(first)

    hidden = await links.save(histories.followed(first, deleted=True))

    with pytest.raises(FencedError):
        await links.save(histories.cleared(first))
    assert await links.list(ORG, Whose(instance_id="inst_1"), Shown.SHOWN, None, 9) == []
    assert await links.list(ORG, Whose(instance_id="inst_1"), Shown.HIDDEN, None, 9) == [hidden]
    cleared = await links.save(histories.cleared(hidden))
    assert await links.find(ORG, "exec_1") == cleared


async def test_a_run_is_told_those_of_its_instance_that_said_something_outside_of_conversations(
    store: Store,
) -> None:
    links = StoredLinks(store)
    told = replace(RUN, outcome=Outcome.SUCCEEDED, conversation_id="")
    runs = [told, RUN, replace(told, outcome=Outcome.FAILED, answer=""), told]
    runs += [replace(told, conversation_id="conv_1"), replace(told, outcome=Outcome.FAILED), told]
    newest = None
    for number, run in enumerate(runs, 1):
        newest = histories.linked(newest, replace(run, execution_id=f"exec_{number}"), 7)
        await links.add(newest)
    for other in ("", "inst_2"):
        run = replace(told, instance_id=other, execution_id=f"exec_of_{other}")
        await links.add(histories.linked(None, run, 7))

    async def numbers(upto: int, limit: int = 9) -> list[int]:
        return [link.number for link in await links.told(ORG, "inst_1", upto, limit)]

    assert await numbers(7) == [7, 6, 4, 1]
    assert await numbers(6) == [6, 4, 1]
    assert await numbers(7, 2) == [7, 6]
    assert await links.told("other", "inst_1", 7, 9) == []
    found = await links.find(ORG, "exec_6")
    assert found is not None
    await links.save(histories.cleared(found))
    assert await numbers(7) == [7, 4, 1]


async def test_runs_that_end_at_once_in_several_processes_count_once_each(store: Store) -> None:
    services = [HistoryService(StoredLinks(store), Undeleted(), clock=lambda: 7) for _ in range(3)]
    runs = [replace(RUN, execution_id=f"exec_{number}", duration=number) for number in range(20)]

    await asyncio.gather(
        *(services[index % 3].record(run) for index, run in enumerate([*runs, *runs]))
    )

    totals = await services[0].statistics(ORG, "inst_1")
    assert (totals.count, totals.duration) == (20, sum(range(20)))
    await services[0].purge(ORG, "inst_1")
    assert await services[0].statistics(ORG, "inst_1") == Totals()
