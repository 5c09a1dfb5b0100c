"""A mesh, called from Python.

    async with Client("localhost:8080") as client:
        async for event in client.run("Hello", model="mock"):
            if event.HasField("on_llm_new_token"):
                print(event.on_llm_new_token.chunk, end="")

Requests and answers are the generated messages of `conductor.execution.v1`, of `conductor.content.v1`
for the nouns `agents`, `personas`, `screenplays`, `templates` and `archives`, and of
`conductor.conversations.v1` for `conversations` and `instances`. What the client adds: plain arguments,
errors with a reason, and streams that go on where they were cut.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from datetime import datetime, timedelta
from types import TracebackType
from typing import Final, Self, TypeAlias, TypedDict, Unpack

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from conductor.audit.v1.audit_record_pb2 import AuditRecord
from conductor.audit.v1.audit_service_pb2 import ListAuditRecordsRequest
from conductor.audit.v1.audit_service_pb2_grpc import AuditServiceStub
from conductor.auth.v1 import access_pb2
from conductor.auth.v1 import key_service_pb2 as keys_pb
from conductor.auth.v1.key_pb2 import Key
from conductor.auth.v1.key_service_pb2_grpc import KeyServiceStub
from conductor.content.v1.system_service_pb2 import ValidateSystemRequest, ValidateSystemResponse
from conductor.content.v1.system_service_pb2_grpc import SystemServiceStub
from conductor.conversations.v1.busy_policy_pb2 import BusyPolicy
from conductor.execution.v1 import execution_service_pb2 as pb
from conductor.execution.v1.event_pb2 import ExecutionEvent
from conductor.execution.v1.execution_pb2 import ContextMode, Execution
from conductor.execution.v1.execution_service_pb2_grpc import ExecutionServiceStub
from conductor.execution.v1.model_pb2 import Model, ModelChoice
from conductor_ai.content.agents import Agents
from conductor_ai.content.archives import Archives
from conductor_ai.content.personas import Personas
from conductor_ai.content.screenplays import Screenplays
from conductor_ai.content.templates import Templates
from conductor_ai.conversations.conversations import Conversations
from conductor_ai.conversations.instances import Instances
from conductor_ai.errors import ConductorError
from conductor_ai.transport import LONGEST_PAUSE, Transport

__all__ = ["Client", "ConductorError", "RunOptions", "is_terminal"]

DEFAULT_ADDRESS: Final = "localhost:8080"

_SILENCE: Final = 45.0
"""Seconds without an event or a heartbeat, which come every 15, after which a stream is dead."""
_FIRST_PAUSE: Final = 0.1
_TOLD_AT: Final = 2
"""How many tries in a row fail before somebody is told; one is what a restart costs."""
_CUT: Final = (grpc.StatusCode.CANCELLED, grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN)

_Stream: TypeAlias = (
    grpc.aio.UnaryStreamCall[pb.WatchExecutionRequest, pb.WatchExecutionResponse]
    | grpc.aio.UnaryStreamCall[pb.StartExecutionRequest, pb.WatchExecutionResponse]
)


class RunOptions(TypedDict, total=False):
    """What a run may be told besides its input; the rules are those of StartExecutionRequest."""

    agent_id: str
    """The agent to run; the mesh's default when left out."""
    persona_version: str
    """The version of the agent's persona: a number, `latest`, `first` or an alias; the active one when
    left out."""
    ai_provider: str
    """The provider of the model."""
    model: str
    """The model; the agent's when left out."""
    cwd: str
    """The working directory handed to tools."""
    metadata: Mapping[str, str]
    """Free labels."""
    request_id: str
    """The idempotency key: the same one with the same request never starts a second run."""
    timeout: float | timedelta
    """How long the run may take; a number is seconds."""
    priority: int
    """How urgent it is among the waiting runs: 1 (most) to 5; 3 when left out."""
    max_output_tokens: int
    """The most tokens the models may say in all."""
    max_cost_usd: float
    """The most the run may cost in US dollars."""
    fallbacks: Sequence[ModelChoice]
    """Models to ask in this order when the one before failed and nothing was said yet."""
    conversation_id: str
    """The conversation to answer in: the input becomes a message of it, the answer another one."""
    instance_id: str
    """The agent instance to run as; it says the agent, and the conversation it is placed in."""
    screenplay_id: str
    """The screenplay to work on; that of the instance, else of the conversation when left out."""
    context_mode: ContextMode.ValueType
    """What the run is told besides its input; contextual with a conversation or an instance, else
    stateless, when left out."""
    busy_policy: BusyPolicy.ValueType
    """What happens while another run answers in the conversation; it waits when left out."""
    reply_to: str
    """The message of the conversation that the input replies to."""


OnWait: TypeAlias = Callable[[ConductorError], None]
"""Told why a stream does not go on, once each time that two tries in a row have failed."""


class Client:
    """A connection to a mesh.

    Args:
        address: `host:port` or `http://host:port`; `https://host:port` for TLS.
        api_key: the key to show; needed where the mesh authenticates its callers.
        patience: seconds a stream that was cut keeps trying to go on before it raises.

    Its nouns are `agents`, `personas`, `screenplays`, `templates`, `archives`, `conversations` and
    `instances`. Every method raises ConductorError when the mesh answers with an error.
    """

    def __init__(
        self, address: str = DEFAULT_ADDRESS, *, api_key: str = "", patience: float = 60.0
    ) -> None:
        self._transport = Transport(address, api_key)
        channel = self._transport.channel
        self._stub = ExecutionServiceStub(channel)
        self._keys = KeyServiceStub(channel)
        self._audit = AuditServiceStub(channel)
        self._system = SystemServiceStub(channel)
        self._patience = patience
        self.agents = Agents(self._transport)
        self.templates = Templates(self._transport)
        self.personas = Personas(self._transport)
        self.screenplays = Screenplays(self._transport)
        self.archives = Archives(self._transport)
        self.conversations = Conversations(self._transport)
        self.instances = Instances(self._transport)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection. Runs go on."""
        await self._transport.channel.close()

    async def start(self, text: str, **options: Unpack[RunOptions]) -> Execution:
        """Start a run; answers once it is stored, from when on nothing loses it."""
        return await self._transport.answer(self._stub.StartExecution, _request(text, options))

    async def run(
        self, text: str, *, on_wait: OnWait | None = None, **options: Unpack[RunOptions]
    ) -> AsyncGenerator[ExecutionEvent, None]:
        """Start a run and follow its events to the terminal one, each exactly once.

        A cut stream is taken up again where it ended. Leaving the loop leaves the run going.
        """
        # With an id of its own, a start whose answer was lost can be sent again.
        options.setdefault("request_id", f"client-{uuid.uuid4()}")
        follower = _Follower(self._stub, self._transport, self._patience, on_wait)
        async with aclosing(follower.follow(start=_request(text, options))) as events:
            async for event in events:
                yield event

    async def watch(
        self, execution_id: str, after_sequence: int = 0, *, on_wait: OnWait | None = None
    ) -> AsyncGenerator[ExecutionEvent, None]:
        """Follow the events of a run after a sequence, old ones first, each exactly once.

        A cut stream is taken up again where it ended.
        """
        follower = _Follower(self._stub, self._transport, self._patience, on_wait)
        follower.execution_id, follower.sequence = execution_id, after_sequence
        async with aclosing(follower.follow()) as events:
            async for event in events:
                yield event

    async def get(self, execution_id: str) -> Execution:
        """Get a run, with its input and its answer."""
        request = pb.GetExecutionRequest(execution_id=execution_id)
        return await self._transport.answer(self._stub.GetExecution, request)

    def list(
        self, filters: pb.ListExecutionsRequest | None = None
    ) -> AsyncGenerator[Execution, None]:
        """List runs, newest first, page after page; `filters` are those of ListExecutions."""
        asked = pb.ListExecutionsRequest() if filters is None else filters
        return self._transport.listed(
            self._stub.ListExecutions, asked, lambda page: page.executions
        )

    async def cancel(self, execution_id: str) -> Execution:
        """Cancel a run; its terminal event is stored when this answers."""
        request = pb.CancelExecutionRequest(execution_id=execution_id)
        return await self._transport.answer(self._stub.CancelExecution, request)

    async def delete(self, execution_id: str) -> None:
        """Delete a finished run and its events."""
        request = pb.DeleteExecutionRequest(execution_id=execution_id)
        await self._transport.answer(self._stub.DeleteExecution, request)

    async def validate(self) -> ValidateSystemResponse:
        """Check settings, stores, services, agents and templates."""
        return await self._transport.answer(self._system.ValidateSystem, ValidateSystemRequest())

    async def models(self) -> tuple[Model, ...]:
        """Ask which models there are, in the order of their ids."""
        answer = await self._transport.answer(self._stub.ListModels, pb.ListModelsRequest())
        return tuple(answer.models)

    async def create_key(
        self,
        name: str,
        scopes: Sequence[access_pb2.Scope.ValueType],
        *,
        org_id: str = "",
        expires: datetime | None = None,
    ) -> Key:
        """Make a key. Its `secret` is what its holder shows, and is answered this once."""
        key = Key(name=name, scopes=scopes, org_id=org_id)
        if expires is not None:
            key.expire_time.CopyFrom(_timestamp(expires))
        return await self._transport.answer(self._keys.CreateKey, keys_pb.CreateKeyRequest(key=key))

    def list_keys(self, org_id: str = "") -> AsyncGenerator[Key, None]:
        """List keys, newest first, page after page; `-` is every organisation, for operators."""
        asked = keys_pb.ListKeysRequest(org_id=org_id)
        return self._transport.listed(self._keys.ListKeys, asked, lambda page: page.keys)

    async def revoke_key(self, key_id: str) -> Key:
        """Revoke a key for good."""
        return await self._transport.answer(
            self._keys.RevokeKey, keys_pb.RevokeKeyRequest(key_id=key_id)
        )

    def audit_records(
        self, filters: ListAuditRecordsRequest | None = None
    ) -> AsyncGenerator[AuditRecord, None]:
        """List audit records, newest first; `filters` are those of ListAuditRecords."""
        asked = ListAuditRecordsRequest() if filters is None else filters
        return self._transport.listed(
            self._audit.ListAuditRecords, asked, lambda page: page.audit_records
        )


def is_terminal(event: ExecutionEvent) -> bool:
    """Whether an event is the last of its run."""
    return event.HasField("result") or event.HasField("error")


class _Follower:
    """Follows one run over as many streams as it takes."""

    def __init__(
        self,
        stub: ExecutionServiceStub,
        transport: Transport,
        patience: float,
        on_wait: OnWait | None,
    ) -> None:
        self._stub = stub
        self._channel = transport.channel
        self._metadata = transport.metadata
        self._patience = patience
        self._on_wait = on_wait
        self.execution_id = ""
        self.sequence = 0

    async def follow(
        self, start: pb.StartExecutionRequest | None = None
    ) -> AsyncGenerator[ExecutionEvent, None]:
        """Yield every event after the cursor, to the terminal one."""
        reached, cut_since, failed, pause = False, 0.0, 0, _FIRST_PAUSE
        while True:
            wish = None
            try:
                async with aclosing(self._stream(start)) as stream:
                    async for event in stream:
                        reached, cut_since, failed, pause = True, 0.0, 0, _FIRST_PAUSE
                        if event is not None:
                            yield event
                            if is_terminal(event):
                                return
                failure = ConductorError(
                    grpc.StatusCode.UNAVAILABLE, "", "the stream ended before the run did"
                )
            except grpc.aio.AioRpcError as error:
                failure = ConductorError.decode(error)
                if not self._is_passing(failure, reached=reached):
                    raise failure from None
                wish = failure.retry_after
            cut_since = cut_since or time.monotonic()
            if time.monotonic() - cut_since > self._patience:
                raise failure
            failed += 1
            if failed == _TOLD_AT and self._on_wait is not None:
                self._on_wait(failure)
            await asyncio.sleep(pause if wish is None else wish)
            pause = min(pause * 2, LONGEST_PAUSE)

    async def _stream(
        self, start: pb.StartExecutionRequest | None
    ) -> AsyncGenerator[ExecutionEvent | None, None]:
        """Yield the events of one stream that are new, and None for a sign of life."""
        call: _Stream
        if self.execution_id or start is None:
            call = self._stub.WatchExecution(
                pb.WatchExecutionRequest(
                    execution_id=self.execution_id, after_sequence=self.sequence
                ),
                metadata=self._metadata,
            )
        else:
            call = self._stub.RunExecution(start, metadata=self._metadata)
        try:
            while True:
                try:
                    async with asyncio.timeout(_SILENCE):
                        answer = await call.read()
                except TimeoutError:
                    return
                if not isinstance(answer, pb.WatchExecutionResponse):
                    return
                if not answer.HasField("event"):
                    yield None
                elif self._is_next(answer.event):
                    self.sequence = answer.event.sequence
                    self.execution_id = answer.event.execution_id
                    yield answer.event
                elif answer.event.sequence > self.sequence + 1:
                    # Something was lost on the way; ask again from the cursor.
                    return
        finally:
            call.cancel()

    def _is_next(self, event: ExecutionEvent) -> bool:
        """Whether it follows the cursor, or is the end of a run whose end the cursor is at."""
        if event.sequence == self.sequence:
            return is_terminal(event)
        return event.sequence == self.sequence + 1

    def _is_passing(self, failure: ConductorError, *, reached: bool) -> bool:
        """Whether it is worth another try: the mesh is there, or was."""
        if reached:
            # A cut on the way carries no reason, and the code it gets depends on who was cut.
            return failure.code is grpc.StatusCode.UNAVAILABLE or (
                not failure.reason and failure.code in _CUT
            )
        # Envoy is there, the service behind it not just now.
        return (
            failure.code is grpc.StatusCode.UNAVAILABLE
            and self._channel.get_state() is grpc.ChannelConnectivity.READY
        )


def _request(text: str, options: RunOptions) -> pb.StartExecutionRequest:
    request = pb.StartExecutionRequest(input=text)
    for name, value in options.items():
        if name == "metadata":
            request.metadata.update(options["metadata"])
        elif name == "timeout":
            request.timeout.CopyFrom(_duration(options["timeout"]))
        elif name == "fallbacks":
            request.fallbacks.extend(options["fallbacks"])
        else:
            setattr(request, name, value)
    return request


def _duration(value: float | timedelta) -> Duration:
    duration = Duration()
    try:
        duration.FromTimedelta(value if isinstance(value, timedelta) else timedelta(seconds=value))
    except (OverflowError, ValueError):
        raise ConductorError(
            grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST", f"timeout: {value} is no duration"
        ) from None
    return duration


def _timestamp(time: datetime) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(time)
    return stamp
