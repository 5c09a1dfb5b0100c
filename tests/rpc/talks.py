"""The real conversations service beside agents that every test knows.

python -m tests.rpc.talks      # serves it and prints the port; an instance `worked` has run three times
"""

from __future__ import annotations

import asyncio
import signal
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration

from conductor.content.v1.agent_pb2 import Agent
from conductor.content.v1.screenplay_pb2 import Screenplay
from conductor.conversations.v1 import turn_service_pb2 as turns_pb
from conductor.conversations.v1.conversation_pb2 import AgentReference, Message
from conductor.conversations.v1.instance_pb2 import Instance
from conductor.conversations.v1.instance_service_pb2 import (
    CreateInstanceRequest,
    GetInstanceRequest,
)
from conductor.execution.v1.event_pb2 import Error
from tests.fakes.content import Catalogue, FakeContent
from tests.patience import PATIENCE
from tests.rpc.conversations import Conversations, served_conversations

PLAY = "sp_1"
_AGENTS = ("writer", "poet", "editor")


class Talks(Conversations):
    """A served conversations service, its clients, and a channel to the content service beside it."""

    def __init__(self, channel: grpc.aio.Channel, port: int, content: grpc.aio.Channel) -> None:
        super().__init__(channel, port)
        self.content = content


@asynccontextmanager
async def served_talks(data_dir: Path) -> AsyncIterator[Talks]:
    """Serve conversations until the block ends; there are some agents and the screenplay PLAY."""
    catalogue = Catalogue(Agent(id=id_, name=id_.title(), instructions="Work.") for id_ in _AGENTS)
    catalogue.screenplays[PLAY] = Screenplay(id=PLAY)
    async with (
        FakeContent(catalogue) as content,
        served_conversations(data_dir, peers={"content": content.target}) as served,
        grpc.aio.insecure_channel(content.target) as channel,
    ):
        yield Talks(served.channel, served.port, channel)


class Turns:
    """The turns of runs in a served conversations service, as execution takes them."""

    def __init__(self, talks: Conversations) -> None:
        self._talks = talks
        self._where: dict[str, str] = {}

    async def begin(
        self,
        conversation_id: str,
        text: str,
        execution_id: str,
        agent: AgentReference | None = None,
        reply_to: str = "",
    ) -> turns_pb.AppendTurnResponse:
        """Add what is said and the answer that is awaited.

        Args:
            agent: who answers; without an id the one of the instance, or of the conversation.
        """
        who = AgentReference()
        who.CopyFrom(agent or AgentReference())
        if not who.agent_id and who.instance_id:
            asked = GetInstanceRequest(instance_id=who.instance_id)
            who.agent_id = (await self._talks.instances.GetInstance(asked)).agent_id
        if not who.agent_id:
            who.CopyFrom((await self._talks.get(conversation_id)).active_agent)
        who.agent_id = who.agent_id or "default"
        self._where[execution_id] = conversation_id
        request = turns_pb.AppendTurnRequest(
            execution_id=execution_id,
            conversation_id=conversation_id,
            input=text,
            agent=who,
            reply_to=reply_to,
        )
        return await self._talks.turns.AppendTurn(request, timeout=PATIENCE)

    async def end(
        self,
        execution_id: str,
        content: str = "",
        status: Message.Status.ValueType = Message.STATUS_COMPLETED,
        error: Error | None = None,
    ) -> None:
        """Complete the answer of a run."""
        failure = error or Error()
        request = turns_pb.FillAnswerRequest(
            execution_id=execution_id,
            conversation_id=self._where[execution_id],
            status=status,
            content=content,
            error_reason=failure.reason,
            error_message=failure.error,
        )
        await self._talks.turns.FillAnswer(request, timeout=PATIENCE)


class Forwarding(grpc.GenericRpcHandler):
    """Lets a server answer what is asked of conversations and of content as their servers do.

    The next answers of the rpcs in `lost` do not arrive.
    """

    def __init__(self, talks: Talks, lost: list[str]) -> None:
        self._channels = {"conversations": talks.channel, "content": talks.content}
        self._lost = lost

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        method = str(handler_call_details.method)
        channel = self._channels.get(method.split(".")[1])
        if channel is None:
            return None
        ask: Any = channel.unary_unary(method)

        async def forward(request: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> bytes:
            try:
                answer: bytes = await ask(request, timeout=PATIENCE)
            except grpc.aio.AioRpcError as error:
                context.set_trailing_metadata(tuple(error.trailing_metadata()))
                await context.abort(error.code(), error.details() or "")
                raise
            name = method.rpartition("/")[2]
            if name in self._lost:
                self._lost.remove(name)
                await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "lost")
            return answer

        return grpc.unary_unary_rpc_method_handler(forward)


async def _work(talks: Conversations) -> None:
    """Place `worked`, and let it have run."""
    placed = Instance(instance_id="worked", agent_id="writer")
    await talks.instances.CreateInstance(CreateInstanceRequest(instance=placed), timeout=PATIENCE)
    for number in range(3):
        failed = number == 1
        await talks.turns.FillAnswer(
            turns_pb.FillAnswerRequest(
                execution_id=f"exec_{number}",
                agent=AgentReference(agent_id="writer", instance_id="worked"),
                input_preview=f"ask {number}",
                status=Message.STATUS_FAILED if failed else Message.STATUS_COMPLETED,
                content="" if failed else f"ask {number}!",
                error_reason="MODEL_FAILED" if failed else "",
                duration=Duration(seconds=1, nanos=500_000_000),
            ),
            timeout=PATIENCE,
        )


async def _serve() -> None:
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    with tempfile.TemporaryDirectory() as folder:
        async with served_talks(Path(folder)) as talks:
            await _work(talks)
            print(talks.port, flush=True)  # noqa: T201  # whoever started it reads it
            await ended.wait()


if __name__ == "__main__":
    asyncio.run(_serve())
