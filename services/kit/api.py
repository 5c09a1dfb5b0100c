"""The descriptor set of all protos: what the configuration of Envoy and reflection follow from."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from services.kit.settings import SettingsError


def descriptors() -> bytes:
    """Read the descriptor set; it lies beside the generated package.

    Raises:
        SettingsError: it is missing.
    """
    spec = find_spec("conductor")
    roots = spec.submodule_search_locations if spec else None
    for root in roots or ():
        path = Path(root).with_name("api.binpb")
        if path.is_file():
            return path.read_bytes()
    raise SettingsError("gen/api.binpb is missing; make it with `make gen`.")
