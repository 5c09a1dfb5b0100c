"""A talk: lines are said in a conversation, and what runs answer is shown as it comes."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

import grpc
from buf.validate import validate_pb2

from conductor.conversations.v1.busy_policy_pb2 import BusyPolicy
from conductor.conversations.v1.conversation_pb2 import AgentReference, Conversation, Message
from conductor.conversations.v1.message_service_pb2 import ListMessagesRequest
from conductor.execution.v1.execution_pb2 import Execution
from conductor.execution.v1.execution_service_pb2 import StartExecutionRequest
from conductor_ai.cli import facts, following
from conductor_ai.cli.asking import noticing
from conductor_ai.cli.chat.lines import Lines
from conductor_ai.cli.conversations import shown
from conductor_ai.cli.exits import Exit, explain
from conductor_ai.cli.output import json_line, one_line, tell
from conductor_ai.cli.printers import ChatPrinter, QuietPrinter
from conductor_ai.client import Client, ConductorError, RunOptions

SHOWN: Final = 6
"""How many messages are shown of a talk that goes on."""

_PATIENCE: Final = 5.0
"""Seconds in which a message is sent again to a mesh that was there a moment ago."""
_PAUSE: Final = 0.2
_SHORTEST_TITLE, _LONGEST_TITLE = 3, 60
_UNKNOWN: Final = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNKNOWN,
)
"""What a call ends with that may have been heard all the same."""
_BUSY: Final = "CONVERSATION_BUSY"
_UNFOUND: Final = "MESSAGE_NOT_FOUND"
_LOOKED_AT: Final = 20
"""How many messages are fetched at a time to find what was said last."""

Obey: TypeAlias = Callable[["Talk", str], Awaitable[Exit]]


@dataclass
class Wish:
    """What the talk is to be like; empty for whatever the mesh does."""

    agent_id: str
    conversation_id: str
    screenplay_id: str
    instance_id: str
    model: str
    provider: str
    busy_policy: BusyPolicy.ValueType


@dataclass(frozen=True)
class _Opening:
    """A conversation that was asked for: when nobody knows whether it was made, it is asked for again."""

    wanted: Conversation
    request_id: str


@dataclass(frozen=True)
class _Unsent:
    """A message of which nobody knows whether it arrived: sent again, it counts once."""

    text: str
    reply_to: str
    request_id: str


@dataclass(frozen=True)
class _Asked:
    """A message that a run answers, and the ids of both."""

    text: str
    reply_to: str
    message_ids: tuple[str, ...]


class LeaveError(Exception):
    """Somebody wants to leave."""

    def __init__(self, status: Exit = Exit.SUCCEEDED) -> None:
        super().__init__(status.name)
        self.status = status


class Talk:
    """One talk, from its first line to its last.

    Args:
        obey: does what a line wants that begins with a slash.
        address: where the mesh listens, for sentences about it.
        as_json: whether answers are printed for programs, each as its message.
    """

    def __init__(
        self,
        client: Client,
        wish: Wish,
        lines: Lines,
        obey: Obey,
        address: str,
        *,
        as_json: bool = False,
    ) -> None:
        self.client = client
        self.wish = wish
        self._lines = lines
        self._obey = obey
        self._address = address
        self._opening: _Opening | None = None
        self._as_json = as_json
        self._unsent: _Unsent | None = None
        self._asked: _Asked | None = None

    async def run(self) -> Exit:
        """Talk until somebody leaves."""
        await self._resume()
        status = Exit.SUCCEEDED
        try:
            while True:
                line = self._read()
                if line is None:
                    return status
                ended = await self._one(line)
                if not self._lines.is_typed:
                    status = status or ended
                    if ended is Exit.UNREACHABLE:
                        return status
        except LeaveError as leaving:
            return leaving.status or status
        finally:
            self._part()

    async def opened(self, first: str = "") -> str:
        """Give the id of the conversation; makes it when there is none yet.

        Args:
            first: what is going to be said first, for the title.

        Raises:
            ConductorError: what the mesh says; of a first message that no run takes, what it would say.
        """
        wish = self.wish
        if not wish.conversation_id:
            _check_size(first)
            wanted = Conversation(title=_title(first), screenplay_id=wish.screenplay_id)
            if wish.agent_id or wish.instance_id:
                wanted.active_agent.CopyFrom(
                    AgentReference(agent_id=wish.agent_id, instance_id=wish.instance_id)
                )
            if self._opening is None or self._opening.wanted != wanted:
                self._opening = _Opening(wanted, _request_id())
            made = await self.client.conversations.create(
                wanted, request_id=self._opening.request_id
            )
            wish.conversation_id = made.id
        return wish.conversation_id

    async def say(self, text: str, reply_to: str = "") -> Exit:
        """Say something, and show what is answered."""
        self._unsent = _Unsent(text, reply_to, _request_id())
        return await self._send(self._unsent)

    async def retry(self) -> Exit:
        """Say again what was said last: runs are told neither of it nor of its answer any more."""
        if self._unsent is not None:
            return await self._send(self._unsent)
        asked = self._asked or await self._last()
        if asked is None:
            tell("nothing that could be said again; /history shows what was said")
            return Exit.REFUSED
        for id_ in asked.message_ids:
            try:
                await self.client.conversations.messages.hide(self.wish.conversation_id, id_)
            except ConductorError as error:
                if error.reason != _UNFOUND:
                    raise
        return await self.say(asked.text, asked.reply_to)

    def show(self, message: Message) -> None:
        """Show a message of the conversation whole."""
        if self._as_json:
            print(json_line(message), flush=True)
        else:
            shown.transcript(message)

    def _read(self) -> str | None:
        """Read the next line that says something; None at the end."""
        was_interrupted = False
        while True:
            try:
                line = self._lines.read()
            except ValueError:
                tell("error: the line is not UTF-8")
                if not self._lines.is_typed:
                    raise LeaveError(Exit.REFUSED) from None
                continue
            except KeyboardInterrupt:
                if was_interrupted or not self._lines.is_typed:
                    raise LeaveError(Exit.CANCELLED) from None
                was_interrupted = True
                tell("Ctrl-D leaves, and so does Ctrl-C once more")
                continue
            if line is None or line.strip():
                return line
            was_interrupted = False

    async def _one(self, line: str) -> Exit:
        try:
            text = line.rstrip("\r\n")
            if text.startswith("/") and not text.startswith("//"):
                return await self._obey(self, text)
            return await self.say(text[1:] if text.startswith("//") else text)
        except ConductorError as error:
            return explain(error, self._address)

    async def _resume(self) -> None:
        """Look up the conversation there is, and show where it stopped."""
        wish = self.wish
        if wish.instance_id and not wish.conversation_id:
            placed = await self.client.instances.get(wish.instance_id)
            wish.conversation_id = placed.conversation_id
        if not wish.conversation_id:
            if self._lines.is_typed:
                tell("a new conversation; /help names what can be done, Ctrl-D leaves")
            return
        conversation = await self.client.conversations.get(wish.conversation_id)
        if not self._lines.is_typed:
            return
        tell(
            f"{one_line(conversation.title)}: {facts.count(conversation.message_count, 'message')}"
        )
        filters = ListMessagesRequest(conversation_id=conversation.id, page_size=SHOWN + 1)
        messages, _ = await shown.newest(self.client, filters, SHOWN)
        for message in messages:
            self.show(message)
            if message.type == Message.TYPE_USER:
                self._lines.remember(one_line(message.content))
        if conversation.pending_executions:
            first = conversation.pending_executions[0]
            tell(f"{first} answers in it; `conductor executions watch {first}` shows how")

    async def _send(self, message: _Unsent) -> Exit:
        """Start the run that answers, and show it to its end; Ctrl-C cancels it."""
        try:
            await self.opened(message.text)
        except ConductorError as error:
            return self._unanswered(error, "")
        interrupted, leave = asyncio.Event(), asyncio.Event()
        printer = QuietPrinter() if self._as_json else ChatPrinter()
        turn = _Turn(self.client, printer, interrupted)

        def interrupt() -> None:
            (leave if interrupted.is_set() else interrupted).set()

        try:
            with noticing(interrupt):
                status = await following.unless(leave, self._answered(turn, message), printer)
        except ConductorError as error:
            return self._unanswered(error, turn.execution_id)
        if status is None:
            printer.end_line()
            tell(f"left; {turn.execution_id or 'the run'} may still be running")
            raise LeaveError(Exit.LEFT)
        return status

    async def _answered(self, turn: _Turn, message: _Unsent) -> Exit:
        started = await turn.start(message.text, self._options(message))
        self._unsent = None
        ids = tuple(id_ for id_ in (started.message_id, started.answer_id) if id_)
        self._asked = _Asked(message.text, message.reply_to, ids)
        status = await turn.follow()
        if self._as_json:
            messages = self.client.conversations.messages
            self.show(await messages.get(self.wish.conversation_id, started.answer_id))
        return status

    def _options(self, message: _Unsent) -> RunOptions:
        wish = self.wish
        options = RunOptions(
            conversation_id=wish.conversation_id,
            busy_policy=wish.busy_policy,
            request_id=message.request_id,
        )
        if message.reply_to:
            options["reply_to"] = message.reply_to
        if wish.agent_id:
            options["agent_id"] = wish.agent_id
        if wish.instance_id:
            options["instance_id"] = wish.instance_id
        if wish.screenplay_id:
            options["screenplay_id"] = wish.screenplay_id
        if wish.model:
            options["model"] = wish.model
        if wish.provider:
            options["ai_provider"] = wish.provider
        return options

    async def _last(self) -> _Asked | None:
        """Find what was said last before this talk and is answered; None when nothing is."""
        if not self.wish.conversation_id:
            return None
        filters = ListMessagesRequest(
            conversation_id=self.wish.conversation_id,
            exclude_hidden=True,
            newest_first=True,
            page_size=_LOOKED_AT,
        )
        newer: list[Message] = []
        async with aclosing(self.client.conversations.messages.list(filters)) as messages:
            async for message in messages:
                if message.type == Message.TYPE_USER:
                    return _asked(message, newer)
                newer.append(message)
        return None

    def _unanswered(self, error: ConductorError, execution_id: str) -> Exit:
        """Say what went wrong, and what can be done about it."""
        status = explain(error, self._address)
        if execution_id:
            tell(f"  `conductor executions watch {execution_id}` shows the rest of the answer")
        elif error.reason == _BUSY:
            running = error.metadata.get("execution_id", "ID")
            tell(
                "  wait and say /retry, end the other run with `conductor executions cancel "
                f"{running}`, or chat with --busy queue or --busy interrupt"
            )
        elif self._lines.is_typed:
            tell("  /retry says it again")
        if self._unsent is not None and error.code not in _UNKNOWN:
            # It did not arrive: said again with another agent, say, it is another request.
            self._unsent = replace(self._unsent, request_id=_request_id())
        return status

    def _part(self) -> None:
        if self.wish.conversation_id:
            id_ = one_line(self.wish.conversation_id)
            tell(f"{id_}: `conductor chat --conversation {id_}` goes on with it")


def _asked(said: Message, newer: list[Message]) -> _Asked | None:
    """Put a message and its answer together; None while it is being answered."""
    answers = [one for one in newer if said.execution_id and one.execution_id == said.execution_id]
    if any(answer.status == Message.STATUS_PENDING for answer in answers):
        return None
    return _Asked(said.content, said.reply_to, (said.id, *(answer.id for answer in answers)))


def _title(first: str) -> str | None:
    """Make a title of what is said first; None for a text that is too short, or not seen."""
    title = one_line(first)[:_LONGEST_TITLE].strip()
    is_seen = any(one.isprintable() and one != " " for one in title)
    return title if is_seen and len(title) >= _SHORTEST_TITLE else None


def _check_size(text: str) -> None:
    """Refuse what no run takes, before there is a conversation for it."""
    rules = StartExecutionRequest.DESCRIPTOR.fields_by_name["input"].GetOptions()
    most = rules.Extensions[validate_pb2.field].string.max_bytes
    if len(text.encode()) > most:
        sentence = f"input: must be at most {most} bytes"
        raise ConductorError(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST", sentence)


def _request_id() -> str:
    return f"chat-{uuid.uuid4()}"


class _Turn:
    """One message and its answer."""

    def __init__(self, client: Client, printer: ChatPrinter, interrupted: asyncio.Event) -> None:
        self._client = client
        self._printer = printer
        self._interrupted = interrupted
        self.execution_id = ""

    async def start(self, text: str, options: RunOptions) -> Execution:
        """Start the run; a mesh that is away for a moment is asked again."""
        begun = time.monotonic()
        while True:
            try:
                started = await self._client.start(text, **options)
            except ConductorError as error:
                is_over = time.monotonic() - begun > _PATIENCE or self._interrupted.is_set()
                if error.code is not grpc.StatusCode.UNAVAILABLE or is_over:
                    raise
                with suppress(TimeoutError):
                    async with asyncio.timeout(error.retry_after or _PAUSE):
                        await self._interrupted.wait()
                continue
            self.execution_id = started.id
            return started

    async def follow(self) -> Exit:
        """Show the answer to its end."""
        cancelling = asyncio.create_task(self._cancel())
        try:
            events = self._client.watch(self.execution_id, on_wait=self._printer.waiting)
            return await following.show(events, self._printer)
        finally:
            cancelling.cancel()
            await asyncio.gather(cancelling, return_exceptions=True)

    async def _cancel(self) -> None:
        await self._interrupted.wait()
        await following.cancel(self._client, self.execution_id, self._printer)
