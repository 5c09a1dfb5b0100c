"""Who calls, for which organisation, and what they may do."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from conductor.errors.v1.reason_pb2 import Reason
from services.kit.errors import DomainError, Violation

ALL_ORGS = "-"
"""What names every organisation in a request."""


class Scope(StrEnum):
    """What a caller may do; each has in it what stands before it."""

    READ = "read"
    RUN = "run"
    ADMIN = "admin"
    OPERATOR = "operator"


_ORDER = tuple(Scope)


@dataclass(frozen=True, slots=True)
class Principal:
    """Who calls, and for which organisation."""

    org_id: str = "default"
    """The organisation; the first part of the key of everything stored."""
    name: str = "anonymous"
    """Who it is, for people: `key:<id>`, `jwt:<subject>`, `service:<name>`, `bootstrap`, `anonymous`."""
    scopes: frozenset[Scope] = frozenset(Scope)

    def may(self, scope: Scope) -> bool:
        """Tell whether one of its scopes has this one in it."""
        return any(_ORDER.index(own) >= _ORDER.index(scope) for own in self.scopes)

    def org_to_list(self, asked: str) -> str | None:
        """Decide whose things a list shows; None is everyone's.

        Args:
            asked: the `org_id` of the request: the caller's own when empty, all for `-`.

        Raises:
            DomainError: PERMISSION_DENIED, when only an operator may see them.
        """
        if asked in {"", self.org_id}:
            return self.org_id
        if not self.may(Scope.OPERATOR):
            description = "may name another organisation, or all, only when asked by an operator"
            raise DomainError(
                Reason.REASON_PERMISSION_DENIED,
                f"org_id: {description}",
                violations=[Violation("org_id", description)],
            )
        return None if asked == ALL_ORGS else asked


ANYONE = Principal()
"""Every caller, while authentication is off."""

MESH_ORG = "_mesh"
"""The organisation of what belongs to the mesh itself; no caller can have it."""

NOBODY = Principal("", "", frozenset())
"""A caller who did not say who they are, while authentication is on."""
