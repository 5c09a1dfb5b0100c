"""Agents of the content service: how long they are believed, and what happens while it is away."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

import pytest

from conductor.content.v1.agent_pb2 import Agent, AgentModel
from conductor.content.v1.agent_service_pb2 import ResolveAgentRequest, ResolveAgentResponse
from services.execution.adapters.agents import ContentAgents
from services.execution.domain import Agent as Runnable
from services.execution.domain import AgentSnapshot, Wish
from services.kit.errors import DomainError, Reason
from services.kit.peers import Metadata
from services.kit.storage.ports import store_unavailable
from tests.fakes.content import Catalogue, Persona
from tests.fakes.virtual import in_virtual_time, monotonic

AWAY = DomainError(Reason.REASON_SERVICE_UNAVAILABLE, "Nobody answers.", retry_after=1.0)


class Content(Catalogue):
    """The content service as its stub shows it, with one organisation's agents for all."""

    def __init__(self, *agents: Agent, **personas: Persona) -> None:
        super().__init__(agents, personas)
        self.orgs: list[Metadata] = []
        self.takes = 0.0

    async def ResolveAgent(
        self, request: ResolveAgentRequest, *, timeout: float, metadata: Metadata
    ) -> ResolveAgentResponse:
        self.orgs.append(metadata)
        answer = await self.resolve(request)
        # It is read, and then the answer takes its way.
        await asyncio.sleep(self.takes)
        return answer

    def rename(self, agent_id: str, name: str) -> None:
        self.agents[agent_id] = Agent(id=agent_id, name=name)


def itself(org: str) -> Metadata:
    return (("org", org),)


def reader(content: Content, **bounds: int) -> ContentAgents:
    return ContentAgents(content, itself, monotonic=monotonic, **bounds)


def writer() -> Content:
    return Content(Agent(id="writer", name="old"))


async def name_of(agents: ContentAgents, agent_id: str = "writer") -> str:
    return (await agents.get("acme", agent_id, "")).snapshot.name


async def reason_of(call: Awaitable[object]) -> Reason.ValueType:
    with pytest.raises(DomainError) as caught:
        await call
    return caught.value.reason


@in_virtual_time
async def test_an_agent_is_read_with_all_that_a_run_needs() -> None:
    content = Content(
        Agent(
            id="writer",
            name="Writer",
            etag="7",
            ai_provider="house",
            model="m",
            fallbacks=[AgentModel(ai_provider="house"), AgentModel(model="n")],
            tools=["a", "b"],
            mcp_servers=["c"],
            instructions="Write.\n",
        ),
        writer=Persona(["First.", "You are a writer.\n"], {"production": 2}),
    )
    assert await reader(content).get("acme", "writer", "") == Runnable(
        "writer",
        "house",
        "m",
        (Wish("house"), Wish(model="n")),
        "You are a writer.",
        "Write.",
        AgentSnapshot("Writer", "7", 2, "production", ("a", "b"), ("c",)),
    )
    assert content.orgs == [itself("acme")]


@in_virtual_time
async def test_each_version_of_a_persona_is_read_by_itself() -> None:
    content = Content(Agent(id="writer"), writer=Persona(["one", "two"], {"canary": 1}))
    agents = reader(content)
    for reference, system, version, alias in (
        ("1", "one", 1, ""),
        ("canary", "one", 1, "canary"),
        ("latest", "two", 2, ""),
        ("", "two", 2, ""),
    ):
        found = await agents.get("acme", "writer", reference)
        used = (found.snapshot.persona_version, found.snapshot.persona_alias)
        assert (found.persona, used) == (system, (version, alias))


@in_virtual_time
async def test_organisations_are_apart() -> None:
    content = writer()
    agents = reader(content)
    await agents.get("acme", "writer", "")
    await agents.get("umbrella", "writer", "")
    assert content.orgs == [itself("acme"), itself("umbrella")]


@in_virtual_time
async def test_a_change_arrives_within_a_second_however_often_the_agent_is_asked_for() -> None:
    content = writer()
    agents = reader(content)
    for _ in range(33):
        await name_of(agents)
        await asyncio.sleep(0.1)
    content.rename("writer", "new")
    await asyncio.sleep(0.999)
    assert await name_of(agents) == "new"
    # Read about twice a second, not once a run.
    assert len(content.requests) < 10


@in_virtual_time
async def test_a_change_arrives_within_a_second_at_an_agent_that_is_seldom_asked_for() -> None:
    content = writer()
    agents = reader(content)
    await name_of(agents)
    content.rename("writer", "new")
    await asyncio.sleep(0.999)
    assert await name_of(agents) == "new"


@in_virtual_time
async def test_an_answer_that_was_long_on_its_way_is_no_younger_for_it() -> None:
    content = writer()
    agents = reader(content)
    content.takes = 0.85
    assert await name_of(agents) == "old"
    content.rename("writer", "new")
    content.takes = 0.0
    await asyncio.sleep(0.1)
    assert await name_of(agents) == "new"


@in_virtual_time
async def test_nobody_joins_a_question_that_is_too_old() -> None:
    content = writer()
    agents = reader(content)
    content.takes = 3.0
    first = asyncio.create_task(name_of(agents))
    await asyncio.sleep(1.5)
    content.rename("writer", "new")
    content.takes = 0.0
    assert await name_of(agents) == "new"
    assert await first == "old"
    # What came later was asked for earlier, and says less.
    content.trouble = AWAY
    assert await name_of(agents) == "new"


@in_virtual_time
async def test_who_goes_on_to_ask_waits_for_no_answer() -> None:
    content = writer()
    agents = reader(content)
    await name_of(agents)
    content.takes = 0.2
    began = monotonic()
    for _ in range(100):
        await name_of(agents)
        await asyncio.sleep(0.1)
    assert monotonic() - began == pytest.approx(10.0)


@in_virtual_time
async def test_many_who_ask_at_once_share_a_question_and_its_answer() -> None:
    content = writer()
    content.takes = 0.5
    agents = reader(content)
    asking = [asyncio.create_task(name_of(agents)) for _ in range(50)]
    await asyncio.sleep(0.1)
    # Whoever came first goes away, and the others are answered all the same.
    asking[0].cancel()
    assert await asyncio.gather(*asking[1:]) == ["old"] * 49
    assert len(content.requests) == 1


@in_virtual_time
async def test_what_is_not_there_is_asked_for_each_time_and_said_as_it_was() -> None:
    content = writer()
    agents = reader(content)
    for _ in range(2):
        with pytest.raises(DomainError) as caught:
            await agents.get("acme", "writr", "")
        assert caught.value.reason == Reason.REASON_AGENT_NOT_FOUND
        assert caught.value.metadata == {"suggestions": "default,writer"}
        refused = agents.get("acme", "writer", "9")
        assert await reason_of(refused) == Reason.REASON_PERSONA_VERSION_NOT_FOUND
    content.agents["writr"] = Agent(id="writr", name="there")
    assert await name_of(agents, "writr") == "there"


@in_virtual_time
async def test_an_agent_that_is_deleted_is_gone_within_a_second() -> None:
    content = writer()
    agents = reader(content)
    await name_of(agents)
    del content.agents["writer"]
    await asyncio.sleep(0.6)
    # Renewed in the background, which finds it gone.
    await name_of(agents)
    await asyncio.sleep(0)
    assert await reason_of(name_of(agents)) == Reason.REASON_AGENT_NOT_FOUND


@pytest.mark.parametrize("trouble", [AWAY, store_unavailable()])
@in_virtual_time
async def test_what_was_read_is_believed_thirty_seconds_longer_while_nobody_answers(
    trouble: DomainError, caplog: pytest.LogCaptureFixture
) -> None:
    content = writer()
    agents = reader(content)
    began = monotonic()
    await name_of(agents)
    content.trouble = trouble
    while monotonic() < began + 30.8:
        assert await name_of(agents) == "old"
        await asyncio.sleep(0.1)
    await asyncio.sleep(0.2)
    assert await reason_of(name_of(agents)) == trouble.reason
    assert await reason_of(name_of(agents, "default")) == trouble.reason
    assert [record.levelname for record in caplog.records] == ["WARNING"]

    content.rename("writer", "new")
    content.trouble = None
    assert await name_of(agents) == "new"
    content.trouble = trouble
    await asyncio.sleep(1.0)
    assert await name_of(agents) == "new"
    assert len(caplog.records) == 2


@in_virtual_time
async def test_a_change_arrives_within_a_second_after_it_answers_again() -> None:
    content = writer()
    agents = reader(content)
    await name_of(agents)
    content.trouble = AWAY
    for _ in range(57):
        await name_of(agents)
        await asyncio.sleep(0.1)
    content.trouble = None
    content.rename("writer", "new")
    await asyncio.sleep(0.999)
    assert await name_of(agents) == "new"


@in_virtual_time
async def test_while_it_says_nothing_somebody_waits_a_second_and_others_not_at_all() -> None:
    content = writer()
    agents = reader(content)
    await name_of(agents)
    content.answering.clear()
    await asyncio.sleep(1.0)
    began = monotonic()
    assert await asyncio.gather(*(name_of(agents) for _ in range(10))) == ["old"] * 10
    assert monotonic() - began == pytest.approx(1.0)
    assert await name_of(agents) == "old"
    assert monotonic() - began == pytest.approx(1.0)
    await agents.close()


@in_virtual_time
async def test_no_more_agents_are_remembered_than_may_be() -> None:
    content = Content(*(Agent(id=f"a{number}") for number in range(4)))
    agents = reader(content, most_agents=2)
    for agent_id in ("a0", "a1", "a0", "a2", "a0"):
        await agents.get("acme", agent_id, "")
    assert [one.agent_id for one in content.requests] == ["a0", "a1", "a2"]
    await agents.get("acme", "a1", "")
    assert len(content.requests) == 4


@in_virtual_time
async def test_no_more_bytes_of_agents_are_remembered_than_may_be() -> None:
    large = [Agent(id=f"a{number}", instructions="x" * 1000) for number in range(3)]
    content = Content(*large)
    agents = reader(content, most_bytes=2500)
    for agent_id in ("a0", "a1", "a0", "a1", "a2", "a0"):
        found = await agents.get("acme", agent_id, "")
        assert found.instructions == "x" * 1000
    assert [one.agent_id for one in content.requests] == ["a0", "a1", "a2", "a0"]


@in_virtual_time
async def test_one_that_is_too_large_to_be_remembered_is_read_each_time() -> None:
    content = Content(Agent(id="a", instructions="x" * 1000))
    agents = reader(content, most_bytes=500)
    for _ in range(2):
        assert (await agents.get("acme", "a", "")).instructions == "x" * 1000
    assert len(content.requests) == 2
