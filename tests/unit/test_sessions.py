"""Sessions: what comes out of them, in order, and what they hold while nobody reads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, field

import pytest

from services.execution.domain import Asked, Execution, Placement, State
from services.execution.usecases.sessions import Opened, Refused, Sessions, Speaker, Told
from services.execution.usecases.watches import Page
from services.kit.errors import DomainError, Reason
from tests.fakes.house import ORG, House, house_at_work, silence, words
from tests.fakes.turns import FakeTurns, Outage
from tests.fakes.virtual import in_virtual_time, monotonic

SAYS = {"m": words("a", "b", every=0.2)}
WHO = Speaker(ORG, "key:k", "call:1")


@dataclass
class Talker:
    """Says what a test wants, and notes what was taken."""

    said: asyncio.Queue[str | type[StopAsyncIteration] | None] = field(
        default_factory=asyncio.Queue
    )
    taken: int = 0

    def say(self, *texts: str | None) -> None:
        for text in texts:
            self.said.put_nowait(text)

    def done(self) -> None:
        self.said.put_nowait(StopAsyncIteration)

    async def __aiter__(self) -> AsyncIterator[str | None]:
        while True:
            text = await self.said.get()
            if isinstance(text, type):
                return
            self.taken += 1
            yield text


def opened(house: House, talker: Talker, **asked: str) -> AsyncGenerator[Told, None]:
    sessions = Sessions(house.service, house.talks, house.watches)
    return sessions.converse(WHO, Asked("", **asked), aiter(talker))  # type: ignore[arg-type]  # texts alone


async def everything(session: AsyncGenerator[Told, None]) -> list[Told]:
    async with asyncio.timeout(100), aclosing(session):
        return [one async for one in session]


@in_virtual_time
async def test_a_session_answers_each_message_in_its_turn_and_ends_after_the_last() -> None:
    turns, talker = FakeTurns(), Talker()
    async with house_at_work(SAYS, conversations=turns) as house:
        talker.say("1", "2")
        talker.done()
        told = await everything(opened(house, talker, agent_id="default"))
        assert told[0] == Opened("conv_1")
        assert turns.conversation("conv_1").active == Placement("default")
        started = [one for one in told if isinstance(one, Execution)]
        assert [run.order.input for run in started] == ["1", "2"]
        assert {run.order.conversation_id for run in started} == {"conv_1"}
        assert started[0].talk is not None
        assert started[0].talk.author == "key:k"
        pages = [one for one in told if isinstance(one, Page)]
        for run in started:
            mine = [page for page in pages if page.execution_id == run.id]
            events = [event for page in mine for event in page.events]
            assert events == await house.log(run)
            assert mine[-1].terminal
            # Whose events come has been told of.
            assert told.index(mine[0]) > told.index(run)
    said = [(one.content, one.status) for one in turns.conversation("conv_1").messages]
    assert said == [
        ("1", "completed"),
        ("ab", "completed"),
        ("2", "completed"),
        ("ab", "completed"),
    ]


@in_virtual_time
async def test_an_interruption_cancels_what_runs_and_what_waits() -> None:
    turns, talker = FakeTurns(), Talker()
    async with house_at_work({"m": silence}, conversations=turns) as house:
        talker.say("1", "2", None)
        talker.done()
        told = await everything(opened(house, talker, conversation_id="c", agent_id="default"))
        runs = [one for one in told if isinstance(one, Execution)]
        states = [(await house.service.get(ORG, run.id)).state for run in runs]
        assert states == [State.CANCELLED] * 2


@in_virtual_time
async def test_a_message_that_is_refused_leaves_the_session_open() -> None:
    turns, talker = FakeTurns(), Talker()
    async with house_at_work(SAYS, conversations=turns) as house:
        talker.say("1", "  ", "2")
        talker.done()
        told = await everything(
            opened(house, talker, conversation_id="c", agent_id="default", busy_policy="reject")
        )
        refused = [one.error.reason for one in told if isinstance(one, Refused)]
        assert refused == [Reason.REASON_INVALID_REQUEST, Reason.REASON_CONVERSATION_BUSY]


@pytest.mark.parametrize("conversation_id", ["nowhere", ""])
@in_virtual_time
async def test_a_session_that_cannot_be_opened_says_why(conversation_id: str) -> None:
    turns = FakeTurns(trouble=None if conversation_id else Outage())
    house = House(SAYS, conversations=turns)
    with pytest.raises(DomainError) as caught:
        await everything(
            opened(house, Talker(), conversation_id=conversation_id, agent_id="default")
        )
    wanted = "CONVERSATION_NOT_FOUND" if conversation_id else "SERVICE_UNAVAILABLE"
    assert Reason.Name(caught.value.reason) == f"REASON_{wanted}"


@in_virtual_time
async def test_a_silent_session_gives_signs_of_life_and_ends_when_the_server_stops() -> None:
    talker = Talker()
    house = House(SAYS, conversations=FakeTurns())
    sessions = Sessions(house.service, house.talks, house.watches)
    session = sessions.converse(WHO, Asked("", conversation_id="c"), aiter(talker))
    assert await anext(session) == Opened("c")
    began = monotonic()
    assert await anext(session) is None
    assert await anext(session) is None
    assert monotonic() - began == 30
    sessions.close()
    with pytest.raises(DomainError) as caught:
        await anext(session)
    assert caught.value.reason == Reason.REASON_SHUTTING_DOWN
    assert caught.value.retry_after is not None


@in_virtual_time
async def test_whoever_does_not_read_is_not_read_from() -> None:
    turns, talker = FakeTurns(), Talker()
    async with house_at_work(SAYS, conversations=turns) as house:
        talker.say(*[" "] * 1000)
        session = opened(house, talker, conversation_id="c", agent_id="default")
        await anext(session)
        await anext(session)
        await asyncio.sleep(100)
        assert talker.taken < 5
        await session.aclose()


@in_virtual_time
async def test_a_run_goes_on_when_its_session_is_left() -> None:
    turns, talker = FakeTurns(), Talker()
    async with house_at_work(SAYS, conversations=turns) as house:
        talker.say("1")
        session = opened(house, talker, conversation_id="c", agent_id="default")
        await anext(session)
        run = await anext(session)
        assert isinstance(run, Execution)
        await session.aclose()
        assert (await house.end_of(run)).state is State.SUCCEEDED
        left = {task.get_name() for task in asyncio.all_tasks()}
        assert "session" not in left
