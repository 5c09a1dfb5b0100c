"""What docker-compose.yml and deploy/ come to: files of compose merged, kustomizations built.

As much of either as is used here; what is not known is refused, so that nothing is passed over.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import yaml

Mapped: TypeAlias = dict[str, Any]

ROOT = Path(__file__).parents[1]
COMPOSE = ROOT / "docker-compose.yml"
LAYERS = sorted((ROOT / "deploy" / "compose").glob("*.yml"))
BASE = ROOT / "deploy" / "k8s" / "base"
OVERLAYS = sorted(path.parent for path in ROOT.glob("deploy/k8s/overlays/*/kustomization.yaml"))

_VARIABLE = re.compile(r"\$\{(?P<name>\w+)(?::(?P<kind>[-?])(?P<rest>[^}]*))?\}")
_KUSTOMIZATION = {
    "apiVersion",
    "kind",
    "namespace",
    "labels",
    "resources",
    "images",
    "configMapGenerator",
    "patches",
}


class VariableMissingError(Exception):
    """A variable that compose insists on is not there."""


def compose(*layers: Path, given: Mapping[str, str]) -> Mapped:
    """Merge docker-compose.yml and layers as `docker compose -f … -f …` does."""
    merged: Mapped = {}
    for path in (COMPOSE, *layers):
        read = yaml.safe_load(path.read_text())
        merged = _overlaid(merged, _interpolated(read, given))
    return merged


def _interpolated(value: Any, given: Mapping[str, str]) -> Any:
    def replaced(found: re.Match[str]) -> str:
        name, kind, rest = found["name"], found["kind"], found["rest"]
        if given.get(name):
            return given[name]
        if kind == "?":
            raise VariableMissingError(f"{name}: {rest}")
        assert kind == "-", f"{name} has neither a default nor a word on why it is needed"
        return str(rest)

    match value:
        case dict():
            return {key: _interpolated(one, given) for key, one in value.items()}
        case list():
            return [_interpolated(one, given) for one in value]
        case str():
            return _VARIABLE.sub(replaced, value)
    return value


def _overlaid(below: Any, above: Any) -> Any:
    if isinstance(below, dict) and isinstance(above, dict):
        both = {key: _overlaid(below[key], above[key]) for key in below.keys() & above.keys()}
        return {**below, **above, **both}
    if isinstance(below, list) and isinstance(above, list):
        return [*below, *above]
    return above


def manifests(folder: Path) -> list[Mapped]:
    """Build a kustomization as `kustomize build` does, but for the hash in generated names."""
    told = yaml.safe_load((folder / "kustomization.yaml").read_text())
    assert told.keys() <= _KUSTOMIZATION, f"{folder}: {told.keys() - _KUSTOMIZATION}"
    built: list[Mapped] = []
    for name in told.get("resources", ()):
        path = folder / name
        built += manifests(path) if path.is_dir() else list(yaml.safe_load_all(path.read_text()))
    for generator in told.get("configMapGenerator", ()):
        _generate(built, generator)
    for patch in told.get("patches", ()):
        assert patch.keys() == {"path"}
        for change in yaml.safe_load_all((folder / patch["path"]).read_text()):
            target = find(built, change["kind"], change["metadata"]["name"])
            target.update(_patched(target, change))
    images = {image["name"]: image for image in told.get("images", ())}
    for manifest in built:
        if manifest["kind"] != "Namespace":
            manifest["metadata"]["namespace"] = told["namespace"]
        for container in containers(manifest):
            _name_image(container, images)
    return built


def _generate(built: list[Mapped], generator: Mapped) -> None:
    assert generator.keys() <= {"name", "behavior", "literals"}
    data = dict(literal.split("=", 1) for literal in generator["literals"])
    if generator.get("behavior") == "merge":
        find(built, "ConfigMap", generator["name"])["data"].update(data)
        return
    metadata = {"name": generator["name"]}
    built.append({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})


def _patched(below: Any, above: Any) -> Any:
    """Merge strategically: lists of things by what they are known by."""
    if isinstance(below, dict) and isinstance(above, dict):
        both = {key: _patched(below[key], above[key]) for key in below.keys() & above.keys()}
        return {**below, **above, **both}
    if isinstance(below, list) and isinstance(above, list) and above:
        key = next(key for key in ("mountPath", "port", "name") if all(key in one for one in above))
        merged = {one[key]: one for one in below}
        for one in above:
            if one.get("$patch") == "delete":
                del merged[one[key]]
            else:
                merged[one[key]] = _patched(merged.get(one[key], {}), one)
        return list(merged.values())
    return above


def _name_image(container: Mapped, images: Mapping[str, Mapped]) -> None:
    name = container["image"].split(":")[0]
    # An overlay names anew what its base has named.
    known = images.get(name) or images.get(name.rpartition("/")[2])
    if known:
        container["image"] = f"{known.get('newName', name)}:{known['newTag']}"


def find(built: list[Mapped], kind: str, name: str) -> Mapped:
    """The manifest of a kind and name."""
    found = [one for one in built if (one["kind"], one["metadata"]["name"]) == (kind, name)]
    assert len(found) == 1, f"{kind} {name} is there {len(found)} times"
    return found[0]


def containers(manifest: Mapped) -> list[Mapped]:
    """The containers of a manifest; none when it runs nothing."""
    spec = pod(manifest)
    return [*spec.get("initContainers", ()), *spec.get("containers", ())]


def pod(manifest: Mapped) -> Mapped:
    """The description of the pods of a manifest; empty when it has none."""
    found: Mapped = manifest.get("spec", {}).get("template", {}).get("spec", {})
    return found
