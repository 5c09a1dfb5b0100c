"""A chat client that starts jobs and follows them by server-sent events, whatever happens."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
from httpx_sse import aconnect_sse

AWAY = frozenset({502, 503, 504})
"""What a caller sees of a mesh whose service is being started again."""


@dataclass
class Followed:
    """What a client that reconnects with the last event id has seen of a job."""

    job_id: str
    opened: asyncio.Event
    """Set once a stream is open."""
    sequences: list[int] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    connections: int = 0

    @property
    def terminal(self) -> list[dict[str, Any]]:
        """Its terminal events."""
        return [event for event in self.events if event["event"] in {"result", "error"}]

    @property
    def attempts(self) -> list[str]:
        """The tokens of each attempt; there is one step."""
        texts: list[str] = []
        for event in self.events:
            if event["event"] == "on_llm_start":
                texts.append("")
            elif event["event"] == "on_llm_new_token":
                texts[-1] += event["data"]["chunk"]
        return texts

    @property
    def last_attempt(self) -> str:
        """The tokens of the last attempt."""
        return self.attempts[-1] if self.attempts else ""

    @property
    def heard(self) -> str:
        """The tokens of the last attempt that had any."""
        return next((text for text in reversed(self.attempts) if text), "")

    def assert_complete(self) -> None:
        """Each event once, in order from 1, and one terminal event at the end."""
        assert self.sequences == list(range(1, len(self.sequences) + 1))
        assert [event["event"] in {"result", "error"} for event in self.events].index(True) == (
            len(self.events) - 1
        )


@asynccontextmanager
async def chat_client(url: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client for many streams at a time."""
    limits = httpx.Limits(max_connections=2000)
    timeout = httpx.Timeout(30.0)
    async with httpx.AsyncClient(
        base_url=url, limits=limits, timeout=timeout, trust_env=False
    ) as client:
        yield client


async def insist(client: httpx.AsyncClient, method: str, path: str, **options: Any) -> Any:
    """Call until the mesh answers; anything but success and being away is an error."""
    while True:
        try:
            response = await client.request(method, path, **options)
        except httpx.TransportError:
            await asyncio.sleep(0.05)
            continue
        if response.status_code in AWAY:
            await asyncio.sleep(0.05)
            continue
        assert response.status_code == 200, response.text
        return response.json()


async def start_job(client: httpx.AsyncClient, request_id: str, model: str) -> str:
    """Start a job, however often it takes."""
    body = {"input": f"say {request_id}", "model": model, "request_id": request_id}
    answer = await insist(client, "POST", "/api/v1/stream-execute", json=body)
    return str(answer["job_id"])


async def follow(
    client: httpx.AsyncClient, job_id: str, opened: asyncio.Event | None = None
) -> Followed:
    """Follow a job to its end, coming back with the last event id when cut.

    Args:
        opened: set once its stream is open.
    """
    seen = Followed(job_id, opened or asyncio.Event())
    while not await _follow_once(client, seen):
        await asyncio.sleep(0.05)
    return seen


async def _follow_once(client: httpx.AsyncClient, seen: Followed) -> bool:
    """Follow until the stream ends; tells whether it ended with the end of the stream."""
    headers = {"Last-Event-ID": str(seen.sequences[-1])} if seen.sequences else {}
    try:
        async with aconnect_sse(
            client, "GET", f"/api/v1/stream/{seen.job_id}", headers=headers
        ) as source:
            if source.response.status_code in AWAY:
                return False
            assert source.response.status_code == 200
            seen.connections += 1
            seen.opened.set()
            async for event in source.aiter_sse():
                if event.event == "end_of_stream":
                    return True
                if not event.data:  # the opening frame: a comment and `retry:`
                    continue
                seen.sequences.append(int(event.id))
                seen.events.append(json.loads(event.data))
    except httpx.TransportError:
        return False
    return False


async def follow_all(client: httpx.AsyncClient, job_ids: Sequence[str]) -> list[Followed]:
    """Follow many jobs at once."""
    return list(await asyncio.gather(*(follow(client, job_id) for job_id in job_ids)))
