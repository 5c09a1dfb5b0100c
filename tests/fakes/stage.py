"""Screenplays put together over a store."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from services.content.domain.screenplays import Asked, Checked, Screenplay, Wanted
from services.content.stores.screenplays import (
    SCREENPLAYS,
    TEXTS,
    StoredScreenplays,
    StoredTexts,
)
from services.content.usecases.screenplays import ScreenplayService, TextKin
from services.kit.resources.cascades import Cascades, Kin, Purge
from services.kit.storage.ports import Store
from services.kit.tasks import Workbench
from tests.fakes.memory import Memory, MemoryStore
from tests.fakes.virtual import EPOCH

ORG = "acme"
COLLECTIONS = (SCREENPLAYS, TEXTS)


class Stage:
    """One process over a store.

    Args:
        afar: what belongs to screenplays at other services.
        prefix: what its ids begin with, when there are several.
    """

    def __init__(
        self, store: Store | None = None, *, prefix: str = "", afar: Sequence[Kin] = ()
    ) -> None:
        self.store = store or MemoryStore(Memory(), COLLECTIONS)
        self.now = EPOCH
        self._ticks = itertools.count(1)
        self._ids = itertools.count(1)
        self._prefix = prefix
        self.stored, self.texts = StoredScreenplays(self.store), StoredTexts(self.store)
        self.cascades: Cascades[Screenplay] = Cascades(
            self.stored,
            [TextKin(self.texts)],
            afar=afar,
            monotonic=lambda: 0.0,
            patience=0.0,
        )
        self.service = ScreenplayService(
            self.stored,
            self.texts,
            self.cascades,
            clock=self.clock,
            new_id=lambda: f"play_{self._prefix}{next(self._ids):06d}",
            new_deletion_id=lambda: f"del_{self._prefix}{next(self._ids):06d}",
            workbench=Workbench(),
        )
        self.purge = Purge(self.cascades, keep_days=30, clock=self.clock)

    def clock(self) -> int:
        return self.now + next(self._ticks)

    async def create(self, name: str = "Play", org: str = ORG, **values: Any) -> Screenplay:
        return (await self.made(name, org, **values)).screenplay

    async def made(
        self, name: str = "Play", org: str = ORG, request_id: str = "", **values: Any
    ) -> Checked:
        return await self.service.create(org, Asked({"name": name, **values}, request_id), "ann")

    async def update(self, id_: str, etag: str = "", **values: Any) -> Checked:
        """Change a screenplay; by force, unless there is an etag."""
        return await self.service.update(ORG, id_, values, etag, "bob", force=not etag)

    async def take_in(self, path: str, content: str, **options: Any) -> Checked:
        overwrite = options.pop("overwrite", False)
        asked = Asked({"import_path": path, "content": content, **options})
        return await self.service.take_in(ORG, asked, "ann", overwrite=overwrite)

    async def delete(self, id_: str, *, purge: bool = False) -> None:
        await self.service.delete(ORG, id_, "", purge=purge)

    async def undelete(self, id_: str, *, drop: bool = False) -> Screenplay:
        return await self.service.undelete(ORG, id_, drop_taken_paths=drop)

    async def get(self, id_: str) -> Screenplay:
        return await self.service.get(ORG, id_)

    async def listed(self, **wanted: Any) -> list[str]:
        found = await self.service.list(ORG, Wanted(**wanted), None, 100)
        return [one.name for one in found]

    async def kept(self, id_: str) -> list[int]:
        """The revisions of the texts that are kept, newest first."""
        return [one.revision for one in await self.service.texts(ORG, id_, None, 200)]
