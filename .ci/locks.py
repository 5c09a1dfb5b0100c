"""Checks the dependencies: asked for, pinned, explained.

Fails when a lock lacks what pyproject.toml or tests/interop/requirements.in asks for, when the locks
of .venv pin different versions, when a pin has no hash, when a lock names an index, or when
docs/dependencies.md does not name a dependency of pyproject.toml.
"""

import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
EXPLAINED = ROOT / "docs/dependencies.md"
PIN = re.compile(r"^([A-Za-z0-9._-]+)==(\S+)(.*(?:\n .*)*)", re.MULTILINE)


def read_pins(lock: str) -> dict[str, str]:
    """Returns the version of each package a lock pins, by its canonical name."""
    return {canonicalize_name(name): version for name, version, _ in PIN.findall(read(lock))}


def read(lock: str) -> str:
    """Returns the text of a lock."""
    return (ROOT / lock).read_text()


def faults(lock: str, wanted: list[Requirement]) -> Iterator[str]:
    """Yields a sentence for each thing that is wrong with one lock."""
    text = read(lock)
    pins = read_pins(lock)
    if "://" in text or re.search(r"^-", text, re.MULTILINE):
        yield f"{lock} names an index, a file or an option"
    for name, version, rest in PIN.findall(text):
        if "--hash=sha256:" not in rest:
            yield f"{lock}: {name}=={version} has no hash"
    for requirement in wanted:
        version = pins.get(canonicalize_name(requirement.name), "")
        if not version or not requirement.specifier.contains(version):
            yield f"{lock} has no {requirement}; run `make lock`"


def findings() -> Iterator[str]:
    """Yields a sentence for each thing that is wrong."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    asked = [*project["build-system"]["requires"], *project["project"]["dependencies"]]
    runtime = [Requirement(line) for line in asked]
    dev = [Requirement(line) for line in project["project"]["optional-dependencies"]["dev"]]
    yield from faults("requirements.lock", runtime)
    yield from faults("requirements-dev.lock", [*runtime, *dev])
    lines = (ROOT / "tests/interop/requirements.in").read_text().splitlines()
    interop = [Requirement(line) for line in lines if not line.startswith("#")]
    yield from faults("requirements-interop.lock", interop)
    others = read_pins("requirements-dev.lock")
    for name, version in read_pins("requirements.lock").items():
        if others.get(name) != version:
            yield f"the locks disagree about {name}, {version} and {others.get(name)}"
    explained = EXPLAINED.read_text()
    for requirement in [*runtime, *dev]:
        if f"`{requirement.name}`" not in explained:
            yield f"docs/dependencies.md does not say what {requirement.name} is for"


if __name__ == "__main__":
    sys.exit("\n".join(findings()) or 0)
