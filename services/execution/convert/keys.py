"""Keys as messages."""

from __future__ import annotations

from conductor.auth.v1 import key_pb2
from services.execution.domain import Key, KeyAsked
from services.kit.messages import microseconds, scope, scopes_to_proto, timestamp


def asked_of_key(key: key_pb2.Key) -> KeyAsked:
    """Read what a caller asks of a key to be made."""
    return KeyAsked(
        name=key.name,
        org=key.org_id,
        scopes=frozenset(map(scope, key.scopes)),
        expire_time=microseconds(key, "expire_time", "key.expire_time"),
    )


def key_to_proto(key: Key, text: str = "") -> key_pb2.Key:
    """Print a key.

    Args:
        text: what its holder shows, when it was made just now.
    """
    message = key_pb2.Key(
        id=key.id,
        name=key.name,
        org_id=key.org,
        scopes=scopes_to_proto(key.scopes),
        create_time=timestamp(key.create_time),
        creator=key.creator,
        secret=text,
    )
    for field, time in (
        (message.expire_time, key.expire_time),
        (message.revoke_time, key.revoke_time),
        (message.last_use_time, key.last_use_time),
    ):
        if time is not None:
            field.CopyFrom(timestamp(time))
    return message


def key_record_to_proto(key: Key) -> key_pb2.KeyRecord:
    """Print what other services judge the holder of a key by."""
    message = key_pb2.KeyRecord(
        id=key.id, org_id=key.org, scopes=scopes_to_proto(key.scopes), digest=key.digest
    )
    if key.expire_time is not None:
        message.expire_time.CopyFrom(timestamp(key.expire_time))
    if key.revoke_time is not None:
        message.revoke_time.CopyFrom(timestamp(key.revoke_time))
    return message
