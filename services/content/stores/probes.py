"""Looking whether the store works."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path

from services.content.domain.personas import Persona, version_id
from services.content.stores.personas import VERSIONS, StoredPersonas
from services.kit.principals import MESH_ORG
from services.kit.storage.ports import Collection, Delete, Document, Insert, Store
from services.kit.tasks import threaded

PROBES = Collection("probes")


class StoreProbe:
    """Writes and reads a document that means nothing.

    Args:
        directory: where the store is; None when it is not on this machine.
        new_id: makes ids of such documents.
    """

    def __init__(self, store: Store, directory: Path | None, *, new_id: Callable[[], str]) -> None:
        self._store = store
        self._directory = directory
        self._new_id = new_id

    async def store_seconds(self) -> float:
        """Write a document, read it, remove it."""
        began = time.perf_counter()
        document = Document(MESH_ORG, self._new_id(), time.time_ns() // 1000, {})
        await self._store.write(Insert(PROBES, document))
        await self._store.get(PROBES, MESH_ORG, document.id)
        await self._store.write(Delete(PROBES, MESH_ORG, document.id, 1))
        return time.perf_counter() - began

    async def space(self) -> tuple[int, int] | None:
        """Return free and all bytes of its disk."""
        if self._directory is None:
            return None
        usage = await threaded(shutil.disk_usage, self._directory)
        return usage.free, usage.total


class StoredPersonaParts:
    """Personas and which versions of them there are, over the storage ports."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._personas = StoredPersonas(store)

    async def persona(self, org: str, agent_id: str) -> Persona | None:
        """Read the persona of an agent."""
        return await self._personas.get(org, agent_id)

    async def has_version(self, org: str, agent_id: str, number: int) -> bool:
        """Tell whether a version is there."""
        return await self._store.version(VERSIONS, org, version_id(agent_id, number)) is not None
