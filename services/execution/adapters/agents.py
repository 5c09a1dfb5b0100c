"""Agents as the content service knows them, believed for less than a second."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from contextvars import Context, copy_context
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import grpc

from conductor.content.v1.agent_service_pb2 import ResolveAgentRequest, ResolveAgentResponse
from services.execution.domain import Agent, AgentSnapshot, Wish, trimmed
from services.kit.errors import DomainError, Reason, code_of, of_field
from services.kit.peers import Metadata
from services.kit.tasks import ended

_LOG = logging.getLogger(__name__)

OWNER = "content"
"""The service that knows the agents."""

FRESH_SECONDS = 0.9
"""How long an answer is believed, from when it was asked for: a change arrives within a second."""
GRACE_SECONDS = 30.0
"""How much longer it is believed while there is no newer one."""

_RENEWED_SECONDS = 0.5
"""How old an answer is when it is renewed for those who go on to ask, so that they never wait."""
_ANSWER_SECONDS = 5.0
_PATIENCE_SECONDS = 1.0
"""How long somebody waits for a new answer who can have an older one."""
_FIELDS = {
    Reason.REASON_AGENT_NOT_FOUND: "agent_id",
    Reason.REASON_PERSONA_VERSION_NOT_FOUND: "persona_version",
}
_MOST_AGENTS = 4096
_MOST_BYTES = 16 * 1024 * 1024


class Content(Protocol):
    """What is asked of the content service: a part of its generated stub."""

    def ResolveAgent(  # noqa: N802 generated
        self, request: ResolveAgentRequest, *, timeout: float, metadata: Metadata
    ) -> Awaitable[ResolveAgentResponse]:
        """Answer what a run of an agent needs."""
        ...


class _Key(NamedTuple):
    org: str
    agent_id: str
    persona_version: str


@dataclass(slots=True)
class _Known:
    """An agent as it was answered. Times are seconds."""

    agent: Agent
    size: int
    """Of the answer, in bytes."""
    asked_at: float
    """What changed later may be missing."""
    failed_at: float = float("-inf")
    """When there was last no newer answer."""

    def is_fresh(self, now: float) -> bool:
        """Whether it is believed without a question."""
        return now < self.asked_at + FRESH_SECONDS or (
            self.is_bearable(now) and now < self.failed_at + FRESH_SECONDS
        )

    def is_bearable(self, now: float) -> bool:
        """Whether it is believed while there is no newer answer."""
        return now < self.asked_at + FRESH_SECONDS + GRACE_SECONDS

    def is_to_be_renewed(self, now: float) -> bool:
        """Whether it is time to ask again."""
        return now >= max(self.asked_at, self.failed_at) + _RENEWED_SECONDS


class ContentAgents:
    """The agents of the content service, the most recently used of them remembered.

    Whoever wants the same one at the same time shares a question. That there is no such agent is not
    remembered.

    Args:
        itself: makes the metadata of a call of this service's own, about an organisation.
        monotonic: seconds.
        most_agents: how many are remembered, each version that is asked for by itself.
        most_bytes: how large their answers may be in all.
    """

    def __init__(
        self,
        content: Content,
        itself: Callable[[str], Metadata],
        *,
        monotonic: Callable[[], float],
        most_agents: int = _MOST_AGENTS,
        most_bytes: int = _MOST_BYTES,
    ) -> None:
        self._content = content
        self._itself = itself
        self._monotonic = monotonic
        self._most_agents = most_agents
        self._room = most_bytes
        self._known: OrderedDict[_Key, _Known] = OrderedDict()
        self._asking: dict[_Key, tuple[float, asyncio.Task[Agent]]] = {}
        """The newest question about each, and when it was begun."""
        self._tasks: set[asyncio.Task[Agent]] = set()
        self._is_away = False
        """Whether the log says so."""

    async def get(self, org: str, agent_id: str, persona_version: str) -> Agent:
        """Read an agent; one that was read lately costs nothing."""
        key = _Key(org, agent_id, persona_version)
        now = self._monotonic()
        known = self._known.get(key)
        if known is None or not known.is_fresh(now):
            return await self._answer(key, known if known and known.is_bearable(now) else None, now)
        self._known.move_to_end(key)
        if known.is_to_be_renewed(now):
            # Nobody's call waits for it, so it is no part of their traces.
            self._question(key, now, Context())
        return known.agent

    async def close(self) -> None:
        """End what is being asked."""
        for task in list(self._tasks):
            await ended(task)

    async def _answer(self, key: _Key, known: _Known | None, now: float) -> Agent:
        """Wait for a new answer; take the one that is known when there is none."""
        task = self._question(key, now, copy_context())
        if known is None:
            # Whoever goes away leaves the others their answer.
            return await asyncio.shield(task)
        await asyncio.wait([task], timeout=_PATIENCE_SECONDS)
        if not task.done():
            self._failed(key)
            return known.agent
        try:
            return task.result()
        except DomainError as error:
            if not _is_passing(error):
                raise
            return known.agent

    def _question(self, key: _Key, now: float, context: Context) -> asyncio.Task[Agent]:
        """Ask, or join those who wait for an answer that is as good."""
        began, task = self._asking.get(key, (float("-inf"), None))
        if task is None or now >= began + FRESH_SECONDS:
            task = asyncio.create_task(self._ask(key, now), name="read an agent", context=context)
            self._asking[key] = now, task
            self._tasks.add(task)
            task.add_done_callback(lambda done: self._was_asked(key, done))
        return task

    def _was_asked(self, key: _Key, task: asyncio.Task[Agent]) -> None:
        self._tasks.discard(task)
        if key in self._asking and self._asking[key][1] is task:
            del self._asking[key]
        if not task.cancelled():
            # Nobody may be left to hear of it.
            task.exception()

    async def _ask(self, key: _Key, now: float) -> Agent:
        request = ResolveAgentRequest(agent_id=key.agent_id, persona_version=key.persona_version)
        # Others may wait for it who have more time than whoever came first, so it is nobody's call.
        own = self._itself(key.org)
        try:
            answer = await self._content.ResolveAgent(
                request, timeout=_ANSWER_SECONDS, metadata=own
            )
        except DomainError as error:
            if _is_passing(error):
                self._failed(key)
                raise
            self._forget(key)
            raise of_field(error, _FIELDS.get(error.reason, "")) from error
        self._is_away = False
        agent = _agent(answer)
        self._remember(key, _Known(agent, answer.ByteSize(), now))
        return agent

    def _failed(self, key: _Key) -> None:
        known = self._known.get(key)
        if known is not None:
            known.failed_at = self._monotonic()
        if not self._is_away:
            self._is_away = True
            _LOG.warning(
                "the service %s does not answer; the agents it told of lately are believed for "
                "%.0f s",
                OWNER,
                GRACE_SECONDS,
            )

    def _remember(self, key: _Key, known: _Known) -> None:
        earlier = self._known.get(key)
        if earlier is not None and earlier.asked_at > known.asked_at:
            return
        self._forget(key)
        self._known[key] = known
        self._room -= known.size
        while self._room < 0 or len(self._known) > self._most_agents:
            self._forget(next(iter(self._known)))

    def _forget(self, key: _Key) -> None:
        known = self._known.pop(key, None)
        if known is not None:
            self._room += known.size


def _is_passing(error: DomainError) -> bool:
    """Whether it says nothing of the agent, only that nobody could tell."""
    return code_of(error.reason) is grpc.StatusCode.UNAVAILABLE


def _agent(answer: ResolveAgentResponse) -> Agent:
    agent = answer.agent
    return Agent(
        agent.id,
        agent.ai_provider,
        agent.model,
        tuple(Wish(one.ai_provider, one.model) for one in agent.fallbacks),
        trimmed(answer.persona_content),
        trimmed(agent.instructions),
        AgentSnapshot(
            agent.name,
            agent.etag,
            answer.persona_version,
            answer.persona_alias,
            tuple(agent.tools),
            tuple(agent.mcp_servers),
        ),
    )
