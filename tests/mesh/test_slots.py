"""The slots of an organisation while its worker is killed again and again: none is lost or doubled."""

from __future__ import annotations

import asyncio
import json
import os
import random
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import httpx
import pytest

from tests.mesh.started import Mesh
from tests.mesh.watching import Followed, chat_client, follow_all, insist, start_job
from tests.patience import PATIENCE

SLOTS = 5
RUNS = 60
KILLS = 20
RESUMED = "The run goes on with another worker."
STEADY = {"tokens": 20, "delay_ms": 40}
"""A model that takes 0.8 s, so that kills hit runs to the last."""

NewMesh = Callable[..., Mesh]


@pytest.mark.timeout(240)
async def test_no_slot_is_lost_or_given_twice_however_often_the_service_is_killed(
    new_mesh: NewMesh,
) -> None:
    seed = os.environ.get("CRASH_SEED", str(time.time_ns()))
    print(f"CRASH_SEED={seed}")  # noqa: T201 shown when the test fails, to do the same again
    dice = random.Random(seed)
    mesh = new_mesh(
        EXECUTION_ORG_CONCURRENCY=str(SLOTS),
        EXECUTION_LEASE_SECONDS="1",
        EXECUTION_MOCK_MODELS=json.dumps({"steady": STEADY}),
    )
    await mesh.start()
    async with chat_client(mesh.url) as client:
        job_ids = [await start_job(client, f"run-{number}", "steady") for number in range(RUNS)]
        for _ in range(KILLS):
            await asyncio.sleep(dice.uniform(0, 2))
            dead = await mesh.kill("execution")
            await mesh.serves_again("execution", dead)
        followed = await ended_well(client, job_ids)
        assert most_at_a_time(await spans(client, job_ids)) == SLOTS
        assert times_resumed(followed) > 0

        later = [await start_job(client, f"later-{number}", "steady") for number in range(25)]
        await ended_well(client, later)
        assert most_at_a_time(await spans(client, later)) == SLOTS


async def ended_well(client: httpx.AsyncClient, job_ids: Sequence[str]) -> list[Followed]:
    """Follow jobs to their ends, and assert that each ends once, and well."""
    async with asyncio.timeout(PATIENCE):
        followed = await follow_all(client, job_ids)
    for seen in followed:
        seen.assert_complete()
        assert seen.terminal[0]["event"] == "result"
        assert seen.terminal[0]["data"]["result"] == seen.last_attempt
    return followed


def times_resumed(followed: Sequence[Followed]) -> int:
    """Count how often a job went on after a kill."""
    events = (event for seen in followed for event in seen.events)
    return sum(event["data"].get("message") == RESUMED for event in events)


async def spans(
    client: httpx.AsyncClient, job_ids: Sequence[str]
) -> list[tuple[datetime, datetime]]:
    """From when to when each job went on."""
    paths = (f"/api/executions/{job_id}" for job_id in job_ids)
    runs: list[dict[str, Any]] = [await insist(client, "GET", path) for path in paths]
    assert {run["state"] for run in runs} == {"STATE_SUCCEEDED"}
    return [
        (datetime.fromisoformat(run["start_time"]), datetime.fromisoformat(run["end_time"]))
        for run in runs
    ]


def most_at_a_time(spans: Sequence[tuple[datetime, datetime]]) -> int:
    """Count how many spans overlap at most; one may begin in the moment another ends."""
    edges = sorted([(begin, 1) for begin, _ in spans] + [(end, -1) for _, end in spans])
    count = most = 0
    for _, change in edges:
        count += change
        most = max(most, count)
    return most
