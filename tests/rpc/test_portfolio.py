"""The chat for visitors, over two processes with one store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest_asyncio

from conductor.audit.v1.audit_service_pb2 import ListAuditRecordsRequest
from conductor.audit.v1.audit_service_pb2_grpc import AuditServiceStub
from conductor.content.v1.agent_service_pb2 import DeleteAgentRequest, GetAgentRequest
from conductor.conversations.v1 import portfolio_service_pb2 as pb
from conductor.conversations.v1.conversation_pb2 import Conversation
from conductor.conversations.v1.conversation_service_pb2 import ListConversationsRequest
from conductor.conversations.v1.portfolio_service_pb2_grpc import PortfolioServiceStub
from conductor.gateway.v1.gateway_service_pb2 import ExecuteRequest, ExecuteResponse
from services.kit.errors import DETAILS, DomainError, Reason, to_status
from services.kit.interceptor import Context
from tests.patience import PATIENCE
from tests.rpc.content import Content, served_content
from tests.rpc.conversations import Conversations, served_conversations
from tests.rpc.serving import refusal

ADDRESS = "x-envoy-external-address"


class Answering:
    """Runs that answer what they were given, once their agent is there."""

    def __init__(self, content: Content) -> None:
        self._content = content
        self.given: list[ExecuteRequest] = []

    def handlers(self) -> grpc.GenericRpcHandler:
        execute = grpc.unary_unary_rpc_method_handler(
            self._execute, ExecuteRequest.FromString, ExecuteResponse.SerializeToString
        )
        return grpc.method_handlers_generic_handler(
            "conductor.gateway.v1.GatewayService", {"Execute": execute}
        )

    async def _execute(self, request: ExecuteRequest, context: Context) -> ExecuteResponse:
        self.given.append(request)
        try:
            await self._content.agents.GetAgent(
                GetAgentRequest(agent_id=request.agent_id), timeout=PATIENCE
            )
        except grpc.aio.AioRpcError:
            gone = DomainError(Reason.REASON_AGENT_NOT_FOUND, "There is no such agent.")
            details = to_status(gone).SerializeToString()
            context.set_trailing_metadata(((DETAILS, details),))
            await context.abort(grpc.StatusCode.NOT_FOUND, gone.message)
        return ExecuteResponse(status="success", result=f"You said {request.input}.")


class House:
    """Two processes and what they talk to."""

    def __init__(
        self,
        content: Content,
        gateway: Answering,
        peers: Mapping[str, str],
        *processes: Conversations,
    ) -> None:
        self.content = content
        self.gateway = gateway
        self.peers = peers
        self.processes = processes

    async def chat(
        self, message: str, session_id: str = "", address: str = "203.0.113.9", process: int = 0
    ) -> pb.ChatPortfolioResponse:
        stub = PortfolioServiceStub(self.processes[process].channel)
        request = pb.ChatPortfolioRequest(message=message, session_id=session_id)
        return await stub.ChatPortfolio(request, timeout=PATIENCE, metadata=((ADDRESS, address),))


@pytest_asyncio.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with AsyncExitStack() as stack:
        content = await stack.enter_async_context(served_content(tmp_path / "content"))
        gateway = Answering(content)
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((gateway.handlers(),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        stack.push_async_callback(server.stop, None)
        peers = {
            "content": f"ipv4:127.0.0.1:{content.port}",
            "execution": f"ipv4:127.0.0.1:{port}",
        }
        processes = [
            await stack.enter_async_context(
                served_conversations(tmp_path, peers=peers, conversations_processes=2)
            )
            for _ in range(2)
        ]
        yield House(content, gateway, peers, *processes)


async def test_a_session_is_a_conversation_that_goes_on(house: House) -> None:
    first = await house.chat("hello")
    again = await house.chat("and again", first.session_id, process=1)

    assert (first.response, again.response) == ("You said hello.", "You said and again.")
    assert again.session_id == first.session_id
    assert [one.input for one in house.gateway.given] == ["hello", "and again"]
    assert len({one.conversation_id for one in house.gateway.given}) == 1
    assert house.gateway.given[0].timeout.seconds == 60


async def test_whoever_answers_visitors_is_the_active_agent_and_comes_from_a_template(
    house: House,
) -> None:
    agent = GetAgentRequest(agent_id="technical-writer")
    assert (await refusal(house.content.agents.GetAgent(agent, timeout=PATIENCE))).reason == (
        "AGENT_NOT_FOUND"
    )
    first = await house.chat("hello")
    (given,) = house.gateway.given
    made = await house.processes[0].get(given.conversation_id)
    assert made.active_agent.agent_id == given.agent_id == agent.agent_id
    assert made.active_agent.name
    # Somebody deletes it amid a session.
    delete = DeleteAgentRequest(agent_id=agent.agent_id, purge=True)
    await house.content.agents.DeleteAgent(delete, timeout=PATIENCE)
    again = await house.chat("and again", first.session_id)
    assert (again.response, again.session_id) == ("You said and again.", first.session_id)


async def test_sessions_are_listed_apart_and_go_some_days_after_their_last_message(
    house: House, tmp_path: Path
) -> None:
    first = await house.chat("hello")
    talks = house.processes[0]
    kept = await talks.create(title="Kept")

    async def listed(**filters: Any) -> list[Conversation]:
        request = ListConversationsRequest(**filters)
        found = await talks.conversations.ListConversations(request, timeout=PATIENCE)
        return list(found.conversations)

    assert [one.id for one in await listed()] == [kept.id]
    (talk,) = await listed(visitors=True)
    assert (talk.id, talk.visitor) == (house.gateway.given[0].conversation_id, True)
    settings = {"conversations_processes": 2, "conversations_visitor_days": 1e-9}
    async with (
        served_conversations(tmp_path, peers=house.peers, **settings),
        asyncio.timeout(PATIENCE),
    ):
        while await listed(visitors=True):
            await asyncio.sleep(0.02)
    assert [one.id for one in await listed()] == [kept.id]
    assert (await house.chat("and again", first.session_id)).session_id != first.session_id


async def test_a_session_nobody_knows_begins_anew_under_an_id_of_ours(house: House) -> None:
    first = await house.chat("hello", "sess_guessed")
    second = await house.chat("hello", "sess_guessed")

    assert len({"sess_guessed", first.session_id, second.session_id}) == 3
    assert house.gateway.given[-1].conversation_id != house.gateway.given[0].conversation_id


async def test_the_21st_of_a_minute_is_refused_whichever_process_counts(house: House) -> None:
    begun = await house.chat("hello")
    said = [house.chat(f"{n}", begun.session_id, process=n % 2) for n in range(24)]
    answers = await asyncio.gather(*said, return_exceptions=True)

    refused = [one for one in answers if isinstance(one, grpc.aio.AioRpcError)]
    assert len(answers) - len(refused) == 19
    assert {error.code() for error in refused} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
    late = await refusal(house.chat("once more", process=1))
    assert late.reason == "RATE_LIMITED"
    assert late.message == "Rate limit exceeded: 20 per 1 minute."
    assert late.retry_after is not None
    assert 0 < late.retry_after <= 60
    assert (await house.chat("me too", address="203.0.113.10")).response == "You said me too."


async def test_what_is_no_message_is_refused_and_not_counted(house: House) -> None:
    for message in ("", " \n", "a" * 2001):
        refused = await refusal(house.chat(message))
        assert refused.kind == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
        assert refused.fields == ["message"]
    assert not house.gateway.given
    for _ in range(20):
        await house.chat("hello")


async def test_a_record_names_the_conversation_and_holds_neither_words_nor_session(
    house: House,
) -> None:
    first = await house.chat("hello")
    await house.chat("and again", first.session_id)

    audit = AuditServiceStub(house.processes[0].channel)
    listed = await audit.ListAuditRecords(ListAuditRecordsRequest(), timeout=PATIENCE)
    records = [one for one in listed.audit_records if one.rpc.endswith("/ChatPortfolio")]

    conversation_id = house.gateway.given[0].conversation_id
    assert [one.resource_id for one in records] == [conversation_id] * 2
    assert not any(text in str(records) for text in ("hello", "again", first.session_id))
