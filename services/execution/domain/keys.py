"""Keys that callers show, and who may make and revoke which."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from services.kit.errors import DomainError, Reason, Resource, Violation, invalid
from services.kit.principals import Principal, Scope


@dataclass(frozen=True, slots=True)
class Key:
    """A key, as it is stored: without what its holder shows."""

    id: str
    name: str
    org: str
    """The organisation its holder acts for."""
    scopes: frozenset[Scope]
    digest: str
    """Of its secret."""
    creator: str
    create_time: int
    """Microseconds since the epoch, like all times here."""
    expire_time: int | None = None
    revoke_time: int | None = None
    last_use_time: int | None = None
    version: int = 1


@dataclass(frozen=True, slots=True)
class KeyAsked:
    """What a caller asks of a key to be made."""

    name: str
    org: str
    """Empty for the caller's own."""
    scopes: frozenset[Scope]
    expire_time: int | None


def new_key(creator: Principal, asked: KeyAsked, id_: str, digest: str, now: int) -> Key:
    """Make a key, as far as its creator may.

    Raises:
        DomainError: PERMISSION_DENIED, INVALID_REQUEST.
    """
    org = asked.org or creator.org_id
    if org != creator.org_id and not creator.may(Scope.OPERATOR):
        raise _denied("key.org_id", "may name another organisation only when asked by an operator")
    for scope in _in_order(asked.scopes):
        if not creator.may(scope):
            raise _denied("key.scopes", f"may not have {scope}, which the caller does not have")
    if not asked.name.strip():
        raise invalid("key.name", "must hold text that is not only white space")
    if asked.expire_time is not None and asked.expire_time <= now:
        raise invalid("key.expire_time", "must be a time to come")
    return Key(
        id_,
        asked.name,
        org,
        asked.scopes,
        digest,
        creator.name,
        create_time=now,
        expire_time=asked.expire_time,
    )


def may_revoke(caller: Principal, key: Key) -> bool:
    """Tell whether a key is the caller's to revoke; to others it does not exist."""
    return key.org == caller.org_id or caller.may(Scope.OPERATOR)


def revoke(key: Key, now: int) -> Key:
    """Revoke a key; one that is revoked stays as it is."""
    return key if key.revoke_time is not None else replace(key, revoke_time=now)


def works(key: Key, now: int) -> bool:
    """Tell whether whoever shows a key is let in."""
    return key.revoke_time is None and (key.expire_time is None or key.expire_time > now)


def use(key: Key, now: int) -> Key:
    """Note that a key was used."""
    return replace(key, last_use_time=max(now, key.last_use_time or 0))


def key_not_found(key_id: str) -> DomainError:
    """Make the error for an id no key of the organisation has."""
    return DomainError(
        Reason.REASON_KEY_NOT_FOUND,
        f"No key has the id {key_id}.",
        resources=[Resource("key", key_id)],
    )


def _in_order(scopes: Iterable[Scope]) -> list[Scope]:
    return [scope for scope in Scope if scope in scopes]


def _denied(field: str, description: str) -> DomainError:
    return DomainError(
        Reason.REASON_PERMISSION_DENIED,
        f"{field}: {description}",
        violations=[Violation(field, description)],
    )
