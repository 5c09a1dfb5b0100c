"""Several processes of a service: one is killed, or all are restarted one by one."""

from __future__ import annotations

import asyncio
import json
import signal
import ssl
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.fakes.certificates import new_certificate
from tests.mesh.started import Mesh
from tests.mesh.watching import Followed, chat_client, follow, follow_all, insist, start_job
from tests.processes import alive

NewMesh = Callable[..., Mesh]
NAMES = ("execution-1", "execution-2")
STEADY = {"tokens": 75, "delay_ms": 40}
"""A model that takes 3 s."""


@pytest.fixture
def two(new_mesh: NewMesh) -> Mesh:
    """A mesh with two processes of its service, which is not started yet."""
    return new_mesh(
        EXECUTION_PROCESSES="2",
        EXECUTION_MOCK_MODELS=json.dumps({"steady": STEADY}),
    )


async def test_each_process_has_a_name_an_address_and_a_log(two: Mesh) -> None:
    await two.start()

    state = json.loads((two.data / "run" / "mesh.json").read_text())["processes"]
    assert set(state) == {*NAMES, "content", "conversations", "envoy"}
    assert len({state[name]["address"] for name in NAMES}) == 2
    assert all(alive(state[name]["pid"]) for name in NAMES)
    for name in NAMES:
        assert (two.data / "logs" / f"{name}.log").stat().st_size > 0

    # However long a process serves on that is told to end alone.
    assert await two.stop() == 0
    assert two.left() == set()


async def test_runs_of_a_killed_process_go_on_and_nobody_is_refused(two: Mesh) -> None:
    two.settings["EXECUTION_LEASE_SECONDS"] = "2"
    await two.start()
    # By then Envoy has heard of the health of both, and shares calls among them.
    await asyncio.sleep(1)
    async with chat_client(two.url) as client:
        job_ids = [await start_job(client, f"run-{number}", "steady") for number in range(20)]
        following = asyncio.create_task(follow_all(client, job_ids))
        await asyncio.sleep(0.5)

        dead = await two.kill("execution-1")
        for _ in range(20):
            # What changes nothing is answered by the other, whoever it is sent to first.
            assert (await client.get("/api/executions")).status_code == 200
        followed = await following

    for seen in followed:
        seen.assert_complete()
        assert seen.terminal[0]["event"] == "result"
    assert any(resumed(seen) for seen in followed)
    assert max(longest_pause(seen) for seen in followed) < 10
    await two.serves_again("execution-1", after=dead)


async def test_a_rolling_restart_refuses_nobody_and_loses_nothing(two: Mesh) -> None:
    await two.start()
    async with chat_client(two.url) as client:
        job_ids = [await start_job(client, f"early-{number}", "steady") for number in range(6)]
        following = [asyncio.create_task(follow(client, job_id)) for job_id in job_ids]
        restarted = asyncio.Event()

        async def start_on() -> None:
            while not restarted.is_set():
                body = {"input": "Hi", "model": "mock"}
                answer = await client.post("/api/v1/stream-execute", json=body)
                assert answer.status_code == 200, answer.text
                following.append(asyncio.create_task(follow(client, answer.json()["job_id"])))
                await asyncio.sleep(0.05)

        starting = asyncio.create_task(start_on())
        for name in NAMES:
            ended = await two.kill(name, signal.SIGTERM)
            await two.serves_again(name, after=ended)
            await two.says(f"\n{name} serves again after")
        restarted.set()
        await starting
        followed = await asyncio.gather(*following)

        for seen in followed:
            seen.assert_complete()
            assert seen.terminal[0]["event"] == "result"
            run: dict[str, Any] = await insist(client, "GET", f"/api/executions/{seen.job_id}")
            assert run["state"] == "STATE_SUCCEEDED"
    # Handed over, and not waited for until a lease of 6 s has run out.
    assert max(longest_pause(seen) for seen in followed) < 5
    assert two.output.count("exit status 0; starting it again at once") == 2


async def test_the_first_key_is_made_once_and_never_printed(new_mesh: NewMesh) -> None:
    mesh = new_mesh(AUTH="on")
    await mesh.start()
    await mesh.stop()
    path = mesh.data / "bootstrap.key"
    key = path.read_text().strip()
    secret = (mesh.data / "mesh.secret").read_text().strip()
    assert key.startswith("cmk_bootstrap_")
    assert len(key) == len("cmk_bootstrap_") + 64
    for kept in (path, mesh.data / "mesh.secret"):
        assert kept.stat().st_mode & 0o777 == 0o600
    assert f"first key     in {path}\n" in mesh.output

    await mesh.start()

    assert path.read_text().strip() == key
    assert key not in mesh.output
    written = [*(mesh.data / "logs").iterdir(), *(mesh.data / "run").iterdir()]
    for text in (file.read_text() for file in written):
        assert key not in text
        assert secret not in text


async def test_a_key_that_is_set_is_not_written(new_mesh: NewMesh) -> None:
    key = "cmk_bootstrap_" + "0" * 64
    mesh = new_mesh(AUTH="on", BOOTSTRAP_KEY=key, MESH_SECRET="ours" * 10)

    await mesh.start()

    assert "first key     as CONDUCTOR_BOOTSTRAP_KEY says\n" in mesh.output
    assert key not in mesh.output
    assert not (mesh.data / "bootstrap.key").exists()
    assert not (mesh.data / "mesh.secret").exists()


async def test_it_speaks_tls_with_a_certificate(new_mesh: NewMesh, tmp_path: Path) -> None:
    certificate = new_certificate(tmp_path)
    mesh = new_mesh(TLS_CERT=str(certificate.chain), TLS_KEY=str(certificate.key))

    await mesh.start()

    assert f"ready: https://127.0.0.1:{mesh.port} after" in mesh.output
    assert f"gRPC          127.0.0.1:{mesh.port} (TLS, with reflection)" in mesh.output
    trust = ssl.create_default_context(cafile=str(certificate.chain))
    async with httpx.AsyncClient(verify=trust, trust_env=False) as client:
        answer = await client.get(f"https://localhost:{mesh.port}/health")
    assert answer.json()["status"] == "healthy"


async def test_a_certificate_that_is_not_there_is_named(new_mesh: NewMesh) -> None:
    mesh = new_mesh(TLS_CERT="nowhere.crt", TLS_KEY="nowhere.key")
    mesh.begin()

    assert await mesh.end() == 1
    assert "error: CONDUCTOR_TLS_CERT names" in mesh.output
    assert "Traceback" not in mesh.output


def resumed(seen: Followed) -> bool:
    """Whether a run went on with another worker."""
    message = "The run goes on with another worker."
    return any(event["data"].get("message") == message for event in seen.events)


def longest_pause(seen: Followed) -> float:
    """The most seconds between two events of a run."""
    times = [event["timestamp"] for event in seen.events]
    return max((later - earlier for earlier, later in pairwise(times)), default=0.0)
