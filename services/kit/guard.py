"""Who is let in: what each rpc asks of its callers, and whoever judges them by it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from google.protobuf import descriptor_pool
from google.protobuf.message import Message

from conductor.auth.v1 import access_pb2
from services.kit.call import Call
from services.kit.principals import Scope

_SCOPES = {
    access_pb2.SCOPE_READ: Scope.READ,
    access_pb2.SCOPE_RUN: Scope.RUN,
    access_pb2.SCOPE_ADMIN: Scope.ADMIN,
    access_pb2.SCOPE_OPERATOR: Scope.OPERATOR,
}
_NO_SIDE_EFFECTS = 1


@dataclass(frozen=True, slots=True)
class Access:
    """What an rpc asks of its callers."""

    scope: Scope | None = None
    """The scope they need; None lets anyone in."""
    token_for: str = ""
    """The field of the request whose resource a stream token, in its field `token`, stands in for a
    key."""
    changes: bool = False
    """Whether it changes something, so that there is a record of each call."""


def access_of(service: str, method: str) -> Access:
    """Read what an rpc asks of its callers from its options.

    Raises:
        ValueError: it does not say.
    """
    pool: Any = descriptor_pool.Default()
    options = pool.FindServiceByName(service).methods_by_name[method].GetOptions()
    said = options.Extensions[access_pb2.access]
    if not said.open and said.scope not in _SCOPES:
        raise ValueError(f"{service}/{method} does not say who may call it")
    return Access(
        scope=None if said.open else _SCOPES[said.scope],
        token_for=said.token_for,
        changes=options.idempotency_level != _NO_SIDE_EFFECTS,
    )


class Guard(Protocol):
    """Judges callers."""

    async def admit(self, served: Call, access: Access, request: Message | None) -> None:
        """Find out who calls, set it as the principal of the call, and let them in.

        Args:
            request: what is asked; None where it comes later, as a stream.

        Raises:
            DomainError: UNAUTHENTICATED, PERMISSION_DENIED, RATE_LIMITED, STORE_UNAVAILABLE.
        """
        ...
