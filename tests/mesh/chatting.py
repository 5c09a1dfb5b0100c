"""People who talk with agents, several at once, and ask again for whatever was not answered."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

import httpx

from tests.mesh.watching import AWAY, Followed, follow, insist
from tests.patience import PATIENCE

QUEUE, INTERRUPT, REJECT = (f"BUSY_POLICY_{name}" for name in ("QUEUE", "INTERRUPT", "REJECT"))
MODELS = {"mock-few": {"tokens": 15, "delay_ms": 20}}
"""What these talk to besides `mock`."""
_ENOUGH_TOKENS = 100
_TOO_FEW_TOKENS = 5
_PAGE = 200
_ENDS = {
    "STATE_SUCCEEDED": ("STATUS_COMPLETED", "success_count"),
    "STATE_FAILED": ("STATUS_FAILED", "error_count"),
    "STATE_CANCELLED": ("STATUS_CANCELLED", "cancelled_count"),
}
"""What each end of a run makes of its answer, and where it counts."""

Json = dict[str, Any]
A = TypeVar("A")


@dataclass(frozen=True)
class Said:
    """A message that was accepted, and the run that answered it, as its client saw that."""

    body: Json
    execution_id: str
    followed: Followed
    seconds: float
    """From the message to the end of its run."""


@dataclass
class Chat:
    """A conversation, its instances, and what is said in it, in rounds of one or two messages at once."""

    client: httpx.AsyncClient
    name: str
    dice: random.Random
    sending: asyncio.Event
    """Set whenever a message is sent."""
    id: str = ""
    instances: list[str] = field(default_factory=list)
    said: list[Said] = field(default_factory=list)
    refused: int = 0
    """How many messages were refused because somebody answered already."""
    sent: int = 0
    repeated: int = 0
    """How often a message was sent again because nobody answered."""

    async def open(self) -> None:
        """Make the conversation with two instances of the same agent."""
        title = {"title": f"About {self.name}"}
        made = await insist(self.client, "POST", "/api/conversations", json=title)
        self.id = made["id"]
        for number in range(2):
            instance = {
                "instance_id": f"{self.name}-{number}",
                "agent_id": "default",
                "conversation_id": self.id,
            }
            await insist(self.client, "POST", "/api/agents/instances", json=instance)
            self.instances.append(instance["instance_id"])

    async def talk(self, turns: int, stop: asyncio.Event) -> None:
        """Send at least so many messages, and until told to stop; each round waits for its answers."""
        while self.sent < turns or not stop.is_set():
            at_once = self.dice.choice((1, 2, 2))
            await asyncio.gather(*(self._say(self._message()) for _ in range(at_once)))

    def _message(self) -> Json:
        self.sent += 1
        body = {
            "input": f"say {self.name} {self.sent}",
            "request_id": f"{self.name}-{self.sent}",
            "conversation_id": self.id,
            "busy_policy": self.dice.choice((QUEUE, QUEUE, INTERRUPT, REJECT)),
            "model": self.dice.choice(("mock", *MODELS)),
            "max_output_tokens": _ENOUGH_TOKENS if self.dice.random() < 0.9 else _TOO_FEW_TOKENS,
        }
        instance_id = self.dice.choice([*self.instances, ""])
        return body | ({"instance_id": instance_id} if instance_id else {"agent_id": "default"})

    async def _say(self, body: Json) -> None:
        """Send a message and follow its run to the end, unless the message is refused."""
        began = time.monotonic()
        execution_id = await bounded(self.start(body), f"nobody took {body}")
        if execution_id is None:
            self.refused += 1
            return
        following = follow(self.client, execution_id)
        followed = await bounded(following, f"{execution_id} does not end, which answers {body}")
        self.said.append(Said(body, execution_id, followed, time.monotonic() - began))

    async def start(self, body: Json) -> str | None:
        """Send a message until there is an answer; None when it is refused."""
        while True:
            self.sending.set()
            with suppress(httpx.TransportError):
                response = await self.client.post("/api/executions", json=body)
                if response.status_code == httpx.codes.OK:
                    return str(response.json()["id"])
                if body["busy_policy"] == REJECT and "CONVERSATION_BUSY" in response.text:
                    return None
                assert response.status_code in AWAY, response.text
            self.repeated += 1
            await asyncio.sleep(0.05)

    async def settled(self) -> Json:
        """Wait until nothing answers in it any more, and read it."""

        async def settle() -> Json:
            path = f"/api/conversations/{self.id}"
            while (found := await insist(self.client, "GET", path)).get("pending_executions"):
                await asyncio.sleep(0.1)
            return dict(found)

        return await bounded(settle(), f"{self.id} is answered for ever")

    async def assert_whole(self) -> None:
        """Each message that was accepted is there once, with one answer, which is what its run said."""
        found = await self.settled()
        runs = {one.execution_id: await self._run(one) for one in self.said}
        assert len(runs) == len(self.said), "two messages have the same run"
        listed = await all_of(self.client, "/api/executions", "executions", conversation_id=self.id)
        assert sorted(one["id"] for one in listed) == sorted(runs)

        path = f"/api/conversations/{self.id}/messages"
        messages = await all_of(self.client, path, "messages", include_deleted=True)
        assert [one["position"] for one in messages] == list(range(1, len(messages) + 1))
        live = [one for one in messages if not one.get("delete_time")]
        assert found["message_count"] == len(live) == 2 * len(runs)
        for one in self.said:
            run = runs[one.execution_id]
            question, answer = (m for m in live if m["execution_id"] == one.execution_id)
            assert (question["id"], answer["id"]) == (run["message_id"], run["answer_id"])
            assert (question["type"], answer["type"]) == ("TYPE_USER", "TYPE_AGENT")
            assert question["content"] == one.body["input"]
            assert_answers(answer, run, one.followed)
        for instance_id in self.instances:
            ended = [runs[one.execution_id] for one in self.said if of(one) == instance_id]
            await self._assert_counted(instance_id, ended)
        for one in self.said:
            assert await self.start(one.body) == one.execution_id

    async def _run(self, said: Said) -> Json:
        """Read a run that was followed to its end, and compare it with what was seen of it."""
        said.followed.assert_complete()
        path = f"/api/executions/{said.execution_id}"
        run: Json = await insist(self.client, "GET", path)
        if run["state"] == "STATE_SUCCEEDED":
            assert run["result"] == said.followed.last_attempt
            assert run["result"] == said.followed.terminal[0]["data"]["result"]
        elif run["state"] == "STATE_CANCELLED":
            assert run["error"]["reason"] == "EXECUTION_CANCELLED"
        else:
            assert run["error"]["reason"] == "OUTPUT_LIMIT_REACHED", run
            assert said.body["max_output_tokens"] == _TOO_FEW_TOKENS
        return run

    async def _assert_counted(self, instance_id: str, ended: list[Json]) -> None:
        """Each run of an instance counts once."""
        path = f"/api/agents/instances/{instance_id}"
        instance = await insist(self.client, "GET", path)
        statistics = instance.get("statistics", {})
        states = [run["state"] for run in ended]
        assert statistics.get("task_count", 0) == len(ended)
        for state, (_, count) in _ENDS.items():
            assert statistics.get(count, 0) == states.count(state), state
        assert instance["status"] not in {"STATUS_RUNNING", "STATUS_QUEUED"}, instance_id
        kept = await all_of(self.client, f"{path}/history", "entries")
        assert sorted(one["execution_id"] for one in kept) == sorted(run["id"] for run in ended)


def assert_answers(answer: Json, run: Json, followed: Followed) -> None:
    """An answer is complete, and says what its run said, all of it or until it was cut off."""
    assert answer["status"] == _ENDS[run["state"]][0]
    if run["state"] == "STATE_SUCCEEDED":
        assert answer["content"] == run["result"]
    else:
        assert answer.get("content", "") == followed.heard
        assert answer["error_reason"] == run["error"]["reason"]


def of(said: Said) -> str:
    """Which instance was talked to; empty for none."""
    return str(said.body.get("instance_id", ""))


async def bounded(work: Awaitable[A], complaint: str) -> A:
    """Wait for something, but not for ever."""
    try:
        async with asyncio.timeout(PATIENCE):
            return await work
    except TimeoutError:
        raise AssertionError(complaint) from None


async def all_of(
    client: httpx.AsyncClient, path: str, field: str, **filters: str | bool
) -> list[Json]:
    """Read all pages of a list."""
    found: list[Json] = []
    params: Mapping[str, str | bool | int] = {**filters, "page_size": _PAGE}
    while True:
        page = await insist(client, "GET", path, params=params)
        found += page.get(field, [])
        if not page.get("next_page_token"):
            return found
        params = {**params, "page_token": page["next_page_token"]}
