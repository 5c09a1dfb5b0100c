"""Starting, reading and deleting runs, and what repairs their summaries."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from services.execution.convert.executions import execution_to_proto
from services.execution.domain import Agent, AgentSnapshot, Asked, Filter, State, Wish
from services.execution.stores import COLLECTIONS, EXECUTIONS
from services.execution.usecases.catalogue import Catalogue
from services.execution.usecases.health import Health
from services.execution.usecases.retention import Retention
from services.kit.errors import DomainError, Reason
from services.kit.storage.ports import Append, Query, Replace, Write, store_unavailable
from tests.fakes.house import ORG, House, PriceList, Talker, house_at_work, is_sound, words
from tests.fakes.memory import Memory, MemoryStore
from tests.fakes.virtual import clock, in_virtual_time


class Slow(MemoryStore):
    """Takes its time, so that callers meet."""

    def __init__(self) -> None:
        super().__init__(Memory(), COLLECTIONS)

    async def query(self, query: Query) -> Any:
        await asyncio.sleep(0.01)
        return await super().query(query)

    async def write(self, *writes: Write) -> None:
        await asyncio.sleep(0.01)
        await super().write(*writes)


class Halving(MemoryStore):
    """Loses the last of several writes when the power goes, as a store without transactions does."""

    power_fails = False

    def __init__(self) -> None:
        super().__init__(Memory(), COLLECTIONS)

    async def write(self, *writes: Write) -> None:
        if self.power_fails and len(writes) > 1:
            await super().write(*writes[:-1])
            raise store_unavailable()
        await super().write(*writes)


def reason(caught: pytest.ExceptionInfo[DomainError]) -> str:
    return Reason.Name(caught.value.reason).removeprefix("REASON_")


@in_virtual_time
async def test_a_started_run_is_stored_with_its_defaults() -> None:
    house = House({"m": words("a")})
    execution = await house.start("Hello", metadata={"k": "v"}, cwd="/tmp", request_id="r")
    stored = await house.service.get(ORG, execution.id)
    assert stored == execution
    order = stored.order
    assert (order.agent_id, order.ai_provider, order.model) == ("default", "fake", "m")
    assert (order.timeout_ms, order.metadata, order.cwd) == (600_000, {"k": "v"}, "/tmp")
    assert await house.service.version(ORG, execution.id) == 1


@in_virtual_time
async def test_the_same_request_id_answers_the_same_run() -> None:
    house = House({"m": words("a")})
    first = await house.start("Hello", request_id="π/ any text")
    assert await house.start("Hello", request_id="π/ any text") == first
    assert (await house.start("Hello", request_id="else")).id != first.id
    assert (await house.start("Hello")).id != (await house.start("Hello")).id


@in_virtual_time
async def test_the_same_request_id_with_another_request_is_refused() -> None:
    house = House({"m": words("a")})
    await house.start("Hello", request_id="r")
    with pytest.raises(DomainError) as caught:
        await house.start("Hello!", request_id="r")
    assert reason(caught) == "REQUEST_ID_REUSED"


@in_virtual_time
async def test_the_same_request_id_in_two_organisations_is_two_runs() -> None:
    house = House({"m": words("a")})
    one = await house.service.start("acme", Asked("Hello", request_id="r"))
    two = await house.service.start("umbrella", Asked("Bye", request_id="r"))
    assert one.id != two.id
    assert await house.service.list("acme", Filter(), None, 10) == [one]
    with pytest.raises(DomainError) as caught:
        await house.service.get("acme", two.id)
    assert reason(caught) == "EXECUTION_NOT_FOUND"


@in_virtual_time
async def test_many_starts_with_one_request_id_at_once_are_one_run() -> None:
    house = House({"m": words("a")}, store=Slow())
    started = await asyncio.gather(*(house.start("Hello", request_id="r") for _ in range(20)))
    assert len({execution.id for execution in started}) == 1
    assert len(await house.service.list(ORG, Filter(), None, 100)) == 1


@in_virtual_time
async def test_of_two_requests_with_one_id_at_once_one_is_refused() -> None:
    house = House({"m": words("a")}, store=Slow())
    answers = await asyncio.gather(
        house.start("one", request_id="r"),
        house.start("two", request_id="r"),
        return_exceptions=True,
    )
    refused = [answer for answer in answers if isinstance(answer, DomainError)]
    assert [error.reason for error in refused] == [Reason.REASON_REQUEST_ID_REUSED]


@in_virtual_time
async def test_a_repetition_is_answered_even_when_the_model_is_there_no_more() -> None:
    house = House({"m": words("a")})
    first = await house.start("Hello", request_id="r", model="m")
    other = house.beside(says={"n": words("b")})
    assert await other.start("Hello", request_id="r", model="m") == first


@in_virtual_time
async def test_what_a_run_uses_of_its_agent_is_stored_with_it() -> None:
    house = House({"m": words("a")})
    used = AgentSnapshot("Writer", "4", 2, "production", ("search", "shell"), ("files",))
    house.agents.known["writer"] = Agent("writer", persona="You are a writer.", snapshot=used)
    started = await house.start(agent_id="writer")
    stored = await house.service.get(ORG, started.id)
    assert stored == started
    assert (stored.order.agent, stored.order.system) == (used, "You are a writer.")
    (listed,) = await house.service.list(ORG, Filter(), None, 10)
    # What may be large is not read for lists.
    assert (listed.order.agent, listed.order.system) == (used, "")


@in_virtual_time
async def test_a_run_of_a_release_that_noted_nothing_of_agents_is_read_and_seen_through() -> None:
    memory = Memory()
    house = House({"m": words("a")}, store=MemoryStore(memory, COLLECTIONS))
    started = await house.start()
    ((key, document),) = memory.documents.items()
    body = {name: value for name, value in document.body.items() if name != "agent"}
    memory.documents[key] = replace(document, body=body, content={"input": "Hello"})
    old = await house.service.get(ORG, started.id)
    assert (old.order.agent, old.order.system) == (None, "")
    async with house.working():
        ended = await house.end_of(old)
    assert (ended.state, ended.order) == (State.SUCCEEDED, old.order)
    assert not execution_to_proto(ended).HasField("agent")


@in_virtual_time
async def test_the_same_request_id_with_another_version_of_the_persona_is_refused() -> None:
    house = House({"m": words("a")})
    first = await house.start(request_id="r", persona_version="canary")
    assert await house.start(request_id="r", persona_version="canary") == first
    for reference in ("", "1"):
        with pytest.raises(DomainError) as caught:
            await house.start(request_id="r", persona_version=reference)
        assert reason(caught) == "REQUEST_ID_REUSED"


@in_virtual_time
async def test_a_repetition_is_answered_even_when_the_agent_is_there_no_more() -> None:
    house = House({"m": words("a")})
    house.agents.known["writer"] = Agent("writer")
    first = await house.start(request_id="r", agent_id="writer")
    del house.agents.known["writer"]
    assert await house.start(request_id="r", agent_id="writer") == first


@in_virtual_time
async def test_a_deleted_run_is_gone_and_its_request_id_is_free() -> None:
    async with house_at_work({"m": words("a")}) as house:
        first = await house.end_of(await house.start(request_id="r"))
        await house.service.delete(ORG, first.id)
        for call in (
            house.service.get(ORG, first.id),
            house.service.version(ORG, first.id),
            house.service.delete(ORG, first.id),
            house.service.cancel(ORG, first.id, "call:1"),
            house.service.answer(ORG, first.id, asyncio.sleep(0)),
        ):
            with pytest.raises(DomainError) as caught:
                await call
            assert reason(caught) == "EXECUTION_NOT_FOUND"
        assert await house.log(first) == []
        again = await house.start(request_id="r")
        assert again.id != first.id


@in_virtual_time
async def test_a_run_that_has_not_ended_is_not_deleted() -> None:
    house = House({"m": words("a")})
    execution = await house.start()
    with pytest.raises(DomainError) as caught:
        await house.service.delete(ORG, execution.id)
    assert reason(caught) == "EXECUTION_NOT_FINISHED"
    assert len(await house.log(execution)) == 1


@pytest.mark.parametrize("text", ["", " ", "\n\t", "\u00a0\u3000"])
@in_virtual_time
async def test_a_request_without_text_is_refused(text: str) -> None:
    house = House({"m": words("a")})
    with pytest.raises(DomainError) as caught:
        await house.start(text)
    assert reason(caught) == "INVALID_REQUEST"
    assert [one.field for one in caught.value.violations] == ["input"]


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"agent_id": "nobody"}, "AGENT_NOT_FOUND"),
        ({"model": "none"}, "MODEL_NOT_FOUND"),
        ({"ai_provider": "none"}, "PROVIDER_NOT_FOUND"),
        ({"ai_provider": "none", "model": "m"}, "PROVIDER_NOT_FOUND"),
    ],
)
@in_virtual_time
async def test_what_is_not_there_is_said(asked: dict[str, str], expected: str) -> None:
    house = House({"m": words("a")})
    with pytest.raises(DomainError) as caught:
        await house.start(**asked)
    assert reason(caught) == expected


def catalogue() -> Catalogue:
    one, two = Talker({"b": words(), "a": words()}), Talker({"d": words(), "c": words()})
    two.name = "other"
    two.models = {id_: type(model)(id_, "other", "") for id_, model in two.models.items()}
    return Catalogue([one, two], PriceList())


@pytest.mark.parametrize(
    ("provider", "model", "agent", "expected"),
    [
        ("", "", Agent("x"), "b"),
        ("", "", Agent("x", model="c"), "c"),
        ("", "", Agent("x", ai_provider="other"), "d"),
        ("", "a", Agent("x", ai_provider="other", model="c"), "a"),
        ("other", "", Agent("x"), "d"),
        ("fake", "", Agent("x", ai_provider="other", model="c"), "b"),
        ("other", "c", Agent("x"), "c"),
    ],
)
def test_the_requests_model_comes_before_the_agents_and_that_before_the_default(
    provider: str, model: str, agent: Agent, expected: str
) -> None:
    assert catalogue().choose(Wish(provider, model), (), agent)[0].model == expected


def test_a_provider_that_knows_no_model_by_name_is_not_the_default() -> None:
    unnamed = Talker({})
    unnamed.name = "local"
    known = Talker({"a": words()})
    assert Catalogue([unnamed, known], PriceList()).default.model == "a"
    with pytest.raises(DomainError) as caught:
        Catalogue([unnamed, known], PriceList()).choose(Wish("local"), (), Agent("x"))
    assert reason(caught) == "MODEL_NOT_FOUND"


def test_models_are_in_the_order_of_their_ids() -> None:
    assert [model.id for model, _ in catalogue().models] == ["a", "b", "c", "d"]
    assert catalogue().default.model == "b"


@pytest.mark.parametrize(
    ("provider", "model", "expected"),
    [
        ("nobody", "", "PROVIDER_NOT_FOUND"),
        ("", "nothing", "MODEL_NOT_FOUND"),
        ("other", "a", "PROVIDER_NOT_FOUND"),
        ("other", "nothing", "MODEL_NOT_FOUND"),
    ],
)
def test_a_model_that_is_not_there_or_elsewhere_is_refused(
    provider: str, model: str, expected: str
) -> None:
    with pytest.raises(DomainError) as caught:
        catalogue().choose(Wish(provider, model), (), Agent("x"))
    assert reason(caught) == expected


# Summaries that fell behind their logs


@in_virtual_time
async def test_a_start_cut_in_half_is_gone_on_with() -> None:
    store = Halving()
    house = House({"m": words("a")}, store=store)
    store.power_fails = True
    with pytest.raises(DomainError):
        await house.start()
    store.power_fails = False
    (execution,) = await house.service.list(ORG, Filter(), None, 10)
    assert await house.log(execution) == []
    async with house.working():
        ended_run = await house.end_of(execution)
        is_sound(ended_run, await house.log(ended_run))


@in_virtual_time
async def test_a_start_so_slow_that_a_worker_is_faster_is_a_start_all_the_same() -> None:
    class OneByOne(MemoryStore):
        async def write(self, *writes: Write) -> None:
            for write in writes:
                await super().write(write)
                await asyncio.sleep(5)

    memory = Memory()
    house = House({"m": words("a")}, store=OneByOne(memory, COLLECTIONS))
    async with house.beside(store=MemoryStore(memory, COLLECTIONS)).working():
        ended_run = await house.end_of(await house.start())
        is_sound(ended_run, await house.log(ended_run))


@in_virtual_time
async def test_a_start_cut_in_half_can_be_cancelled() -> None:
    store = Halving()
    house = House({"m": words("a")}, store=store)
    store.power_fails = True
    with pytest.raises(DomainError):
        await house.start()
    store.power_fails = False
    (execution,) = await house.service.list(ORG, Filter(), None, 10)
    cancelled = await house.service.cancel(ORG, execution.id, "call:1")
    is_sound(cancelled, await house.log(cancelled))


@in_virtual_time
async def test_an_end_cut_in_half_is_repaired_by_whoever_needs_it() -> None:
    for need in ("watch", "cancel", "delete", "worker"):
        store = Halving()
        house = House({"m": words("a", "b", every=0.1)}, store=store)
        execution = await house.start()
        async with house.working():
            await asyncio.sleep(0.15)
            store.power_fails = True
            await asyncio.sleep(0.1)
        store.power_fails = False
        assert (await house.log(execution))[-1].kind == "result"
        assert not (await house.service.get(ORG, execution.id)).finished
        if need == "watch":
            seen = house.watches.ended(ORG, execution.id)
            assert (await house.service.answer(ORG, execution.id, seen)).result == "ab"
        elif need == "cancel":
            with pytest.raises(DomainError) as caught:
                await house.service.cancel(ORG, execution.id, "call:1")
            assert reason(caught) == "EXECUTION_FINISHED"
        elif need == "delete":
            await house.service.delete(ORG, execution.id)
            assert await house.log(execution) == []
            continue
        else:
            async with house.beside().working():
                await asyncio.sleep(10)
        repaired = await house.service.get(ORG, execution.id)
        is_sound(repaired, await house.log(repaired))


@in_virtual_time
async def test_a_delete_cut_in_half_shows_nothing_and_is_finished_by_its_repetition() -> None:
    store = Halving()
    house = House({"m": words("a")}, store=store)
    async with house.working():
        execution = await house.end_of(await house.start())
    store.power_fails = True
    with pytest.raises(DomainError):
        await house.service.delete(ORG, execution.id)
    store.power_fails = False
    for after in (0, 1, len(await house.log(execution))):
        with pytest.raises(DomainError) as caught:
            await house.watches.open(ORG, execution.id, after)
        assert reason(caught) == "EXECUTION_NOT_FOUND"
    with pytest.raises(DomainError) as caught:
        await house.service.delete(ORG, execution.id)
    assert reason(caught) == "EXECUTION_NOT_FOUND"
    assert await house.log(execution) == []


@in_virtual_time
async def test_a_cancel_cut_in_half_is_a_cancel() -> None:
    store = Halving()
    house = House({"m": words("a")}, store=store)
    execution = await house.start()
    store.power_fails = True
    with pytest.raises(DomainError):
        await house.service.cancel(ORG, execution.id, "call:1")
    store.power_fails = False
    cancelled = await house.service.cancel(ORG, execution.id, "call:2")
    assert cancelled.state is State.CANCELLED
    log = await house.log(cancelled)
    is_sound(cancelled, log)
    assert log[-1].writer == "call:1"


@in_virtual_time
async def test_a_cancel_that_loses_every_race_says_so() -> None:
    class Rival(MemoryStore):
        """Somebody else always changes the document first."""

        async def write(self, *writes: Write) -> None:
            if isinstance(writes[0], Append) and len(writes) == 2:
                document = await self.get(EXECUTIONS, ORG, "exec_1_000001")
                assert document is not None
                await super().write(Replace(EXECUTIONS, document))
            await super().write(*writes)

    house = House({"m": words("a")}, store=Rival(Memory(), COLLECTIONS))
    execution = await house.start()
    with pytest.raises(DomainError) as caught:
        await house.service.cancel(ORG, execution.id, "call:1")
    assert reason(caught) == "CONFLICT"
    assert caught.value.retry_after is not None
    assert len(await house.log(execution)) == 1


# Health and retention


class Others:
    """Other services, and what is wrong with each."""

    def __init__(self, **troubles: str) -> None:
        self._troubles = troubles

    async def health(self) -> Mapping[str, str]:
        return self._troubles


@in_virtual_time
async def test_a_mesh_that_works_is_healthy_part_by_part() -> None:
    async with house_at_work({"m": words("a")}) as house:
        parts = await Health(house.executions, house.worker, Others(content="")).check()
        assert [(part.name, part.trouble) for part in parts] == [
            ("store", ""),
            ("worker", ""),
            ("content", ""),
        ]


@in_virtual_time
async def test_every_part_that_is_down_is_named() -> None:
    house = House({"m": words("a")})
    async with house.working():
        pass
    await house.store.close()
    others = Others(content="It does not answer.", other="")
    with pytest.raises(DomainError) as caught:
        await Health(house.executions, house.worker, others).check()
    assert reason(caught) == "UNHEALTHY"
    assert [(one.type, one.name) for one in caught.value.resources] == [
        ("part", "store"),
        ("part", "worker"),
        ("part", "content"),
    ]


@in_virtual_time
async def test_finished_runs_are_deleted_once_they_are_old_enough() -> None:
    async with house_at_work({"m": words("a"), "slow": words("a", every=500)}) as house:
        old = await house.end_of(await house.start())
        unfinished = await house.start(model="slow")
        await asyncio.sleep(100)
        young = await house.end_of(await house.start())
        retention = Retention(house.executions, house.service, keep_seconds=60, clock=clock)
        assert await retention.sweep() == 1
        left = await house.service.list(ORG, Filter(), None, 10)
        assert [execution.id for execution in left] == [young.id, unfinished.id]
        assert await house.log(old) == []
        assert await retention.sweep() == 0
