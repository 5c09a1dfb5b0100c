"""Keys that callers show: their text, and what is known of one.

A key reads `cmk_<id>_<secret>`. It is found by its id alone, and of its secret only the SHA-256 is
stored: it has more randomness than anybody can search, so nothing slower is needed.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from uuid_utils import uuid7

from services.kit.principals import Scope

_TEXT = re.compile(r"cmk_([0-9a-z]{20,40})_([0-9A-Za-z]{32,128})")


class Minted(NamedTuple):
    """A new key."""

    id: str
    """Sortable by creation."""
    text: str
    """What its holder shows; kept nowhere."""
    digest: str
    """Of its secret."""


def mint() -> Minted:
    """Make a key."""
    id_, secret = uuid7().hex, secrets.token_hex(32)
    return Minted(id_, f"cmk_{id_}_{secret}", digest(secret))


def parts(text: str) -> tuple[str, str] | None:
    """Take a key apart: its id and its secret; None when it is none."""
    matched = _TEXT.fullmatch(text)
    return (matched[1], matched[2]) if matched else None


def digest(secret: str) -> str:
    """Make of a secret what may be stored: its SHA-256, as hexadecimal digits."""
    return hashlib.sha256(secret.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """What a process needs to know of a key to judge its holder."""

    id: str
    org_id: str
    scopes: frozenset[Scope]
    digest: str
    expire_time: int | None = None
    """Microseconds since the epoch."""
    revoke_time: int | None = None
    """Microseconds since the epoch."""


class Keys(Protocol):
    """The keys there are."""

    async def find(self, key_id: str, digest: str) -> KeyRecord | None:
        """Read a key.

        Args:
            digest: of the secret that was shown, by which those who keep the key elsewhere know
                whether it is used.

        Raises:
            DomainError: STORE_UNAVAILABLE, SERVICE_UNAVAILABLE.
        """
        ...
