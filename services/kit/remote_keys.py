"""Keys of callers as every service but execution reads them: from there."""

from __future__ import annotations

from conductor.auth.v1.key_pb2 import KeyRecord as KeyMessage
from conductor.auth.v1.key_service_pb2 import ResolveKeyRequest
from conductor.auth.v1.key_service_pb2_grpc import KeyServiceStub
from services.kit.errors import DomainError, Reason
from services.kit.keys import KeyRecord
from services.kit.messages import microseconds, scope
from services.kit.peers import Peers

OWNER = "execution"
"""The service that stores keys."""

_ANSWER_SECONDS = 2.0


class RemoteKeys:
    """The keys of the service that stores them, which also notes when they are used.

    Raises:
        SettingsError: nothing says where that service is.
    """

    def __init__(self, peers: Peers) -> None:
        self._peers = peers
        self._keys = KeyServiceStub(peers.channel(OWNER))

    async def find(self, key_id: str, digest: str) -> KeyRecord | None:
        """Read a key."""
        request = ResolveKeyRequest(key_id=key_id, digest=digest)
        own = self._peers.itself()
        try:
            found = await self._keys.ResolveKey(request, timeout=_ANSWER_SECONDS, metadata=own)
        except DomainError as error:
            if error.reason == Reason.REASON_KEY_NOT_FOUND:
                return None
            raise
        return _record(found)


def _record(message: KeyMessage) -> KeyRecord:
    return KeyRecord(
        message.id,
        message.org_id,
        frozenset(map(scope, message.scopes)),
        message.digest,
        microseconds(message, "expire_time"),
        microseconds(message, "revoke_time"),
    )
