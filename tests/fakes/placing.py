"""Instances and conversations put together over a store, with what they belong to."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from functools import partial
from typing import Any, TypeVar

from services.conversations.domain import conversations, instances
from services.conversations.domain.conversations import Conversation
from services.conversations.domain.instances import Instance
from services.conversations.domain.parents import Kind
from services.conversations.ports.catalogue import AgentCard, Voice
from services.conversations.stores.conversations import CONVERSATIONS, StoredConversations
from services.conversations.stores.histories import RUNS, StoredLinks
from services.conversations.stores.instances import (
    INSTANCES,
    PARENTS,
    StoredInstances,
    StoredParents,
)
from services.conversations.stores.messages import MESSAGES, StoredMessages
from services.conversations.usecases.conversations import ConversationService, MessageKin
from services.conversations.usecases.histories import HistoryService
from services.conversations.usecases.instances import InstanceService
from services.conversations.usecases.kin import Cast, HistoryKin, InstanceKin, KinService
from services.conversations.usecases.references import References
from services.conversations.usecases.transcripts import Transcript
from services.kit.errors import DomainError, Reason, Resource
from services.kit.resources.cascades import Cascades, Kin
from services.kit.storage.ports import Store
from tests.fakes.memory import Memory, MemoryStore
from tests.fakes.virtual import EPOCH

T = TypeVar("T")

ORG = "acme"
COLLECTIONS = (CONVERSATIONS, MESSAGES, INSTANCES, PARENTS, RUNS)


class Shelf:
    """What the content service knows. Tests change it as they like."""

    def __init__(self) -> None:
        writer = AgentCard("Writer", instructions="Write.", mcp_servers=("files",))
        self.agents = {"writer": writer, "editor": AgentCard("Editor")}
        self.voices = {"writer": Voice("# Writer", 3)}
        self.screenplays = {"play_a": "/srv/a", "play_b": ""}
        self.is_away = False

    async def agent(self, agent_id: str) -> AgentCard:
        return self._found("agent", self.agents, agent_id)

    async def voice(self, agent_id: str) -> Voice:
        return self.voices.get(agent_id, Voice())

    async def directory(self, screenplay_id: str) -> str:
        return self._found("screenplay", self.screenplays, screenplay_id)

    def _found(self, kind: str, shelf: Mapping[str, T], id_: str) -> T:
        if self.is_away:
            raise DomainError(Reason.REASON_SERVICE_UNAVAILABLE, "The service is away.")
        if id_ not in shelf:
            reason = Reason.Value(f"REASON_{kind.upper()}_NOT_FOUND")
            raise DomainError(
                reason, f"No {kind} has the id {id_}.", resources=[Resource(kind, id_)]
            )
        return shelf[id_]


class Placing:
    """One process over a store.

    Args:
        prefix: what its ids begin with, when there are several.
    """

    def __init__(
        self, store: Store | None = None, *, prefix: str = "", shelf: Shelf | None = None
    ) -> None:
        self.store = store or MemoryStore(Memory(), COLLECTIONS)
        self.shelf = shelf or Shelf()
        self.now = EPOCH
        self._ticks = itertools.count(1)
        self._ids = itertools.count(1)
        self._prefix = prefix
        new = {name: partial(self._new_id, name) for name in ("del", "conv", "inst", "msg", "chg")}
        timing: dict[str, Any] = {"monotonic": lambda: 0.0, "patience": 0.0}
        ending: dict[str, Any] = {"clock": self.clock, "new_deletion_id": new["del"]}
        said = StoredMessages(self.store)
        self.homes, self.placed = StoredConversations(self.store), StoredInstances(self.store)
        self.parents = StoredParents(self.store)
        self.histories = HistoryService(StoredLinks(self.store), said, clock=self.clock)
        self.ends = Cascades(self.placed, [HistoryKin(self.histories)], **timing)
        self.cast = Cast(self.placed, self.ends, **ending)
        kin: list[Kin] = [InstanceKin(self.cast), MessageKin(said, self.histories)]
        self.cascades = Cascades(self.homes, kin, **timing)
        self.kin = KinService(
            self.parents, self.homes, self.cascades, self.cast, self.shelf, **ending
        )
        self.instances = InstanceService(
            self.placed,
            self.ends,
            self.cascades,
            self.homes,
            self.cast,
            self.kin,
            self.shelf,
            self.histories,
            new_id=new["inst"],
            **ending,
        )
        transcript = Transcript(
            self.homes,
            said,
            self.histories,
            clock=self.clock,
            new_id=new["msg"],
            new_change_id=new["chg"],
        )
        self.conversations = ConversationService(
            self.homes,
            transcript,
            References(self.shelf, self.instances),
            self.cascades,
            kept=self.kin.kept,
            new_id=new["conv"],
            **ending,
        )

    def clock(self) -> int:
        return self.now + next(self._ticks)

    def _new_id(self, kind: str) -> str:
        return f"{kind}_{self._prefix}{next(self._ids):06d}"

    async def talk(self, screenplay_id: str = "") -> Conversation:
        """Make a conversation."""
        return await self.conversations.create(
            ORG, conversations.Asked({"title": "Talk", "screenplay_id": screenplay_id})
        )

    async def place(self, id_: str = "", request_id: str = "", **values: Any) -> Instance:
        """Make an instance; of `writer`, unless told otherwise."""
        asked = instances.Asked({"agent_id": "writer", **values}, id_, request_id)
        return (await self.instances.create(ORG, asked)).instance

    async def update(self, id_: str, etag: str = "", **values: Any) -> Instance:
        return (await self.instances.update(ORG, id_, values, etag)).instance

    async def get(self, id_: str) -> Instance:
        return await self.instances.get(ORG, id_)

    async def delete(self, id_: str, *, purge: bool = False) -> None:
        await self.instances.delete(ORG, id_, "", purge=purge)

    async def listed(self, **wanted: Any) -> list[str]:
        found = await self.instances.list(ORG, instances.Wanted(**wanted), None, 100)
        return [one.id for one in found]

    async def talks(self) -> list[str]:
        found = await self.conversations.list(ORG, conversations.Wanted(), None, 100)
        return sorted(one.id for one in found)

    async def mark(self, id_: str, deletion: str, kind: Kind = Kind.SCREENPLAY) -> None:
        await self.kin.mark(ORG, kind, id_, deletion, 7)

    async def unmark(self, id_: str, deletion: str, kind: Kind = Kind.SCREENPLAY) -> None:
        await self.kin.unmark(ORG, kind, id_, deletion)

    async def purge(self, id_: str, deletion: str, kind: Kind = Kind.SCREENPLAY) -> None:
        await self.kin.purge(ORG, kind, id_, deletion, 7)

    async def sweep(self) -> None:
        """Finish what others left."""
        await self.ends.sweep(alone=True)
        await self.cascades.sweep(alone=True)
