"""A mesh whose runs answer in conversations what a test wrote down, and somebody who talks with it."""

from __future__ import annotations

import asyncio
import os
import pty
import signal
from collections import defaultdict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Self

import grpc
from grpc_status import rpc_status

from conductor.conversations.v1.conversation_pb2 import AgentReference, Conversation, Message
from conductor.conversations.v1.conversation_service_pb2 import ListConversationsRequest
from conductor.execution.v1 import execution_service_pb2 as pb
from conductor.execution.v1.event_pb2 import Error, ExecutionEvent, JobStarted, Result
from conductor.execution.v1.execution_pb2 import Execution
from conductor.execution.v1.execution_service_pb2_grpc import add_ExecutionServiceServicer_to_server
from services.kit.errors import DomainError, to_status
from tests.patience import PATIENCE
from tests.rpc.scripted import Context, Scripted, Step, events, tokens
from tests.rpc.talks import Forwarding, Talks, Turns
from tests.rpc.terminal import Terminal, unstyled

_PRESS_SECONDS = 2.0
CANCELLED = "EXECUTION_CANCELLED"


def answer(*chunks: str, agent_id: str = "default") -> list[Step]:
    """What is seen of a run that answers this."""
    return [
        *events(JobStarted(agent_id=agent_id), *tokens(*chunks), Result(result="".join(chunks)))
    ]


class Talking(Scripted):
    """Plays one list of steps for each stream, as the answer of a turn in a real conversation.

    `refusals` are what the next starts end with, `lost` the rpcs of conversations whose next answers do
    not arrive.
    """

    def __init__(self, talks: Talks) -> None:
        super().__init__()
        self.talks = talks
        self.turns = Turns(talks)
        self.refusals: deque[DomainError] = deque()
        self.lost: list[str] = []
        self.starts: list[pb.StartExecutionRequest] = []
        self._said: defaultdict[str, str] = defaultdict(str)

    async def conversation(self) -> Conversation:
        """The one conversation there is, without its context."""
        request = ListConversationsRequest()
        found = await self.talks.conversations.ListConversations(request, timeout=PATIENCE)
        (one,) = found.conversations
        return one

    async def texts(self, conversation_id: str, *, visible: bool = False) -> list[str]:
        said = await self.talks.said(conversation_id, exclude_hidden=visible)
        return [message.content for message in said]

    async def StartExecution(
        self, request: pb.StartExecutionRequest, context: Context
    ) -> Execution:
        self.starts.append(request)
        if self.refusals:
            refusal = rpc_status.to_status(to_status(self.refusals.popleft()))
            await context.abort_with_status(refusal)
        started = Execution(id=f"exec_{len(self.starts)}", conversation_id=request.conversation_id)
        added = await self.turns.begin(
            request.conversation_id,
            request.input,
            started.id,
            AgentReference(agent_id=request.agent_id, instance_id=request.instance_id),
            request.reply_to,
        )
        started.message_id, started.answer_id = added.message_id, added.answer_id
        return started

    async def WatchExecution(
        self, request: pb.WatchExecutionRequest, context: Context
    ) -> AsyncIterator[pb.WatchExecutionResponse]:
        self.requests.append(request)
        async for response in self._play(context):
            if response.HasField("event"):
                response.event.execution_id = request.execution_id
                await self._fill(response.event)
            yield response

    async def _fill(self, event: ExecutionEvent) -> None:
        run = event.execution_id
        if event.HasField("on_llm_new_token"):
            self._said[run] += event.on_llm_new_token.chunk
        elif event.HasField("result"):
            await self.turns.end(run, event.result.result)
        elif event.HasField("error"):
            is_cancelled = event.error.reason == CANCELLED
            status = Message.STATUS_CANCELLED if is_cancelled else Message.STATUS_FAILED
            await self.turns.end(run, self._said[run], status, event.error)


def cancelled(sequence: int) -> ExecutionEvent:
    """The end of a run that was cancelled."""
    (event,) = events(Error(reason=CANCELLED, error="Cancelled."), first=sequence)
    return event


@asynccontextmanager
async def serving_talks(talking: Talking) -> AsyncIterator[str]:
    """Serve it and the conversations it answers in on a free port; gives the address."""
    server = grpc.aio.server()
    add_ExecutionServiceServicer_to_server(talking, server)
    server.add_generic_rpc_handlers((Forwarding(talking.talks, talking.lost),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


class Dialogue:
    """A command at a terminal, which is typed into once it shows what is expected."""

    def __init__(self, terminal: Terminal, *arguments: str) -> None:
        self._terminal = terminal
        self._arguments = arguments
        self._ours = -1
        self._seen = b""
        self._came = asyncio.Event()
        self.shown = ""

    async def __aenter__(self) -> Self:
        self._ours, theirs = pty.openpty()
        screen = dict.fromkeys(("stdin", "stdout", "stderr"), theirs)
        try:
            self.process = await self._terminal.start(*self._arguments, **screen)
        finally:
            os.close(theirs)
        os.set_blocking(self._ours, False)
        asyncio.get_running_loop().add_reader(self._ours, self._read)
        return self

    async def __aexit__(self, *_: object) -> None:
        asyncio.get_running_loop().remove_reader(self._ours)
        if self.process.returncode is None:
            self.process.kill()
            await self.process.wait()
        os.close(self._ours)

    async def expect(self, text: str, patience: float = PATIENCE) -> str:
        """Wait until this is shown; answers what was shown before it."""
        async with asyncio.timeout(patience):
            while text not in self._screen():
                self._came.clear()
                await self._came.wait()
        before, _, rest = self._screen().partition(text)
        self._seen = rest.encode()
        return before

    async def interrupt_prompt(self, text: str) -> None:
        """Press Ctrl-C while a line is edited, until this is shown.

        Python notices a signal only once readline waits for a key, which it begins to do a moment after
        the prompt is shown.
        """
        for _ in range(round(PATIENCE / _PRESS_SECONDS)):
            self.interrupt()
            with suppress(TimeoutError):
                await self.expect(text, _PRESS_SECONDS)
                return
        raise AssertionError(self.shown)

    def type(self, keys: str) -> None:
        os.write(self._ours, keys.encode())

    def interrupt(self) -> None:
        self.process.send_signal(signal.SIGINT)

    async def ended(self) -> int:
        """Wait for the end; answers the exit status."""
        return await asyncio.wait_for(self.process.wait(), PATIENCE)

    def _screen(self) -> str:
        return unstyled(self._seen.decode(errors="replace")).replace("\r\n", "\n")

    def _read(self) -> None:
        try:
            piece = os.read(self._ours, 65536)
        except OSError:  # how Linux says that nobody writes any more
            piece = b""
        if not piece:
            asyncio.get_running_loop().remove_reader(self._ours)
        self._seen += piece
        self.shown += piece.decode(errors="replace")
        self._came.set()
