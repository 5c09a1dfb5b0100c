"""`conductor up`: it starts, it keeps going, it refuses, and it leaves nothing behind."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
from collections.abc import Callable

import httpx
import pytest

from conductor_ai.client import Client
from services.mesh.table import SERVICES
from tests.mesh.started import COMMAND, Mesh
from tests.patience import PATIENCE
from tests.processes import alive, until

NewMesh = Callable[..., Mesh]
EXECUTE = "conductor.gateway.v1.GatewayService/Execute"


async def test_it_prints_where_everything_is_and_then_one_line_ready(mesh: Mesh) -> None:
    lines = mesh.output.splitlines()

    assert [line for line in lines if line.startswith("ready:")] == lines[-1:]
    for fact in (mesh.url, f"{mesh.address} ", str(mesh.data), f"{mesh.data}/logs"):
        assert fact in mesh.output
    assert f"pid {mesh.pid}" in mesh.output


async def test_when_it_is_ready_rest_and_grpc_answer(mesh: Mesh) -> None:
    async with httpx.AsyncClient(base_url=mesh.url, trust_env=False) as http:
        health = await http.get("/health")
        answer = await http.post("/execute", json={"input": "Hello"})
        audit = await http.get("/api/audit-records")
    async with Client(mesh.address) as client:
        models = await client.models()

    assert health.json()["status"] == "healthy"
    # Each service answers for a part of these.
    parts = {part["name"] for part in health.json()["parts"]}
    assert parts == {"store", "worker", *(service.name for service in SERVICES[1:])}
    assert [record["rpc"] for record in audit.json()["audit_records"]] == [EXECUTE]
    assert "Hello" in answer.json()["result"]
    assert "mock" in {model.id for model in models}


async def test_logs_and_access_log_are_below_the_data_directory(mesh: Mesh) -> None:
    for service in SERVICES:
        assert (mesh.data / "logs" / f"{service.name}.log").stat().st_size > 0
    # Envoy writes its lines together, each ten seconds.
    await until((mesh.data / "logs" / "access.log").exists, PATIENCE)
    assert (mesh.data / "logs" / "envoy.log").exists()


async def test_only_the_loopback_is_listened_on(mesh: Mesh) -> None:
    outside = socket.gethostbyname(socket.gethostname())
    if outside.startswith("127."):
        outside = "127.0.0.2"

    with pytest.raises(OSError, match=r"refused|unreachable|timed out"):
        socket.create_connection((outside, mesh.port), timeout=2)


async def test_a_second_start_on_the_same_data_directory_is_refused(
    mesh: Mesh, new_mesh: NewMesh
) -> None:
    second = new_mesh("second", DATA_DIR=str(mesh.data))
    second.begin()

    assert await second.end() == 1
    assert second.output == (
        f"error: Another mesh (pid {mesh.pid}) runs on the data directory {mesh.data}; stop it, "
        "or choose another directory with CONDUCTOR_DATA_DIR.\n"
    )
    await mesh.healthy()


async def test_a_taken_port_is_refused_with_the_way_to_choose_another(
    mesh: Mesh, new_mesh: NewMesh
) -> None:
    second = new_mesh("second", HTTP_PORT=str(mesh.port))
    second.begin()

    assert await second.end() == 1
    assert re.fullmatch(
        rf"error: Port {mesh.port} .* is taken .*CONDUCTOR_HTTP_PORT.*\n", second.output
    )


async def test_two_meshes_run_beside_each_other(mesh: Mesh, new_mesh: NewMesh) -> None:
    second = new_mesh("second")
    await second.start()

    await mesh.healthy()
    assert set(second.pids().values()).isdisjoint(mesh.pids().values())
    assert await second.stop() == 0
    await mesh.healthy()


async def test_an_address_others_can_reach_is_refused(new_mesh: NewMesh) -> None:
    mesh = new_mesh(LISTEN_HOST="0.0.0.0")
    mesh.begin()

    assert await mesh.end() == 1
    assert "CONDUCTOR_LISTEN_HOST" in mesh.output
    assert "authentication" in mesh.output
    assert not mesh.data.exists()


async def test_a_wrong_setting_of_a_service_stops_the_start_and_is_named(
    new_mesh: NewMesh,
) -> None:
    mesh = new_mesh(EXECUTION_CONCURRENCY="many")
    mesh.begin()

    assert await mesh.end() == 1
    assert "CONDUCTOR_EXECUTION_CONCURRENCY" in mesh.output
    assert "ready:" not in mesh.output
    assert "Traceback" not in mesh.output
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", mesh.port)) != 0


@pytest.mark.parametrize("name", [*(service.name for service in SERVICES), "envoy"])
async def test_a_process_that_dies_is_started_again_and_it_is_said(mesh: Mesh, name: str) -> None:
    killed = await mesh.kill(name)
    await mesh.serves_again(name, after=killed)

    assert f"\n{name} was ended by SIGKILL; starting it again at once\n" in mesh.output
    await until(lambda: f"\n{name} serves again after " in mesh.output, PATIENCE)


async def test_a_service_that_dies_over_and_over_comes_back_each_time(mesh: Mesh) -> None:
    for _ in range(4):
        killed = await mesh.kill("execution")
        await mesh.serves_again("execution", after=killed)

    assert mesh.output.count("execution was ended by SIGKILL") == 4


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
async def test_it_stops_within_ten_seconds_and_leaves_no_process(
    mesh: Mesh, number: signal.Signals
) -> None:
    mesh.pids()
    mesh.signal(number)

    assert await mesh.end(seconds=10) == 0
    assert mesh.left() == set()
    assert mesh.output.endswith("\nstopped\n")


async def test_a_stop_ends_open_streams_cleanly(mesh: Mesh) -> None:
    async with httpx.AsyncClient(base_url=mesh.url, trust_env=False, timeout=PATIENCE) as http:
        start = {"input": "Hello", "model": "mock-long"}
        job = (await http.post("/api/v1/stream-execute", json=start)).json()["job_id"]
        async with http.stream("GET", f"/api/v1/stream/{job}") as stream:
            stopped = False
            # A stream that is cut raises here.
            async for line in stream.aiter_lines():
                if "on_llm_new_token" in line and not stopped:
                    mesh.signal(signal.SIGTERM)
                    stopped = True

    assert await mesh.end(seconds=10) == 0
    assert mesh.left() == set()


async def test_a_service_that_does_not_stop_is_killed_in_time(mesh: Mesh) -> None:
    os.kill(mesh.pids()["execution"], signal.SIGSTOP)

    mesh.signal(signal.SIGTERM)

    assert await mesh.end(seconds=10) == 0
    assert mesh.left() == set()


async def test_a_second_ctrl_c_ends_everything_at_once(mesh: Mesh) -> None:
    os.kill(mesh.pids()["execution"], signal.SIGSTOP)

    mesh.signal(signal.SIGINT)
    await until(lambda: "\nstopping" in mesh.output)
    mesh.signal(signal.SIGINT)

    assert await mesh.end(seconds=5) == 0
    assert mesh.left() == set()


async def test_a_stop_during_the_start_leaves_no_process(new_mesh: NewMesh) -> None:
    mesh = new_mesh()
    mesh.begin()
    await until((mesh.data / "run" / "mesh.json").exists, PATIENCE)
    mesh.pids()
    mesh.signal(signal.SIGTERM)

    assert await mesh.end(seconds=10) == 0
    assert mesh.left() == set()


async def test_a_killed_supervisor_leaves_no_orphan_and_a_new_start_goes_on(mesh: Mesh) -> None:
    async with Client(mesh.address) as client:
        execution = await client.start("Hello", model="mock-slow")
    orphans = mesh.pids().values()

    await mesh.crash()
    await mesh.start()

    assert not any(alive(pid) for pid in orphans)
    async with Client(mesh.address) as client, asyncio.timeout(PATIENCE):
        seen = [event async for event in client.watch(execution.id)]
    assert [event.sequence for event in seen] == list(range(1, len(seen) + 1))
    assert seen[-1].HasField("result")


async def test_a_reader_of_its_output_that_goes_away_changes_nothing(new_mesh: NewMesh) -> None:
    mesh = new_mesh()
    mesh.folder.mkdir()
    process = await asyncio.create_subprocess_exec(
        *(COMMAND, "up"),
        cwd=mesh.folder,
        env=mesh.env,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    await asyncio.wait_for(process.stdout.readline(), PATIENCE)
    process.stdout._transport.close()  # type: ignore[attr-defined]  # nothing public closes it
    await mesh.healthy()

    process.terminate()

    assert await asyncio.wait_for(process.wait(), 10) == 0
    assert await process.stderr.read() == b""


async def test_a_killed_supervisor_leaves_no_orphan(mesh: Mesh) -> None:
    await mesh.crash()

    await until(lambda: mesh.left() == set())


async def test_a_run_goes_on_over_a_restart_for_a_client_that_watches(mesh: Mesh) -> None:
    async with Client(mesh.address) as client, asyncio.timeout(PATIENCE):
        seen = []
        async for event in client.run("Hello", model="mock-slow"):
            seen.append(event)
            if event.sequence == 5:
                await mesh.stop()
                await mesh.start()

    assert [event.sequence for event in seen] == list(range(1, len(seen) + 1))
    assert seen[-1].HasField("result")


async def test_conductor_run_follows_a_run_on_it(mesh: Mesh) -> None:
    run = await asyncio.create_subprocess_exec(
        *(COMMAND, "run", "Hello"), env=mesh.env, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await asyncio.wait_for(run.communicate(), PATIENCE)

    assert run.returncode == 0
    assert b"Hello" in out


async def test_ctrl_c_of_conductor_run_cancels_the_run(mesh: Mesh) -> None:
    run = await asyncio.create_subprocess_exec(
        *(COMMAND, "run", "Hello", "--model", "mock-slow", "--request-id", "mine"),
        env=mesh.env,
        stdout=asyncio.subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert run.stdout is not None
    assert await asyncio.wait_for(run.stdout.read(1), PATIENCE)

    run.send_signal(signal.SIGINT)
    await asyncio.wait_for(run.communicate(), PATIENCE)

    assert run.returncode == 130
