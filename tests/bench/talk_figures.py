"""The figures of conversations: a long one beside a short one, and a turn beside a stateless run."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

from conductor.conversations.v1.conversation_pb2 import AgentReference
from conductor.conversations.v1.turn_service_pb2 import (
    AppendTurnRequest,
    ReadTurnRequest,
    WithdrawTurnRequest,
)
from conductor.conversations.v1.turn_service_pb2_grpc import TurnServiceStub
from services.kit import ids
from tests.bench import talks
from tests.bench.figures import Pace
from tests.bench.generator import LoadGenerator, load_generator
from tests.bench.pairs import SCALE_TARGET, Pair, calls_of_one, compared
from tests.bench.stand import Stand
from tests.bench.table import Row, Target
from tests.bench.talks import CONVERSATION
from tests.bench.told import FailedError

_MANY, _FEW = 100_000, 1000
_PAGE = 50
_SOME_PAGE = _FEW // talks.SOME_EACH
_TENTH_PAGE = _FEW // 10
_TALK = f"/api/conversations/{CONVERSATION}"
_MESSAGES = f"{_TALK}/messages"
_SEARCH = f"/api/messages:search?conversation_id={CONVERSATION}"
_SAID = {"type": "TYPE_USER", "content": "What do the notes of the first day tell about the team?"}
_EXECUTE = "/api/agents/default/execute"

_SMALL_MODEL, _LARGE_MODEL = "bench-small", "bench-large"
_SMALL_WINDOW, _LARGE_WINDOW = 8_000, 400_000
"""Tokens: some hundred messages of either conversation, and more than a run is told at most."""
_SMALL_BYTES, _LARGE_BYTES = 18_000, 3 * 1024 * 1024
"""About as much as these windows hold."""
_FLAT = Target(1.2, at_least=False)


@dataclass(frozen=True, slots=True)
class Talk:
    """A mesh over a conversation of so many messages, and a generator that calls it."""

    stand: Stand
    load: LoadGenerator
    turns: TurnServiceStub

    async def execute(self, pace: Pace, model: str, conversation_id: str = "") -> float:
        """Run an agent again and again, each to its end; answers the median, in seconds."""
        before = await self._count()
        body: dict[str, Any] = {"input_text": _SAID["content"], "model": model}
        if conversation_id:
            body["conversation_id"] = conversation_id
        taken, answers = await calls_of_one(self.load, _EXECUTE, pace.seconds, pace.warm_up, body)
        added = 2 * answers if conversation_id else 0
        if await self._count() - before != added:
            raise FailedError(f"{answers} runs of {body} did not add {added} messages")
        return taken

    async def read_turns(self, pace: Pace, turn: str, max_bytes: int, least: int) -> float:
        """Read what a run is told, again and again; answers the median, in seconds.

        Args:
            turn: the id of the run.
            least: how many messages it is told at least.
        """
        request = ReadTurnRequest(
            execution_id=turn, conversation_id=CONVERSATION, max_bytes=max_bytes
        )
        taken: list[float] = []
        began = perf_counter()
        while perf_counter() < began + pace.read_seconds or len(taken) < pace.rounds:
            asked = perf_counter()
            told = await self.turns.ReadTurn(request)
            taken.append(perf_counter() - asked)
            if len(told.history) < least:
                raise FailedError(f"a run was told {len(told.history)} messages, not {least}")
        return median(taken)

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[str]:
        """Let a run take its turn that never comes to be; answers its id."""
        turn = ids.new_id("exec")
        agent = AgentReference(agent_id="default")
        await self.turns.AppendTurn(
            AppendTurnRequest(
                execution_id=turn,
                conversation_id=CONVERSATION,
                input=_SAID["content"],
                agent=agent,
            )
        )
        yield turn
        await self.turns.WithdrawTurn(
            WithdrawTurnRequest(execution_id=turn, conversation_id=CONVERSATION)
        )

    async def _count(self) -> int:
        return int((await self.stand.read(_TALK))["message_count"])


@asynccontextmanager
async def _talk(folder: Path, count: int) -> AsyncIterator[Talk]:
    """Run a mesh of its own over a conversation of so many messages, until the block ends."""
    data = folder / "data"
    await talks.fill(data, count)
    models = {
        _SMALL_MODEL: {"context_tokens": _SMALL_WINDOW},
        _LARGE_MODEL: {"context_tokens": _LARGE_WINDOW},
    }
    async with (
        Stand(folder) as stand,
        load_generator(stand.port) as load,
        stand.service(data, execution_mock_models=json.dumps(models)),
        stand.conversations_channel() as channel,
    ):
        yield Talk(stand, load, TurnServiceStub(channel))


async def figures(folder: Path, pace: Pace) -> list[Row]:
    """Measure a conversation of many messages and one of a hundredth of them."""
    async with _talk(folder / "many", _MANY) as many, _talk(folder / "few", _FEW) as few:
        pair = Pair(many, few, pace, f"{_MANY:,} messages / {_FEW:,}", "messages")
        return [
            *await _of_pages(pair),
            *await _of_words(pair),
            *await _of_prompts(pair, many, few),
            await pair.post("append", _MESSAGES, _SAID),
            *await _of_runs(many, few, pace),
            _memory(many, few),
        ]


async def _of_pages(pair: Pair) -> list[Row]:
    """Read pages from both ends on.

    The deepest page is behind the token of the one before it, as after a walk through all pages.
    """
    rows: list[Row] = []
    for name, order, far in (
        ("oldest first", "", "&after_position={}"),
        ("newest first", "&newest_first=true", "&before_position={}"),
    ):
        first = f"{_MESSAGES}?page_size={_PAGE}{order}"
        rows.append(await pair.page(f"first page, {name}", _PAGE, first, first))
        deep: list[str] = []
        for side, count in ((pair.many, _MANY), (pair.few, _FEW)):
            at = 2 * _PAGE + 1 if order else count - 2 * _PAGE
            path = first + far.format(at)
            deep.append(f"{path}&page_token={(await side.stand.read(path))['next_page_token']}")
        rows.append(await pair.page(f"last page, {name}", _PAGE, *deep))
    return rows


async def _of_words(pair: Pair) -> list[Row]:
    """Find messages by words that one page has all of, and by words that many have.

    A word of the oldest alone, and two words that are seldom together, are the worst that can be asked:
    for the two, all that have one of them are looked at, a hundred times as many of many messages.
    """
    rows: list[Row] = []
    for name, words, size in (
        (f"word of {talks.FEW}", talks.RARE, talks.FEW),
        (f"word of 1 in {talks.SOME_EACH}", talks.SOME, _SOME_PAGE),
        ("word of the oldest tenth", talks.OLD_TENTH, _TENTH_PAGE),
        ("word of every other one", talks.HALF, _PAGE),
        (
            f"two such words, {talks.FEW} with both",
            f"{talks.HALF}+{talks.OTHER_HALF}",
            talks.FEW,
        ),
    ):
        path = f"{_SEARCH}&page_size={size}&query={words}"
        rows.append(await pair.page(f"search, {name}", size, path, path))
    path = f"/api/messages:search?page_size={_PAGE}&query={talks.HALF}"
    rows.append(await pair.page("search of all conversations", _PAGE, path, path))
    return rows


async def _of_prompts(pair: Pair, many: Talk, few: Talk) -> list[Row]:
    """Read what a run is told: as much as a small window holds, and as much as there may be at most."""
    rows: list[Row] = []
    async with many.turn() as turn_of_many, few.turn() as turn_of_few:
        for name, room, least, most in (
            ("small window", _SMALL_BYTES, 200, 200),
            ("2,000 messages / all", _LARGE_BYTES, _FEW, 2000),
        ):
            of_many = partial(many.read_turns, pair.pace, turn_of_many, room, most)
            of_few = partial(few.read_turns, pair.pace, turn_of_few, room, least)
            rows.append(await pair.compared(f"prompt, {name}", of_many, of_few))
    return rows


async def _of_runs(many: Talk, few: Talk, pace: Pace) -> list[Row]:
    """Run an agent in the conversations, and in none."""
    rows: list[Row] = []
    for name, model in (("small window", _SMALL_MODEL), ("large window", _LARGE_MODEL)):
        stateless: list[float] = []
        turns: list[tuple[float, float]] = []
        for number in range(-1, pace.rounds):
            alone = await few.execute(pace, model)
            of_few = await few.execute(pace, model, CONVERSATION)
            of_many = await many.execute(pace, model, CONVERSATION)
            if number >= 0:
                stateless.append(alone)
                turns.append((of_many, of_few))
        figure = f"contextual turn, {name}: {_MANY:,} messages / {_FEW:,}"
        rows.append(compared(figure, turns, SCALE_TARGET))
        beside = zip(turns, stateless, strict=True)
        taken = [(of_few, alone) for (_, of_few), alone in beside]
        rows.append(compared(f"contextual turn, {name} / stateless run", taken, None))
    return rows


def _memory(many: Talk, few: Talk) -> Row:
    """Read what both services take after all of it."""
    ours, other = (side.stand.conversations.memory() for side in (many, few))
    figure = f"memory of conversations at the end, {_MANY:,} messages / {_FEW:,}"
    return Row(figure, f"{ours:.0f} MB", f"{other:.0f} MB", [ours / other], None, _FLAT)
