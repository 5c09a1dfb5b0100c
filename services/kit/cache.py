"""Serialized messages of stored versions, so that a hot read is answered without making them anew."""

from __future__ import annotations

from collections import OrderedDict


class VersionedBytes:
    """Keeps the bytes made from one version of each key, the most recently used ones.

    Args:
        max_bytes: how much is kept.
    """

    def __init__(self, max_bytes: int) -> None:
        self._room = max_bytes
        self._kept: OrderedDict[tuple[str, str], tuple[int, bytes]] = OrderedDict()

    def get(self, key: tuple[str, str], version: int) -> bytes | None:
        """Find the bytes of exactly this version."""
        kept = self._kept.get(key)
        if kept is None or kept[0] != version:
            return None
        self._kept.move_to_end(key)
        return kept[1]

    def put(self, key: tuple[str, str], version: int, data: bytes) -> None:
        """Keep the bytes of a version in place of any other."""
        earlier = self._kept.pop(key, None)
        if earlier is not None:
            self._room += len(earlier[1])
        self._kept[key] = version, data
        self._room -= len(data)
        while self._room < 0:
            _, (_, dropped) = self._kept.popitem(last=False)
            self._room += len(dropped)
