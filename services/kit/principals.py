"""Who calls, for which organisation, and what they may do."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


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
    """Who it is, for people: `key:<id>`, `jwt:<subject>`, `bootstrap`, `anonymous`."""
    scopes: frozenset[Scope] = frozenset(Scope)

    def may(self, scope: Scope) -> bool:
        """Tell whether one of its scopes has this one in it."""
        return scope in self.scopes or any(
            _ORDER.index(own) >= _ORDER.index(scope) for own in self.scopes
        )


ANYONE = Principal()
"""Every caller, while authentication is off."""

NOBODY = Principal("", "", frozenset())
"""A caller who did not say who they are, while authentication is on."""


def widest(scopes: Iterable[Scope]) -> Scope:
    """Name the scope that has all the others in it."""
    return max(scopes, key=_ORDER.index)
