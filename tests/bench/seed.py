"""Finished runs of many events, stored as the service stores them.

A run of the service would merge tokens that come fast; here each is an event of its own.
"""

from __future__ import annotations

import itertools
from contextlib import AsyncExitStack

from services.execution import domain
from services.execution.domain import Asked, Choice, Event, Order
from services.execution.stores import COLLECTIONS, LOGS, StoredExecutions
from services.kit import ids
from services.kit.settings import Settings
from services.kit.storage.opening import open_store

_ORG = "default"
_WORKER = "worker_bench"
_WORDS = ("the", "mesh", "keeps", "every", "word", "of", "this", "answer", "in", "order")
_INPUT = "Tell me how the mesh keeps what it was told, in a few sentences."
_TIMEOUT_MS = 600_000
_TOKEN_US = 1000
_AT_ONCE = 30
"""Events that are appended together: those of 30 ms."""
# job_started, status_update, on_llm_start, on_llm_end and result.
_OTHER_EVENTS = 5


async def seed(settings: Settings, runs: int, events: int) -> list[str]:
    """Store finished runs where a service with these settings keeps its own; answers their ids."""
    async with AsyncExitStack() as stack:
        store = await open_store(settings, "execution", COLLECTIONS, LOGS, stack)
        executions = StoredExecutions(store)
        return [await _run(executions, events) for _ in range(runs)]


async def _run(executions: StoredExecutions, events: int) -> str:
    now = ids.now()
    order = Order(
        input=_INPUT,
        agent_id="default",
        choices=(Choice("mock", "mock-long"),),
        timeout_ms=_TIMEOUT_MS,
    )
    accepted, first = domain.accept(_ORG, ids.new_id("exec"), order, Asked(input=_INPUT), now)
    await executions.start(accepted, first, 1)
    claimed, opening = domain.claim(accepted, 1, _WORKER, 0, now)
    claimed = await executions.claim(claimed, 1, opening)
    head = opening[-1].sequence
    words = [
        f" {word}" for word in itertools.islice(itertools.cycle(_WORDS), events - _OTHER_EVENTS)
    ]
    said: list[Event] = []
    for number, word in enumerate(words):
        said += domain.tokens(head + number, 1, 1, word, _WORKER, now + number * _TOKEN_US)
    for begin in range(0, len(said), _AT_ONCE):
        piece = said[begin : begin + _AT_ONCE]
        await executions.append(_ORG, accepted.id, piece[0].sequence - 1, piece)
    end = now + len(words) * _TOKEN_US
    answer = "".join(words)
    finished, last = domain.succeed(
        claimed, said[-1].sequence, 1, 1, answer, domain.NOTHING, "stop", _WORKER, end
    )
    await executions.commit(finished, said[-1].sequence, last)
    return accepted.id
