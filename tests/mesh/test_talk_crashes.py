"""What `kill -9` does to conversations: each message and its answer is there once, and whole."""

from __future__ import annotations

import asyncio
import json
import os
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.mesh.chatting import MODELS, Chat, all_of
from tests.mesh.started import Mesh
from tests.mesh.watching import chat_client
from tests.servers.mongo import own
from tests.servers.redis import RedisServer

CHATS = 5
TURNS = 10
"""In each of them, at least."""
SERVICES = ("execution", "conversations", "content")


@pytest.fixture(params=["sqlite", "mongodb"])
def talkative(
    new_mesh: Callable[..., Mesh], request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[Mesh]:
    """A mesh that is not started yet, whose workers are missed soon."""
    processes = os.environ.get("CRASH_PROCESSES", "1")
    settings = {f"{name.upper()}_PROCESSES": processes for name in SERVICES}
    settings["EXECUTION_LEASE_SECONDS"] = "2"
    settings["EXECUTION_MOCK_MODELS"] = json.dumps(MODELS)
    if request.param == "sqlite":
        yield new_mesh(**settings)
        return
    (tmp_path / "mongo").mkdir()
    redis = RedisServer(tmp_path)
    with own(tmp_path / "mongo") as mongo:
        redis.start()
        yield new_mesh(**settings, STORE_URL=mongo.url("talks"), QUEUE_URL=redis.url())
        redis.stop()


@pytest.mark.timeout(240 + 15 * int(os.environ.get("CRASH_KILLS", "0")))
async def test_every_message_is_answered_once_whichever_service_is_killed(talkative: Mesh) -> None:
    seed = os.environ.get("CRASH_SEED", str(time.time_ns()))
    print(f"CRASH_SEED={seed}")  # noqa: T201 shown when the test fails, to do the same again
    dice = random.Random(seed)
    kills = int(os.environ.get("CRASH_KILLS") or 6)
    await talkative.start()
    async with chat_client(talkative.url) as client:
        sending = asyncio.Event()
        chats = [
            Chat(client, f"topic-{n}", random.Random(f"{seed} {n}"), sending) for n in range(CHATS)
        ]
        await asyncio.gather(*(chat.open() for chat in chats))
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            for chat in chats:
                tasks.create_task(chat.talk(TURNS, stop))
            await kill_some(talkative, dice, kills, sending)
            stop.set()
        began = time.monotonic()
        for chat in chats:
            await chat.assert_whole()
        kept = await all_of(client, "/api/agents/default/history", "entries")
    runs = [said for chat in chats for said in chat.said]
    cut = sum(said.followed.connections > 1 for said in runs)
    repeated = sum(chat.repeated for chat in chats)
    print(  # noqa: T201 how much was at stake
        f"{kills} kills, {len(runs)} runs, {sum(chat.refused for chat in chats)} refused, "
        f"{sum(said.followed.terminal[0]['event'] == 'error' for said in runs)} cancelled, "
        f"{cut} cut, {repeated} calls repeated, "
        f"the slowest answer took {max(said.seconds for said in runs):.1f} s, "
        f"to look at all took {time.monotonic() - began:.1f} s"
    )
    assert sorted(one["execution_id"] for one in kept) == sorted(one.execution_id for one in runs)
    assert cut + repeated


async def kill_some(mesh: Mesh, dice: random.Random, kills: int, sending: asyncio.Event) -> None:
    """Kill each service as often as the others, one or two at a time.

    At any moment, or soon after a message was sent: then it is taken in, or answered.
    """
    names = [name for name in mesh.pids() if name.startswith(SERVICES)]
    rounds = range(-(-kills // len(names)))
    victims = [name for _ in rounds for name in dice.sample(names, len(names))][:kills]
    while victims:
        soon = dice.random() < 0.7
        if soon:
            sending.clear()
            await sending.wait()
        await asyncio.sleep(dice.uniform(0.0, 0.1 if soon else 1.0))
        at_once = dice.choice((1, 1, 1, 2))
        dead = {name: await mesh.kill(name) for name in victims[:at_once]}
        del victims[:at_once]
        for name, pid in dead.items():
            await mesh.serves_again(name, pid)
