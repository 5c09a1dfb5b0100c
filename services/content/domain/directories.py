"""Directories: what people keep of agents and screenplays as files of their own."""

from __future__ import annotations

ENDINGS = (".md", ".markdown", ".txt")
SIDECAR = ".yaml"


def order_of(path: str) -> tuple[str, bool]:
    """Return what sorts files such that what is said of a text comes right after it."""
    stem = path.removesuffix(SIDECAR)
    is_sidecar = stem != path and stem.endswith(ENDINGS)
    return (stem, True) if is_sidecar else (path, False)
