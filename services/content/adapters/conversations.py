"""What the conversations service keeps that goes and comes with agents and screenplays."""

from __future__ import annotations

from typing import Generic, TypeVar

from conductor.conversations.v1 import kin_service_pb2 as pb
from conductor.conversations.v1.kin_service_pb2_grpc import KinServiceStub
from services.kit.messages import timestamp
from services.kit.peers import Peers
from services.kit.resources.ports import Mortal, Roots

OWNER = "conversations"
"""The service that keeps them."""
_ANSWER_SECONDS = 20.0
"""How long it may take at a time; what it did by then stays done."""

T = TypeVar("T", bound=Mortal)


class ConversationsKin(Generic[T]):
    """Conversations and instances, told of what becomes of the things they belong to.

    That service keeps the deletions of a thing in order by their ids, so each of these may come late.

    Args:
        roots: the things.
    """

    def __init__(self, peers: Peers, kind: pb.ParentKind.ValueType, roots: Roots[T]) -> None:
        self._peers = peers
        self._kin = KinServiceStub(peers.channel(OWNER))
        self._kind = kind
        self._roots = roots

    async def mark(self, org: str, parent_id: str, deletion: str, time: int) -> None:
        """Let them go with a thing that was deleted."""
        request = pb.MarkKinRequest(
            kind=self._kind,
            parent_id=parent_id,
            deletion_id=deletion,
            delete_time=timestamp(time),
        )
        own = self._peers.itself(org)
        await self._kin.MarkKin(request, timeout=_ANSWER_SECONDS, metadata=own)

    async def unmark(self, org: str, parent_id: str, deletion: str) -> None:
        """Let them come back with a thing."""
        request = pb.UnmarkKinRequest(kind=self._kind, parent_id=parent_id, deletion_id=deletion)
        own = self._peers.itself(org)
        await self._kin.UnmarkKin(request, timeout=_ANSWER_SECONDS, metadata=own)

    async def purge(self, org: str, parent_id: str) -> None:
        """Remove them for good, with the deletion that the thing goes with."""
        thing = await self._roots.get(org, parent_id)
        if thing is None or not thing.life.purging:
            # Somebody else was done with it; whatever has its id now keeps what belongs to it.
            return
        request = pb.PurgeKinRequest(
            kind=self._kind,
            parent_id=parent_id,
            deletion_id=thing.life.deletion,
            delete_time=timestamp(thing.life.delete_time or 0),
        )
        own = self._peers.itself(org)
        await self._kin.PurgeKin(request, timeout=_ANSWER_SECONDS, metadata=own)
