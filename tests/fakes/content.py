"""A content service that knows the agents a test gives it, as far as other services ask.

    async with FakeContent(Catalogue([Agent(id="writer", model="mock-slow")])) as content:
        ...  # CONDUCTOR_PEERS says {"content": content.target}

Every organisation has the same agents, and the agent `default`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import grpc
from google.protobuf.message import Message
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_status import rpc_status

from conductor.audit.v1.audit_service_pb2 import ListAuditRecordsRequest, ListAuditRecordsResponse
from conductor.content.v1.agent_pb2 import Agent
from conductor.content.v1.agent_service_pb2 import (
    GetAgentRequest,
    ResolveAgentRequest,
    ResolveAgentResponse,
)
from conductor.content.v1.persona_service_pb2 import GetPersonaRequest
from conductor.content.v1.screenplay_pb2 import Screenplay
from conductor.content.v1.screenplay_service_pb2 import (
    GetScreenplayRequest,
    MarkScreenplayUsedRequest,
)
from services.kit.errors import DomainError, Reason, Resource, to_status

Context = grpc.aio.ServicerContext[Any, Any]

AWAY = {"content": "ipv4:127.0.0.1:1"}
"""What CONDUCTOR_PEERS says in tests that need no agents: nobody answers there."""

AGENTS = "conductor.content.v1.AgentService"
PERSONAS = "conductor.content.v1.PersonaService"
SCREENPLAYS = "conductor.content.v1.ScreenplayService"
AUDIT = "conductor.audit.v1.AuditService"
HEALTH = "grpc.health.v1.Health"


@dataclass
class Persona:
    """The texts of a persona, the first version first, and the numbers its aliases stand for."""

    texts: list[str]
    aliases: dict[str, int] = field(default_factory=dict)

    def version(self, reference: str) -> tuple[int, str]:
        """The number and the alias of a version; 0 when there is none like that."""
        alias = reference if reference in self.aliases else ""
        if not reference and "production" in self.aliases:
            alias = "production"
        if alias:
            return self.aliases[alias], alias
        latest = len(self.texts)
        if reference.isdigit():
            number = int(reference)
        else:
            number = {"": latest, "latest": latest, "first": 1}.get(reference, 0)
        return (number if number <= latest else 0), ""


class Catalogue:
    """The agents of a fake, and how it answers. Tests change it as they like."""

    def __init__(
        self, agents: Iterable[Agent] = (), personas: Mapping[str, Persona] | None = None
    ) -> None:
        self.agents = {one.id: one for one in (Agent(id="default", name="Default"), *agents)}
        self.personas = dict(personas or {})
        self.screenplays: dict[str, Screenplay] = {}
        self.used: list[str] = []
        """The screenplays that were marked as used."""
        self.reading: list[GetScreenplayRequest] = []
        self.requests: list[ResolveAgentRequest] = []
        self.trouble: DomainError | None = None
        """What every question ends with."""
        self.answering = asyncio.Event()
        """Cleared, questions wait."""
        self.answering.set()

    async def agent(self, agent_id: str) -> Agent:
        """Answer as GetAgent does."""
        await self.answering.wait()
        if self.trouble is not None:
            raise self.trouble
        if agent_id not in self.agents:
            raise DomainError(
                Reason.REASON_AGENT_NOT_FOUND,
                f"No agent has the id {agent_id}.",
                resources=[Resource("agent", agent_id)],
                metadata={"suggestions": ",".join(self.agents)},
            )
        return self.agents[agent_id]

    async def resolve(self, request: ResolveAgentRequest) -> ResolveAgentResponse:
        """Answer as ResolveAgent does."""
        self.requests.append(request)
        agent = await self.agent(request.agent_id)
        answer = ResolveAgentResponse(agent=agent)
        persona = self.personas.get(agent.id)
        reference = request.persona_version
        number, alias = (0, "") if persona is None else persona.version(reference)
        if number == 0 and (persona is not None or reference):
            raise DomainError(
                Reason.REASON_PERSONA_VERSION_NOT_FOUND,
                f"The persona of {agent.id} has no version {reference}.",
                resources=[Resource("persona_version", f"{agent.id}/{reference}")],
            )
        if persona is not None:
            answer.persona_version = number
            answer.persona_alias = alias
            answer.persona_content = persona.texts[number - 1]
        return answer

    async def screenplay(
        self, request: GetScreenplayRequest | MarkScreenplayUsedRequest
    ) -> Screenplay:
        """Answer as GetScreenplay and MarkScreenplayUsed do."""
        if self.trouble is not None:
            raise self.trouble
        id_ = request.screenplay_id
        found = self.screenplays.get(id_, Screenplay())
        if isinstance(request, GetScreenplayRequest):
            self.reading.append(request)
        deleted = found.HasField("delete_time")
        asked_for = isinstance(request, GetScreenplayRequest) and request.include_deleted
        if not found.id or (deleted and not asked_for):
            raise DomainError(
                Reason.REASON_SCREENPLAY_NOT_FOUND,
                f"No screenplay has the id {id_}.",
                resources=[Resource("screenplay", id_)],
            )
        if isinstance(request, MarkScreenplayUsedRequest):
            self.used.append(id_)
        return found


class FakeContent:
    """A catalogue behind a real server, which has no audit records and is well.

    Args:
        others: what else it serves.
    """

    def __init__(
        self,
        catalogue: Catalogue | None = None,
        others: Iterable[grpc.GenericRpcHandler] = (),
    ) -> None:
        self._others = tuple(others)
        self.catalogue = catalogue or Catalogue()
        self.port = 0
        self._server = grpc.aio.server()

    @property
    def target(self) -> str:
        """What CONDUCTOR_PEERS says of it."""
        return f"ipv4:127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        self._server.add_generic_rpc_handlers(
            (
                _answers(AGENTS, "ResolveAgent", self._resolve, ResolveAgentRequest),
                _answers(AGENTS, "GetAgent", self._agent, GetAgentRequest),
                _answers(PERSONAS, "GetPersona", _no_persona, GetPersonaRequest),
                _answers(SCREENPLAYS, "GetScreenplay", self._screenplay, GetScreenplayRequest),
                _answers(
                    SCREENPLAYS, "MarkScreenplayUsed", self._screenplay, MarkScreenplayUsedRequest
                ),
                _answers(AUDIT, "ListAuditRecords", _no_records, ListAuditRecordsRequest),
                _answers(HEALTH, "Check", _is_well, HealthCheckRequest),
                *self._others,
            )
        )
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        await self._server.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._server.stop(None)

    async def _resolve(
        self, request: ResolveAgentRequest, context: Context
    ) -> ResolveAgentResponse:
        async with _told(context):
            return await self.catalogue.resolve(request)

    async def _agent(self, request: GetAgentRequest, context: Context) -> Agent:
        async with _told(context):
            return await self.catalogue.agent(request.agent_id)

    async def _screenplay(
        self, request: GetScreenplayRequest | MarkScreenplayUsedRequest, context: Context
    ) -> Screenplay:
        async with _told(context):
            return await self.catalogue.screenplay(request)


@asynccontextmanager
async def _told(context: Context) -> AsyncIterator[None]:
    """End a call with the error that ends the block."""
    try:
        yield
    except DomainError as error:
        await context.abort_with_status(rpc_status.to_status(to_status(error)))
        raise


async def _no_persona(request: GetPersonaRequest, context: Context) -> Any:
    async with _told(context):
        raise DomainError(Reason.REASON_PERSONA_NOT_FOUND, f"{request.agent_id} has none.")


async def _no_records(request: ListAuditRecordsRequest, _: Context) -> ListAuditRecordsResponse:
    return ListAuditRecordsResponse()


async def _is_well(request: Message, _: Context) -> Any:
    return HealthCheckResponse(status=HealthCheckResponse.SERVING)


def _answers(service: str, method: str, answer: Any, request: type[Message]) -> Any:
    handler: Any = grpc.unary_unary_rpc_method_handler(
        answer, request.FromString, lambda message: message.SerializeToString()
    )
    return grpc.method_handlers_generic_handler(service, {method: handler})
