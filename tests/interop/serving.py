"""LiteLLM's proxy: a server of both protocols that is not ours, with canned answers."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.patience import PATIENCE

HERE = Path(__file__).parent
ENVIRONMENT = HERE.parents[1] / ".tools" / "interop"
KEY = "sk-interop"
CANNED = "Grüße: one canned answer, “said” in several words. 🙂"
"""What `litellm.yaml` lets the model `canned` say."""
LONG_ANSWER = "and so on " * 1_500


@dataclass(frozen=True)
class Proxy:
    """A running proxy."""

    url: str
    process: subprocess.Popen[bytes]


@contextlib.contextmanager
def started(log: Path) -> Iterator[Proxy]:
    """Start a proxy on a free port, wait until it serves, and end it afterwards."""
    program = ENVIRONMENT / "bin" / "litellm"
    if not program.exists():
        pytest.fail("LiteLLM is not installed; run `make interop`", pytrace=False)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(log.parent),
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        # A proxy nobody listens at: what would leave this machine fails at once.
        "HTTPS_PROXY": "http://127.0.0.1:9",
        "NO_PROXY": "127.0.0.1",
        "INTEROP_KEY": KEY,
        "INTEROP_SELF": f"{url}/v1",
        "INTEROP_LONG_ANSWER": LONG_ANSWER,
    }
    command = [str(program), "--config", str(HERE / "litellm.yaml"), "--host", "127.0.0.1"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "--port", str(port), "--telemetry", "False"],
            cwd=log.parent,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_until_serving(url, process, log)
        yield Proxy(url, process)
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)


def wait_until_serving(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Ask for its health until it answers."""
    end = time.monotonic() + PATIENCE
    while True:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{url}/health/liveliness", trust_env=False).is_success:
                return
        if process.poll() is not None or time.monotonic() > end:
            pytest.fail(f"LiteLLM did not start:\n{log.read_text()[-4000:]}", pytrace=False)
        time.sleep(0.2)
